"""Label files in, labels out: keypoints as DeepLabCut, Lightning Pose, COCO and our own CSV keep them. Knows no encoder.

Each format has a module that reads and writes it, and states as constants where the origin of its coordinates is: `ORIGIN` is the index of
the first pixel, `CENTRE` where in a pixel its integer coordinate lies. In memory pixels are counted from 0, integers at their centres.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
