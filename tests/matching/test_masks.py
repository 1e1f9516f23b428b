"""Masks from files: which file is whose, what counts as foreground in it, and the share of every patch."""

from __future__ import annotations

from pathlib import Path

import cv2
import jaxtyping
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from fewmatch.encoders import Frame
from fewmatch.encoders.frame import RESIZE_RULES, resized_frame, with_stride
from fewmatch.errors import ImageError, InputError
from fewmatch.matching.masks import find_masks, move_mask, patch_mask, pixel_mask, read_mask

PROPERTY = settings(deadline=None, database=None, max_examples=60)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    patch, size = draw(st.sampled_from([1, 2, 4, 7])), draw(st.integers(1, 4))
    try:
        rule = draw(st.sampled_from(RESIZE_RULES))
        frame = resized_frame(
            draw(st.integers(1, 12)), draw(st.integers(1, 12)), size=patch * size, patch=patch, rule=rule
        )
        return with_stride(frame, draw(st.integers(1, patch)))
    except ImageError:
        assume(False)
        raise


@settings(PROPERTY, max_examples=30)
@given(frames(), st.integers(0, 2**32 - 1), st.sampled_from([0.25, 0.5, 1.0]))
def test_a_patch_is_foreground_by_area(frame: Frame, seed: int, share: float) -> None:
    """Pixel by pixel: how much of the patch's box each foreground pixel covers."""
    mask = np.random.default_rng(seed).random((frame.height, frame.width)) < 0.5
    found = patch_mask(mask, frame, share)
    (sx, sy), (ox, oy) = frame.scale, frame.offset
    for r in range(frame.grid[0]):
        for c in range(frame.grid[1]):
            x0, x1 = ((c * frame.stride + ox + side) / sx for side in (0, frame.patch))
            y0, y1 = ((r * frame.stride + oy + side) / sy for side in (0, frame.patch))
            inside = covered = 0.0
            for y in range(frame.height):
                for x in range(frame.width):
                    area = max(0, min(x1, x + 1) - max(x0, x)) * max(0, min(y1, y + 1) - max(y0, y))
                    inside += area
                    covered += area * mask[y, x]
            if abs(covered - share * inside) > 1e-6 * max(inside, 1) and frame.real[r, c]:
                assert found[r, c] == (covered > share * inside)
    assert not found[~frame.real].any()


def test_exactly_half_is_foreground() -> None:
    frame = Frame(4, 2, (1, 2), 2, 2, (1.0, 1.0))
    mask = np.array([[True, False, True, False], [True, False, False, False]])
    assert patch_mask(mask, frame).tolist() == [[True, False]]
    third = Frame(3, 3, (1, 1), 8, 8, (8 / 3, 8 / 3))
    assert patch_mask(np.repeat([[True, False, False]], 3, axis=0), third, share=1 / 3).all()


def test_all_and_nothing() -> None:
    for rule in RESIZE_RULES:
        frame = resized_frame(30, 20, size=16, patch=4, rule=rule)
        assert np.array_equal(patch_mask(np.ones((20, 30), bool), frame), frame.real)
        assert not patch_mask(np.zeros((20, 30), bool), frame).any()


@PROPERTY
@given(frames(), st.integers(0, 2**32 - 1))
def test_a_moved_mask_asks_the_nearest_patch(frame: Frame, seed: int) -> None:
    mask = np.random.default_rng(seed).random(frame.grid) < 0.5
    to = frame.mirrored()
    moved = move_mask(mask, frame, to)
    rows, columns = np.indices(frame.grid)
    x, y = frame.to_pixels(rows, columns)
    for r in range(to.grid[0]):
        for c in range(to.grid[1]):
            px, py = (float(v) for v in to.to_pixels(r, c))
            gap = np.hypot((x - px) * frame.scale[0], (y - py) * frame.scale[1])
            nearest = mask[gap <= gap.min() + 1e-6]
            if to.real[r, c]:
                assert moved[r, c] in nearest
            else:
                assert not moved[r, c]
    assert np.array_equal(move_mask(mask, frame, frame), mask & frame.real)


def test_of_two_patches_equally_near_the_left_one_counts() -> None:
    """Patches of 3 px, and others half a patch further on: each lies between two, the last beyond all."""
    frame = Frame(12, 3, (1, 3), 3, 3, (1.0, 1.0))
    to = Frame(12, 3, (1, 3), 3, 3, (1.0, 1.0), (1.5, 0.0))
    assert move_mask(np.array([[True, False, True]]), frame, to).tolist() == [[True, False, True]]
    assert move_mask(np.array([[False, True, False]]), frame, to).tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("mode", "values", "wanted"),
    [
        ("L", [[0, 1, 255]], [[False, True, True]]),
        ("1", [[False, True, True]], [[False, True, True]]),
        ("RGB", [[(0, 0, 0), (0, 0, 1), (9, 9, 9)]], [[False, True, True]]),
        ("RGBA", [[(9, 9, 9, 0), (0, 0, 0, 255), (9, 0, 0, 1)]], [[False, False, True]]),
        ("LA", [[(9, 0), (0, 255), (9, 255)]], [[False, False, True]]),
    ],
)
def test_what_is_not_black_is_foreground(tmp_path: Path, mode: str, values: list[object], wanted: list[object]) -> None:
    kind = bool if mode == "1" else np.uint8
    Image.fromarray(np.array(values, kind)).convert(mode).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", (3, 1)).tolist() == wanted


def test_16_bits_and_palettes(tmp_path: Path) -> None:
    """A 1 of 65,535 is not black; of a palette the colours count, as in the masks of PASCAL VOC."""
    (tmp_path / "deep.png").write_bytes(cv2.imencode(".png", np.array([[0, 1, 300]], np.uint16))[1].tobytes())
    assert read_mask(tmp_path / "deep.png", (3, 1)).tolist() == [[False, True, True]]
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 0, 0])
    image.save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png", (3, 1)).tolist() == [[False, True, False]]
    (tmp_path / "colour.png").write_bytes(cv2.imencode(".png", np.ones((1, 3, 3), np.uint16))[1].tobytes())
    with pytest.raises(InputError, match="has colours of 16 bits: save it as grey, or with 8 bits a channel"):
        read_mask(tmp_path / "colour.png", (3, 1))


def test_files_that_are_no_masks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    with pytest.raises(InputError, match=r"the mask .* cannot be read: No such file"):
        read_mask(path, (3, 2))
    Image.fromarray(np.ones((2, 3), np.uint8)).save(path)
    with pytest.raises(InputError, match=r"expected the mask .* of 2×3 px as its image, got 3×2"):
        read_mask(path, (2, 3))
    with pytest.raises(InputError, match=r"the sides are swapped.*EXIF"):
        read_mask(path, (2, 3))
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot be decoded: "):
        read_mask(path, (40, 40))
    Image.fromarray(noise).save(tmp_path / "mask.jpg")
    with pytest.raises(InputError, match=r"mask\.jpg is no PNG: save it as one"):
        read_mask(tmp_path / "mask.jpg", (40, 40))


def test_a_folder_has_a_mask_for_every_image(tmp_path: Path) -> None:
    for name in ("one.png", "two.png", "cats/two.png"):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / name).touch()
    images = [tmp_path / "dogs" / "one.jpg", tmp_path / "dogs" / "two.jpg", tmp_path / "cats" / "two.jpg"]
    found = find_masks([tmp_path / "masks"], [*images, images[0]])
    wanted = [tmp_path / "masks" / name for name in ("one.png", "two.png", "cats/two.png", "one.png")]
    assert found == wanted
    with pytest.raises(InputError, match=r"no mask for .*three\.jpg: expected .*masks/three\.png"):
        find_masks([tmp_path / "masks"], [tmp_path / "three.jpg"])
    with pytest.raises(InputError, match=r"two\.png is the mask of both .*dogs/two\.jpg and .*birds/two\.jpg"):
        find_masks([tmp_path / "masks"], [images[1], tmp_path / "birds" / "two.jpg"])


def test_files_are_for_the_images_in_turn(tmp_path: Path) -> None:
    assert find_masks(["a.png"], ["x.jpg", "y.jpg"]) == [Path("a.png"), None]
    assert find_masks(["a.png", "b.png"], ["x.jpg", "y.jpg"]) == [Path("a.png"), Path("b.png")]
    with pytest.raises(InputError, match="expected 1 mask files or fewer, one for each image in turn, got 2"):
        find_masks(["a.png", "b.png"], ["x.jpg"])
    with pytest.raises(InputError, match="expected one folder of masks, or mask files alone, got 2 paths"):
        find_masks([tmp_path, "b.png"], ["x.jpg", "y.jpg"])
    with pytest.raises(InputError, match="no masks: expected a folder"):
        find_masks([], ["x.jpg"])


def test_masks_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    frame = Frame(4, 2, (1, 2), 2, 2, (1.0, 1.0))
    with pytest.raises(InputError, match="expected a mask of 4×2 px as in its frame, got 2×4"):
        patch_mask(np.ones((4, 2), bool), frame)
    for share in (0, 1.5):
        with pytest.raises(InputError, match="expected a share of more than 0 and at most 1"):
            patch_mask(np.ones((2, 4), bool), frame, share)
    with pytest.raises(InputError, match="expected a mask of 1 × 2 patches as in its frame, got 2 × 2"):
        move_mask(np.ones((2, 2), bool), frame, frame)
    with pytest.raises(InputError, match="expected frames of one image"):
        move_mask(np.ones((1, 2), bool), frame, Frame(2, 2, (1, 1), 2, 2, (1.0, 1.0)))


@pytest.mark.parametrize("rule", ["keep", "crop", "pad", "squash"])
def test_a_mask_of_pixels_is_that_of_the_nearest_patch(rule: str) -> None:
    rng = np.random.default_rng(3)
    frame = resized_frame(37, 23, size=16, patch=4, rule=rule)
    mask = rng.random(frame.grid) < 0.5
    got = pixel_mask(mask, frame)
    left, top, right, bottom = frame.box
    centres = np.stack(frame.to_pixels(*np.indices(frame.grid)), axis=-1)
    for y in range(23):
        for x in range(37):
            seen = left < x + 0.5 < right and top < y + 0.5 < bottom
            away = np.hypot(*((centres - [x, y]) * frame.scale).reshape(-1, 2).T)  # in the encoder's pixels
            nearest = mask.reshape(-1)[away < away.min() + 1e-9]
            assert got[y, x] == (seen and nearest[0]) or (seen and len(set(nearest.tolist())) == 2)
    with pytest.raises(InputError, match="expected a mask"):
        pixel_mask(mask[1:], frame)
