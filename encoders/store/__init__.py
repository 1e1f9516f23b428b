"""Features that are kept: what to encode, the folder that holds it, its lock, and going on where an earlier run stopped."""
