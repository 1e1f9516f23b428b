"""Principal components of patches as colours."""
