"""Images in, features out and kept: frozen vision encoders, image decoding, and the feature store."""

import lazy_loader

# The names and where they live stand in __init__.pyi; importing this package loads none of them, so that `--help` is fast.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
