"""One module for each command: its options, and the way of the data through the rooms."""
