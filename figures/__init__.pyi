from .accuracy import accuracy_figure as accuracy_figure
from .component_strips import strips_figure as strips_figure
from .confusion import confusion_figure as confusion_figure
from .drawing import pencil_drawing as pencil_drawing
from .feature_maps import MappedImage as MappedImage
from .feature_maps import feature_map_figure as feature_map_figure
from .keypoints import keypoint_figure as keypoint_figure
from .keypoints import keypoint_sheet as keypoint_sheet
from .match_lines import MatchedPair as MatchedPair
from .match_lines import match_figure as match_figure
from .notable import TellingImage as TellingImage
from .notable import telling_images as telling_images
from .page.correspondence import MatchPageImage as MatchPageImage
from .page.correspondence import match_page as match_page
from .page.plane import EpisodeImage as EpisodeImage
from .page.plane import plane_page as plane_page
from .page.review import review_page as review_page
from .plane import plane_figure as plane_figure
from .reliability import reliability_figure as reliability_figure
from .sheet import contact_sheet as contact_sheet
from .sheet import save_figure as save_figure
from .similarity import SimilarImage as SimilarImage
from .similarity import similarity_figure as similarity_figure
from .transferred_points import TransferredPoints as TransferredPoints
from .transferred_points import transfer_figure as transfer_figure
from .warp import WarpedPair as WarpedPair
from .warp import warp_figure as warp_figure

__all__ = [
    "EpisodeImage",
    "MappedImage",
    "MatchPageImage",
    "MatchedPair",
    "SimilarImage",
    "TellingImage",
    "TransferredPoints",
    "WarpedPair",
    "accuracy_figure",
    "confusion_figure",
    "contact_sheet",
    "feature_map_figure",
    "keypoint_figure",
    "keypoint_sheet",
    "match_figure",
    "match_page",
    "pencil_drawing",
    "plane_figure",
    "plane_page",
    "reliability_figure",
    "review_page",
    "save_figure",
    "similarity_figure",
    "strips_figure",
    "telling_images",
    "transfer_figure",
    "warp_figure",
]
