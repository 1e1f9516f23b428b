"""`fewmatch demo`: the main job from beginning to end, on pictures that come with the installed packages."""

from __future__ import annotations

import contextlib
import io
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from cli import options

#: A folder with this file in it is ours to refresh.
MARKER = ".fewmatch-demo"
_OURS = ("images", "features", "results")


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for pictures and results.")] = Path(
        "demo-output"
    ),
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run the main job on real pictures with the bundled encoder, offline, and show the commands.

    Textures (brick, grass and gravel, as in the hands-on lab that this grew from) and handwritten digits: features, few-shot episodes,
    and a folder of unlabelled pictures classified from five examples a class.
    """
    started = time.perf_counter()
    _clear(out)
    textures, digits, queries = _write_pictures(out / "images")
    features, results = out / "features", out / "results"
    print("Each step is a command that you can repeat.\n")
    _step("encode", textures, "-o", features / "textures", "-e", "mini")
    _step("encode", digits, "-o", features / "digits", "-e", "mini")
    _step(
        "episodes",
        features / "textures",
        "--ways",
        "3",
        "--shots",
        "1,5",
        "--center",
        "none,support",
        "--episodes",
        "2000",
    )
    _step(
        "episodes",
        features / "digits",
        "--ways",
        "5",
        "--shots",
        "1,5",
        "--center",
        "none,support,support+query",
        "--episodes",
        "2000",
    )
    for name, ways in (("textures", "3"), ("digits", "5")):
        _write_json(
            results / f"episodes-{name}.json",
            "episodes",
            features / name,
            "--ways",
            ways,
            "--center",
            "none,support",
            "--episodes",
            "2000",
            "--json",
        )
    _step(
        "classify",
        "--support",
        features / "digits",
        "--query",
        queries,
        "--out",
        results / "labels.csv",
        "--figure",
        results / "labels.png",
    )
    _write_json(results / "labels.json", "classify", "--support", features / "digits", "--query", queries, "--json")
    print(f"\nAll of it took {time.perf_counter() - started:.0f} s. The files:")
    for path in sorted(results.iterdir()):
        print(f"  {path}")


def _clear(out: Path) -> None:
    from encoders import OutputExistsError

    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExistsError(f"{out} exists and is no demo's: choose another folder with -o")
    for name in _OURS:
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    (out / "results").mkdir()


def _step(*arguments: str | Path) -> None:
    from cli.main import run

    words = [str(argument) for argument in arguments]
    print("$ fewmatch " + " ".join(words), flush=True)
    code = run(words)
    print(flush=True)
    if code:
        raise typer.Exit(code)


def _write_json(path: Path, *arguments: str | Path) -> None:
    """The same again for machines; nothing is encoded a second time."""
    from cli.main import run

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = run([str(argument) for argument in arguments])
    if code:
        raise typer.Exit(code)
    path.write_text(text.getvalue())


def _write_pictures(folder: Path) -> tuple[Path, Path, Path]:
    """Crops of three textures (25 each), handwritten digits (25 each), and 20 more digits without labels."""
    import numpy as np
    import skimage.data
    from PIL import Image
    from sklearn.datasets import load_digits

    def save(pixels: np.ndarray, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for name in ("brick", "grass", "gravel"):
        texture = getattr(skimage.data, name)()  # (512, 512) uint8 grey
        for i in range(25):
            y, x = 102 * (i // 5), 102 * (i % 5)
            save(texture[y : y + 102, x : x + 102], folder / "textures" / name / f"{name}-{i:02d}.png")
    data = load_digits()
    taken = np.zeros(10, int)
    for image, digit in zip(data.images, data.target, strict=True):
        number, taken[digit] = taken[digit], taken[digit] + 1
        if number >= 27:
            continue
        ink = Image.fromarray((255 - image * 255 / 16).astype(np.uint8))  # 8×8 grey levels, ink on paper
        pixels = np.asarray(ink.resize((64, 64), Image.Resampling.BICUBIC))
        if number < 25:
            save(pixels, folder / "digits" / str(digit) / f"{digit}-{number:02d}.png")
        else:
            save(pixels, folder / "unlabelled" / f"scan-{(digit * 7 + number * 3) % 10}{number - 25}-shows-{digit}.png")
    return folder / "textures", folder / "digits", folder / "unlabelled"
