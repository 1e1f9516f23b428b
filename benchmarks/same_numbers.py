"""Whether two versions of fewmatch give the same numbers: records the JSON of some twenty commands, and compares two recordings.

    python benchmarks/same_numbers.py record before           # in a checkout of the one version
    python benchmarks/same_numbers.py record after            # in a checkout of the other
    python benchmarks/same_numbers.py compare before after

`record` runs every command as a process of its own, in float32 on one thread of the CPU, without a network and with the bundled encoder,
on real pictures: those of `--data` (PACS and the frames of mirror_mouse), or those that come with scikit-image where there is no such
folder. Files that the commands write as JSON or CSV are kept too. `--checkout` is the version to run, by default the one of this script.

`compare` prints every difference and exits with 1 if there is one. Documents must agree in every digit. Left out are seconds, versions and
the folders where the pictures, the features and the checkout lay; `RENAMED` holds the keys and values that were renamed on purpose.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import options_parser
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
#: Old name to new name, of keys and of values that are words, anywhere in a document.
RENAMED: dict[str, str] = {}
#: Keys and columns whose values differ from run to run or from version to version.
LEFT_OUT = ("seconds", "version", "ctime_ns", "inode", "shard")

CLASSES, OTHERS = ("dog", "guitar", "house", "person"), ("elephant", "giraffe", "horse")
PER_CLASS, FRAMES = 10, 10
COMPUTE = ["--device", "cpu", "--dtype", "float32"]
MINI = ["-e", "mini", *COMPUTE]
EPISODES = ["episodes", "features/photo", *COMPUTE, "--ways", "3", "--queries", "4", "--episodes", "300"]
CLASSIFY = ["classify", *COMPUTE, "--query", "photos/sketch"]
PCK = ["pck", "pairs", "--kind", "pf-willow", *MINI, "--size", "128"]

#: Name of the document to the words of the command. They run in this order: some need what earlier ones wrote.
COMMANDS: dict[str, list[str]] = {
    "encoders": ["encoders", "mini", "dinov2*", "clip"],
    "encode": ["encode", "photos/photo", "-o", "features/photo", *MINI],
    "encode-patches": ["encode", "frames", "-o", "features/frames", *MINI, "--keep", "patches", "--size", "128"],
    "encode-other-layer": ["encode", "photos/sketch", "-o", "features/keys", *MINI, "--layer", "-2", "--facet", "key"],
    "episodes-methods": [*EPISODES, "--methods", "all", "--shots", "1,5"],
    "episodes-centres": [*EPISODES, "--center", "none,support,support+query,separate,feature", "--transform", "relu,power"],
    "episodes-open": [*EPISODES, "--unknown-classes", "1", "--val", "photos/others", "-o", "episodes"],
    "episodes-varied": [*EPISODES, "--ways", "2-4", "--shots", "1-5", "--seed", "3", "--methods", "ncm,tim"],
    "classify": [*CLASSIFY, "--support", "features/photo", "-o", "labelled.csv", "--save-model", "model.safetensors"],
    "classify-model": [*CLASSIFY, "--model", "model.safetensors", "--top", "2"],
    "classify-reject": [
        *CLASSIFY, "--support", "features/photo", "--method", "ridge", "--temperature", "auto", "--reject", "auto",
    ],
    "plane": ["plane", "features/photo", *COMPUTE, "--ways", "3", "--shots", "5", "--queries", "5", "-o", "plane.html"],
    "probe-knn": ["probe", "features/photo", "photos/sketch", *COMPUTE, "--method", "knn", "--k", "3"],
    "probe-logistic": ["probe", "features/photo", "photos/sketch", *COMPUTE, "--method", "logistic", "--seed", "1"],
    "match": ["match", *("pair/a.png", "pair/b.png"), *MINI, "--verify", "homography", "--max-ratio", "0.95"],
    "match-fine": [
        *("match", "pair/a.png", "pair/b.png", "frames"), *MINI, "--size", "128", "--fine-size", "256", "--refine",
        *("soft-argmax", "--mirror", "nearest", "--foreground", "pca", "-o", "matches.csv"),
    ],
    "match-points": ["match", *("pair/a.png", "pair/b.png"), *MINI, "--points", "200,150", "--points", "90,120"],
    "keypoints": ["keypoints", "labels.csv", "frames", *MINI, "--score", "truth.csv", "-o", "found.csv", "--suggest", "2"],
    "keypoints-sizes": [
        *("keypoints", "labels.csv", "frames"), *MINI, "--sizes", "96,128", "--position-prior", "-o", "found.json",
    ],
    "pck": [*PCK, "-o", "pck.json", "--csv", "pck.csv"],
    "pck-preset": [*PCK, "--preset", "sd-dino", "-o", "pck-preset.json"],
    "pck-fine": [*PCK, "--fine-size", "256", "--threshold", "image-target", "--max-cycle", "1", "-o", "pck-fine.json"],
    "pck-compare": ["pck", "--compare", "pck.json", "pck-preset.json"],
    "pca": ["pca", "features/frames", *COMPUTE, "-o", "pca.png", "--foreground"],
}  # fmt: skip


def main() -> int:
    parser = options_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    record.add_argument("out", type=Path, help="new folder for the documents")
    record.add_argument("--checkout", type=Path, default=ROOT, help="the version to run")
    record.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="real pictures")
    record.add_argument("--only", nargs="*", default=[], help="names of documents; what they need is not made")
    compare = commands.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        return differences(options.before, options.after)
    return recorded(options.out, options.checkout.resolve(), options.data, options.only)


def recorded(out: Path, checkout: Path, data: Path, only: list[str]) -> int:
    """Run the commands in a folder of their own, and keep what they print and write; the number of those that failed."""
    out.mkdir(parents=True)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary).resolve() / "work"
        home = work.parent / "home"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FEWMATCH")} | {
            "PYTHONPATH": str(checkout),
            "FEWMATCH_HOME": str(home),
            "FEWMATCH_OFFLINE": "1",
            "HF_HOME": str(home / "huggingface"),
            "TORCH_HOME": str(home / "torch"),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        write_data(work, data)
        code = "import fewmatch; print(fewmatch.__file__)"
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=work, env=environment, check=True
        ).stdout.strip()
        if checkout not in Path(found).resolve().parents:
            raise SystemExit(f"Python finds fewmatch in {found}, not in {checkout}")
        for name, words in COMMANDS.items():
            if only and name not in only:
                continue
            before = written(work)
            command = [sys.executable, "-m", "fewmatch", *words, "--json", "--quiet"]
            done = subprocess.run(command, capture_output=True, text=True, cwd=work, env=environment, check=False)
            documents = {f"{name}.json": done.stdout}
            documents |= {f"{name}/{path}": text for path, text in written(work).items() if before.get(path) != text}
            for path, text in documents.items():
                for folder, mark in ((work, "WORK"), (home, "HOME"), (checkout, "CHECKOUT")):
                    text = text.replace(str(folder), mark)
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                (out / path).write_text(text)
            if done.returncode:
                failed += 1
                print(f"{name} failed with {done.returncode}: {done.stderr.strip()[-500:]}", flush=True)
            else:
                print(f"{name}: {len(documents)} documents", flush=True)
    return failed


def written(folder: Path) -> dict[str, str]:
    """The text of every JSON and CSV file that commands wrote into the folder, by its path there."""
    files = (path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".jsonl", ".csv"))
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def differences(before: Path, after: Path) -> int:
    """Print where two recordings differ; 1 if they do."""
    names = [
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} for folder in (before, after)
    ]
    if not names[0]:
        raise SystemExit(f"{before} holds no documents")
    differ = sorted(names[0] ^ names[1])
    for name in differ:
        print(f"only in {before if name in names[0] else after}: {name}")
    for name in sorted(names[0] & names[1]):
        old, new = (comparable((folder / name).read_text(), name) for folder in (before, after))
        if old != new:
            differ.append(name)
            lines = difflib.unified_diff(
                old.splitlines(), new.splitlines(), f"{before}/{name}", f"{after}/{name}", "", "", 1
            )
            shown = list(lines)
            print("\n".join(shown[:40]) + (f"\n… {len(shown) - 40} lines more" if len(shown) > 40 else ""))
    print(f"{len(names[0] | names[1])} documents, {len(differ)} of them differ")
    return 1 if differ else 0


def comparable(text: str, name: str) -> str:
    """A document without what may differ; numbers stay as they are spelled."""
    if name.endswith((".json", ".jsonl")) and text.strip():
        lines = text.splitlines() if name.endswith(".jsonl") else [text]
        return "\n".join(
            json.dumps(cleaned(json.loads(line, parse_float=str, parse_int=str)), indent=1, ensure_ascii=False)
            for line in lines
        )
    if name.endswith(".csv"):
        rows = list(csv.DictReader(text.splitlines()))
        return "\n".join(json.dumps(cleaned(row), ensure_ascii=False) for row in rows)
    return text


def cleaned(value: Any) -> Any:
    """Without the keys that are left out, and with new names in place of old ones."""
    if isinstance(value, Mapping):
        return {RENAMED.get(key, key): cleaned(item) for key, item in value.items() if key not in LEFT_OUT}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"(HOME/\S*?)[0-9a-f]{16,}", r"\1DIGEST", value)  # of folders, in names of files in the cache
    return RENAMED.get(value, value)


def write_data(folder: Path, data: Path) -> None:
    """The pictures and label files that the commands read.

    photos/{photo,sketch,others}/<class>: class folders. pair: two pictures to match. frames: pictures of one scene with labelled points;
    labels.csv holds those of three of them, truth.csv those of all. pairs: the frames as PF-WILLOW.
    """
    real = (data / "pacs").is_dir() and (data / "mirror_mouse").is_dir()
    print(f"pictures of {data}" if real else f"no pictures in {data}: those of scikit-image", flush=True)
    (copy_photos if real else write_textures)(folder / "photos", data)
    points = write_frames(folder / "frames", data) if real else write_windows(folder / "frames")
    (folder / "pair").mkdir()
    for name, frame in zip("ab", list(points)[:2], strict=True):
        shutil.copy(folder / "frames" / frame, folder / "pair" / f"{name}.png")
    for name, frames in (("labels", list(points)[:3]), ("truth", list(points))):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("image", "part", "x", "y"))
            rows.writerows(
                (f"frames/{frame}", part, f"{x:g}", f"{y:g}")
                for frame in frames
                for part, (x, y) in points[frame].items()
            )
    write_willow(folder, points)
    for path in folder.rglob("*.*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))  # times of change are part of what stores keep


Points = dict[str, tuple[float, float]]


def copy_photos(folder: Path, data: Path) -> None:
    wanted = [(domain, domain, name) for domain in ("photo", "sketch") for name in CLASSES]
    for domain, source, name in wanted + [("others", "photo", name) for name in OTHERS]:
        (folder / domain / name).mkdir(parents=True)
        for image in sorted((data / "pacs" / source / name).iterdir())[:PER_CLASS]:
            shutil.copy(image, folder / domain / name)


def write_textures(folder: Path, _: Path) -> None:
    """Crops of seven pictures; the sketches are negatives of the same, turned over."""
    import skimage.data

    whole = [getattr(skimage.data, name)()[:510, :510] for name in ("brick", "grass", "gravel", "camera", "moon")]
    whole += [skimage.data.astronaut()[:510, :510, channel] for channel in (0, 2)]
    for name, picture in zip((*CLASSES, *OTHERS), whole, strict=True):
        domains = {"others": picture} if name in OTHERS else {"photo": picture, "sketch": 255 - picture[::-1]}
        for domain, pixels in domains.items():
            (folder / domain / name).mkdir(parents=True)
            for i in range(PER_CLASS):
                y, x = 102 * (i // 5), 102 * (i % 5)
                Image.fromarray(pixels[y : y + 102, x : x + 102]).save(folder / domain / name / f"{i}.png")


def write_frames(folder: Path, data: Path) -> dict[str, Points]:
    """Frames of mirror_mouse, and the points that a person marked in them."""
    folder.mkdir(parents=True)
    source = data / "mirror_mouse"
    _, parts, _, *rows = csv.reader((source / "CollectedData.csv").open(newline=""))
    found: dict[str, Points] = {}
    for row in rows:
        cells = [(parts[k], row[k], row[k + 1]) for k in range(1, len(row), 2)]
        points = {part: (float(x), float(y)) for part, x, y in cells if x and y}
        if len(found) < FRAMES and len(points) >= 12:
            shutil.copy(source / row[0], folder)
            found[Path(row[0]).name] = points
    return found


def write_windows(folder: Path) -> dict[str, Points]:
    """Windows of one picture, and the same twelve of its points in each."""
    import skimage.data

    folder.mkdir(parents=True)
    whole, rng = skimage.data.astronaut(), np.random.default_rng(0)
    marked = {f"point {k}": rng.uniform(150, 350, 2) for k in range(12)}
    found: dict[str, Points] = {}
    for i in range(FRAMES):
        x, y = (int(offset) for offset in rng.integers(0, 112, 2))
        Image.fromarray(whole[y : y + 400, x : x + 400]).save(folder / f"{i:02d}.png")
        found[f"{i:02d}.png"] = {part: (float(px) - x, float(py) - y) for part, (px, py) in marked.items()}
    return found


def write_willow(folder: Path, points: dict[str, Points]) -> None:
    """Each frame with the next as PF-WILLOW has it: ten points in both, counted from 1."""
    (folder / "pairs" / "scene(A)").mkdir(parents=True)
    rows = []
    for a, b in zip(list(points), list(points)[1:], strict=False):
        both = [part for part in points[a] if part in points[b]][:10]
        if len(both) == 10:
            numbers = [points[frame][part][axis] + 1 for frame in (a, b) for axis in (0, 1) for part in both]
            rows.append([f"PF-dataset/scene(A)/{name}" for name in (a, b)] + [f"{number:g}" for number in numbers])
    for frame in points:
        shutil.copy(folder / "frames" / frame, folder / "pairs" / "scene(A)")
    columns = [f"{axis}{image}{k}" for image in "AB" for axis in "XY" for k in range(1, 11)]
    with (folder / "pairs" / "test_pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["imageA", "imageB", *columns], *rows])


if __name__ == "__main__":
    sys.exit(main())
