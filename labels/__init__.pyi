from .keypoints import Keypoints as Keypoints
from .labels import Labels as Labels
from .merging import merge_labels as merge_labels
from .reading import read_labels as read_labels
from .writing import write_keypoints as write_keypoints

__all__ = [
    "Keypoints",
    "Labels",
    "merge_labels",
    "read_labels",
    "write_keypoints",
]
