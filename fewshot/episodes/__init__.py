"""Episodes: drawn in several ways, read and written."""
