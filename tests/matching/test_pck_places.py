"""Points under a convention: every rule written out in float64, and what each preset does to a shift that is known exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from patch_local import PatchLocalEncoder
from PIL import Image

from fewmatch.encoders import Frame, encode_images
from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.pair import BenchmarkPair
from fewmatch.matching.benchmarks.pck.convention import Convention
from fewmatch.matching.benchmarks.pck.places import EncodedImage, locate
from fewmatch.matching.benchmarks.pck.presets import PRESETS, choose_convention
from fewmatch.matching.benchmarks.pck.report import pck
from fewmatch.matching.benchmarks.pck.scoring import score_pair
from fewmatch.matching.coarse import finer_points, pooled
from fewmatch.matching.transfer import transfer_points

PROPERTY = settings(deadline=None, database=None, max_examples=10, phases=[Phase.generate])

FRAMES = [
    lambda h, w: Frame(5 * w, 4 * h, (h, w), patch=8, stride=8, scale=(1.6, 2.0)),
    lambda h, w: Frame(8 * w - 1, 8 * h - 1, (h, w), 8, 8, (8 * w / (8 * w - 1), 8 * h / (8 * h - 1))),
    lambda h, w: Frame(
        3 * w + 7, 3 * h + 6, (h, w), patch=8, stride=3, scale=(1.0, 1.0)
    ),  # overlap; the rest is not seen
    lambda h, w: Frame(6 * max(1, w - 2), 6 * h, (h, w), 6, 6, (1.0, 1.0), (-6.0 if w > 2 else 0.0, 0.0)),  # padding
]


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x))


def mixture(grid: np.ndarray, usable: np.ndarray, row: float, column: float) -> np.ndarray:
    out = np.zeros(grid.shape[2])
    for r, c in np.ndindex(usable.shape):
        weight = max(0.0, 1 - abs(r - row)) * max(0.0, 1 - abs(c - column))
        if usable[r, c] and weight:
            out += weight * grid[r, c]
    return out


def naive(
    xy: np.ndarray, a: np.ndarray, fa: Frame, b: np.ndarray, fb: Frame, convention: Convention, valid: np.ndarray
) -> np.ndarray:
    """One point, as the docstring has it."""
    usable_a = fa.real & a.any(axis=2)
    usable_b = b.any(axis=2) & (valid if not convention.exclude_padding else valid & fb.real)
    if not convention.exclude_padding:
        usable_b |= b.any(axis=2) & ~fb.real
    units_a, units_b = (np.array([[unit(v) if v.any() else v for v in row] for row in m]) for m in (a, b))
    rows, columns = np.flatnonzero(fa.real.any(axis=1)), np.flatnonzero(fa.real.any(axis=0))

    def held(row: float, column: float) -> tuple[float, float]:
        return min(max(row, rows[0]), rows[-1]), min(max(column, columns[0]), columns[-1])

    u = np.array([xy[0] * fa.scale[0] - fa.offset[0], xy[1] * fa.scale[1] - fa.offset[1]])
    height, width = fa.input_size
    h, w = fa.grid
    places = [q for q in np.ndindex(fb.grid) if usable_b[q]]
    if convention.source == "covering":
        ends = []
        for q in np.ndindex(fa.grid):
            corner = np.array([q[1], q[0]]) * fa.stride
            first = np.array([columns[0], rows[0]]) * fa.stride
            at = np.clip(u, first, np.array([columns[-1], rows[-1]]) * fa.stride + fa.patch)
            if usable_a[q] and (corner <= at).all() and (at <= corner + fa.patch).all():
                best = places[int(np.argmax([units_a[q] @ units_b[p] for p in places]))]
                ends.append(np.array([best[1], best[0]]) * fb.stride + u - corner)
        return np.asarray((np.mean(ends, axis=0) + fb.offset) / fb.scale)
    if convention.source == "bilinear":
        query = mixture(units_a, usable_a, *held(*(float(v) for v in fa.to_grid(*xy))))
    elif convention.source == "patch":
        row, column = held(np.floor(u[1] * h / height), np.floor(u[0] * w / width))
        query = units_a[int(row), int(column)]
    elif convention.source == "align-corners":
        query = mixture(units_a, usable_a, *held(u[1] / height * (h - 1), u[0] / width * (w - 1)))
    else:
        x = min(max(np.floor(xy[0] + 0.5), 0), fa.width - 1)
        y = min(max(np.floor(xy[1] + 0.5), 0), fa.height - 1)
        query = mixture(a, usable_a, *held(*(float(v) for v in fa.to_grid(x, y))))
    query = unit(query)
    if convention.target == "pixel":
        ends = fb.real if convention.exclude_padding else np.ones(fb.grid, bool)
        rr, cc = np.flatnonzero(ends.any(axis=1)), np.flatnonzero(ends.any(axis=0))
        best, where = -np.inf, (0, 0)
        down, across = fb.to_grid(0, np.arange(fb.height))[0], fb.to_grid(np.arange(fb.width), 0)[1]
        for y in range(fb.height):
            for x in range(fb.width):
                row, column = float(down[y]), float(across[x])
                row, column = min(max(row, rr[0]), rr[-1]), min(max(column, cc[0]), cc[-1])
                mixed = mixture(b, usable_b, row, column)
                if usable_b[round(row), round(column)] and mixed.any() and query @ unit(mixed) > best + 1e-9:
                    best, where = query @ unit(mixed), (x, y)
        return np.array(where, float)
    s = np.array([query @ units_b[q] if usable_b[q] else -np.inf for q in np.ndindex(fb.grid)])
    first = int(np.argmax(s))
    index = np.array(np.divmod(first, fb.grid[1]), float)
    if convention.window is not None:
        total, moved = 0.0, np.zeros(2)
        near = [bool((np.abs(np.array(q) - index) <= convention.window).all()) for q in np.ndindex(fb.grid)]
        kept = [v if n else (0.0 if convention.outside == "zero" else -np.inf) for v, n in zip(s, near, strict=True)]
        kept = [-np.inf if v == -np.inf else k for v, k in zip(s, kept, strict=True)]
        for q, v in zip(np.ndindex(fb.grid), kept, strict=True):
            weight = np.exp((v - max(kept)) / convention.temperature)
            total, moved = total + weight, moved + weight * np.array(q)
        index = moved / total
    if convention.target == "centre":
        return np.array(fb.to_pixels(*index))
    on_input = index[::-1] * fb.stride + convention.offset[0] * fb.patch + convention.offset[1]
    return np.asarray((on_input + fb.offset) / fb.scale)


SMALL = Frame(8, 8, (2, 2), 4, 4, (1.0, 1.0))


RULES = [
    *({"source": s, "target": t} for s in ("bilinear", "patch", "align-corners", "pixel") for t in ("centre", "pixel")),
    {"source": "covering", "target": "displacement"},
    {"source": "patch", "target": "offset", "offset": (0.3, -0.7)},
    *({"source": "patch", "window": 1, "temperature": 0.3, "outside": o} for o in ("-inf", "zero")),
    {"window": 1, "temperature": 0.3},
    {"window": 0, "outside": "zero", "temperature": 0.5, "target": "offset"},
]


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, database=None, max_examples=8, phases=[Phase.generate])
@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from(FRAMES),
    st.sampled_from(FRAMES),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_every_rule_is_its_definition(
    rule: dict[str, Any], h: int, w: int, make_a: Any, make_b: Any, exclude: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    convention = Convention(**rule, exclude_padding=exclude)
    fa, fb = make_a(h, w), make_b(w, h)
    a, b = rng.standard_normal((*fa.grid, 5)), rng.standard_normal((*fb.grid, 5))
    if convention.target != "pixel":
        b[rng.random(fb.grid) < 0.1] = 0
    valid = rng.random(fb.grid) < 0.8
    valid[np.unravel_index(np.flatnonzero(fb.real)[0], fb.grid)] = True
    b[np.unravel_index(np.flatnonzero(fb.real)[0], fb.grid)] = 1
    points = rng.uniform(-0.5, [fa.width - 0.5, fa.height - 0.5], (3, 2))
    points = np.vstack([points, np.floor(points[:1]).clip(0)])
    got = locate(points, EncodedImage(a, fa), EncodedImage(b, fb, valid), convention)
    wanted = np.array([naive(p, a, fa, b, fb, convention, valid) for p in points])
    np.testing.assert_allclose(got.xy_b, wanted, atol=1e-6)
    assert not got.moved.any() and got.choice is None


@PROPERTY
@given(st.integers(0, 2**32), st.booleans())
def test_exact_is_transfer_points(seed: int, window: bool) -> None:
    rng = np.random.default_rng(seed)
    fa, fb = FRAMES[0](4, 5), FRAMES[3](5, 6)
    a, b = rng.standard_normal((*fa.grid, 5)), rng.standard_normal((*fb.grid, 5))
    points = rng.uniform(0, [fa.width - 1, fa.height - 1], (7, 2))
    convention = Convention(window=2 if window else None, temperature=0.1)
    wanted = transfer_points(
        points, a, fa, b, fb, refine="soft-argmax" if window else "none", half_width=2, temperature=0.1
    )
    assert np.array_equal(locate(points, EncodedImage(a, fa), EncodedImage(b, fb), convention).xy_b, wanted.xy_b)


def test_padding_is_found_only_where_the_convention_lets_it() -> None:
    frame = Frame(12, 12, (2, 4), 6, 6, (1.0, 1.0), (-6.0, 0.0))
    a = np.tile([0, 0, 1.0], (2, 4, 1))
    b = np.tile([1.0, 0, 0.1], (2, 4, 1))
    b[1, 3] = [0, 0, 1]  # padding, and just like the point
    point = np.array([[2.5, 2.5]])
    exact = locate(point, EncodedImage(a, frame), EncodedImage(b, frame), Convention()).xy_b
    leaky = locate(point, EncodedImage(a, frame), EncodedImage(b, frame), Convention(exclude_padding=False)).xy_b
    assert exact.tolist() == [[2.5, 2.5]]
    assert leaky.tolist() == [[14.5, 8.5]]  # right of the image of 12 px
    # A mask speaks of the image, not of its padding; NaN there is no matter where padding is out.
    valid = np.zeros((2, 4), bool)
    valid[1, 1] = True
    masked = locate(
        point, EncodedImage(a, frame), EncodedImage(b, frame, valid), Convention(exclude_padding=False)
    ).xy_b
    assert masked.tolist() == [[14.5, 8.5]]
    a[:, 0], b[1, 3] = np.nan, np.nan
    near_left = np.array([[0.0, 8.0]])
    kept = locate(
        near_left, EncodedImage(a, frame), EncodedImage(b, frame, valid), Convention(source="align-corners")
    ).xy_b
    assert kept.tolist() == [[2.5, 8.5]]
    with pytest.raises(InputError, match="features of padding in map_b are not finite"):
        locate(point, EncodedImage(a, frame), EncodedImage(b, frame), Convention(exclude_padding=False))


def test_a_window_with_zeros_outside_leaks_where_similarities_are_low() -> None:
    frame = Frame(9, 9, (9, 9), 1, 1, (1.0, 1.0))
    a = np.tile([1.0, 0], (9, 9, 1))
    b = np.tile([-1.0, 0], (9, 9, 1))
    b[0, 0] = [0.05, np.sqrt(1 - 0.05**2)]
    point = np.array([[0.0, 0.0]])
    held = locate(point, EncodedImage(a, frame), EncodedImage(b, frame), Convention(window=1, source="patch"))
    leaky = locate(
        point, EncodedImage(a, frame), EncodedImage(b, frame), Convention(window=1, source="patch", outside="zero")
    )
    assert held.xy_b[0, 0] < 1e-6
    assert leaky.xy_b[0, 0] > 3  # 77 cells of weight exp(-2.5), about the middle of the grid


def test_a_point_on_the_border_of_a_padded_image_is_covered_by_its_first_patch() -> None:
    """Without half pixels it would lie in padding, whose features are nothing."""
    frame = Frame(4, 4, (1, 3), 4, 4, (1.0, 1.0), (-4.0, 0.0))
    a = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    image = EncodedImage(a, frame)
    got = locate(np.array([[-0.4, 1.0]]), image, image, choose_convention("spair", "hpf"))
    np.testing.assert_allclose(got.xy_b, [[-0.4, 1.0]])


def test_points_outside_are_moved_and_said() -> None:
    frame = Frame(8, 8, (2, 2), 4, 4, (1.0, 1.0))
    a = np.eye(4).reshape(2, 2, 4)
    got = locate(
        np.array([[-3.0, 1.5], [1.5, 1.5], [7.5, 9.0]]), EncodedImage(a, frame), EncodedImage(a, frame), Convention()
    )
    assert got.moved.tolist() == [True, False, True]
    assert got.xy_b.tolist() == [[1.5, 1.5], [1.5, 1.5], [5.5, 5.5]]


def test_flip_looks_twins_up_in_the_mirror_image() -> None:
    """Two paws whose descriptors say on which side of the picture they are; B is A's mirror image."""
    frame = Frame(4, 1, (1, 4), 1, 1, (1.0, 1.0))
    a = np.eye(4)[None]
    b = a[:, ::-1].copy()  # B: mirrored
    # A encoded as mirror image, its columns brought back: the paw at 0 has B's descriptor at 0, where the other paw is as a name.
    mirrored = (np.eye(4)[[3, 2, 1, 0]][None], frame.mirrored())
    points = np.array([[0.0, 0.0], [3.0, 0.0], [1.0, 0.0]])
    b[0, 0] += 0.01  # so that the two distances differ
    a_far = a + np.array([0, 0.9, 0, 0])
    flip = Convention(flip="nearest")
    got = locate(points, EncodedImage(a_far, frame, mirrored=mirrored), EncodedImage(b, frame), flip, twins=(1, 0, 2))
    assert got.choice is not None and got.choice.mirrored
    assert got.xy_b[:, 0].tolist() == [3, 0, 1]
    # The third is in column 2 of B by A as it is, and in column 1 by the mirror image: without a twin the former counts.
    absent = locate(
        points, EncodedImage(a_far, frame, mirrored=mirrored), EncodedImage(b, frame), flip, twins=(1, 0, -1)
    )
    assert absent.xy_b[:, 0].tolist() == [3, 0, 2] and absent.choice == got.choice
    none = locate(
        points[:, :], EncodedImage(a_far, frame, mirrored=mirrored), EncodedImage(b, frame), flip, twins=(-1,) * 3
    )
    assert none.xy_b[:, 0].tolist() == [3, 0, 2]
    outside = np.array([[-9.0, 0.0], [3.0, 0.0], [9.0, 0.0]])
    moved = locate(
        outside, EncodedImage(a_far, frame, mirrored=mirrored), EncodedImage(b, frame), flip, twins=(1, 0, -1)
    )
    assert moved.moved.tolist() == [False, True, True] and moved.xy_b[:, 0].tolist() == [3, 0, 0]
    alone = locate(points, EncodedImage(a_far, frame, mirrored=mirrored), EncodedImage(b, frame), flip)
    assert alone.xy_b[:, 0].tolist() == [0, 3, 1]
    kept = locate(
        points, EncodedImage(a, frame, mirrored=(a_far, frame)), EncodedImage(a, frame), flip, twins=(1, 0, 2)
    )
    assert kept.choice is not None and not kept.choice.mirrored and kept.xy_b[:, 0].tolist() == [0, 3, 1]


def random_images(seed: int, grid: tuple[int, int] = (6, 7)) -> list[EncodedImage]:
    rng = np.random.default_rng(seed)
    fine = (2 * grid[0] + 1, 2 * grid[1])
    images = []
    for _ in range(2):
        (h, w), (fh, fw) = grid, fine
        coarse_map, fine_map = rng.standard_normal((h, w, 5)), rng.standard_normal((fh, fw, 5))
        images.append(
            EncodedImage(
                coarse_map,
                Frame(70, 60, grid, 8, 8, (8 * w / 70, 8 * h / 60)),
                fine=EncodedImage(fine_map, Frame(70, 60, fine, 8, 8, (8 * fw / 70, 8 * fh / 60))),
            )
        )
    return images


def test_two_steps_are_those_of_finer_points() -> None:
    a, b = random_images(0)
    points = np.random.default_rng(1).uniform(0, [69, 59], (15, 2))
    assert a.fine is not None and b.fine is not None
    first = transfer_points(points, a.map, a.frame, b.map, b.frame)
    wanted = finer_points(points, first.xy_b, b.frame, a.fine.map, a.fine.frame, b.fine.map, b.fine.frame)
    assert np.array_equal(locate(points, a, b, Convention(fine_size=104)).xy_b, wanted.xy_b)

    a, b = (dataclasses.replace(image, fine=None) for image in (a, b))
    valid = np.random.default_rng(2).random(b.frame.grid) < 0.7
    masked = dataclasses.replace(b, valid=valid)
    (pa, fa), (pb, fb) = pooled(a.map, a.frame, 2), pooled(b.map, b.frame, 2, valid=valid)
    # The seventh column is in no pooled patch: a point there is looked up at the border of the others.
    coarse = transfer_points(np.minimum(points, [59.5, 59.5]), pa, fa, pb, fb)
    wanted = finer_points(points, coarse.xy_b, fb, a.map, a.frame, b.map, b.frame, valid_b=valid)
    got = locate(points, a, masked, Convention(coarse_to_fine=2))
    assert np.array_equal(got.xy_b, wanted.xy_b) and not got.moved.any()
    assert (got.xy_b != locate(points, a, masked, Convention()).xy_b).any()


def test_a_mirrored_source_is_looked_up_finely_in_its_mirror_image() -> None:
    a, b = random_images(3)
    assert a.fine is not None and b.fine is not None
    points = np.random.default_rng(1).uniform(0, [69, 59], (9, 2))
    # A's mirror image, columns brought back, is B itself at both sizes: so every point of A is found where it is.
    turned = dataclasses.replace(
        a, mirrored=(b.map, b.frame), fine=dataclasses.replace(a.fine, mirrored=(b.fine.map, b.fine.frame))
    )
    got = locate(points, turned, b, Convention(flip="nearest", fine_size=104))
    assert got.choice is not None and got.choice.mirrored
    straight = locate(points, dataclasses.replace(b), b, Convention(fine_size=104))
    assert np.array_equal(got.xy_b, straight.xy_b)
    lost = dataclasses.replace(turned, fine=a.fine)
    with pytest.raises(InputError, match="A's mirror image at the fine size"):
        locate(points, lost, b, Convention(flip="nearest", fine_size=104))


def test_filters_keep_the_points_that_they_should() -> None:
    a, b = (dataclasses.replace(image, fine=None) for image in random_images(5))
    points = np.random.default_rng(1).uniform(0, [69, 59], (60, 2))
    found = transfer_points(points, a.map, a.frame, b.map, b.frame, exclusion=1.5)
    assert found.ratio is not None
    for change, wanted in (
        ({"min_score": 0.85}, found.score >= 0.85),
        ({"max_ratio": 0.6, "exclusion": 1.5}, found.ratio <= 0.6),
        ({"max_cycle": 0.0}, found.returned == 0),
        ({"max_cycle": 1.0, "min_score": 0.8}, (found.returned <= 1) & (found.score >= 0.8)),
    ):
        got = locate(points, a, b, Convention(**change))  # type: ignore[arg-type]
        assert got.kept.tolist() == wanted.tolist() and 0 < wanted.sum() < 60
        assert np.array_equal(got.xy_b, found.xy_b)
    assert locate(points, a, b, Convention()).kept.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": Convention(fine_size=16)}, "expected fine maps of both images with a fine size"),
        ({"b": {"fine": EncodedImage(np.ones((2, 2, 4)), SMALL)}}, "fine maps of both images with a fine size"),
        ({"a": {"mirrored": (np.ones((2, 2, 4)), SMALL)}}, "got flip none and one"),
        ({"convention": Convention(flip="mutual")}, "got flip mutual and none"),
        ({"points": np.zeros((2, 3))}, r"shape \(K, 2\)"),
        ({"points": np.array([[np.nan, 0]])}, "finite points"),
        ({"b": {"valid": np.zeros((2, 2), bool)}, "convention": Convention(source="patch")}, "no patch of B"),
        ({"b": {"map": np.ones((2, 2, 3))}, "convention": Convention(source="patch")}, "one length of descriptor"),
        ({"a": {"map": np.zeros((2, 2, 4))}, "convention": Convention(source="patch")}, "point 1, .* are zero"),
        ({"a": {"map": np.zeros((2, 2, 4))}, "convention": choose_convention("spair", "hpf")}, "point 1, .* are zero"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    image = EncodedImage(np.eye(4).reshape(2, 2, 4), SMALL)
    given = {"points": np.array([[1.0, 2.0]]), "convention": Convention()} | change
    for name in "ab":
        given[name] = dataclasses.replace(image, **given.get(name, {}))
    with pytest.raises(InputError, match=message):
        locate(**given)


def test_no_points_are_found_nowhere() -> None:
    frame = Frame(8, 8, (2, 2), 4, 4, (1.0, 1.0))
    a = np.eye(4).reshape(2, 2, 4)
    assert locate(
        np.zeros((0, 2)), EncodedImage(a, frame), EncodedImage(a, frame), Convention(source="patch")
    ).xy_b.shape == (0, 2)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[BenchmarkPair, list[Any]]]:
    """Noise of 48 × 48 px and the same moved by whole patches, encoded at twice their size with patches of 4: 2 px of the original."""
    folder = tmp_path_factory.mktemp("shifted")
    rng = np.random.default_rng(7)
    # Blocks of 2 px, and no interpolation at all: at the centre of a block bicubic values are its own only if its surroundings move along.
    texture = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    out = []
    for number, (dx, dy) in enumerate([(2, 4), (6, 0), (8, 2)]):
        paths = [folder / f"{number}{name}.png" for name in "ab"]
        Image.fromarray(texture[16:64, 16:64]).save(paths[0])
        Image.fromarray(texture[16 - dy : 64 - dy, 16 - dx : 64 - dx]).save(paths[1])
        # Centres of patches far from the border.
        points = 0.5 + 2 * rng.integers(6, 17, (9, 2)).astype(float)
        pair = BenchmarkPair(
            name=f"pair {number}",
            category="noise",
            path_a=paths[0],
            path_b=paths[1],
            points_a=points,
            points_b=points + np.array([dx, dy]),
            box_a=(0.0, 0.0, 30.0, 20.0),
            box_b=(0.0, 0.0, 30.0, 20.0),
            size_a=(48, 48),
            size_b=(48, 48),
            twins=tuple(range(9)),
        )
        store = encode_images(paths, PatchLocalEncoder(embed_dim=24), size=96, resize="keep", keep="patches")
        out.append((pair, [(store.feature_map(k), store.frame(k)) for k in range(2)]))
    return out


def mirrorable(feature_map: np.ndarray, frame: Frame) -> EncodedImage:
    return EncodedImage(feature_map, frame, mirrored=(feature_map[:, ::-1].copy(), frame.mirrored()))


def report_of(shifted: list[Any], preset: str, **changes: Any) -> Any:
    convention = choose_convention("spair", preset, **changes)
    records = [score_pair(pair, mirrorable(*maps[0]), EncodedImage(*maps[1]), convention) for pair, maps in shifted]
    return pck(records, convention)


def test_shifted_images_tell_the_presets_apart(shifted: list[Any]) -> None:
    """α·T is 0.3 px. The exact rule is right everywhere; the others are off by what their offsets say, in both directions."""
    at_hundredth = {name: float(report_of(shifted, name).averages()["image"].value[0]) for name in PRESETS}
    assert at_hundredth["exact"] == at_hundredth["hpf"] == 1
    assert max(at_hundredth[name] for name in ("sd-dino", "geoaware", "probe3d", "dift")) < 0.1
    wide = {name: report_of(shifted, name).averages()["image"].value[2] for name in PRESETS}
    assert wide["exact"] == wide["hpf"] == wide["sd-dino"] == 1  # 3 px


def test_offsets_are_those_that_the_papers_have(shifted: list[Any]) -> None:
    """At twice the size: half a pixel of the canvas, less the half pixel that scaling back should have taken off."""
    pair, maps = shifted[0]
    for preset, wanted in (("sd-dino", 0.25), ("geoaware", 0.5), ("probe3d", -0.5)):
        convention = choose_convention("spair", preset, flip="none", window=None, source="bilinear")
        found = locate(pair.points_a, EncodedImage(*maps[0]), EncodedImage(*maps[1]), convention).xy_b
        np.testing.assert_allclose(found - pair.points_b, wanted, atol=1e-9)


def test_both_directions_are_pooled(shifted: list[Any]) -> None:
    pair, maps = shifted[1]
    other = dataclasses.replace(pair, box_a=(0.0, 0.0, 10.0, 12.0), twins=(1, 0, *range(2, 9)), facts={"scale": 2})
    forth, back, both = (
        score_pair(other, EncodedImage(*maps[0]), EncodedImage(*maps[1]), choose_convention("spair", direction=d))
        for d in ("a-to-b", "b-to-a", "both")
    )
    assert (len(forth), len(back), len(both)) == (9, 9, 18)
    assert set(forth.thresholds) == {30.0} and set(back.thresholds) == {12.0}
    assert both.errors.tolist() == [*forth.errors, *back.errors]
    assert both.thresholds.tolist() == [30.0] * 9 + [12.0] * 9
    assert both.twins is not None and both.twins.tolist() == ([True, True] + [False] * 7) * 2
    assert both.facts == {"scale": 2} and both.own_nearest.all() and both.moved == 0


def test_own_nearest_is_that_of_the_pairs_points() -> None:
    frame = Frame(6, 1, (1, 6), 1, 1, (1.0, 1.0))
    a, b = np.eye(6)[None], np.eye(6)[None]
    pair = BenchmarkPair(
        name="p",
        category="c",
        path_a=Path("a.png"),
        path_b=Path("b.png"),
        points_a=np.array([[0.0, 0], [1, 0], [5, 0]]),
        points_b=np.array([[2.0, 0], [1, 0], [5, 0]]),  # the first is found at 0: nearer to the second's place
        box_b=(0.0, 0.0, 10.0, 1.0),
    )
    record = score_pair(pair, EncodedImage(a, frame), EncodedImage(b, frame), Convention())
    assert record.errors.tolist() == [2, 0, 0]
    assert record.own_nearest.tolist() == [False, True, True]


def test_a_file_of_another_size_is_named() -> None:
    frame = Frame(6, 1, (1, 6), 1, 1, (1.0, 1.0))
    a = np.eye(6)[None]
    pair = BenchmarkPair("p", "c", Path("a.png"), Path("b.png"), np.zeros((1, 2)), np.zeros((1, 2)), size_b=(7, 1))
    with pytest.raises(InputError, match=r"p: b\.png: the size is stated as 7×1 px, but the image has 6×1 px"):
        score_pair(pair, EncodedImage(a, frame), EncodedImage(a, frame), choose_convention("pf-pascal"))
    with pytest.raises(InputError, match=r"^p: no box of B is known for threshold bbox-target: use image-target"):
        score_pair(dataclasses.replace(pair, size_b=None), EncodedImage(a, frame), EncodedImage(a, frame), Convention())
    with pytest.raises(InputError, match=r"^p: .*point 1, .* are zero"):
        score_pair(
            dataclasses.replace(pair, size_b=None),
            EncodedImage(a * 0, frame),
            EncodedImage(a, frame),
            choose_convention("pf-pascal", source="patch"),
        )
