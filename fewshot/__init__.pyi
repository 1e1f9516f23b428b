from .calibration import Calibration as Calibration
from .calibration import fit_temperature as fit_temperature
from .calibration import measure_calibration as measure_calibration
from .centering import CENTERS as CENTERS
from .centering import center_episodes as center_episodes
from .centering import center_table as center_table
from .ensemble import concatenate as concatenate
from .episodes.episodes import Episodes as Episodes
from .episodes.episodes import sample_episodes as sample_episodes
from .episodes.files import load_episodes as load_episodes
from .episodes.files import save_episodes as save_episodes
from .episodes.variable import sample_variable_episodes as sample_variable_episodes
from .estimators import CenterProject as CenterProject
from .estimators import LDAProbe as LDAProbe
from .estimators import LogisticProbe as LogisticProbe
from .estimators import NearestClassMean as NearestClassMean
from .estimators import RidgeProbe as RidgeProbe
from .estimators import WeightedKNN as WeightedKNN
from .evaluation import evaluate as evaluate
from .labelling.label import Labeller as Labeller
from .labelling.model_file import load_labeller as load_labeller
from .labelling.model_file import save_labeller as save_labeller
from .methods import METHODS as METHODS
from .mistakes import Confusion as Confusion
from .mistakes import confusion as confusion
from .open_set import OpenSet as OpenSet
from .open_set import sample_open_episodes as sample_open_episodes
from .open_set import unknown_detection as unknown_detection
from .plane import EpisodePlane as EpisodePlane
from .plane import episode_plane as episode_plane
from .plane import episode_planes as episode_planes
from .probes.probes import FewShotResult as FewShotResult
from .probes.probes import ProbeResult as ProbeResult
from .probes.probes import ProbeSet as ProbeSet
from .probes.probes import few_shot_probe as few_shot_probe
from .probes.probes import hold_out as hold_out
from .probes.probes import knn_probe as knn_probe
from .probes.probes import logistic_probe as logistic_probe
from .report import Difference as Difference
from .report import Report as Report
from .report import paired as paired
from .splits.files import read_split as read_split
from .splits.files import read_splits as read_splits
from .splits.splits import Split as Split
from .splits.splits import check_disjoint as check_disjoint
from .splits.splits import missing_from as missing_from
from .splits.splits import restrict as restrict
from .splits.splits import restrict_images as restrict_images
from .table import FeatureTable as FeatureTable
from .table import read_npz as read_npz
from .table import table_of_images as table_of_images
from .transforms import Transforms as Transforms
from .transforms import fit_transforms as fit_transforms

__all__ = [
    "CENTERS",
    "METHODS",
    "Calibration",
    "CenterProject",
    "Confusion",
    "Difference",
    "EpisodePlane",
    "Episodes",
    "FeatureTable",
    "FewShotResult",
    "LDAProbe",
    "Labeller",
    "LogisticProbe",
    "NearestClassMean",
    "OpenSet",
    "ProbeResult",
    "ProbeSet",
    "Report",
    "RidgeProbe",
    "Split",
    "Transforms",
    "WeightedKNN",
    "center_episodes",
    "center_table",
    "check_disjoint",
    "concatenate",
    "confusion",
    "episode_plane",
    "episode_planes",
    "evaluate",
    "few_shot_probe",
    "fit_temperature",
    "fit_transforms",
    "hold_out",
    "knn_probe",
    "load_episodes",
    "load_labeller",
    "logistic_probe",
    "measure_calibration",
    "missing_from",
    "paired",
    "read_npz",
    "read_split",
    "read_splits",
    "restrict",
    "restrict_images",
    "sample_episodes",
    "sample_open_episodes",
    "sample_variable_episodes",
    "save_episodes",
    "save_labeller",
    "table_of_images",
    "unknown_detection",
]
