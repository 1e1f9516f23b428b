"""The scikit-learn estimators: scikit-learn's own checks, what the rest of the project computes, and pipelines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewmatch.errors import InputError
from fewmatch.fewshot import (
    METHODS,
    CenterProject,
    Labeller,
    LDAProbe,
    LogisticProbe,
    NearestClassMean,
    RidgeProbe,
    WeightedKNN,
    center_table,
)
from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.centering import center_by, mean_vector

CLASSIFIERS: list[type] = [NearestClassMean, WeightedKNN, RidgeProbe, LogisticProbe, LDAProbe]


@parametrize_with_checks([CenterProject(), CenterProject("none"), *(kind() for kind in CLASSIFIERS)])
def test_scikit_learns_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def data(seed: int = 0, dims: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows of classes of unequal size in mixed order, their labels, and queries; all far from the origin."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(["dog"] * 6 + ["cat"] * 3 + ["emu"] * 4)
    means = {name: rng.normal(size=dims) for name in ("dog", "cat", "emu")}
    x = np.stack([means[name] + 0.4 * rng.normal(size=dims) for name in y]) + 4
    q = np.stack([means[name] + 0.4 * rng.normal(size=dims) for name in rng.choice(["dog", "cat", "emu"], 9)]) + 4
    return x, y, q


@pytest.mark.parametrize("center", ["support", "base", "none", "feature"])
@pytest.mark.parametrize("prenormalize", [False, True])
def test_center_project_equals_the_naive_definition(center: str, prenormalize: bool) -> None:
    x, _, q = data()
    base = np.random.default_rng(9).normal(size=(5, 7)) + 2
    got = CenterProject(center, base=base if center == "base" else None, prenormalize=prenormalize).fit(x).transform(q)

    def unit(v: np.ndarray) -> np.ndarray:
        return np.array([row / np.sqrt((row**2).sum()) for row in v])

    if prenormalize:
        x, q, base = unit(x), unit(q), unit(base)
    mean = {"support": x.mean(axis=0), "base": base.mean(axis=0), "none": 0.0, "feature": q.mean(axis=1)[:, None]}
    assert np.abs(got - unit(q - mean[center])).max() < 1e-12


def test_float32_stays_float32_and_is_as_exact_as_it_can_be() -> None:
    x, _, q = data(1)
    fitted = CenterProject().fit((x + 1000).astype(np.float32))
    got = fitted.transform((q + 1000).astype(np.float32))
    assert got.dtype == np.float32 and CenterProject().fit(x).transform(q).dtype == np.float64
    exact = CenterProject().fit((x + 1000).astype(np.float32).astype(np.float64))
    assert np.abs(got - exact.transform((q + 1000).astype(np.float32).astype(np.float64))).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_zero_after_centring_stays_zero(dtype: type) -> None:
    x = np.full((3, 4), 0.1, dtype)
    assert (CenterProject().fit(x).transform(x) == 0).all()
    assert (CenterProject("feature").fit(x).transform(x) == 0).all()
    assert (CenterProject("none").fit(x).transform(np.zeros((1, 4), dtype)) == 0).all()
    x[0, 0] = 1
    z = CenterProject().fit(x).transform(x)
    assert np.allclose(np.linalg.norm(z, axis=1), 1)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("center", ["support", "base", "none", "feature"])
def test_nearest_class_mean_agrees_with_the_labeller(metric: str, center: str) -> None:
    x, y, q = data(2)
    base = np.random.default_rng(8).normal(size=(5, 7)) if center == "base" else None
    for prenormalize, temperature in ((False, 10.0), (True, 3.0)):
        options: dict[str, Any] = {
            "metric": metric, "center": center, "base": base, "prenormalize": prenormalize, "temperature": temperature
        }  # fmt: skip
        model = NearestClassMean(**options).fit(x, y)
        labeller = Labeller(x, list(y), **options)
        expected = labeller.probabilities(q)
        assert list(model.classes_) == labeller.class_names
        assert np.abs(model.predict_proba(q) - expected).max() < 1e-9
        assert (model.predict(q) == np.array(labeller.class_names)[expected.argmax(axis=1)]).all()


def by_method(name: str, x: np.ndarray, y: np.ndarray, q: np.ndarray, center: str, **options: Any) -> np.ndarray:
    """Scores of the project's method on one episode that is the training set with its queries."""
    classes, index = np.unique(y, return_inverse=True)
    raw, queries = torch.from_numpy(x), torch.from_numpy(q)
    if center == "support":
        s, z = (center_by(v, mean_vector(raw), "row") for v in (raw, queries))
    else:
        s, z = (center_table(v, center) for v in (raw, queries))  # type: ignore[arg-type]
    batch = EpisodeBatch(
        onehot=torch.eye(len(classes), dtype=torch.float64)[torch.from_numpy(index)][None],
        asked=torch.ones(1, len(q), dtype=torch.bool),
        classes=torch.ones(1, len(classes), dtype=torch.bool),
        support=s[None],
        query=z[None],
        dimensions=x.shape[1],
    )
    return METHODS[name].scores(batch, **options)[0].numpy()


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("center", ["support", "none", "feature"])
@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("ridge", RidgeProbe, {}),
        ("ridge", RidgeProbe, {"penalty": 0.03}),
        ("logistic", LogisticProbe, {}),
        ("logistic", LogisticProbe, {"C": 20.0}),
        ("lda", LDAProbe, {}),
        ("lda", LDAProbe, {"shrinkage": 0.1}),
        ("lda", LDAProbe, {"shrinkage": "auto"}),
        ("knn", WeightedKNN, {"k": 5}),
        ("knn", WeightedKNN, {"k": 1}),
        ("knn", WeightedKNN, {"k": 500, "temperature": 0.5}),
    ],
)
def test_every_classifier_agrees_with_its_method(name: str, kind: type, options: dict[str, Any], center: str) -> None:
    for dims in (7, 40):  # fewer and more dimensions than rows
        x, y, q = data(3, dims)
        scores = by_method(name, x, y, q, center, **options)
        model = kind(**options, center=center).fit(x, y)
        assert (model.predict(q) == model.classes_[scores.argmax(axis=1)]).all()
        tau = METHODS[name].temperature
        assert np.abs(model.predict_proba(q) - softmax(tau * scores)).max() < 1e-6
        if name != "knn":
            assert np.abs(model.decision_function(q) - scores).max() < 1e-6
            warmer = kind(**options, center=center, temperature=2 * tau).fit(x, y)
            assert np.abs(warmer.predict_proba(q) - softmax(2 * tau * scores)).max() < 1e-6
        narrow = kind(**options, center=center).fit(x.astype(np.float32), y).predict_proba(q.astype(np.float32))
        assert np.abs(narrow - model.predict_proba(q)).max() < 1e-3


def test_ridge_and_logistic_agree_with_scikit_learns() -> None:
    x, y, q = data(4)
    z = CenterProject().fit(x)
    ours = LogisticProbe(C=3.0).fit(x, y)
    theirs = LogisticRegression(C=3.0, tol=1e-12, max_iter=10_000).fit(z.transform(x), y)
    assert np.abs(ours.predict_proba(q) - theirs.predict_proba(z.transform(q))).max() < 1e-6
    two = y != "emu"
    ours = LogisticProbe(C=3.0, center="none").fit(x[two], y[two])
    z = CenterProject("none").fit(x)
    theirs = LogisticRegression(C=6.0, tol=1e-12, max_iter=10_000).fit(z.transform(x[two]), y[two])
    assert np.abs(ours.predict_proba(q) - theirs.predict_proba(z.transform(q))).max() < 1e-6
    ridge = RidgeProbe(0.7).fit(x, y)
    z = CenterProject().fit(x)
    # Its targets are -1 and 1, so its scores are twice ours minus one.
    decision = RidgeClassifier(0.7).fit(z.transform(x), y).decision_function(z.transform(q))
    assert np.abs(2 * ridge.decision_function(q) - 1 - decision).max() < 1e-9


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_probabilities_sum_to_one_and_the_decision_has_its_shape(kind: type) -> None:
    x, y, q = data(5)
    for rows, columns in ((y != "", 3), (y != "emu", 2)):
        model = kind().fit(x[rows], y[rows])
        p = model.predict_proba(q)
        assert p.shape == (9, columns) and np.abs(p.sum(axis=1) - 1).max() < 1e-12 and (p >= 0).all()
        assert (model.predict(q) == model.classes_[p.argmax(axis=1)]).all()
        if hasattr(model, "decision_function"):
            decision = model.decision_function(q)
            assert decision.shape == ((9, 3) if columns == 3 else (9,))
            best = decision.argmax(axis=1) if columns == 3 else (decision > 0).astype(int)
            assert (model.classes_[best] == model.predict(q)).all()
    assert hasattr(kind(), "decision_function") == (kind is not WeightedKNN)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_behind_center_project_in_a_pipeline_is_the_same(kind: type) -> None:
    x, y, q = data(6)
    alone = kind(center="support").fit(x, y)
    piped = make_pipeline(CenterProject(), kind(center=None)).fit(x, y)
    assert np.abs(alone.predict_proba(q) - piped.predict_proba(q)).max() < 1e-9
    raw = kind(center=None).fit(x, y)
    assert np.abs(raw.predict_proba(q) - alone.predict_proba(q)).max() > 1e-6


def test_grid_search_finds_the_centring_that_matters() -> None:
    """Classes that differ in direction only after the common offset is gone."""
    rng = np.random.default_rng(7)
    y = np.repeat([0, 1, 2], 12)
    x = rng.normal(size=(3, 5))[y] * 0.2 + 0.05 * rng.normal(size=(36, 5)) + 50 * np.eye(5)[0]
    search = GridSearchCV(NearestClassMean(), {"center": ["none", "support"], "metric": ["euclidean", "cosine"]}, cv=3)
    search.fit(x, y)
    assert search.best_params_["center"] == "support" and search.best_score_ > 0.9
    steps = make_pipeline(CenterProject(), WeightedKNN(center=None))
    grid = GridSearchCV(steps, {"weightedknn__k": [1, 5], "centerproject__center": ["none", "support"]}, cv=3).fit(x, y)
    assert grid.best_params_["centerproject__center"] == "support"


def test_base_features_survive_cloning() -> None:
    x, y, q = data(8)
    base = np.random.default_rng(8).normal(size=(5, 7))
    model = NearestClassMean(center="base", base=base)
    assert (clone(model).fit(x, y).predict_proba(q) == model.fit(x, y).predict_proba(q)).all()


def test_ties_go_to_the_first_class_and_the_first_row() -> None:
    x = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]])
    q = np.array([[0.5, 0.5, 0.5, 0.5]])
    assert NearestClassMean(center="none").fit(x, ["b", "a", "a", "b"]).predict(q)[0] == "a"
    assert WeightedKNN(4, center="none").fit(x, ["b", "a", "a", "b"]).predict(q)[0] == "a"
    assert WeightedKNN(1, center="none").fit(x, ["b", "a", "a", "b"]).predict(q)[0] == "b"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NearestClassMean(center="separate"), "separate uses the queries as a set, which an estimator never sees"),
        (CenterProject("support+query"), r"support\+query uses the queries as a set"),
        (CenterProject("mean"), "no centring called mean"),
        (CenterProject("base"), "needs that set"),
        (CenterProject(base=np.ones((2, 7))), "with center base only"),
        (CenterProject("base", base=np.ones((2, 5))), "base features of 7 dimensions as the others, got 5"),
        (NearestClassMean("l1"), "no metric called l1"),
        (NearestClassMean(temperature=0.0), "expected temperature above 0, got 0.0"),
        (WeightedKNN(0), "expected k of 1 or more, got 0"),
        (WeightedKNN(temperature=-1.0), "expected temperature above 0"),
        (RidgeProbe(temperature=0.0), "expected temperature above 0"),
        (RidgeProbe(0.0), "penalty"),
        (LogisticProbe(-1.0), "C"),
        (LDAProbe(1.5), "shrinkage"),
        (RidgeProbe(center=None, prenormalize=True), "cannot be used with center None"),
    ],
)
def test_what_does_not_fit_is_named(model: Any, message: str) -> None:
    x, y, _ = data(9)
    with pytest.raises(InputError, match=message):
        model.fit(x, y)


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="at least two classes, got one class"):
        NearestClassMean().fit(np.eye(3), ["a", "a", "a"])


def test_scikit_learn_is_loaded_only_when_an_estimator_is() -> None:
    code = (
        "import sys, fewmatch.fewshot; fewmatch.CENTERS; assert 'sklearn' not in sys.modules; "
        "fewmatch.WeightedKNN; assert 'sklearn' in sys.modules"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
