"""Contact sheets: every picture is there, shown whole, and the file is the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmatch.figures import contact_sheet, save_figure

PICTURES = [np.full((20, 30, 3), 200, np.uint8), np.full((50, 10, 3), 90, np.uint8), np.full((1, 1, 3), 10, np.uint8)]


def test_every_picture_has_its_label_and_probability() -> None:
    figure = contact_sheet(
        PICTURES, ["dog", "a very long class name", "$5_x"], [0.9, 0.25, 1.0], title="three $ pictures", columns=2
    )
    assert len(figure.axes) == 3
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["dog", "0.90"], ["a very long…", "0.25"], ["$5_x", "1.00"]]
    assert [text.get_text() for text in figure.texts] == ["three $ pictures"]
    for axes, picture in zip(figure.axes, PICTURES, strict=True):
        assert np.array_equal(axes.images[0].get_array(), picture)
        left, right, bottom, top = axes.images[0].get_extent()
        assert (right - left, bottom - top) == (picture.shape[1], picture.shape[0])  # its own shape, not stretched
        assert axes.get_aspect() == 1.0
        widths = [bar.get_width() for bar in axes.patches]
        assert widths[1] / widths[0] == pytest.approx(float(axes.texts[1].get_text()))


def test_rejected_pictures_stand_apart() -> None:
    figure = contact_sheet(PICTURES, ["dog", "none of these", "cat"], [0.9, 0.4, 0.3], rejected=[False, True, False])
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["dog", "0.90"], ["none of these"], ["cat", "0.30"]]
    assert [axes.texts[0].get_style() for axes in figure.axes] == ["normal", "italic", "normal"]
    red, green, blue, _ = figure.axes[1].patches[1].get_facecolor()
    assert red == green == blue and len(set(figure.axes[2].patches[1].get_facecolor()[:3])) == 3
    with pytest.raises(ValueError, match="whether they are rejected, got 1"):
        contact_sheet(PICTURES, ["a", "b", "c"], [0.1, 0.2, 0.3], rejected=[True])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_sheet_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    files = [
        save_figure(contact_sheet(PICTURES, ["a", "b", "c"], [0.1, 0.5, 0.9]), tmp_path / name / f"sheet{suffix}")
        for name in "xy"
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_letters_that_the_font_lacks_are_boxes_and_no_warning(tmp_path: Path) -> None:
    names = ["\u732b", "\U0001f408", "cat"]
    assert save_figure(contact_sheet(PICTURES, names, [0.1, 0.5, 0.9]), tmp_path / "sheet.png").stat().st_size > 1000


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    red = np.zeros((40, 40, 3), np.uint8) + np.array([220, 20, 20], np.uint8)
    path = save_figure(contact_sheet([red], ["red"], [1.0]), tmp_path / "sheet.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    share = (np.abs(pixels.astype(int) - [220, 20, 20]).max(axis=1) < 3).mean()
    assert 0.05 < share < 0.9


@pytest.mark.parametrize(("labels", "probabilities"), [(["a"], [0.5, 0.5]), ([], [])])
def test_numbers_that_do_not_fit_are_refused(labels: list[str], probabilities: list[float]) -> None:
    with pytest.raises(ValueError, match="expected as many labels"):
        contact_sheet(PICTURES[: len(labels)], labels, probabilities)
