"""`fewmatch demo`: the main job from beginning to end, on pictures that come with the installed packages."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import options, output

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
    flags = ["--quiet"] * quiet + ["--debug"] * debug
    _clear(out)
    textures, digits, queries = _write_pictures(out / "images")
    features, results = out / "features", out / "results"
    ways = {"textures": "--ways 3 --center none,support", "digits": "--ways 5 --center none,support,support+query"}
    print("Each step is a command that you can repeat.\n")
    for name, folder in (("textures", textures), ("digits", digits)):
        _step(["encode", folder, "-o", features / name, "-e", "mini"], flags)
    for name, options_of_it in ways.items():
        command: list[str | Path] = [
            "episodes",
            features / name,
            *options_of_it.split(),
            "--shots",
            "1,5",
            "--episodes",
            "2000",
        ]
        _step(command, flags)
        _write_json(results / f"episodes-{name}.json", command, flags)
    command = ["classify", "--support", features / "digits", "--query", queries]
    _step([*command, "--out", results / "labels.csv", "--figure", results / "labels.png"], flags)
    _write_json(results / "labels.json", command, flags)
    print(f"\nAll of it took {time.perf_counter() - started:.0f} s. The files:")
    for path in sorted(results.iterdir()):
        print(f"  {output.printable(path)}")


def _clear(out: Path) -> None:
    from encoders import OutputExistsError

    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExistsError(f"{out} exists and is no demo's: choose another folder with -o")
    for name in _OURS:
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    (out / "results").mkdir()


def _step(command: Sequence[str | Path], flags: Sequence[str]) -> None:
    """Show a command and run it."""
    words = [str(word) for word in command]
    print("$ fewmatch " + output.printable(shlex.join(words)), flush=True)
    _run([*words, *flags])
    print(flush=True)


def _write_json(path: Path, command: Sequence[str | Path], flags: Sequence[str]) -> None:
    """The same again for machines; nothing is encoded a second time."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        _run([*map(str, command), "--json", *flags])
    path.write_text(text.getvalue())


def _run(words: list[str]) -> None:
    from cli.main import run

    code = run(words)
    if code:
        raise typer.Exit(code)


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
