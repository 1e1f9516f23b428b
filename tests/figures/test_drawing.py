"""Drawings: even areas become paper, edges become lines, and size does not matter."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from fewmatch.figures import pencil_drawing


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (40, 60)])
def test_even_areas_are_white_paper(level: int, size: tuple[int, int]) -> None:
    drawing = pencil_drawing(np.full((*size, 3), level, np.uint8))
    assert drawing.shape == (*size, 3) and drawing.dtype == np.uint8
    assert (drawing >= 254).all()


def test_dark_lines_stay_and_light_ones_vanish() -> None:
    photo = np.full((200, 200, 3), 150, np.uint8)
    photo[50, 20:180] = 20
    photo[150, 20:180] = 250
    drawing = pencil_drawing(photo)
    assert (drawing[50, 30:170] < 80).all()
    assert (drawing[150, 30:170] == 255).all()
    assert (drawing[100] > 250).all()
    assert photo[50, 50, 0] == 20  # the photo itself is left alone


def test_it_is_grey_and_scales_with_the_picture() -> None:
    photo = skimage.data.astronaut()
    drawing = pencil_drawing(photo)
    assert (drawing == drawing[..., :1]).all()
    half = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    other = cv2.resize(drawing, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert np.abs(pencil_drawing(half).astype(int) - other.astype(int)).mean() < 12
    assert np.corrcoef(pencil_drawing(half)[..., 0].ravel(), other[..., 0].ravel())[0, 1] > 0.9
