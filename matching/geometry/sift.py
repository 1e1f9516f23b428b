"""SIFT with OpenCV's matcher: the classical way, to compare with."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8


def sift_matches(
    image_a: UInt8[np.ndarray, "ha wa 3"], image_b: UInt8[np.ndarray, "hb wb 3"]
) -> tuple[Float[np.ndarray, "K 2"], Float[np.ndarray, "K 2"]]:
    """Mutual nearest SIFT keypoints (Lowe 2004) by Euclidean distance, without a ratio test; best first.

    Args:
        image_a, image_b: uint8 RGB.

    Returns:
        xy_a, xy_b: (K, 2) pixels of the two images, x then y; keypoints lie between pixels.
    """
    sift = cv2.SIFT.create()
    points, descriptors = zip(
        *(sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in (image_a, image_b)),
        strict=True,
    )
    if not len(points[0]) or not len(points[1]):
        return np.zeros((0, 2)), np.zeros((0, 2))
    pairs = sorted(cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(*descriptors), key=lambda pair: pair.distance)
    xy_a = np.array([points[0][pair.queryIdx].pt for pair in pairs], np.float64).reshape(-1, 2)
    xy_b = np.array([points[1][pair.trainIdx].pt for pair in pairs], np.float64).reshape(-1, 2)
    return xy_a, xy_b
