"""New images labelled from a few labelled ones: what is kept of the examples, and what is said of each image."""
