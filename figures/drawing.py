"""A photo as a pencil drawing, to try matching across domains where no drawing is at hand."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8


def pencil_drawing(photo: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Dark lines on white paper where the photo is darker than its surroundings; colours and even areas are gone.

    The grey level over its own blur (the dodge of the darkroom), squared for contrast. The blur grows with the picture, so that a photo
    twice the size gives the same drawing, larger.

    Args:
        photo: (h, w, 3) uint8 RGB.

    Returns:
        (h, w, 3) uint8 RGB, all grey.
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) + 8  # the offset keeps noise in black areas white
    surroundings = cv2.GaussianBlur(grey, (0, 0), max(0.5, 6 * min(grey.shape) / 512))
    ink = np.minimum(1, grey / surroundings) ** 2
    return np.repeat(np.rint(255 * ink).astype(np.uint8)[..., None], 3, axis=2)
