"""Feature maps in, correspondences out: mutual nearest patches of two images, and colours that many images share."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
