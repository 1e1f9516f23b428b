"""Matching across domains in a page: which part of a photo is which part of a drawing.

    python demos/photo_to_drawing.py [PHOTO DRAWING] FIGURE.png

Without pictures of your own, a portrait is matched with a pencil drawing made of it, so that the truth is known.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

import fewmatch


def main(photo: Path, drawing: Path, figure: Path) -> fewmatch.Matches:
    encoder = fewmatch.load("mini")  # or "dinov2_vits14", once its weights are on this machine
    store = fewmatch.encode_images([photo, drawing], encoder, keep="patches")  # kept in the cache
    place = {name: i for i, name in enumerate(store.names)}
    a, b = place[photo.name], place[drawing.name]

    # (h, w, D) maps and their geometry in, pixels of the original pictures out.
    matches = fewmatch.match(store.feature_map(a), store.frame(a), store.feature_map(b), store.frame(b))
    print(f"{len(matches)} mutual nearest patches; confidence of the pair {matches.confidence:.2f}")
    for (xa, ya), (xb, yb), score in list(zip(matches.xy_a, matches.xy_b, matches.score, strict=True))[:5]:
        print(f"({xa:5.1f}, {ya:5.1f}) in the photo is ({xb:5.1f}, {yb:5.1f}) in the drawing, cosine {score:.2f}")

    image_a, image_b = (fewmatch.read_image(path).rgb for path in (photo, drawing))
    pair = fewmatch.MatchedPair(image_a, image_b, matches, caption=f"{photo.name} – {drawing.name}")
    print(f"wrote {fewmatch.save_figure(fewmatch.match_figure([pair]), figure)}")
    return matches


def example(folder: Path) -> tuple[Path, Path]:
    """A portrait and its drawing as files."""
    portrait = skimage.data.astronaut()
    for name, pixels in (("photo.png", portrait), ("drawing.png", fewmatch.pencil_drawing(portrait))):
        Image.fromarray(pixels).save(folder / name)
    return folder / "photo.png", folder / "drawing.png"


if __name__ == "__main__":
    if len(sys.argv) == 4:
        main(*map(Path, sys.argv[1:]))
    elif len(sys.argv) == 2:
        with tempfile.TemporaryDirectory() as folder:
            found = main(*example(Path(folder)), Path(sys.argv[1]))
        share, count = fewmatch.share_within(np.hypot(*(found.xy_a - found.xy_b).T), 512 / 16)
        print(f"{100 * share:.0f} % of {count} matches are within one patch of the truth")
    else:
        sys.exit(__doc__)
