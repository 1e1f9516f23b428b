"""HTML pages that need no network and no server: the templates, and the only place where text becomes HTML."""
