"""The pictures of the demo, from packages that are installed anyway: nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Pictures:
    """Where the pictures were written.

    textures, digits: folders of class folders. unlabelled: a folder. photos: single pictures. stereo: left and right.
    portraits: the heads of two people. drawing: a photo and the drawing made of it.
    """

    textures: Path
    digits: Path
    unlabelled: Path
    photos: list[Path]
    stereo: tuple[Path, Path]
    portraits: tuple[Path, Path]
    drawing: tuple[Path, Path]


def write_pictures(folder: Path) -> Pictures:
    """Write all of them as files."""
    import matplotlib
    import numpy as np
    import skimage.data
    from PIL import Image

    from fewmatch.figures import pencil_drawing

    _write_textures(folder / "textures")
    _write_digits(folder / "digits", folder / "unlabelled")
    photos = [
        _save(getattr(skimage.data, data)(), folder / "photos" / f"{name}.png")
        for name, data in (("cat", "chelsea"), ("coffee", "coffee"), ("rocket", "rocket"), ("astronaut", "astronaut"))
    ]
    left, right, _ = skimage.data.stereo_motorcycle()
    stereo = _save(left, folder / "stereo" / "left.png"), _save(right, folder / "stereo" / "right.png")
    astronaut = skimage.data.astronaut()
    # Heads of about one size: an encoder as small as the bundled one cares about scale.
    with Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg") as hopper:
        heads = {"astronaut": astronaut[10:270, 95:355], "hopper": np.asarray(hopper.convert("RGB"))[30:430, 50:450]}
    portraits = [_save(pixels, folder / "portraits" / f"{name}.png") for name, pixels in heads.items()]
    drawing = _save(pencil_drawing(astronaut), folder / "drawing" / "drawing.png")
    return Pictures(
        textures=folder / "textures",
        digits=folder / "digits",
        unlabelled=folder / "unlabelled",
        photos=[*photos, stereo[0]],
        stereo=stereo,
        portraits=(portraits[0], portraits[1]),
        drawing=(photos[-1], drawing),
    )


def _save(pixels: np.ndarray, path: Path) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def _write_textures(folder: Path) -> None:
    """25 crops of each of three textures."""
    import skimage.data

    for name in ("brick", "grass", "gravel"):
        texture = getattr(skimage.data, name)()  # (512, 512) uint8 grey
        for i in range(25):
            y, x = 102 * (i // 5), 102 * (i % 5)
            _save(texture[y : y + 102, x : x + 102], folder / name / f"{name}-{i:02d}.png")


def _write_digits(labelled: Path, unlabelled: Path) -> None:
    """25 of each handwritten digit, and 20 more without labels (their names tell, so that results can be judged)."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    taken = np.zeros(10, int)
    for image, digit in zip(data.images, data.target, strict=True):
        number, taken[digit] = taken[digit], taken[digit] + 1
        if number >= 27:
            continue
        ink = Image.fromarray((255 - image * 255 / 16).astype(np.uint8))  # 8×8 grey levels, ink on paper
        pixels = np.asarray(ink.resize((64, 64), Image.Resampling.BICUBIC))
        if number < 25:
            _save(pixels, labelled / str(digit) / f"{digit}-{number:02d}.png")
        else:
            _save(pixels, unlabelled / f"scan-{(digit * 7 + number * 3) % 10}{number - 25}-shows-{digit}.png")
