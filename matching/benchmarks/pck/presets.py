"""Conventions by name: what is customary for each benchmark, and what well-known papers did."""

from __future__ import annotations

import dataclasses
from typing import Any

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.pck.convention import Convention

#: What each benchmark's papers count by; what is not named is that of `Convention`. Sources: docs/pck.md.
CUSTOMARY: dict[str, dict[str, Any]] = {
    "spair": {"threshold": "bbox-target", "alphas": (0.01, 0.05, 0.1)},
    "pf-pascal": {"threshold": "image-target", "alphas": (0.05, 0.1, 0.15)},
    "pf-willow": {"threshold": "keypoints-target", "alphas": (0.05, 0.1, 0.15)},
    "ap10k": {"threshold": "bbox-target", "alphas": (0.01, 0.05, 0.1)},
    # Both directions of TSS and PSC6K are pairs of their own.
    "tss": {"threshold": "image-target", "alphas": (0.05,), "alpha": 0.05, "average": "category-image"},
    "psc6k": {"threshold": "fixed", "fixed": 256.0, "alphas": (0.05, 0.1)},
    "cub": {"threshold": "bbox-target", "alphas": (0.05, 0.1), "average": "point"},
    # α in pixels: the share of points within 1, 3, 5 and 10 of them.
    "hpatches": {"threshold": "fixed", "fixed": 1.0, "alphas": (1.0, 3.0, 5.0, 10.0), "alpha": 3.0},
}

#: What papers did, whatever the benchmark.
PRESETS: dict[str, dict[str, Any]] = {
    "exact": {"note": "Points at their places in the original images; padding cannot be found; <=."},
    "sd-dino": {
        "inclusive": False,
        "average": "category-weighted",
        "size": 840,
        "resize": "pad",
        "raw": True,
        "source": "patch",
        "target": "offset",
        "offset": (0.5, -0.5),
        "exclude_padding": False,
        "note": "Strict <; the source is the patch floor(x·n/size); a patch lies 6.5 px of 14 from its corner, in a canvas that is scaled back "
        "without its half pixels; padding can be found; before the final norm; categories weighted by their pairs. Not here: features "
        "of Stable Diffusion fused in, masks, 20 pairs a category drawn with replacement (its default), black padding (here the "
        "mean colour), a canvas that the image fills to the pixel (here to whole patches).",
    },
    "geoaware": {
        "inclusive": False,
        "size": 840,
        "resize": "pad",
        "raw": True,
        "source": "patch",
        "target": "offset",
        "offset": (0.5, 0.0),
        "exclude_padding": False,
        "window": 5,
        "temperature": 0.02,
        "outside": "zero",
        "flip": "nearest",
        "note": "As sd-dino, but 7.0 px of 14, per image, the soft-argmax in a window of 11×11 with 0 outside, which leaks where similarities "
        "are low, and mirror images in which left and right points change places. Not here: features of Stable Diffusion fused in, masks of "
        "the object for the choice of the mirror image (give your own), black padding (here the mean colour, and without a part in that "
        "choice).",
    },
    "dift": {
        "size": 768,
        "resize": "squash",
        "average": "point",
        "source": "pixel",
        "target": "pixel",
        "note": "<=; per point; the input squashed to a square; features enlarged bilinearly to the original pixels, both where the source "
        "is read and where the best pixel is looked for. Not here: features of Stable Diffusion; any encoder's are taken.",
    },
    "probe3d": {
        "inclusive": False,
        "average": "category",
        "size": 800,
        "resize": "pad",
        "raw": True,
        "source": "align-corners",
        "target": "offset",
        "offset": (0.0, 0.0),
        "exclude_padding": False,
        "note": "Strict <; recall of each class, then their mean; a patch lies at its corner, half a patch off; the source is read as if the "
        "corners of the image were the centres of the outermost patches; padding can be found; before the final norm. Not here: "
        "padding at the right and bottom only (here around) and white (here the mean colour), 6 px of padding to make 800 a multiple of "
        "14 (here the nearest multiple is the size), 200 seeded pairs a class (draw your own).",
    },
    "hpf": {
        "source": "covering",
        "target": "displacement",
        "note": "<=, per image; each patch that covers the point (edges included) goes to its nearest patch and takes the point along at the "
        "same place in the patch; the mean over these patches. Not here: its layers of a ResNet (its boxes are receptive fields, here they "
        "are patches), its Hough voting, its inputs of 300 px. It scales T with the target image: the same as in original pixels.",
    },
}


def choose_convention(kind: str, preset: str = "exact", **changes: Any) -> Convention:
    """The convention of a benchmark and a paper.

    T, alphas and direction are those customary for the benchmark; how points are found, `<=` or `<`, the input and the headline's average
    are the preset's where it says anything; `changes` overrule both.

    Args:
        kind: one of `CUSTOMARY`. preset: one of `PRESETS`.
        changes: fields of `Convention`; with other alphas and no alpha the headline keeps its alpha where it is among them, and else takes
            the last; with another threshold than `fixed` the pixels go.

    Raises:
        InputError: a benchmark, preset or field that there is not, or values that `Convention` refuses.
    """
    for what, name, known in (("benchmark", kind, CUSTOMARY), ("preset", preset, PRESETS)):
        if name not in known:
            raise InputError(f"no {what} called {name}: expected one of {', '.join(known)}")
    fields = {field.name for field in dataclasses.fields(Convention)}
    for name in changes:
        if name not in fields:
            raise InputError(f"a convention has no {name}: expected one of {', '.join(sorted(fields))}")
    chosen = {"name": preset} | CUSTOMARY[kind] | PRESETS[preset] | changes
    if chosen["threshold"] != "fixed" and "fixed" not in changes:
        chosen.pop("fixed", None)
    alphas = tuple(chosen["alphas"])
    if "alpha" not in changes and chosen.get("alpha", 0.1) not in alphas and alphas:
        chosen["alpha"] = alphas[-1]
    return Convention(**chosen | {"alphas": alphas})
