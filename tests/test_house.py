"""The rules of the house: which room may use which, what every module says, which names are public, how fast --help is."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
#: From top to bottom: a room may import the rooms below it.
ROOMS = ["cli", "figures", "matching", "fewshot", "encoders", "labels"]
#: Modules of fewmatch/ that every room may import; they import no room.
SHARED = {"errors", "names", "writing"}
#: More files side by side than a folder should have: the records of checkpoints are to join the families that read them.
CROWDED = {"encoders/catalogue"}
MODULES = sorted(
    path
    for room in [*ROOMS, "fewmatch", "demos", "tests", "benchmarks"]
    for path in (ROOT / room).rglob("*.py")
    if "__pycache__" not in path.parts
)


def imported(path: Path) -> set[str]:
    """What a file imports of fewmatch: the names of rooms and of modules in fewmatch/, or "fewmatch" for a name of its own."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            whole = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for parts in (name.split(".") for name in whole if name.split(".")[0] == "fewmatch"):
            known = len(parts) > 1 and parts[1] in {*ROOMS, *SHARED}
            names.add(parts[1] if known else "fewmatch")
    return names


def test_imports_go_one_way() -> None:
    wrong = {}
    for path in MODULES:
        room = path.relative_to(ROOT).parts[0]
        if room == "fewmatch" and path.stem in SHARED:
            allowed = SHARED
        elif room in ROOMS:
            allowed = {*ROOMS[ROOMS.index(room) :], *SHARED} | ({"fewmatch"} if room == "cli" else set())
        else:
            continue
        wrong[str(path.relative_to(ROOT))] = sorted(imported(path) - allowed)
    assert {path: names for path, names in wrong.items() if names} == {}


def test_every_module_opens_with_what_it_is() -> None:
    first = {path: (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].strip() for path in MODULES}
    assert [str(path) for path, text in first.items() if not text.endswith((".", ":")) or len(text) <= 10] == []


def test_modules_stay_readable() -> None:
    lines = {str(path): len(path.read_text().splitlines()) for path in MODULES if "tests" not in path.parts}
    assert {path: count for path, count in lines.items() if count > 500} == {}


def test_folders_stay_small() -> None:
    """At most 16 files side by side, `__init__` not counted."""
    files = Counter(str(path.parent.relative_to(ROOT)) for path in MODULES if path.name != "__init__.py")
    crowded = {
        folder for folder, number in files.items() if folder.split("/")[0] in [*ROOMS, "fewmatch"] and number > 16
    }
    assert crowded == CROWDED


def test_no_grab_bags() -> None:
    assert not [
        path for path in MODULES if path.stem in ("utils", "util", "helpers", "helper", "common", "misc", "manager")
    ]


PUBLIC = {
    "errors": [
        "FewmatchError",
        "ImageError",
        "InputError",
        "OutputExistsError",
        "StoreDamagedError",
        "WeightsMissingError",
        "WeightsRefusedError",
    ],
    "labels": [
        "Keypoints",
        "Labels",
        "merge_labels",
        "read_labels",
        "write_keypoints",
    ],
    "encoders": [
        "Checkpoint",
        "Encoder",
        "FeatureStore",
        "Features",
        "Frame",
        "FrozenEncoder",
        "ListedImage",
        "Preprocessing",
        "TappedEncoder",
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
        "METHODS",
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
    module = importlib.import_module(f"fewmatch.{room}")
    assert sorted(module.__all__) == sorted(PUBLIC[room])
    for name in PUBLIC[room]:
        assert getattr(module, name) is not None
        assert getattr(importlib.import_module("fewmatch"), name) is getattr(module, name)


def test_public_functions_and_classes_are_documented() -> None:
    for room, names in PUBLIC.items():
        for name in names:
            public = getattr(importlib.import_module(f"fewmatch.{room}"), name)
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
    """Under one name: a room that were imported as `cli` too would have every class twice, and `except` would miss its errors."""
    for room in ROOMS:
        package = importlib.import_module(f"fewmatch.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    assert not {name.split(".")[0] for name in sys.modules} & set(ROOMS)


def test_no_room_is_imported_by_its_bare_name(tmp_path: Path) -> None:
    """Ruff refuses both spellings. Python would not: in a checkout its folder is often on the path."""
    (tmp_path / "planted.py").write_text(
        "".join(f"import {room}\nfrom {room} import main as {room}_main\n" for room in ROOMS)
    )
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), "--select", "TID251"]
    done = subprocess.run(
        [*command, "--output-format", "concise", "--no-cache", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert all(done.stdout.count(f"`{room}` is banned: say fewmatch.{room}") == 2 for room in ROOMS), done.stdout


def test_types_of_every_room_are_checked(tmp_path: Path) -> None:
    """An error planted in each room is reported, and so is one that only the type of another room's function shows."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "fewmatch").mkdir()
    (tmp_path / "fewmatch" / "__init__.py").touch()
    for room in ROOMS:
        (tmp_path / room / "inner").mkdir(parents=True)
        (tmp_path / room / "__init__.py").touch()
        (tmp_path / room / "inner" / "__init__.py").touch()
        (tmp_path / room / "inner" / "planted.py").write_text(
            "from fewmatch.labels.deep import number\n\nplanted: int = ''\nother: str = number()\n"
        )
    (tmp_path / "labels" / "deep.py").write_text("def number() -> int:\n    return 1\n")
    command = [sys.executable, str(ROOT / "tests" / "check_types.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    for room in ROOMS:
        for line in (3, 4):
            assert f"{room}/inner/planted.py:{line}: error: Incompatible types" in done.stdout


def test_types_of_every_module_are_checked(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from check_types import make_tree

    assert make_tree(ROOT, tmp_path / "tree") == ["fewmatch", "demos"]
    package = tmp_path / "tree" / "fewmatch"
    for path in MODULES:
        room, *rest = path.relative_to(ROOT).parts
        if room in ROOMS:
            assert package.joinpath(room, *rest).samefile(path)
        elif room == "fewmatch":
            assert package.joinpath(*rest).samefile(path)


HEAVY = ("torch", "numpy", "sklearn", "skimage", "cv2", "matplotlib", "PIL", "safetensors")


def test_help_waits_for_nothing_heavy() -> None:
    """All in one process: what one of them imports would still be there after the next."""
    code = f"""
import json, sys
from fewmatch.cli.main import app, run
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
    for module in (ROOT / "cli").rglob("*.py"):
        assert "[default" not in module.read_text()


def test_importing_fewmatch_is_light_too() -> None:
    rooms = ", ".join(f"fewmatch.{room}" for room in ROOMS)
    code = f"import sys, fewmatch, {rooms}; sys.exit(str([m for m in {HEAVY!r} if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr.strip() == ""


def test_shapes_are_checked_while_the_tests_run() -> None:
    from fewmatch.encoders import Features

    with pytest.raises(Exception, match="Type-check error"):
        Features(torch.zeros(2, 3), None, torch.zeros(2, 4, 4, 5))
    from fewmatch.fewshot.report import mean_and_interval

    with pytest.raises(Exception, match="Type-check error"):
        mean_and_interval(np.zeros((2, 2)))


def test_python_dash_m_beside_folders_of_the_same_names(tmp_path: Path) -> None:
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise RuntimeError")
    done = subprocess.run(
        [sys.executable, "-m", "fewmatch", "--version"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"fewmatch {importlib.import_module('fewmatch').__version__}\n")


def test_no_module_hides_a_public_name() -> None:
    """`import fewmatch.encoders.load` would put the module where the function `encoders.load` is expected."""
    inside = {module.name for module in pkgutil.iter_modules([str(ROOT / "fewmatch")])} | set(ROOMS)
    assert not inside & {name for names in PUBLIC.values() for name in names}
    for room, names in PUBLIC.items():
        if room in ROOMS:
            package = importlib.import_module(f"fewmatch.{room}")
            assert not {module.name for module in pkgutil.iter_modules(package.__path__)} & set(names)
