"""Transductive methods against their definitions, one episode at a time, and padding that changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import naive_transductive as naive

from fewmatch.fewshot.methods import METHODS
from fewmatch.fewshot.methods.transductive.pt_map import transport

#: Per method: its definition, options to try it with (all of them somewhere), and whether its scores are log-probabilities.
TRIED: dict[str, tuple[Any, list[dict[str, Any]], bool]] = {
    "soft-kmeans": (naive.soft_k_means, [{}, {"temperature": 5.0, "iterations": 3}, {"iterations": 1}], True),
    "bd-cspn": (
        naive.bd_cspn,
        [
            {},
            {"classify": "original", "metric": "euclidean"},
            {"weights": "normalised", "metric": "euclidean", "temperature": 3.0},
            {"weights": "points", "temperature": 1.0},
            {"metric": "euclidean"},
        ],
        False,
    ),
    "laplacian-shot": (
        naive.laplacian_shot,
        [
            {},
            {"rectify": "none", "neighbours": 4, "strength": 1.5},
            {"rectify": "original", "iterations": 5},
            {"tolerance": 1e-3, "strength": 0.3},
            {"neighbours": 60, "strength": 0.05},
        ],
        True,
    ),
    "pt-map": (
        naive.pt_map,
        [{}, {"prior": "estimated"}, {"lam": 3.0, "alpha": 0.5, "epochs": 4, "tolerance": 1e-9}, {"epochs": 0}],
        True,
    ),
    "tim": (naive.tim, [{"iterations": 12}, {"iterations": 7, "weights": (0.7, 0.4, 1.2), "temperature": 8.0}], True),
    "tim-gd": (
        naive.tim_gd,
        [{"iterations": 30}, {"iterations": 20, "learning_rate": 3e-3, "weights": (0.7, 0.4, 1.2), "temperature": 8.0}],
        True,
    ),
    "alpha-tim": (
        naive.alpha_tim,
        [
            {"iterations": 30},
            {"iterations": 20, "learning_rate": 3e-3, "alpha": 3.5, "weights": (0.7, 0.4, 1.2), "temperature": 8.0},
            {"iterations": 20, "alpha": 0.5},
            {"iterations": 20, "alpha": 1.0},
        ],
        True,
    ),
}
CASES = [(name, options) for name, (_, tries, _) in TRIED.items() for options in tries]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in an evaluation; several threads for such small tensors only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ragged(seed: int, spread: float) -> list[naive.Episode]:
    """Episodes of 2 to 10 classes, one shot and more, classes without queries and a single query in all."""
    rng = np.random.default_rng(seed)
    return [
        naive.draw(rng, [1, 1], [3, 3], 19, spread),
        naive.draw(rng, [1] * 5, [4] * 5, 29, spread),
        naive.draw(rng, [5, 5, 5], [2, 9, 0], 31, spread),
        naive.draw(rng, [3, 1, 2, 7], [5, 1, 1, 3], 24, spread),
        naive.draw(rng, [2] * 10, [2] * 10, 30, spread),
        naive.draw(rng, [2, 2], [0, 1], 16, spread, center="support"),
    ]


def test_all_methods_and_options_are_tried() -> None:
    transductive = {name for name, method in METHODS.items() if method.transductive}
    assert transductive == set(TRIED)
    for name, (_, tries, _) in TRIED.items():
        assert {option for options in tries for option in options} == set(METHODS[name].options)


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value))
def test_equals_the_definition(name: str, options: dict[str, Any]) -> None:
    definition, _, logarithms = TRIED[name]
    # Sinkhorn's iterations, in the definition of PT-MAP, take for ever where classes are far apart.
    for episode in ragged(seed=len(str(options)), spread=0.2 if name == "pt-map" else 0.6):
        packed = naive.pack([episode])
        scores = packed.of(METHODS[name].scores(packed.batch, **options), 0)
        wanted = definition(episode, **options)
        if logarithms:
            np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-12)
            scores = np.exp(scores)
        # The tolerance of PT-MAP's sums is wider than that of the definition's.
        np.testing.assert_allclose(scores, wanted, atol=1e-5 if name == "pt-map" else 1e-8)


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value))
def test_padding_changes_nothing(name: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    dims = 8
    episodes = [
        naive.draw(rng, [1, 1], [3, 4], dims),
        naive.draw(rng, [5, 5, 5], [2, 9, 0], dims),
        naive.draw(rng, [3, 1, 2, 7], [5, 1, 1, 3], dims),
        naive.draw(rng, [1] * 6, [3] * 6, dims),
    ]
    for packed in (naive.pack(episodes), naive.pack(episodes, extra=3, rng=rng)):
        scores = METHODS[name].scores(packed.batch, **options)
        labels = packed.batch.query_labels(scores)
        for i, episode in enumerate(episodes):
            alone = naive.pack([episode])
            wanted = METHODS[name].scores(alone.batch, **options)
            np.testing.assert_allclose(packed.of(scores, i), wanted[0].numpy(), rtol=1e-9, atol=1e-9)
            chosen = packed.classes[i][alone.batch.query_labels(wanted)[0].numpy()]
            assert (labels[i].numpy()[packed.queries[i]] == chosen).all()


@pytest.mark.parametrize("prior", [(3.0, 1.0, 2.0), [0.2, 0.0, 0.8]])
def test_pt_map_with_given_proportions(prior: Any) -> None:
    rng = np.random.default_rng(8)
    episodes = [naive.draw(rng, [2, 2, 2], [6, 2, 4], 27, 0.2) for _ in range(3)]
    packed = naive.pack(episodes)
    same = METHODS["pt-map"].scores(packed.batch, prior=prior, lam=3.0)
    # Other proportions for each episode: the first as before.
    rows = torch.tensor([list(prior), [1.0, 1.0, 5.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
    own = METHODS["pt-map"].scores(packed.batch, prior=rows, lam=3.0)
    for i, episode in enumerate(episodes):
        wanted = naive.pt_map(episode, prior=prior, lam=3.0)
        np.testing.assert_allclose(np.exp(packed.of(same, i)), wanted, atol=1e-5)
        wanted = naive.pt_map(episode, prior=rows[i].tolist(), lam=3.0)
        np.testing.assert_allclose(np.exp(packed.of(own, i)), wanted, atol=1e-5)
    np.testing.assert_allclose(np.exp(packed.of(same, 0)).sum(axis=0), 12 * np.array(prior) / sum(prior), atol=1e-5)


def test_proportions_of_classes_that_an_episode_lacks_are_left_out() -> None:
    rng = np.random.default_rng(9)
    episodes = [naive.draw(rng, [2, 2, 2], [6, 2, 4], 27, 0.2), naive.draw(rng, [2, 2], [3, 4], 27, 0.2)]
    packed = naive.pack(episodes)
    scores = METHODS["pt-map"].scores(packed.batch, prior=(3.0, 1.0, 2.0))
    np.testing.assert_allclose(np.exp(packed.of(scores, 1)).sum(axis=0), [7 * 3 / 4, 7 / 4], atol=1e-5)


@given(
    seed=st.integers(0, 10_000),
    ways=st.integers(1, 6),
    queries=st.integers(1, 12),
    scale=st.sampled_from([0.1, 1.0, 30.0, 1000.0]),
    empty=st.booleans(),
)
@example(seed=10, ways=3, queries=10, scale=30.0, empty=True)  # steps of Newton and of Sinkhorn in turn get nowhere
@settings(deadline=None, max_examples=40)
def test_transport_meets_rows_and_columns(seed: int, ways: int, queries: int, scale: float, empty: bool) -> None:
    """Also where the kernel is so steep that Sinkhorn's iterations would need millions of rounds."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(scale * rng.normal(size=(3, ways, queries)))
    counts = torch.from_numpy(rng.dirichlet(np.full(ways, 2.0), size=3)) * queries
    if empty and ways > 1:
        counts[:, 0] = 0
        counts *= queries / counts.sum(dim=1, keepdim=True)
    p, offsets = transport(
        logits, counts, torch.ones(3, queries, dtype=torch.bool), torch.zeros(3, ways, dtype=torch.float64), 1e-6
    )
    assert p.isfinite().all() and (p >= 0).all() and offsets.isfinite().all()
    np.testing.assert_allclose(p.sum(dim=1), 1, atol=1e-12)
    if scale < 1000:
        np.testing.assert_allclose(p.sum(dim=2), counts, atol=1e-6 * queries)
    if scale <= 1:
        for i in range(3):
            wanted = naive.sinkhorn(np.exp(logits[i].T.numpy()), counts[i].numpy())
            np.testing.assert_allclose(p[i].T, wanted, atol=1e-4)


def test_an_episode_without_queries_disturbs_no_other() -> None:
    rng = np.random.default_rng(13)
    episodes = [naive.draw(rng, [2, 2], [3, 4], 8), naive.draw(rng, [2, 2], [3, 4], 8)]
    batch, alone = naive.pack(episodes).batch, naive.pack(episodes[:1]).batch
    batch.asked[1] = False
    batch.vectors[1][1] = 0
    for name, (_, tries, _) in TRIED.items():
        scores = METHODS[name].scores(batch, **tries[0])
        np.testing.assert_allclose(scores[0], METHODS[name].scores(alone, **tries[0])[0], rtol=1e-9, atol=1e-9)
