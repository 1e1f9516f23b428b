"""k-NN and logistic probes against their definitions written out in float64, and against scikit-learn."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from fewmatch.errors import InputError
from fewmatch.fewshot import ProbeResult, ProbeSet, few_shot_probe, hold_out, knn_probe, logistic_probe
from fewmatch.fewshot.probes.neighbours import nearest, votes
from fewmatch.fewshot.probes.probes import C_GRID, FewShotResult, draw_per_class


def blobs(n: int, classes: int, seed: int, dims: int = 6, noise: float = 0.9) -> ProbeSet:
    """Overlapping classes; their means depend on the number of classes alone, so that two seeds are a training and a test set."""
    means = np.random.default_rng(classes).normal(size=(classes, dims))
    rng = np.random.default_rng([seed, 1])
    labels = rng.permutation(np.arange(n) % classes)
    return ProbeSet(means[labels] + noise * rng.normal(size=(n, dims)), labels)


def naive_votes(train: ProbeSet, test: ProbeSet, k: int, temperature: float, classes: int) -> np.ndarray:
    """DINOv2's rule: softmax of cosine/T over the largest, summed by class; here divided by the sum over the k."""
    out = np.zeros((len(test.labels), classes))
    for i, query in enumerate(test.features):
        cosines = [
            float(np.dot(x, query) / np.sqrt(np.dot(x, x)) / np.sqrt(np.dot(query, query))) for x in train.features
        ]
        order = sorted(range(len(cosines)), key=lambda j: (-cosines[j], j))[:k]
        for j in order:
            out[i, train.labels[j]] += np.exp(cosines[j] / temperature)
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def naive_rank(scores: np.ndarray, labels: np.ndarray) -> list[int]:
    """The place of the own class among those sorted by score; equals by number, those without a vote last."""
    ranks = []
    for row, label in zip(scores, labels, strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        ranks.append(order.index(label) if row[label] > 0 else len(row))
    return ranks


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_knn_equals_the_naive_definition(temperature: float, classes: int) -> None:
    train, test = blobs(61, classes, 0), blobs(23, classes, 1)
    results = knn_probe(train, test, classes=classes, ks=(20, 1, 5, 61), temperature=temperature)
    assert [result.settings["k"] for result in results] == [1, 5, 20, 61]
    for result in results:
        naive = naive_votes(train, test, result.settings["k"], temperature, classes)
        assert list(result.rank) == naive_rank(naive, test.labels)
        assert result.accuracy == np.mean(naive.argmax(axis=1) == test.labels)
        assert (result.top5 is None) == (classes < 5)
        assert result.method == "knn" and result.train == 61 and result.settings["temperature"] == temperature
    assert len({tuple(result.rank) for result in results}) > 1


def test_knn_agrees_with_scikit_learns() -> None:
    train, test = blobs(80, 4, 2), blobs(40, 4, 3)

    def unit(x: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp((1 - distance**2 / 2) / 0.07))

    theirs = KNeighborsClassifier(13, weights=weights).fit(unit(train.features), train.labels)
    ours = knn_probe(train, test, classes=4, ks=(13,))[0]
    p = theirs.predict_proba(unit(test.features))
    assert list(ours.rank) == naive_rank(p, test.labels)


def test_raw_features_far_apart_in_length_are_the_same() -> None:
    train, test = blobs(50, 3, 4), blobs(20, 3, 5)
    longer = ProbeSet(train.features * np.random.default_rng(0).uniform(0.1, 100, (50, 1)), train.labels)
    assert (
        knn_probe(train, test, classes=3, ks=(7,))[0].rank == knn_probe(longer, test, classes=3, ks=(7,))[0].rank
    ).all()


def test_k_above_the_training_set_is_clipped_to_it() -> None:
    train, test = blobs(12, 3, 6), blobs(9, 3, 7)
    results = knn_probe(train, test, classes=3, ks=(5, 10, 20, 100))
    assert [(r.settings["k"], r.settings["k_asked"]) for r in results] == [(5, [5]), (10, [10]), (12, [20, 100])]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(0, 6), st.data())
def test_nearest_of_vectors_with_many_ties_in_blocks_of_any_size(n: int, q: int, data: st.DataObject) -> None:
    """Signs in four dimensions have exact inner products, most of them tied."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    x = torch.from_numpy(rng.choice([-1.0, 1.0], (n, 4)).astype(np.float32))
    queries = torch.from_numpy(rng.choice([-1.0, 1.0], (q, 4)).astype(np.float32))
    k = data.draw(st.integers(1, n))
    block = (data.draw(st.integers(1, 7)), data.draw(st.integers(1, 31)))
    seen: list[tuple[int, int]] = []
    values, index = nearest(x, queries, k, progress=lambda *done: seen.append(done), block=block)
    assert values.shape == index.shape == (q, k)
    for row in range(q):
        products = [float(v) for v in x @ queries[row]]
        order = sorted(range(n), key=lambda j: (-products[j], j))[:k]
        assert index[row].tolist() == order
        assert values[row].tolist() == [products[j] for j in order]
    assert [done for done, _ in seen] == [min(q, block[0] * (i + 1)) for i in range(-(-q // block[0]))]


def test_votes_sum_to_one_and_ties_go_to_the_lowest_class() -> None:
    cosines = torch.tensor([[0.5, 0.5, 0.25], [0.9, 0.1, 0.0]])
    labels = torch.tensor([[2, 1, 0], [1, 1, 0]])
    shares = {k: share.numpy() for k, share in [(k, s.clone()) for k, s in votes(cosines, labels, [1, 2, 3], 0.1, 4)]}
    assert np.allclose(shares[1], [[0, 0, 1, 0], [0, 1, 0, 0]])
    assert np.allclose(shares[2], [[0, 0.5, 0.5, 0], [0, 1, 0, 0]])
    assert np.allclose([s.sum(axis=1) for s in shares.values()], 1)
    test = ProbeSet(np.array([[1.0, 0]]), np.array([1]))
    train = ProbeSet(np.array([[1.0, 0], [1.0, 0]]), np.array([1, 0]))
    assert knn_probe(train, test, classes=3, ks=(2,))[0].rank[0] == 1  # class 0 has as many votes and comes first


def test_a_class_without_votes_is_never_right() -> None:
    test = ProbeSet(np.array([[1.0, 0]]), np.array([0]))
    train = ProbeSet(np.array([[1.0, 0], [-1.0, 0]]), np.array([3, 0]))
    one, two = knn_probe(train, test, classes=6, ks=(1, 2))
    assert (one.rank[0], one.top5) == (6, 0.0) and (two.rank[0], two.top5) == (1, 1.0)


def naive_logistic(train: ProbeSet, c: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias by plain Newton steps on C·Σ loss + ½‖w‖² with the curvature written out; three classes or more."""
    x = np.hstack([train.features, np.ones((len(train.labels), 1))])
    d = x.shape[1]
    target = np.eye(classes)[train.labels]
    penalty = np.diag([1.0] * (d - 1) + [1e-12])
    w = np.zeros((d, classes))
    for _ in range(60):
        e = np.exp(x @ w - (x @ w).max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        gradient = c * x.T @ (p - target) + penalty @ w
        curvature = np.zeros((classes, d, classes, d))
        for a in range(classes):
            for b in range(classes):
                curvature[a, :, b, :] = c * x.T @ ((p[:, a] * ((a == b) - p[:, b]))[:, None] * x) + (a == b) * penalty
        flat = curvature.reshape(classes * d, classes * d)
        w -= np.linalg.lstsq(flat, gradient.T.reshape(-1), rcond=1e-13)[0].reshape(classes, d).T
    return w[:-1], w[-1]


@pytest.mark.parametrize("normalize", [False, True])
def test_logistic_equals_the_naive_minimum_at_the_naive_choice_of_c(normalize: bool) -> None:
    train, val, test = blobs(40, 3, 8, dims=4), blobs(31, 3, 9, dims=4), blobs(50, 3, 10, dims=4)
    grid = (1.0, 0.001, 0.05)
    result = logistic_probe(train, test, classes=3, val=val, grid=grid, normalize=normalize)

    def features(split: ProbeSet) -> ProbeSet:
        x = split.features
        return ProbeSet(x / np.linalg.norm(x, axis=1, keepdims=True) if normalize else x, split.labels)

    train, val, test = features(train), features(val), features(test)
    right = {}
    for c in sorted(grid):
        w, b = naive_logistic(train, c, 3)
        right[c] = float(((val.features @ w + b).argmax(axis=1) == val.labels).mean())
    best = max(right.values())
    chosen = min(c for c in right if right[c] == best)
    both = ProbeSet(np.concatenate([train.features, val.features]), np.concatenate([train.labels, val.labels]))
    w, b = naive_logistic(both, chosen, 3)
    scores = test.features @ w + b
    assert (result.settings["c"], result.settings["val_accuracy"]) == (chosen, best)
    order = [sorted(range(3), key=lambda c, row=row: -row[c]) for row in scores]
    assert list(result.rank) == [places.index(y) for places, y in zip(order, test.labels, strict=True)]
    assert (result.train, result.settings["val_images"], result.settings["refit"]) == (71, 31, "train+val")
    assert result.settings["unconverged"] == [] and result.settings["c_grid"] == sorted(grid)


def test_logistic_agrees_with_scikit_learn_over_the_range_of_c_and_for_two_classes() -> None:
    for classes in (2, 5):
        train, test = blobs(60, classes, 11), blobs(200, classes, 12)
        for c in (C_GRID[12], C_GRID[20], C_GRID[30], C_GRID[-1]):
            ours = logistic_probe(train, test, classes=classes, val=test, grid=(c,), refit=False)
            theirs = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10).fit(train.features, train.labels)
            assert abs(ours.accuracy - theirs.score(test.features, test.labels)) <= 1 / 200 + 1e-9  # a tie may fall
            assert ours.settings["val_accuracy"] == ours.accuracy and ours.settings["c"] == c


def test_the_smallest_c_is_solved_as_exactly_as_the_others() -> None:
    """Weights of a millionth: a solver that stops at a small change of the loss leaves the bias wrong by as much."""
    train, test = blobs(60, 5, 11), blobs(200, 5, 12)
    ours = logistic_probe(train, test, classes=5, val=test, grid=(C_GRID[0],), refit=False)
    w, b = naive_logistic(train, C_GRID[0], 5)
    assert ours.accuracy == ((test.features @ w + b).argmax(axis=1) == test.labels).mean()
    assert ours.settings["unconverged"] == []


def test_the_grid_is_that_of_the_papers() -> None:
    assert len(C_GRID) == 45 and np.allclose([C_GRID[0], C_GRID[-1]], [1e-6, 1e5])
    assert np.allclose(np.diff(np.log10(C_GRID)), 11 / 44)


def test_refit_takes_the_images_of_val_in() -> None:
    train, test = blobs(9, 3, 13), blobs(300, 3, 14)
    val = blobs(200, 3, 15)
    both = logistic_probe(train, test, classes=3, val=val, grid=(0.1, 1.0))
    alone = logistic_probe(train, test, classes=3, val=val, grid=(0.1, 1.0), refit=False)
    assert (both.train, alone.train, alone.settings["refit"]) == (209, 9, "train")
    assert both.accuracy > alone.accuracy


def test_without_images_to_choose_on_c_is_one() -> None:
    train, test = blobs(3, 3, 16), blobs(50, 3, 17)
    empty = ProbeSet(train.features[:0], train.labels[:0])
    for val in (None, empty):
        result = logistic_probe(train, test, classes=3, val=val)
        assert (result.settings["c"], result.settings["val_images"], result.settings["val_accuracy"]) == (1.0, 0, None)
        assert result.settings["refit"] == "train" and result.settings["c_grid"] is None
    theirs = LogisticRegression(C=1.0, tol=1e-12).fit(train.features, train.labels)
    assert result.accuracy == theirs.score(test.features, test.labels)


def test_a_fit_that_does_not_converge_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewmatch.fewshot.probes.probes._MAX_ITERATIONS", 1)
    train, test = blobs(60, 3, 18), blobs(20, 3, 19)
    result = logistic_probe(train, test, classes=3, val=test, grid=(1e-6, 100.0))
    assert 100.0 in result.settings["unconverged"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.001, 0.999), st.integers(0, 50))
def test_every_class_gives_its_share_and_keeps_an_image(labels: list[int], share: float, seed: int) -> None:
    y = np.array(labels)
    held = hold_out(y, share, seed)
    assert (held == hold_out(y, share, seed)).all()
    for c in set(labels):
        count, taken = labels.count(c), int(held[y == c].sum())
        assert taken == (0 if count == 1 else max(1, int(share * count))) and taken < count


def test_another_seed_holds_out_and_draws_others() -> None:
    y = np.arange(400) % 4
    assert (hold_out(y, 0.1, 0) != hold_out(y, 0.1, 1)).any()
    draws = {tuple(draw_per_class(y, 5, attempt, seed)) for attempt in range(3) for seed in range(3)}
    assert len(draws) == 9
    for n in (1, 5, 100):
        rows = draw_per_class(y, n, 0, 0)
        assert (np.bincount(y[rows]) == n).all() and len(set(rows)) == 4 * n
    assert set(draw_per_class(y, 5, 2, 7)) < set(draw_per_class(y, 9, 2, 7))
    many = np.concatenate([draw_per_class(y, 10, attempt, 3) for attempt in range(400)])
    assert np.bincount(many, minlength=400).min() > 10 and np.bincount(many).max() < 100  # all images are drawn


def test_few_shot_probes_see_the_same_draws_and_sum_them_up() -> None:
    train, test = blobs(60, 3, 20), blobs(80, 3, 21)
    seen: list[ProbeSet] = []

    def run(drawn: ProbeSet) -> list[ProbeResult]:
        seen.append(drawn)
        return [
            *knn_probe(drawn, test, classes=3, ks=(2, 100)),
            logistic_probe(drawn, test, classes=3, val=test, grid=(0.01, 1.0), refit=False),
        ]

    results = few_shot_probe(train, (1, 4), 5, 3, run)
    assert [(r.per_class, r.tries[0].method, r.tries[0].settings.get("k")) for r in results] == [
        (1, "knn", 2),
        (1, "knn", 3),
        (1, "logistic", None),
        (4, "knn", 2),
        (4, "knn", 12),
        (4, "logistic", None),
    ]
    assert [len(drawn.labels) for drawn in seen] == [3] * 5 + [12] * 5
    for result in results:
        a = [one.accuracy for one in result.tries]
        mean = sum(a) / 5
        std = (sum((v - mean) ** 2 for v in a) / 4) ** 0.5
        assert result.mean == pytest.approx(mean) and result.std == pytest.approx(std)
        assert result.ci95_t == pytest.approx(2.776445105 * std / 5**0.5)
    got = results[2].to_json()
    assert (
        "c" not in got
        and [set(one) for one in got["tries"]] == [{"accuracy", "top5", "c", "val_accuracy", "unconverged"}] * 5
    )
    single = few_shot_probe(train, (2,), 1, 3, run)[0]
    assert (single.std, single.ci95_t) == (None, None) and isinstance(single, FewShotResult)


def test_accuracy_by_class() -> None:
    result = ProbeResult("knn", {}, np.array([0, 2, 0, 6, 0]), np.array([0, 0, 3, 3, 3]), 6, 9)
    assert result.per_class() == {0: (1, 2), 3: (2, 3)}
    assert result.mean_class_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (result.accuracy, result.top5) == (3 / 5, 4 / 5)


def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = blobs(12, 3, 22), blobs(9, 3, 23)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    empty = ProbeSet(test.features[:0], test.labels[:0])
    short = ProbeSet(test.features, test.labels[1:])
    zero = ProbeSet(train.features * (np.arange(12) != 4)[:, None], train.labels)
    for run, message in (
        (lambda: knn_probe(train, test, classes=3, ks=(0, 5)), "neighbours of 1 or more, got 0, 5"),
        (lambda: knn_probe(train, test, classes=3, temperature=0.0), "temperature above 0, got 0"),
        (lambda: knn_probe(train, empty, classes=3), "the test set is empty"),
        (lambda: logistic_probe(empty, test, classes=3), "the training set is empty"),
        (lambda: knn_probe(train, test, classes=2), "labels from 0 to 1 in the training set"),
        (lambda: knn_probe(train, ProbeSet(test.features[:, :4], test.labels), classes=3), "6 dimensions as .*, got 4"),
        (
            lambda: knn_probe(train, short, classes=3),
            "expected 9 labels in the test set, got 8",
        ),
        (lambda: knn_probe(zero, test, classes=3), "training vector 4 is zero"),
        (lambda: logistic_probe(zero, test, classes=3, normalize=True), "feature vector 4 is zero"),
        (lambda: logistic_probe(train, test, classes=3, grid=(0.0,)), "C above 0"),
        (lambda: logistic_probe(ProbeSet(train.features, train.labels * 0), test, classes=3), "two classes"),
        (lambda: hold_out(train.labels, 1.0, 0), "share between 0 and 1, got 1"),
        (
            lambda: draw_per_class(train.labels, 5, 0, 0, ["a", "b", "c"]),
            "class a has 4 images to draw from, expected 5",
        ),
        (lambda: draw_per_class(train.labels, 0, 0, 0), "1 image a class or more, got 0"),
        (lambda: few_shot_probe(train, (1,), 0, 0, lambda _: []), "1 try or more, got 0"),
    ):
        with pytest.raises(InputError, match=message):
            run()


def test_progress_is_told() -> None:
    train, test = blobs(30, 3, 24), blobs(12, 3, 25)
    seen: list[tuple[int, int]] = []
    logistic_probe(train, test, classes=3, val=test, grid=(0.1, 1.0), progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()
    knn_probe(train, test, classes=3, progress=lambda *done: seen.append(done))
    assert seen[-1] == (12, 12)
