"""Colours and text that all figures share."""
