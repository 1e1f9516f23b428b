"""Published splits of data sets into classes or images for training, validation and testing."""
