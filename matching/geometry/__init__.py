"""Geometric models between two images, matches that agree with them, and what to compare matches with."""
