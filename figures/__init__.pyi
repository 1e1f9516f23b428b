from .drawing import pencil_drawing as pencil_drawing
from .feature_maps import MappedImage as MappedImage
from .feature_maps import feature_map_figure as feature_map_figure
from .match_lines import MatchedPair as MatchedPair
from .match_lines import match_figure as match_figure
from .plane import plane_figure as plane_figure
from .sheet import contact_sheet as contact_sheet
from .sheet import save_figure as save_figure
from .telling import TellingImage as TellingImage
from .telling import telling_images as telling_images

__all__ = [
    "MappedImage",
    "MatchedPair",
    "TellingImage",
    "contact_sheet",
    "feature_map_figure",
    "match_figure",
    "pencil_drawing",
    "plane_figure",
    "save_figure",
    "telling_images",
]
