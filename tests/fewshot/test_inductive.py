"""Inductive methods against their definitions, one episode and one vector at a time."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods import METHODS
from fewmatch.fewshot.methods.lda import LEAST_AUTO, ledoit_wolf

METHODS_HERE = ("simpleshot-un", "simpleshot-l2n", "knn", "ridge", "logistic", "lda")

Episode = tuple[np.ndarray, np.ndarray, np.ndarray]  # supports (s, d), their classes (s,), queries (q, d)


def an_episode(
    rng: np.random.Generator, shots: list[int], queries: int, d: int, spread: float = 1.0, project: bool = True
) -> Episode:
    means = spread * rng.standard_normal((len(shots), d))
    labels = np.repeat(np.arange(len(shots)), shots)
    support = means[labels] + rng.standard_normal((len(labels), d))
    query = means[rng.integers(len(shots), size=queries)] + rng.standard_normal((queries, d))
    if project:
        support, query = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (support, query))
    return support, labels, query


def batch_of(episodes: list[Episode], pad: tuple[int, int, int] = (0, 0, 0), only_gram: bool = False) -> EpisodeBatch:
    """Episodes of any shapes, each class's supports in places of their own as in `evaluate`; pad: more supports, queries, classes."""
    ways = max(int(labels.max()) + 1 for _, labels, _ in episodes) + pad[2]
    shots = max(int(np.bincount(labels).max()) for _, labels, _ in episodes) + pad[0]
    queries = max(len(query) for _, _, query in episodes) + pad[1]
    d = episodes[0][0].shape[1]
    support = torch.zeros(len(episodes), ways, shots, d, dtype=torch.float64)
    query = torch.zeros(len(episodes), queries, d, dtype=torch.float64)
    onehot = torch.zeros(len(episodes), ways, shots, ways, dtype=torch.float64)
    asked = torch.zeros(len(episodes), queries, dtype=torch.bool)
    classes = torch.zeros(len(episodes), ways, dtype=torch.bool)
    for e, (x, labels, asked_vectors) in enumerate(episodes):
        for c in np.unique(labels):
            own = torch.from_numpy(x[labels == c])
            support[e, c, : len(own)], onehot[e, c, : len(own), c], classes[e, c] = own, 1, True
        query[e, : len(asked_vectors)] = torch.from_numpy(asked_vectors)
        asked[e, : len(asked_vectors)] = True
    flat = support.reshape(len(episodes), -1, d)
    batch = EpisodeBatch(onehot.reshape(len(episodes), -1, ways), asked, classes, flat, query, dimensions=d)
    return replace(batch, support=None, query=None, given_gram=batch.gram) if only_gram else batch


def naive_ncm(support: np.ndarray, labels: np.ndarray, query: np.ndarray) -> np.ndarray:
    means = [support[labels == c].mean(axis=0) for c in range(labels.max() + 1)]
    return np.array([[-(((z - mean) ** 2).sum()) for mean in means] for z in query])


def naive_knn(
    support: np.ndarray, labels: np.ndarray, query: np.ndarray, k: int | None = None, temperature: float = 0.07
) -> np.ndarray:
    out = np.empty((len(query), labels.max() + 1))
    for i, z in enumerate(query):
        cosines = [z @ s / np.sqrt((z @ z) * (s @ s)) for s in support]
        order = sorted(range(len(support)), key=lambda j: (-cosines[j], j))[:k]
        weights = [np.exp((cosines[j] - 1) / temperature) for j in order]
        for c in range(labels.max() + 1):
            share = sum(w for w, j in zip(weights, order, strict=True) if labels[j] == c) / sum(weights)
            out[i, c] = np.log(share) if share > 0 else -np.inf
    return out


def naive_ridge(support: np.ndarray, labels: np.ndarray, query: np.ndarray, penalty: float = 1.0) -> np.ndarray:
    """The primal normal equations with a column of ones that is not penalised."""
    d = support.shape[1]
    ones = np.hstack([support, np.ones((len(support), 1))])
    penalties = np.diag([penalty] * d + [0.0])
    targets = (labels[:, None] == np.arange(labels.max() + 1)).astype(float)
    solution = np.linalg.solve(ones.T @ ones + penalties, ones.T @ targets)
    return query @ solution[:d] + solution[d]


def naive_lda(support: np.ndarray, labels: np.ndarray, query: np.ndarray, shrinkage: float | str = 0.5) -> np.ndarray:
    """In all dimensions, with the covariance written out and inverted."""
    n, d = support.shape
    means = np.stack([support[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    residuals = support - means[labels]
    scatter = sum(np.outer(r, r) for r in residuals) / n
    variance = np.trace(scatter) / d
    if shrinkage == "auto":
        shrinkage = max(LEAST_AUTO, ledoit_wolf_shrinkage(residuals, assume_centered=True))
    sigma = np.eye(d)
    if (np.bincount(labels) > 1).any():
        sigma = (1 - shrinkage) * scatter / variance + shrinkage * np.eye(d)
    weights = np.linalg.inv(sigma) @ means.T
    return query @ weights - 0.5 * (means.T * weights).sum(axis=0)


def naive_logistic(support: np.ndarray, labels: np.ndarray, query: np.ndarray, C: float = 1.0) -> np.ndarray:
    """scikit-learn's optimum; its two-class loss has one vector where ours has two of half its length each, so C counts twice."""
    ways = int(labels.max()) + 1
    probe = LogisticRegression(C=C * (2 if ways == 2 else 1), tol=1e-11, max_iter=10_000, solver="newton-cg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its line search complains where rounding lets it go no further
        probe.fit(support, labels)
    scores = query @ probe.coef_.T + probe.intercept_
    if ways == 2:
        scores = np.hstack([-scores / 2, scores / 2])
    return scores - scores.mean(axis=1, keepdims=True)


NAIVE: dict[str, Any] = {
    "simpleshot-un": naive_ncm,
    "simpleshot-l2n": naive_ncm,
    "knn": naive_knn,
    "ridge": naive_ridge,
    "logistic": naive_logistic,
    "lda": naive_lda,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("simpleshot-un", {}),
    ("simpleshot-l2n", {}),
    ("knn", {}),
    ("knn", {"k": 1}),
    ("knn", {"k": 7, "temperature": 0.5}),
    ("ridge", {}),
    ("ridge", {"penalty": 0.01}),
    ("ridge", {"penalty": 50.0}),
    ("logistic", {}),
    ("logistic", {"C": 0.01}),
    ("logistic", {"C": 300.0}),
    ("lda", {}),
    ("lda", {"shrinkage": 0.05}),
    ("lda", {"shrinkage": 1}),
    ("lda", {"shrinkage": "auto"}),
]
#: Shots of each class, queries, dimensions: one shot, many classes, more supports than dimensions, classes that differ in their shots.
SHAPES: list[tuple[list[int], int, int]] = [
    ([1, 1], 3, 12),
    ([1] * 5, 4, 30),
    ([5] * 5, 6, 40),
    ([2] * 20, 5, 24),
    ([9, 9, 9], 4, 7),
    ([1, 6, 2, 11], 5, 16),
]


def compare(name: str, scores: np.ndarray, expected: np.ndarray) -> None:
    if name == "logistic":  # only differences between classes are determined
        scores = scores - scores.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-6 if name == "logistic" else 1e-10)


@pytest.mark.parametrize("only_gram", [False, True])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_scores_are_those_of_the_definition(name: str, options: dict[str, Any], only_gram: bool) -> None:
    method = METHODS[name]
    if only_gram and method.vectors:
        with pytest.raises(ValueError, match="inner products only"):
            method.scores(batch_of([an_episode(np.random.default_rng(), [1, 1], 1, 3)], only_gram=True), **options)
        return
    rng = np.random.default_rng()
    for shots, queries, d in SHAPES:
        episodes = [an_episode(rng, shots, queries, d, project=method.project) for _ in range(3)]
        scores = method.scores(batch_of(episodes, only_gram=only_gram), **options).numpy()
        assert scores.dtype == np.float64
        for episode, own in zip(episodes, scores, strict=True):
            compare(name, own, NAIVE[name](*episode, **options))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_episodes_of_different_shapes_together(name: str, options: dict[str, Any]) -> None:
    method, rng = METHODS[name], np.random.default_rng()
    all_shots = [[1, 1], [3, 1, 2], [2] * 5, [1] * 4, [8, 8, 8]]
    episodes = [an_episode(rng, shots, int(rng.integers(1, 6)), 10, project=method.project) for shots in all_shots]
    batch = batch_of(episodes, pad=(2, 3, 1))
    scores = method.scores(batch, **options)
    assert not torch.isnan(scores[batch.asked]).any()
    for episode, own in zip(episodes, scores.numpy(), strict=True):
        ways = int(episode[1].max()) + 1
        compare(name, own[: len(episode[2]), :ways], NAIVE[name](*episode, **options))
    labels = batch.query_labels(scores)
    assert (labels < batch.classes.sum(dim=1)[:, None])[batch.asked].all()


@pytest.mark.parametrize("name", METHODS_HERE)
def test_the_order_of_supports_classes_and_queries(name: str) -> None:
    method, rng = METHODS[name], np.random.default_rng()
    support, labels, query = an_episode(rng, [3, 1, 4, 2], 6, 9, project=method.project)
    batch = batch_of([(support, labels, query)])
    scores = method.scores(batch)
    by_support, by_query = torch.from_numpy(rng.permutation(batch.supports)), torch.from_numpy(rng.permutation(6))
    by_class = torch.from_numpy(rng.permutation(4))
    s, q = batch.vectors
    mixed = EpisodeBatch(
        batch.onehot[:, by_support][:, :, by_class],
        batch.asked,
        batch.classes,
        s[:, by_support],
        q[:, by_query],
        dimensions=9,
    )
    torch.testing.assert_close(method.scores(mixed), scores[:, by_query][:, :, by_class], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", METHODS_HERE)
def test_a_query_does_not_depend_on_the_others(name: str) -> None:
    method, rng = METHODS[name], np.random.default_rng()
    assert not method.transductive
    support, labels, query = an_episode(rng, [2, 3], 5, 8, project=method.project)
    together = method.scores(batch_of([(support, labels, query)]))[0]
    for i in range(5):
        alone = method.scores(batch_of([(support, labels, query[i : i + 1])]))[0, 0]
        torch.testing.assert_close(alone, together[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c[0] in ("ridge", "logistic", "lda")], ids=str)
def test_weights_for_queries_to_come(name: str, options: dict[str, Any]) -> None:
    method, rng = METHODS[name], np.random.default_rng()
    batch = batch_of([an_episode(rng, [2, 4, 1], 5, 9) for _ in range(2)], pad=(1, 0, 1))
    linear = method.fit(batch, **{**method.options, **options})
    by_hand = torch.bmm(batch.vectors[1], linear.in_space(batch)) + linear.bias[:, None]
    torch.testing.assert_close(by_hand, method.scores(batch, **options), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("penalty", [0.03, 1.0, 20.0])
def test_ridge_is_scikit_learns(penalty: float) -> None:
    support, labels, query = an_episode(np.random.default_rng(), [4, 1, 7], 8, 20)
    onehot = (labels[:, None] == np.arange(3)).astype(float)
    expected = Ridge(alpha=penalty, solver="cholesky").fit(support, onehot).predict(query)
    scores = METHODS["ridge"].scores(batch_of([(support, labels, query)]), penalty=penalty)[0]
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("solver", ["lsqr", "eigen"])
def test_lda_is_scikit_learns(shrinkage: float, solver: str) -> None:
    """Up to the mean within-class variance, which makes the scale; priors n_c/n weigh all supports the same, as ours do."""
    support, labels, query = an_episode(np.random.default_rng(), [4, 3, 7], 8, 15)
    n = len(labels)
    probe = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage, priors=np.bincount(labels) / n)
    probe.fit(support, labels)
    theirs = query @ probe.coef_.T + probe.intercept_ - np.log(np.bincount(labels) / n)
    residuals = support - np.stack([support[labels == c].mean(axis=0) for c in range(3)])[labels]
    ours = METHODS["lda"].scores(batch_of([(support, labels, query)]), shrinkage=shrinkage)[0].numpy()
    expected = theirs * (residuals**2).sum() / n / 15
    if solver == "eigen":  # determined up to a constant of the query
        ours, expected = (x - x.mean(axis=1, keepdims=True) for x in (ours, expected))
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_lda_lies_between_whitening_and_the_nearest_mean() -> None:
    rng = np.random.default_rng()
    batch = batch_of([an_episode(rng, [4] * 5, 12, 20) for _ in range(3)])
    nearest = METHODS["ncm"].scores(batch)
    differences = METHODS["lda"].scores(batch, shrinkage=1.0) - nearest / 2
    torch.testing.assert_close(differences, differences[:, :, :1].expand_as(differences), atol=1e-10, rtol=0)
    one_shot = batch_of([an_episode(rng, [1] * 4, 12, 20)])
    for shrinkage in (0.02, 0.5, "auto"):
        scores = METHODS["lda"].scores(one_shot, shrinkage=shrinkage)
        differences = scores - METHODS["ncm"].scores(one_shot) / 2
        torch.testing.assert_close(differences, differences[:, :, :1].expand_as(differences), atol=1e-10, rtol=0)


def test_lda_of_equal_supports_is_the_nearest_mean() -> None:
    """Float32 products of equal vectors differ by rounding; that is not scatter."""
    rng = np.random.default_rng()
    support, labels, query = an_episode(rng, [1, 1, 1], 6, 300)
    support, labels = np.repeat(support, 4, axis=0), np.repeat(labels, 4)
    batch = batch_of([(support, labels, query)])
    s, q = (x.float() for x in batch.vectors)
    noisy = replace(batch, support=(s + 1e-7 * torch.randn_like(s)), query=q)
    scores = METHODS["lda"].scores(noisy) - METHODS["ncm"].scores(batch) / 2
    torch.testing.assert_close(scores, scores[:, :, :1].expand_as(scores), atol=1e-4, rtol=0)


def test_auto_shrinkage_is_ledoit_and_wolfs() -> None:
    """Scatter along one axis needs little of it, scatter alike in all directions much; padding changes nothing."""
    rng = np.random.default_rng()
    narrow, even = 0.05 * rng.standard_normal((80, 6)), rng.standard_normal((80, 6))
    narrow[:, 0] += rng.standard_normal(80)
    found = []
    for vectors in (narrow, even, np.zeros((80, 6))):
        padded = torch.from_numpy(np.vstack([vectors, np.zeros((3, 6))]))
        found.append(float(ledoit_wolf((padded @ padded.T)[None], torch.tensor([80.0], dtype=torch.float64), 6)[0]))
    assert found[0] == pytest.approx(ledoit_wolf_shrinkage(narrow, assume_centered=True), abs=1e-12)
    assert found[1] == pytest.approx(ledoit_wolf_shrinkage(even, assume_centered=True), abs=1e-12)
    assert found[0] < 0.1 < 0.3 < found[1] and found[2] == 1


def test_auto_shrinkage_is_never_zero() -> None:
    rng = np.random.default_rng()
    axis, means, query = rng.standard_normal(6), rng.standard_normal((2, 6)), rng.standard_normal((4, 6))
    support = np.stack([mean + sign * axis for mean in means for sign in (-1, 1)])
    batch = batch_of([(support, np.array([0, 0, 1, 1]), query)])
    scores = METHODS["lda"].scores(batch, shrinkage="auto")
    torch.testing.assert_close(scores, METHODS["lda"].scores(batch, shrinkage=LEAST_AUTO), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("C", [1e-4, 1.0, 1e3])
def test_logistic_is_at_the_optimum(C: float) -> None:
    """Where the objective is least: W = Σ C·(y − p)·z, no sum of errors for the biases; p from the scores of the supports themselves."""
    rng = np.random.default_rng()
    episodes = [
        an_episode(rng, shots, 2, 12, spread) for shots, spread in (([5] * 5, 1.0), ([1, 9, 3], 0.2), ([30, 30], 0.0))
    ]
    batch = batch_of(episodes, pad=(1, 0, 0))
    linear = METHODS["logistic"].fit(batch, C=C)
    scores = (torch.bmm(batch.support_gram, linear.dual) + linear.bias[:, None]).masked_fill(
        ~batch.classes[:, None], -torch.inf
    )
    errors = (batch.onehot - torch.softmax(scores, dim=2)) * batch.real_supports[:, :, None]
    weights = torch.bmm(batch.vectors[0].transpose(1, 2), linear.dual)
    gradient = weights - C * torch.bmm(batch.vectors[0].transpose(1, 2), errors)
    assert gradient.abs().max() < 1e-9 * max(1, C)
    assert errors.sum(dim=1).abs().max() < 1e-9


def test_logistic_takes_supports_that_are_equal() -> None:
    """No variance at all, and all classes at one place: the classes' shares are the best there is."""
    support, labels, query = np.ones((6, 3)) / np.sqrt(3), np.array([0, 0, 0, 1, 1, 2]), np.ones((1, 3)) / np.sqrt(3)
    scores = METHODS["logistic"].scores(batch_of([(support, labels, query)]))
    np.testing.assert_allclose(torch.softmax(scores, dim=2)[0, 0].numpy(), [1 / 2, 1 / 3, 1 / 6], atol=1e-12)


def test_logistic_of_float32_products() -> None:
    """Rounding makes inner products slightly indefinite; the result must be that of the exact ones up to rounding."""
    rng = np.random.default_rng()
    episodes = [an_episode(rng, [20] * 3, 8, 6) for _ in range(4)]
    batch = batch_of(episodes)
    rounded = replace(batch, support=None, query=None, given_gram=batch.gram.float().double())
    for C in (1.0, 1e4):
        scores = METHODS["logistic"].scores(rounded, C=C)
        torch.testing.assert_close(scores, METHODS["logistic"].scores(batch, C=C), rtol=1e-3, atol=1e-3)


def test_too_few_steps_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["fewmatch.fewshot.methods.logistic"], "_NEWTON_STEPS", 1)
    batch = batch_of([an_episode(np.random.default_rng(), [5] * 5, 2, 30)])
    with pytest.raises(InputError, match="logistic: no optimum found in 1 Newton steps with C 10: take a smaller one"):
        METHODS["logistic"].scores(batch, C=10.0)


def test_knn_of_equal_neighbours_takes_the_first() -> None:
    """Class 0 has the rows 0 and 2, class 1 the rows 1 and 3; all are equally near."""
    support, query = np.tile([[1.0, 0.0]], (4, 1)), np.array([[0.0, 1.0], [1.0, 0.0]])
    batch = batch_of([(support, np.array([0, 1, 0, 1]), query)])
    onehot = torch.tensor([[[1.0, 0], [0, 1], [1, 0], [0, 1]]], dtype=torch.float64)
    batch = replace(batch, onehot=onehot)
    for k, share in ((1, 1.0), (2, 0.5), (3, 2 / 3), (4, 0.5), (9, 0.5)):
        weights = METHODS["knn"].scores(batch, k=k).exp()
        np.testing.assert_allclose(weights[0].numpy(), [[share, 1 - share]] * 2, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"k": 1}, {"k": 3}, {"k": 1000}, {"temperature": 10}, {"temperature": 0.001}])
def test_knn_weights_sum_to_one(options: dict[str, Any]) -> None:
    rng = np.random.default_rng()
    batch = batch_of([an_episode(rng, shots, 9, 14) for shots in ([4] * 6, [1, 2], [3, 1, 5])], pad=(2, 1, 1))
    scores = METHODS["knn"].scores(batch, **options)
    assert (scores <= 1e-12).all()
    torch.testing.assert_close(scores.exp().sum(dim=2)[batch.asked], torch.ones(27, dtype=torch.float64))
    torch.testing.assert_close(torch.softmax(scores, dim=2), scores.exp())
    assert (scores[~batch.classes[:, None].expand_as(scores)] == -torch.inf).all()


def test_knn_compares_directions() -> None:
    support, labels, query = an_episode(np.random.default_rng(), [3, 2], 5, 6)
    scores = METHODS["knn"].scores(batch_of([(support, labels, query)]))
    longer = METHODS["knn"].scores(batch_of([(support * np.arange(1, 6)[:, None], labels, query * 7)]))
    torch.testing.assert_close(longer, scores, rtol=1e-9, atol=1e-9)


def test_simpleshot_keeps_digits_far_from_the_origin() -> None:
    rng = np.random.default_rng()
    support, labels, query = an_episode(rng, [3, 2], 5, 6, project=False)
    near = METHODS["simpleshot-un"].scores(batch_of([(support, labels, query)]))
    far = METHODS["simpleshot-un"].scores(batch_of([(support + 2.0**20, labels, query + 2.0**20)]))
    torch.testing.assert_close(far, near, rtol=1e-7, atol=1e-7)


def test_simpleshot_presets_fix_their_centring() -> None:
    un, l2n, cl2n = (METHODS[f"simpleshot-{name}"] for name in ("un", "l2n", "cl2n"))
    assert (un.center, l2n.center, cl2n.center) == ("none", "none", "base")
    assert un.own_center and l2n.own_center and cl2n.own_center
    assert (un.project, l2n.project, cl2n.project) == (False, True, True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ridge", {"penalty": 0}, "ridge: expected penalty to be a number above 0, got 0"),
        ("ridge", {"penalty": float("inf")}, "ridge: expected penalty .* got inf"),
        ("ridge", {"penalty": "much"}, "ridge: expected penalty .* got 'much'"),
        ("ridge", {"C": 1}, "ridge has no option C: it has penalty"),
        ("logistic", {"C": -1.0}, "logistic: expected C to be a number above 0 .*, got -1"),
        ("logistic", {"C": 1e9}, "logistic: expected C .* of at most 1e\\+08, got 1000000000.0"),
        ("lda", {"shrinkage": 0}, "lda: expected shrinkage .* above 0 .* at most 1, got 0"),
        ("lda", {"shrinkage": 1.5}, "lda: expected shrinkage .* at most 1, got 1.5"),
        ("lda", {"shrinkage": "automatic"}, "lda: expected shrinkage .* auto, .* got 'automatic'"),
        ("knn", {"k": 0}, "knn: expected k to be a whole number of at least 1, got 0"),
        ("knn", {"k": 2.5}, "knn: expected k .* got 2.5"),
        ("knn", {"temperature": 0.0}, "knn: expected temperature to be a number above 0, got 0"),
        ("simpleshot-un", {"metric": "cosine"}, "simpleshot-un has no option metric: it has none"),
    ],
)
def test_errors(monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], message: str) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    batch = batch_of([an_episode(np.random.default_rng(), [2, 2], 1, 5)])
    with pytest.raises(InputError, match=message):
        METHODS[name].scores(batch, **options)


@pytest.mark.parametrize(("name", "option"), [("ridge", "penalty"), ("lda", "shrinkage")])
def test_too_little_regularisation_is_an_error(name: str, option: str) -> None:
    support, labels, query = np.ones((6, 2)), np.array([0, 0, 0, 1, 1, 1]), np.ones((1, 2))
    support[:, 0] = [0, 1, 2, 0, 1, 2]
    with pytest.raises(InputError, match=f"{name}: {option} 1e-300 is too small for these features"):
        METHODS[name].scores(batch_of([(support, labels, query)]), **{option: 1e-300})


def test_lda_needs_to_know_the_dimensions() -> None:
    batch = batch_of([an_episode(np.random.default_rng(), [3, 3], 2, 5)], only_gram=True)
    with pytest.raises(ValueError, match="inner products only"):
        METHODS["lda"].scores(replace(batch, dimensions=None))
