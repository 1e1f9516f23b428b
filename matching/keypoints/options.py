"""How parts are learnt from labelled images and looked for in others."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewmatch.errors import InputError
from fewmatch.matching.keypoints.prototypes import KEYPOINT_CENTERS, SHOT_USES, KeypointCenter, ShotUse


@dataclass(frozen=True)
class KeypointOptions:
    """What `KeypointFinder` does; the defaults are those of docs/keypoints.md.

    center: which mean of raw descriptors is subtracted. none: nothing. image: each image's own. labelled: that of the labelled images' patches.
    whitening: λ of the whitening by the labelled images' patches, larger for less of it; None for none (see `part_prototypes`). It is
        what tells a part from the background: directions in which all patches vary count less.
    prototypes: `mean` of a part's shots, or each by itself and the best at every place (`nearest`).
    contrast: where the best place is looked for, this share of the largest cosine of another part, if above 0, is taken off a part's own:
        what is like two parts is then neither's best. Around that place, and in scores, its own cosine counts alone.
    half_width: of the window of the soft-argmax, in patches of the coarsest encoding; 0 takes the best place of the grid as it is.
    temperature: of that softmax, as a share of 1 − s, where s is the cosine at the best place.
    position_prior: look for a part near where it is in the labelled images (for fixed cameras). position_weight times the logarithm of the
        density of its labelled places is added to its similarity; position_spread is σ as a share of the image's longer side.
    video_weight, video_spread: the same about the place in the frame before, where `find` is given one.
    left_right: pairs of parts that look alike and must not be found at one place, as indices; no part is in two of them.
    pair_distance: how far apart they must be at least, in patches of the finest encoding.
    """

    center: KeypointCenter = "labelled"
    whitening: float | None = 0.1
    prototypes: ShotUse = "mean"
    contrast: float = 0.2
    half_width: float = 2.0
    temperature: float = 0.2
    position_prior: bool = False
    position_weight: float = 0.05
    position_spread: float = 0.15
    video_weight: float = 0.05
    video_spread: float = 0.05
    left_right: tuple[tuple[int, int], ...] = ()
    pair_distance: float = 2.0

    def __post_init__(self) -> None:
        for name, choices in (("center", KEYPOINT_CENTERS), ("prototypes", SHOT_USES)):
            if getattr(self, name) not in choices:
                raise InputError(f"expected {name} to be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("whitening", "temperature", "position_spread", "video_spread"):
            value = getattr(self, name)
            if not (value is None and name == "whitening") and not (0 < value < math.inf):
                raise InputError(f"expected {name} above 0, got {value}")
        for name in ("contrast", "half_width", "position_weight", "video_weight", "pair_distance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"expected {name} of 0 or more, got {getattr(self, name)}")
        paired = [part for pair in self.left_right for part in pair]
        if any(len(pair) != 2 for pair in self.left_right) or len(set(paired)) < len(paired):
            raise InputError(f"expected pairs of two different parts, none of them in two pairs, got {self.left_right}")

    def check_parts(self, parts: int) -> None:
        """Refuse pairs of parts that are not there.

        Raises:
            InputError: an index that is not from 0 to `parts` − 1.
        """
        for part in (part for pair in self.left_right for part in pair):
            if not 0 <= part < parts:
                raise InputError(f"expected pairs of parts 0 to {parts - 1}, got {self.left_right}")
