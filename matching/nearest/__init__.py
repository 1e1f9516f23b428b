"""Nearest neighbours both ways, in blocks that fit into memory."""
