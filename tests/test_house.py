"""The rules of the house: which room may use which, what every module says, which names are public, how fast --help is."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
#: From top to bottom: a room may import the rooms below it.
ROOMS = ["fewmatch", "cli", "figures", "matching", "fewshot", "encoders"]
MODULES = sorted(
    path
    for room in [*ROOMS, "demos", "tests", "benchmarks"]
    for path in (ROOT / room).rglob("*.py")
    if "__pycache__" not in path.parts
)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_imports_go_one_way() -> None:
    wrong = {}
    for path in MODULES:
        room = path.relative_to(ROOT).parts[0]
        if room in ROOMS and room != "fewmatch":
            allowed = set(ROOMS[ROOMS.index(room) :]) | ({"fewmatch"} if room == "cli" else set())
            wrong[str(path.relative_to(ROOT))] = sorted(imported(path) & set(ROOMS) - allowed)
    assert {path: rooms for path, rooms in wrong.items() if rooms} == {}


def test_every_module_opens_with_what_it_is() -> None:
    first = {path: (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].strip() for path in MODULES}
    assert [str(path) for path, text in first.items() if not text.endswith((".", ":")) or len(text) <= 10] == []


def test_modules_stay_readable() -> None:
    lines = {str(path): len(path.read_text().splitlines()) for path in MODULES if "tests" not in path.parts}
    assert {path: count for path, count in lines.items() if count > 500} == {}


def test_no_grab_bags() -> None:
    assert not [
        path for path in MODULES if path.stem in ("utils", "util", "helpers", "helper", "common", "misc", "manager")
    ]


PUBLIC = {
    "encoders": [
        "Checkpoint",
        "Encoder",
        "FeatureStore",
        "Features",
        "FewmatchError",
        "Frame",
        "FrozenEncoder",
        "ImageError",
        "InputError",
        "ListedImage",
        "OutputExistsError",
        "Preprocessing",
        "StoreDamagedError",
        "TappedEncoder",
        "WeightsMissingError",
        "WeightsRefusedError",
        "checkpoints",
        "encode_images",
        "from_state_dict",
        "list_images",
        "load",
        "read_image",
        "tapped",
    ],
    "fewshot": [
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
    ],
    "matching": [
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
        "Keypoints",
        "Labels",
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
        "finer_points",
        "find_masks",
        "fit_geometry",
        "foreground_masks",
        "geometry_error",
        "inliers_of",
        "locate_images",
        "match",
        "matches_csv",
        "merge_labels",
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
        "read_labels",
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
        "write_keypoints",
    ],
    "figures": [
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
    ],
}


@pytest.mark.parametrize("room", PUBLIC)
def test_public_names(room: str) -> None:
    """A name that vanishes breaks somebody's program; a new one is a promise: both belong in this list and in the changelog."""
    module = importlib.import_module(room)
    assert sorted(module.__all__) == sorted(PUBLIC[room])
    for name in PUBLIC[room]:
        assert getattr(module, name) is not None
        assert getattr(importlib.import_module("fewmatch"), name) is getattr(module, name)


def test_public_functions_and_classes_are_documented() -> None:
    for room, names in PUBLIC.items():
        for name in names:
            public = getattr(importlib.import_module(room), name)
            assert not callable(public) or public.__doc__, name


def test_fewmatch_offers_all_of_it_and_nothing_else() -> None:
    import fewmatch

    assert set(fewmatch.__all__) == {"__version__", *(name for names in PUBLIC.values() for name in names)}
    assert set(dir(fewmatch)) == set(fewmatch.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fewmatch.nothing


def test_version_is_the_one_of_the_package() -> None:
    import tomllib

    import fewmatch

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == fewmatch.__version__


def test_everything_can_be_imported() -> None:
    for room in ROOMS:
        if not (ROOT / room).is_dir() or room == "fewmatch":
            continue
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            importlib.import_module(module.name)


HEAVY = ("torch", "numpy", "sklearn", "skimage", "cv2", "matplotlib", "PIL", "safetensors")


def test_help_waits_for_nothing_heavy() -> None:
    """All in one process: what one of them imports would still be there after the next."""
    code = f"""
import json, sys
from cli.main import app, run
calls = [["--help"], ["--version"], ["encoders"], ["encode"]] + [[c.name, "--help"] for c in app.registered_commands]
results = [(call, run(call), [m for m in {HEAVY!r} if m in sys.modules]) for call in calls]
print("\\n" + json.dumps(results))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) >= 17 and ["pck", "--help"] in [call for call, _, _ in results]
    assert results == [[call, 2 if call == ["encode"] else 0, []] for call, _, _ in results]


def test_help_shows_every_default_that_options_speak_of() -> None:
    """Text in square brackets would be taken for markup, and vanish."""
    for module in (ROOT / "cli").glob("*.py"):
        assert "[default" not in module.read_text()


def test_importing_fewmatch_is_light_too() -> None:
    code = f"import sys, fewmatch, encoders, fewshot, matching, figures; sys.exit(str([m for m in {HEAVY!r} if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr.strip() == ""


def test_shapes_are_checked_while_the_tests_run() -> None:
    from encoders import Features

    with pytest.raises(Exception, match="Type-check error"):
        Features(torch.zeros(2, 3), None, torch.zeros(2, 4, 4, 5))
    from fewshot.report import mean_and_interval

    with pytest.raises(Exception, match="Type-check error"):
        mean_and_interval(np.zeros((2, 2)))


def test_python_dash_m_and_the_shadow_check(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fewmatch", "--version"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"fewmatch {importlib.import_module('fewmatch').__version__}\n")
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "fewmatch", "--version"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert "for encoders, not fewmatch's" in done.stderr and "environment of its own" in done.stderr


def test_no_module_hides_a_public_name() -> None:
    """`import encoders.load` would put the module where the function `encoders.load` is expected."""
    for room, names in PUBLIC.items():
        modules = {module.name for module in pkgutil.iter_modules(importlib.import_module(room).__path__)}
        assert not modules & set(names)
