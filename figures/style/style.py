"""Colours of text that all figures share."""

INK = "#222222"
MUTED = "#6b6b6b"
