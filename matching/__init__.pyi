from .benchmarks.pair import Benchmark as Benchmark
from .benchmarks.pair import BenchmarkPair as BenchmarkPair
from .benchmarks.pck.compare import compare_pck as compare_pck
from .benchmarks.pck.convention import Convention as Convention
from .benchmarks.pck.presets import choose_convention as choose_convention
from .benchmarks.pck.records import PairRecord as PairRecord
from .benchmarks.pck.report import PCKReport as PCKReport
from .benchmarks.pck.report import pck as pck
from .benchmarks.pck.scoring import score_pair as score_pair
from .benchmarks.reading import read_benchmark as read_benchmark
from .buddies import best_buddies as best_buddies
from .coarse import coarse_to_fine as coarse_to_fine
from .coarse import finer_points as finer_points
from .coarse import pooled as pooled
from .export import ImagePair as ImagePair
from .export import matches_csv as matches_csv
from .export import read_matches as read_matches
from .export import read_matches_csv as read_matches_csv
from .export import save_matches as save_matches
from .export import to_csv as to_csv
from .export import to_opencv as to_opencv
from .flow import Flow as Flow
from .flow import dense_flow as dense_flow
from .flow import warp as warp
from .flow_files import read_flow as read_flow
from .flow_files import write_flow as write_flow
from .foreground import Foreground as Foreground
from .foreground import foreground_masks as foreground_masks
from .geometry.geometry import Geometry as Geometry
from .geometry.geometry import fit_geometry as fit_geometry
from .geometry.geometry import geometry_error as geometry_error
from .geometry.geometry import project as project
from .geometry.ground_truth import disparity_error as disparity_error
from .geometry.ground_truth import share_within as share_within
from .geometry.sift import sift_matches as sift_matches
from .geometry.verification import inliers_of as inliers_of
from .geometry.verification import patch_length as patch_length
from .geometry.verification import verified as verified
from .keypoints.locating import locate_images as locate_images
from .keypoints.options import KeypointOptions as KeypointOptions
from .keypoints.score import KeypointScores as KeypointScores
from .keypoints.score import score_keypoints as score_keypoints
from .keypoints.search import FoundParts as FoundParts
from .keypoints.search import KeypointFinder as KeypointFinder
from .keypoints.search import find_keypoints as find_keypoints
from .keypoints.suggest import suggest_images as suggest_images
from .masks import find_masks as find_masks
from .masks import move_mask as move_mask
from .masks import patch_mask as patch_mask
from .masks import pixel_mask as pixel_mask
from .masks import read_mask as read_mask
from .matches import Matches as Matches
from .matches import match as match
from .mirror import MirrorChoice as MirrorChoice
from .mirror import choose_mirror as choose_mirror
from .nearest.nearest import Nearest as Nearest
from .nearest.nearest import mutual_nearest as mutual_nearest
from .nearest.nearest import nearest_both_ways as nearest_both_ways
from .pca.pca import PatchPCA as PatchPCA
from .refinement import refine as refine
from .similarity import sharpened as sharpened
from .similarity import similarity_maps as similarity_maps
from .transfer import Transferred as Transferred
from .transfer import transfer_points as transfer_points

__all__ = [
    "Benchmark",
    "BenchmarkPair",
    "Convention",
    "Flow",
    "Foreground",
    "FoundParts",
    "Geometry",
    "ImagePair",
    "KeypointFinder",
    "KeypointOptions",
    "KeypointScores",
    "Matches",
    "MirrorChoice",
    "Nearest",
    "PCKReport",
    "PairRecord",
    "PatchPCA",
    "Transferred",
    "best_buddies",
    "choose_convention",
    "choose_mirror",
    "coarse_to_fine",
    "compare_pck",
    "dense_flow",
    "disparity_error",
    "find_keypoints",
    "find_masks",
    "finer_points",
    "fit_geometry",
    "foreground_masks",
    "geometry_error",
    "inliers_of",
    "locate_images",
    "match",
    "matches_csv",
    "move_mask",
    "mutual_nearest",
    "nearest_both_ways",
    "patch_length",
    "patch_mask",
    "pck",
    "pixel_mask",
    "pooled",
    "project",
    "read_benchmark",
    "read_flow",
    "read_mask",
    "read_matches",
    "read_matches_csv",
    "refine",
    "save_matches",
    "score_keypoints",
    "score_pair",
    "share_within",
    "sharpened",
    "sift_matches",
    "similarity_maps",
    "suggest_images",
    "to_csv",
    "to_opencv",
    "transfer_points",
    "verified",
    "warp",
    "write_flow",
]
