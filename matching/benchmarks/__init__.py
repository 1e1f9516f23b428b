"""Benchmarks of semantic correspondence: one reader a module, each from its official layout to pairs of images with points."""
