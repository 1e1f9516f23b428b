"""Labels and probabilities for new images against the definitions, and one by one against all at once."""

from __future__ import annotations

import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import naive

from fewmatch.errors import InputError
from fewmatch.fewshot import CENTERS, Labeller
from fewmatch.fewshot.centering import TRANSDUCTIVE, ZeroVectorError


def data(seed: int = 0, dims: int = 9) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Supports of unequal number per class, in mixed order; queries; a base set."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(["dog"] * 5 + ["cat"] * 1 + ["emu"] * 3)
    means = {"dog": rng.normal(size=dims), "cat": rng.normal(size=dims), "emu": rng.normal(size=dims)}
    support = np.stack([means[label] + 0.5 * rng.normal(size=dims) for label in labels]) + 5
    query = (
        np.stack([means[label] + 0.5 * rng.normal(size=dims) for label in rng.choice(["dog", "cat", "emu"], 11)]) + 5
    )
    return support, list(labels), query, rng.normal(size=(20, dims)) + 5


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("prenormalize", [False, True])
@pytest.mark.parametrize("temperature", [10.0, 0.7])
def test_probabilities_equal_the_naive_definition(
    center: str, metric: str, prenormalize: bool, temperature: float
) -> None:
    support, labels, query, base = data()
    base = base if center == "base" else None
    labeller = Labeller(
        support, labels, center=center, base=base, metric=metric, prenormalize=prenormalize, temperature=temperature
    )
    assert labeller.class_names == ["cat", "dog", "emu"]
    index = np.array([labeller.class_names.index(label) for label in labels])
    s, q = naive.centered(support, query, center, base, prenormalize)
    e = np.exp(-temperature * naive.squared_distances(s, index, q, 3, metric))
    got = labeller.probabilities(query)
    assert np.abs(got - e / e.sum(axis=1, keepdims=True)).max() < 1e-9
    assert np.abs(got.sum(axis=1) - 1).max() < 1e-12
    in_float32 = Labeller(
        support.astype(np.float32),
        labels,
        center=center,
        base=None if base is None else base.astype(np.float32),
        metric=metric,
        prenormalize=prenormalize,
        temperature=temperature,
    ).probabilities(query.astype(np.float32))
    assert np.abs(in_float32 - got).max() < 1e-4


@pytest.mark.parametrize("center", [c for c in CENTERS if c not in TRANSDUCTIVE])
def test_portions_give_what_all_at_once_gives(center: str) -> None:
    support, labels, query, base = data(1)
    labeller = Labeller(support, labels, center=center, base=base if center == "base" else None)
    whole = labeller.probabilities(query)
    parts = np.concatenate([labeller.probabilities(part) for part in (query[:1], query[1:4], query[4:4], query[4:])])
    assert np.abs(parts - whole).max() < 1e-12


@pytest.mark.parametrize("center", sorted(TRANSDUCTIVE))
def test_transductive_centring_depends_on_the_other_queries(center: str) -> None:
    support, labels, query, _ = data(2)
    labeller = Labeller(support, labels, center=center)
    assert np.abs(labeller.probabilities(query)[:4] - labeller.probabilities(query[:4])).max() > 1e-6


def test_one_image_per_class_is_enough() -> None:
    support, _, query, _ = data(3)
    labeller = Labeller(support[:2], ["b", "a"])
    assert labeller.class_names == ["a", "b"]
    assert (labeller.probabilities(support[:2]).argmax(axis=1) == [1, 0]).all()
    assert labeller.probabilities(query).shape == (11, 2)


def test_no_queries_give_no_rows() -> None:
    support, labels, query, _ = data(4)
    assert Labeller(support, labels).probabilities(query[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["dog"] * 9}, r"at least two classes in the support set, got 1 \(dog\)"),
        ({"labels": ["dog"] * 3}, "expected 9 labels for 9 support vectors, got 3"),
        ({"center": "mean"}, "no centring called mean"),
        ({"metric": "l1"}, "no metric called l1"),
        ({"temperature": 0.0}, "expected a temperature above 0, got 0"),
        ({"temperature": float("nan")}, "expected a temperature above 0, got nan"),
        ({"center": "base"}, "needs that set"),
        ({"base": np.ones((2, 9))}, "with center base only"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    support, labels, _, _ = data(5)
    arguments: dict[str, object] = {"labels": labels, **change}
    with pytest.raises(InputError, match=message):
        Labeller(support, **arguments)  # type: ignore[arg-type]


def test_queries_of_another_length_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    support, labels, query, _ = data(6)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match="queries of 9 dimensions as the supports, got 5"):
        Labeller(support, labels).probabilities(query[:, :5])


def test_identical_supports_are_an_error_not_nan() -> None:
    with pytest.raises(ZeroVectorError):
        Labeller(np.full((4, 3), 0.1, np.float32), ["a", "a", "b", "b"])
