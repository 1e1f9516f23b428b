"""HTML pages that need no network and no server: the template, and the only place where text becomes HTML."""
