from .centering import CENTERS as CENTERS
from .centering import center_episodes as center_episodes
from .centering import center_table as center_table
from .episodes import Episodes as Episodes
from .episodes import sample_episodes as sample_episodes
from .evaluation import Report as Report
from .evaluation import evaluate as evaluate
from .label import Labeller as Labeller
from .methods import METHODS as METHODS
from .plane import EpisodePlane as EpisodePlane
from .plane import episode_plane as episode_plane
from .table import FeatureTable as FeatureTable
from .table import read_npz as read_npz
from .table import table_of_images as table_of_images

__all__ = [
    "CENTERS",
    "METHODS",
    "EpisodePlane",
    "Episodes",
    "FeatureTable",
    "Labeller",
    "Report",
    "center_episodes",
    "center_table",
    "episode_plane",
    "evaluate",
    "read_npz",
    "sample_episodes",
    "table_of_images",
]
