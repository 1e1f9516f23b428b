"""Leave-one-out against doing it one by one, the temperature against a search, and rejection against its definition."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import naive

from fewmatch.errors import InputError
from fewmatch.fewshot import METHODS, Labeller
from fewmatch.fewshot.centering import ZeroVectorError
from fewmatch.fewshot.labelling import held_out
from fewmatch.fewshot.labelling.held_out import held_out_rows, held_out_scores, likeliest_temperature
from fewmatch.fewshot.labelling.rejection import held_out_similarity, known_classes, threshold_accepting


def data(seed: int, dims: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Four classes of unequal size, one of them with a single support, in mixed order, far from the origin."""
    rng = np.random.default_rng(seed)
    index = rng.permutation([0] * 4 + [1] * 2 + [2] * 3 + [3])
    return rng.normal(size=(4, dims))[index] + 0.6 * rng.normal(size=(len(index), dims)) + 3, index


def labeller(x: np.ndarray, index: np.ndarray, **options: object) -> Labeller:
    return Labeller(x, [f"class {i}" for i in index], **options)  # type: ignore[arg-type]


def one_by_one(x: np.ndarray, index: np.ndarray, **options: object) -> dict[int, np.ndarray]:
    """The scores of every support that is not alone, by a labeller that was made without it."""
    found = {}
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        if (index[rest] == index[i]).any():
            found[i] = labeller(x[rest], index[rest], **options).scores(x[i : i + 1])[0]
    return found


def held_out_of(made: Labeller, x: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    fitted, places = made.fitted, torch.from_numpy(index)
    assert fitted.projection is not None
    prepared = fitted.projection.prepared(x, "cpu", "supports")
    scores, truth = held_out_scores(prepared, places, fitted.method, fitted.options, fitted.projection)
    return held_out_rows(places, 10_000).numpy(), scores, truth


@pytest.mark.parametrize("center", ["none", "base", "support", "feature"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("prenormalize", [False, True])
def test_nearest_mean_in_closed_form_equals_one_by_one(center: str, metric: str, prenormalize: bool) -> None:
    x, index = data(0)
    base = np.random.default_rng(1).normal(size=(5, 7)) + 3 if center == "base" else None
    options = {"center": center, "metric": metric, "prenormalize": prenormalize, "base": base}
    rows, scores, truth = held_out_of(labeller(x, index, **options), x, index)
    wanted = one_by_one(x, index, **options)
    assert sorted(rows) == sorted(wanted) and len(rows) == 9 and (truth == index[rows]).all()
    for row, score in zip(rows, scores, strict=True):
        assert np.abs(score - wanted[row]).max() < 1e-10


@pytest.mark.parametrize("dims", [3, 4, 9])
def test_nearest_mean_in_closed_form_equals_the_naive_definition(dims: int) -> None:
    x, index = data(2, dims)
    rows, scores, _ = held_out_of(labeller(x, index), x, index)
    for row, score in zip(rows, scores, strict=True):
        rest = np.arange(len(x)) != row
        s, q = naive.centered(x[rest], x[row : row + 1], "support", None, False)
        assert np.abs(score + naive.squared_distances(s, index[rest], q, 4, "euclidean")[0]).max() < 1e-10


INDUCTIVE = [n for n, m in METHODS.items() if not m.transductive and m.center in ("none", "support", "feature")]


@pytest.mark.parametrize("name", INDUCTIVE)
def test_every_method_is_fitted_anew_for_each(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "_BYTES_AT_ONCE", 6_000)  # several portions
    x, index = data(3)
    rows, scores, _ = held_out_of(labeller(x, index, method=name), x, index)
    wanted = one_by_one(x, index, method=name)
    for row, score in zip(rows, scores, strict=True):
        assert score == pytest.approx(wanted[row], abs=1e-8)


def test_at_most_so_many_are_held_out_evenly_over_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    index = torch.tensor([2] * 40 + [0] * 40 + [1])
    rows = held_out_rows(index, 9)
    assert len(set(rows.tolist())) == 9
    assert torch.bincount(index[rows], minlength=3).tolist() in ([4, 0, 5], [5, 0, 4])
    monkeypatch.setattr(held_out, "MOST_HELD_OUT", 5)
    x, few = data(4)
    assert labeller(x, few, temperature="auto").fitted.temperature.held_out == 5


def test_supports_that_are_all_one_without_another_are_an_error() -> None:
    x = np.array([[1.0, 0], [1, 0], [0, 1]])
    with pytest.raises(ZeroVectorError, match="leave-one-out"):
        Labeller(x[[0, 1, 2, 2]] + [[0, 0], [0, 0], [0, 0], [1, -1]], ["a", "b", "b", "b"], temperature="auto")
    assert Labeller(x, ["a", "a", "b"], temperature="auto", center="none").temperature > 0


# --- the temperature


def test_the_temperature_minimises_what_it_says() -> None:
    rng = np.random.default_rng(5)
    scores, truth = rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    scores[np.arange(30), truth] += 1
    scores[3, truth[3]] = -np.inf  # as of a class without a neighbour

    def loss(tau: float) -> float:
        total = np.log2(tau / 3.0) ** 2 / 2
        for row, right in zip(scores, truth, strict=True):
            e = np.exp(tau * row)
            total -= np.log(max(e[right] / e.sum(), np.finfo(float).tiny))
        return float(total)

    found = likeliest_temperature(scores, truth, 3.0)
    least = loss(found)
    for tau in (*np.geomspace(0.01, 100, 401), *np.geomspace(0.98, 1.02, 101) * found):  # far and wide, and closely
        assert least <= loss(tau) + 1e-9
    assert likeliest_temperature(scores[:1] * 0, truth[:1], 3.0) == pytest.approx(3.0, rel=1e-4)  # nothing to learn


def test_few_supports_that_are_all_right_do_not_ask_for_certainty() -> None:
    scores = np.array([[0.0, -1.5], [-1.5, 0.0]])
    assert 10 < likeliest_temperature(scores, np.array([0, 1]), 10.0) < 11
    many = likeliest_temperature(np.tile([[0.0, -0.1], [-0.1, 0.0]], (500, 1)), np.tile([0, 1], 500), 10.0)
    assert many > 20


def test_auto_temperature_says_how_it_was_found() -> None:
    x, index = data(6)
    made = labeller(x, index, temperature="auto")
    rows, scores, truth = held_out_of(made, x, index)
    assert made.temperature == likeliest_temperature(scores, truth, 10.0) != 10.0
    assert (made.fitted.temperature.chosen, made.fitted.temperature.held_out) == ("leave-one-out", len(rows))
    given = labeller(x, index, temperature=4.0).fitted.temperature
    assert (given.value, given.chosen, given.held_out) == (4.0, "given", None)
    alone = labeller(x[:2], np.arange(2), temperature="auto").fitted.temperature
    assert (alone.value, alone.chosen, alone.held_out) == (10.0, "default", 0)
    with pytest.raises(InputError, match="queries are used as a set"):
        labeller(x, index, temperature="auto", center="separate")
    with pytest.raises(InputError, match="expected a temperature as a number, or auto, got hot"):
        labeller(x, index, temperature="hot")


# --- rejection


def naive_similarity(x: np.ndarray, index: np.ndarray, q: np.ndarray) -> float:
    """The largest cosine with the mean of a class's vectors of length one."""
    best = -2.0
    for c in np.unique(index):
        mean = np.mean([v / np.linalg.norm(v) for v in x[index == c]], axis=0)
        best = max(best, float(q @ mean / np.linalg.norm(q) / np.linalg.norm(mean)))
    return best


def test_similarity_is_the_largest_cosine_with_a_class_mean() -> None:
    x, index = data(7)
    q = np.random.default_rng(8).normal(size=(6, 7)) + 1
    wanted = [naive_similarity(x, index, v) for v in q]
    for options in ({}, {"center": "none"}, {"method": "knn"}, {"prenormalize": True}, {"center": "separate"}):
        assert np.abs(labeller(x, index, **options).similarity(q) - wanted).max() < 1e-6
    assert (
        np.abs(
            known_classes(torch.from_numpy(x), torch.from_numpy(index)).similarity(torch.from_numpy(q)) - wanted
        ).max()
        < 1e-6
    )


def test_held_out_similarity_leaves_the_support_out_of_its_class() -> None:
    x, index = data(9)
    got = held_out_similarity(torch.from_numpy(x), torch.from_numpy(index))
    rows = held_out_rows(torch.from_numpy(index), 100).tolist()
    wanted = [naive_similarity(np.delete(x, i, 0), np.delete(index, i), x[i]) for i in rows]
    assert len(rows) == 9 and np.abs(got - wanted).max() < 1e-12


@pytest.mark.parametrize(
    ("share", "wanted"), [(1.0, 1), (0.9, 2), (0.95, 1), (0.5, 6), (0.45, 6), (0.1, 10), (0.01, 10)]
)
def test_the_threshold_is_the_highest_that_accepts_the_share(share: float, wanted: int) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, 11.0))
    found = threshold_accepting(values, share)
    assert found == wanted and (values >= found).mean() >= share - 1e-12
    assert found == 10 or (values > found).mean() < share


def test_no_threshold_without_anything_held_out() -> None:
    with pytest.raises(InputError, match=r"every class has one support only.*give a number"):
        labeller(data(0)[0][:3], np.arange(3), reject="auto")
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="above 0 and at most 1"):
            threshold_accepting(np.ones(3), share)


def test_queries_below_the_threshold_are_none_of_these() -> None:
    x, index = data(10)
    q = np.concatenate([x[:4], -x[:2]])
    free = labeller(x, index)
    assert free.reject is None and free.answer(q)[1] is None and not free.answer(q)[2].any()
    line = float(np.sort(free.similarity(q))[2])
    made = labeller(x, index, reject=line)
    probabilities, similarity, rejected = made.answer(q)
    assert similarity is not None and (rejected == (similarity < line)).all() and rejected.sum() == 2
    assert (probabilities == free.probabilities(q)).all()
    names = [made.class_names[i] for i in probabilities.argmax(axis=1)]
    assert made.labels(q) == [None if no else name for no, name in zip(rejected, names, strict=True)]
    assert free.rejecting(line).labels(q) == made.labels(q) and free.reject is None
    auto = labeller(x, index, reject="auto", accept=0.5)
    share = (held_out_similarity(torch.from_numpy(x), torch.from_numpy(index)) >= (auto.reject or 0)).mean()
    assert share == pytest.approx(5 / 9) and auto.fitted.reject is not None and auto.fitted.reject.held_out == 9
    for value in (1.5, float("nan")):
        with pytest.raises(InputError, match="from -1 to 1"):
            labeller(x, index, reject=value)
