from .accuracy import accuracy_figure as accuracy_figure
from .confusion import confusion_figure as confusion_figure
from .drawing import pencil_drawing as pencil_drawing
from .feature_maps import MappedImage as MappedImage
from .feature_maps import feature_map_figure as feature_map_figure
from .match_lines import MatchedPair as MatchedPair
from .match_lines import match_figure as match_figure
from .page.plane import EpisodeImage as EpisodeImage
from .page.plane import plane_page as plane_page
from .plane import plane_figure as plane_figure
from .reliability import reliability_figure as reliability_figure
from .sheet import contact_sheet as contact_sheet
from .sheet import save_figure as save_figure
from .telling import TellingImage as TellingImage
from .telling import telling_images as telling_images

__all__ = [
    "EpisodeImage",
    "MappedImage",
    "MatchedPair",
    "TellingImage",
    "accuracy_figure",
    "confusion_figure",
    "contact_sheet",
    "feature_map_figure",
    "match_figure",
    "pencil_drawing",
    "plane_figure",
    "plane_page",
    "reliability_figure",
    "save_figure",
    "telling_images",
]
