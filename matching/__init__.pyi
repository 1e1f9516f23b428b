from .ground_truth import disparity_error as disparity_error
from .ground_truth import share_within as share_within
from .matches import Matches as Matches
from .matches import match as match
from .nearest import mutual_nearest as mutual_nearest
from .pca import PatchPCA as PatchPCA
from .sift import sift_matches as sift_matches

__all__ = ["Matches", "PatchPCA", "disparity_error", "match", "mutual_nearest", "share_within", "sift_matches"]
