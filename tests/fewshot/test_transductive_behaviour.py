"""What transductive methods promise beyond their definitions: symmetries, chunks, priors, gains, options and errors."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import naive_transductive as naive

from fewmatch.errors import InputError
from fewmatch.fewshot.centering import CENTERS
from fewmatch.fewshot.methods import METHODS

#: Few iterations where a method takes many: these tests are about other things.
QUICK: dict[str, dict[str, Any]] = {
    "soft-kmeans": {},
    "bd-cspn": {},
    "laplacian-shot": {},
    "pt-map": {},
    "tim": {"iterations": 10},
    "tim-gd": {"iterations": 20},
    "alpha-tim": {"iterations": 20},
}
#: For every option of every method another value, and where it changes the scores.
CHANGES: list[tuple[str, str, Any]] = [
    ("soft-kmeans", "temperature", 5.0),
    ("soft-kmeans", "iterations", 2),
    ("bd-cspn", "temperature", 2.0),
    ("bd-cspn", "weights", "points"),
    ("bd-cspn", "classify", "original"),
    ("bd-cspn", "metric", "euclidean"),
    ("laplacian-shot", "neighbours", 3),
    ("laplacian-shot", "strength", 0.2),
    ("laplacian-shot", "rectify", "none"),
    ("laplacian-shot", "iterations", 2),
    ("laplacian-shot", "tolerance", 0.5),
    ("pt-map", "lam", 5.0),
    ("pt-map", "alpha", 0.5),
    ("pt-map", "epochs", 3),
    ("pt-map", "tolerance", 0.2),
    ("pt-map", "prior", "estimated"),
    ("pt-map", "prior", (1.0, 2.0, 3.0)),
    ("tim", "temperature", 7.0),
    ("tim", "weights", (1.0, 1.0, 0.1)),
    ("tim", "iterations", 3),
    ("tim-gd", "temperature", 7.0),
    ("tim-gd", "weights", (0.1, 0.1, 1.0)),
    ("tim-gd", "learning_rate", 1e-3),
    ("tim-gd", "iterations", 3),
    ("alpha-tim", "alpha", 3.0),
    ("alpha-tim", "temperature", 7.0),
    ("alpha-tim", "weights", (0.1, 0.1, 1.0)),
    ("alpha-tim", "learning_rate", 1e-3),
    ("alpha-tim", "iterations", 3),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in an evaluation; several threads for such small tensors only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def accuracy(name: str, episodes: list[naive.Episode], **options: Any) -> float:
    packed = naive.pack(episodes)
    labels = packed.batch.query_labels(METHODS[name].scores(packed.batch, **options)).numpy()
    return float(np.mean([(labels[i, : len(x.truth)] == x.truth).mean() for i, x in enumerate(episodes)]))


@pytest.mark.parametrize("name", QUICK)
def test_the_order_of_queries_and_of_classes_changes_nothing(name: str) -> None:
    rng = np.random.default_rng(1)
    episodes = [naive.draw(rng, [2, 3, 1, 2], [3, 5, 2, 4], 12) for _ in range(3)]
    run = METHODS[name].scores
    wanted = run(naive.pack(episodes).batch, **QUICK[name])
    queries, classes = rng.permutation(14), rng.permutation(4)
    moved = [
        naive.Episode(x.support, np.argsort(classes)[x.labels], x.query[queries], x.truth[queries], x.ways)
        for x in episodes
    ]
    scores = run(naive.pack(moved).batch, **QUICK[name])
    np.testing.assert_allclose(scores, wanted[:, queries][:, :, classes], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", QUICK)
def test_an_episode_does_not_depend_on_the_others_of_its_chunk(name: str) -> None:
    """Overlapping and distinct classes take different numbers of steps."""
    rng = np.random.default_rng(2)
    episodes = [naive.draw(rng, [2] * 3, [4] * 3, 12, spread) for spread in (0.05, 0.3, 0.6, 1.0, 2.0)]
    run = METHODS[name].scores
    together = run(naive.pack(episodes).batch, **QUICK[name])
    for i, episode in enumerate(episodes):
        alone = run(naive.pack([episode]).batch, **QUICK[name])
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "option", "value"), CHANGES)
def test_every_option_changes_the_scores(name: str, option: str, value: Any) -> None:
    rng = np.random.default_rng(4)
    batch = naive.pack([naive.draw(rng, [2] * 3, [3, 5, 7], 12) for _ in range(4)]).batch
    before = METHODS[name].scores(batch, **QUICK[name])
    after = METHODS[name].scores(batch, **{**QUICK[name], option: value})
    assert (before - after).abs().max() > 1e-6


def test_defaults_are_those_of_the_authors() -> None:
    """What the papers and their code say; and a function's own defaults are those of its entry."""
    assert METHODS["laplacian-shot"].options["rectify"] == "shifted"
    assert METHODS["bd-cspn"].options["classify"] == "shifted"
    assert {name for name, method in METHODS.items() if method.center == "none" and not method.own_center} == {
        "tim",
        "tim-gd",
        "alpha-tim",
    }
    assert METHODS["pt-map"].center == "separate"
    for name, method in METHODS.items():
        function = method.run or method.fit
        assert function is not None
        parameters = inspect.signature(function).parameters
        assert method.options == {option: parameters[option].default for option in method.options}, name


def test_notes_say_where_a_centring_does_not_fit_a_method() -> None:
    noted = {
        (name, center)
        for name, method in METHODS.items()
        for center in CENTERS
        if method.notes({}, center) and not method.own_center
    }
    tim = {(name, center) for name in ("tim", "tim-gd", "alpha-tim") for center in CENTERS if center != "none"}
    assert noted == tim | {("laplacian-shot", "none"), ("laplacian-shot", "feature")}
    for name, method in METHODS.items():
        assert method.notes({}, method.center) == (), name
    assert METHODS["tim"].notes({"temperature": 15.0}, "support") == ()
    assert METHODS["tim"].notes({"iterations": 3}, "base") == (
        "tim: the default temperature of 15 is its authors' choice for vectors that are not centred; with center base, try "
        "temperature=5, or use center none",
    )


def test_what_the_shift_of_queries_does_by_hand() -> None:
    """Supports (1, 0) and (0, 1), queries (1, 0) and (1, 0): the queries move by (−½, ½) to (½, ½), as near to either prototype."""
    x = naive.Episode(np.eye(2), np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 0]), 2)
    batch = naive.pack([x]).batch
    # Both belong to class 0, the first of equals, each with a share of ½; the support has e^10/(e^10 + 1).
    share = np.exp(10) / (np.exp(10) + 1)
    first = np.array([share + 0.5, 0.5]) / 3
    second = np.array([0.0, share])
    prototypes = np.stack([first, second])
    wanted = np.array([0.5, 0.5]) @ (prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)).T / np.sqrt(0.5)
    np.testing.assert_allclose(METHODS["bd-cspn"].scores(batch)[0], np.stack([wanted, wanted]), atol=1e-12)
    logits = -((np.array([0.5, 0.5]) - prototypes) ** 2).sum(axis=1)
    y = np.exp(logits) / np.exp(logits).sum()
    for _ in range(20):
        y = np.exp(logits + 0.7 * y)
        y /= y.sum()
    got = METHODS["laplacian-shot"].scores(batch, tolerance=0.0)[0].exp()
    np.testing.assert_allclose(got, np.stack([y, y]), atol=1e-12)


def test_all_options_are_changed() -> None:
    assert {(name, option) for name, option, _ in CHANGES} == {
        (name, option) for name in QUICK for option in METHODS[name].options
    }


def test_one_look_is_the_nearest_class_mean() -> None:
    rng = np.random.default_rng(5)
    batch = naive.pack([naive.draw(rng, [1, 2, 3], [4, 4, 4], 10) for _ in range(20)]).batch
    wanted = batch.query_labels(METHODS["ncm"].scores(batch))
    for name, options in {
        "soft-kmeans": {"iterations": 1},
        "laplacian-shot": {"strength": 0.0, "rectify": "none"},
        "tim": {"iterations": 0},
        "tim-gd": {"iterations": 0},
    }.items():
        assert (batch.query_labels(METHODS[name].scores(batch, **options)) == wanted).all(), name


def test_bd_cspn_keeps_the_prototype_of_a_class_without_points() -> None:
    """Class 1's supports lie opposite each other, so that the mean points aside and the other classes are nearer to all points."""
    support = np.array([[1.0, 0, 0], [0.8, -0.6, 0], [-0.8, -0.6, 0], [-1.0, 0, 0]])
    mean = support[1:3].mean(axis=0)  # (0, -0.6, 0)
    query = np.array([[1.0, 0, 0.0], [-1.0, 0, 0.0]])
    episode = naive.Episode(support, np.array([0, 1, 1, 2]), query, np.array([0, 2]), 3)
    batch = naive.pack([episode]).batch
    scores = METHODS["bd-cspn"].scores(batch, metric="euclidean")[0].numpy()
    shifted = query + support.mean(axis=0) - query.mean(axis=0)
    cosines = [[naive.cosine(z, m) for m in naive.means_of(episode)] for z in np.concatenate([support, shifted])]
    assert 1 not in np.argmax(cosines, axis=1)
    np.testing.assert_allclose(scores[:, 1], -((shifted - mean) ** 2).sum(axis=1), atol=1e-12)
    assert list(scores.argmax(axis=1)) == [0, 2]


def test_pt_map_gains_on_balanced_queries_and_loses_it_on_others() -> None:
    """On Gaussian classes: what an equal prior gives, what it costs where it is wrong, and what estimating it or knowing it brings back."""
    rng = np.random.default_rng(6)
    balanced = [naive.draw(rng, [5] * 5, [15] * 5, 64, 0.45, "support") for _ in range(200)]
    uneven = [naive.draw(rng, [5] * 5, naive.dirichlet_counts(rng, 5, 75), 64, 0.45, "support") for _ in range(200)]
    gain = accuracy("pt-map", balanced) - accuracy("ncm", balanced)
    loss = accuracy("pt-map", uneven) - accuracy("ncm", uneven)
    assert gain > 0.04
    assert loss < -0.02
    estimated, ncm = accuracy("pt-map", uneven, prior="estimated"), accuracy("ncm", uneven)
    assert estimated > ncm + 0.03
    counts = torch.from_numpy(np.array([np.bincount(x.truth, minlength=5) for x in uneven], dtype=np.float64))
    assert accuracy("pt-map", uneven, prior=counts) > estimated
    assert accuracy("pt-map", balanced, prior="estimated") > accuracy("ncm", balanced) + 0.04


def test_the_estimated_prior_keeps_every_class_alive() -> None:
    """Queries of one class only: its share grows, and the others' do not vanish."""
    rng = np.random.default_rng(7)
    packed = naive.pack([naive.draw(rng, [5] * 4, [40, 0, 0, 0], 32, 0.6, "support") for _ in range(20)])
    sums = METHODS["pt-map"].scores(packed.batch, prior="estimated").exp().sum(dim=1)
    assert (sums.min(dim=1).values >= 40 / 44 - 1e-3).all()
    assert sums[:, 0].mean() > 2 * 40 / 4


def test_tsallis_entropies_of_order_one_are_shannons() -> None:
    rng = np.random.default_rng(8)
    batch = naive.pack([naive.draw(rng, [2] * 3, [3, 5, 7], 12) for _ in range(3)]).batch
    options: dict[str, Any] = {"iterations": 50, "learning_rate": 1e-3, "weights": (0.5, 1.0, 0.2)}
    shannon = METHODS["tim-gd"].scores(batch, **options)
    assert torch.equal(METHODS["alpha-tim"].scores(batch, alpha=1.0, **options), shannon)
    near = METHODS["alpha-tim"].scores(batch, alpha=1.0 + 1e-6, **options)
    np.testing.assert_allclose(near, shannon, atol=1e-3)
    assert (METHODS["alpha-tim"].scores(batch, alpha=2.0, **options) - shannon).abs().max() > 1e-2


@pytest.mark.parametrize(("shots", "alpha"), [([1, 1, 1], 2.0), ([1, 4, 1], 5.0), ([5, 5, 5], 7.0), ([2, 9, 9], 7.0)])
def test_alpha_follows_the_shots(shots: list[int], alpha: float) -> None:
    rng = np.random.default_rng(9)
    batch = naive.pack([naive.draw(rng, shots, [3, 5, 7], 12)]).batch
    options = {"iterations": 10, "learning_rate": 1e-3}
    auto = METHODS["alpha-tim"].scores(batch, **options)
    assert torch.equal(auto, METHODS["alpha-tim"].scores(batch, alpha=alpha, **options))


def test_float32_vectors_give_nearly_the_same() -> None:
    rng = np.random.default_rng(10)
    packed = naive.pack([naive.draw(rng, [5] * 3, [5] * 3, 24) for _ in range(4)]).batch
    support, query = packed.vectors
    single = type(packed)(packed.onehot, packed.asked, packed.classes, support.float(), query.float())
    for name, options in QUICK.items():
        wanted = METHODS[name].scores(packed, **options)
        scores = METHODS[name].scores(single, **options)
        assert scores.dtype == torch.float64
        np.testing.assert_allclose(scores, wanted, atol=2e-3)


def test_gradient_methods_say_that_they_need_vectors() -> None:
    rng = np.random.default_rng(11)
    batch = naive.pack([naive.draw(rng, [2] * 3, [5] * 3, 8)]).batch
    products = type(batch)(batch.onehot, batch.asked, batch.classes, given_gram=batch.gram)
    for name, options in QUICK.items():
        if METHODS[name].vectors:
            with pytest.raises(ValueError, match="inner products only"):
                METHODS[name].scores(products, **options)
        else:
            assert torch.equal(METHODS[name].scores(products, **options), METHODS[name].scores(batch, **options))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("soft-kmeans", "temperature", 0.0),
        ("soft-kmeans", "temperature", float("nan")),
        ("soft-kmeans", "iterations", 0),
        ("soft-kmeans", "iterations", 2.5),
        ("bd-cspn", "temperature", -1),
        ("bd-cspn", "weights", "none"),
        ("bd-cspn", "classify", "both"),
        ("bd-cspn", "metric", "manhattan"),
        ("laplacian-shot", "neighbours", 0),
        ("laplacian-shot", "strength", -0.1),
        ("laplacian-shot", "rectify", True),
        ("laplacian-shot", "iterations", 0),
        ("laplacian-shot", "tolerance", -1.0),
        ("pt-map", "lam", 0),
        ("pt-map", "alpha", 1.5),
        ("pt-map", "epochs", -1),
        ("pt-map", "tolerance", 0),
        ("pt-map", "prior", "uniform"),
        ("pt-map", "prior", (0.5, 0.5)),
        ("pt-map", "prior", (0.5, -0.5, 1.0)),
        ("pt-map", "prior", (0.0, 0.0, 0.0)),
        ("pt-map", "prior", (0.5, float("inf"), 1.0)),
        ("pt-map", "prior", ("a", "b", "c")),
        ("tim", "temperature", "warm"),
        ("tim", "weights", (1.0, 1.0)),
        ("tim", "weights", (1.0, 1.0, -1.0)),
        ("tim", "iterations", -1),
        ("tim-gd", "learning_rate", 0),
        ("tim-gd", "iterations", True),
        ("tim-gd", "weights", "1,1,1"),
        ("alpha-tim", "alpha", "big"),
        ("alpha-tim", "alpha", 0),
        ("alpha-tim", "temperature", 0),
        ("alpha-tim", "method", "x"),
    ],
)
def test_wrong_options_are_one_clear_line(name: str, option: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    rng = np.random.default_rng(12)
    batch = naive.pack([naive.draw(rng, [2] * 3, [5] * 3, 8)]).batch
    with pytest.raises(InputError) as caught:
        METHODS[name].scores(batch, **{option: value})
    message = str(caught.value)
    assert "\n" not in message and option in message
    assert "expected" in message or "has no option" in message
