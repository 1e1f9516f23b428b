"""How scores of principal components become colours: our way, and those of the DINOv2, DINOv3 and CAPI papers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from fewmatch.matching.pca.source import ForegroundSplit

#: fewmatch: percentiles 1 and 99 of the fitted patches become 0 and 1.
#: dinov2: foreground by the first component; the smallest and largest score of all patches become 0 and 1 (Oquab et al. 2024).
#: dinov3: foreground; sigmoid(2 · whitened score) (Siméoni et al. 2025).
#: capi: no foreground; whitened scores from −2.3 to 2.3 (Darcet et al. 2025).
PCAStyle = Literal["fewmatch", "dinov2", "dinov3", "capi"]
PCA_STYLES: tuple[PCAStyle, ...] = get_args(PCAStyle)

#: Percentiles of the fitted scores that become 0 and 1 in our own style.
LOW, HIGH = 1.0, 99.0
#: How many standard deviations become 1 with `capi`.
CAPI_LIMIT = 2.3
#: What a sigmoid's ends are taken to be: it never reaches 0 and 1.
SIGMOID_LOW, SIGMOID_HIGH = 0.01, 0.99
#: The whitened score for which sigmoid(2 · score) is 0.99.
SIGMOID_LIMIT = math.log(SIGMOID_HIGH / SIGMOID_LOW) / 2


@dataclass(frozen=True)
class StyleRule:
    """What a style asks of a fit. foreground: True and False where the style decides, None where the user does. split: how it is found."""

    foreground: bool | None
    split: ForegroundSplit = "otsu"


STYLE_RULES: dict[PCAStyle, StyleRule] = {
    "fewmatch": StyleRule(None),
    "dinov2": StyleRule(True, "first"),
    "dinov3": StyleRule(True),
    "capi": StyleRule(False),
}


def colour_ends(
    style: PCAStyle, fitted: Float[np.ndarray, "f n"], every: Float[np.ndarray, "a n"]
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """The scores at which each component's colour ends, low and high, as `PatchPCA` keeps them.

    Args:
        fitted: the scores of the patches that the components were fitted to. every: those of all patches, background included.
    """
    if style == "fewmatch":
        low, high = np.percentile(fitted, [LOW, HIGH], axis=0)
        return low, high
    if style == "dinov2":
        return every.min(axis=0), every.max(axis=0)
    # The deviation is about zero, which is the fitted scores' mean. One patch has none.
    squares, count = (fitted**2).sum(axis=0), len(fitted)
    # scikit-learn whitens by n − 1; CAPI then divides by the first component's deviation by n, and so undoes that for all of them.
    deviation = np.sqrt(squares / (max(1, count - 1) if style == "dinov3" else count))
    limit = (SIGMOID_LIMIT if style == "dinov3" else CAPI_LIMIT) * deviation
    return -limit, limit


def colour_shares(
    style: PCAStyle,
    scores: Float[np.ndarray, "*s n"],
    low: Float[np.ndarray, "n"],
    high: Float[np.ndarray, "n"],
) -> Float[np.ndarray, "*s n"]:
    """Scores as colours from 0 to 1; 0.5 for a component that does not vary."""
    span = high - low
    varies = span > 0
    if style == "dinov3":
        # high is the score whose colour is 0.99, so this is sigmoid(2 · whitened score).
        whitened = SIGMOID_LIMIT * scores / np.where(varies, high, 1.0)
        share = 1 / (1 + np.exp(-2 * np.clip(whitened, -350, 350)))
    else:
        share = np.clip((scores - low) / np.where(varies, span, 1.0), 0, 1)
    return np.asarray(np.where(varies, share, 0.5))
