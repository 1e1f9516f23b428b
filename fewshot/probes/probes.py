"""Probes of frozen features as in the DINO papers: weighted k-NN and logistic regression, on all of a training set or n images a class."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.centering import unit
from fewmatch.fewshot.probes.neighbours import nearest, votes
from fewmatch.fewshot.table import as_table

KS = (10, 20, 100, 200)
TEMPERATURE = 0.07
#: The inverse penalties that are tried: 45 from 1e-6 to 1e5.
C_GRID: tuple[float, ...] = tuple(float(c) for c in 10 ** np.linspace(-6, 5, 45))
#: C where no image can be held out to choose it.
C_UNCHOSEN = 1.0
#: Share of each class that is held out to choose C: of a whole training set, and where n images a class are drawn.
VAL_SHARE, FEW_SHOT_VAL_SHARE = 0.1, 0.01
_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-12
#: A fit counts as converged where its largest partial derivative is at most this share of the largest at zero weights.
_CONVERGED = 1e-6
#: Below so many products per pass, threads cost more than they bring.
_SMALL_FIT = 10_000_000


class ProbeSet(NamedTuple):
    """Features (N, D) with labels (N,), numbers from 0 that mean the same classes in every split."""

    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class ProbeResult:
    """What one classifier got right on the test set.

    method: `knn` or `logistic`. settings: all that it was run with, as JSON has it.
    rank: (Q,) the place of each test image's own class, 0 where it comes first; classes of equal score are in the order of their numbers,
    and a class without any vote comes last. labels: (Q,) the classes. classes: how many there are. train: images it was fitted to.
    """

    method: str
    settings: dict[str, Any]
    rank: Int[np.ndarray, "Q"]
    labels: Integer[np.ndarray, "Q"]
    classes: int
    train: int

    @property
    def accuracy(self) -> float:
        """Share of the test images whose class comes first."""
        return float((self.rank == 0).mean())

    @property
    def top5(self) -> float | None:
        """Share of the test images whose class is among the first five; None for fewer than five classes."""
        return float((self.rank < 5).mean()) if self.classes >= 5 else None

    def per_class(self) -> dict[int, tuple[int, int]]:
        """(right, images) of each class of the test set."""
        return {
            int(c): (int((self.rank[self.labels == c] == 0).sum()), int((self.labels == c).sum()))
            for c in np.unique(self.labels)
        }

    @property
    def mean_class_accuracy(self) -> float:
        """The mean over the test set's classes of their accuracies."""
        return float(np.mean([right / count for right, count in self.per_class().values()]))

    def to_json(self) -> dict[str, Any]:
        """One entry of `results` in the command's JSON."""
        return {
            "method": self.method,
            **self.settings,
            "train_images": self.train,
            "accuracy": self.accuracy,
            "top5": self.top5,
            "mean_class_accuracy": self.mean_class_accuracy,
        }


@dataclass(frozen=True)
class FewShotResult:
    """One classifier at n images a class, over several draws.

    std: with ddof 1. ci95_t: half-width t·s/√n of the 95 % interval of the mean, by Student's t with n − 1 degrees of freedom over the
    n tries. Both None for one try.
    """

    per_class: int
    tries: list[ProbeResult] = field(default_factory=list)

    @property
    def accuracies(self) -> Float[np.ndarray, "T"]:
        """The accuracy of each try."""
        return np.array([result.accuracy for result in self.tries])

    @property
    def mean(self) -> float:
        """The mean accuracy."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float | None:
        """Standard deviation over tries, ddof 1."""
        return float(self.accuracies.std(ddof=1)) if len(self.tries) > 1 else None

    @property
    def ci95_t(self) -> float | None:
        """Half-width of the interval of the mean."""
        from scipy.stats import t

        n = len(self.tries)
        return None if self.std is None else float(t.ppf(0.975, n - 1)) * self.std / n**0.5

    def to_json(self) -> dict[str, Any]:
        """One entry of `results` in the command's JSON."""
        first = self.tries[0]
        top5 = [result.top5 for result in self.tries if result.top5 is not None]
        shared = {name: value for name, value in first.settings.items() if name not in _OF_ONE_FIT}
        return {
            "method": first.method,
            "per_class": self.per_class,
            **shared,
            "train_images": first.train,
            "accuracy": self.mean,
            "std": self.std,
            "ci95_t": self.ci95_t,
            "top5": float(np.mean(top5)) if top5 else None,
            "mean_class_accuracy": float(np.mean([result.mean_class_accuracy for result in self.tries])),
            "tries": [
                {"accuracy": result.accuracy, "top5": result.top5}
                | {name: result.settings[name] for name in _OF_ONE_FIT if name in result.settings}
                for result in self.tries
            ],
        }


#: Settings of a logistic regression that come out different at every try.
_OF_ONE_FIT = ("c", "val_accuracy", "unconverged")


def knn_probe(
    train: ProbeSet,
    test: ProbeSet,
    *,
    classes: int,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[ProbeResult]:
    """Classify the test set by weighted nearest neighbours, for several numbers of neighbours.

    Vectors are brought to length one; a neighbour with cosine s weighs exp(s/temperature). A k above the training set's size is clipped
    to it, as in DINOv3; each k that is left is there once.

    Args:
        classes: how many there are. ks: any order. temperature: above 0. progress: called with (test images done, all).

    Raises:
        InputError: nothing to learn from or to test on, a k below 1, a vector that is zero, or shapes that do not fit.
    """
    _check(train, test, classes)
    if not ks or min(ks) < 1:
        raise InputError(f"expected numbers of neighbours of 1 or more, got {', '.join(map(str, ks)) or 'none'}")
    if torch.device(device).type == "mps":
        device = "cpu"  # its sorts are not stable in every version
    x = unit(as_table(train.features, device), what="training vector")
    q = unit(as_table(test.features, device), what="test vector")
    x, q = x.to(torch.promote_types(x.dtype, q.dtype)), q.to(torch.promote_types(x.dtype, q.dtype))
    asked: dict[int, list[int]] = {}
    for k in sorted(set(ks)):
        asked.setdefault(min(k, len(x)), []).append(k)
    cosines, index = nearest(x, q, max(asked), progress)
    labels = torch.from_numpy(train.labels.astype(np.int64))[index]
    return [
        ProbeResult(
            "knn",
            {"k": k, "k_asked": asked[k], "temperature": temperature},
            _rank(share, test.labels, share > 0),
            test.labels,
            classes,
            len(x),
        )
        for k, share in votes(cosines, labels, list(asked), temperature, classes)
    ]


def logistic_probe(
    train: ProbeSet,
    test: ProbeSet,
    *,
    classes: int,
    val: ProbeSet | None = None,
    refit: bool = True,
    normalize: bool = False,
    grid: Sequence[float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ProbeResult:
    """Classify the test set by multinomial logistic regression with an L2 penalty, in float64.

    C, the weight of the summed loss beside half the squared weights as in scikit-learn, is the smallest of those in `grid` with the best
    accuracy on `val`; the classifier is then fitted to both sets. Fits go from small to large C, each from where the last one ended, by
    Newton's method with conjugate gradients: the same minimum as any other solver's, sooner.

    Args:
        grid: values of C, by default the 45 of `C_GRID`.
        val: what C is chosen on, and no test image; without it, or where it is empty, C is 1. See `hold_out`.
        refit: whether to fit to train and val in the end, or to train alone.
        normalize: bring vectors to length one first; the DINO papers do not.
        progress: called with (fits done, fits in all).

    Raises:
        InputError: fewer than two classes in train, nothing to test on, shapes that do not fit, or a C that is not above 0.
    """
    _check(train, test, classes)
    grid = sorted(map(float, C_GRID if grid is None else grid))
    if not grid or not grid[0] > 0:
        raise InputError("expected values of C above 0")
    fit = _LogisticFits(classes)
    x, q = _float64(train.features, normalize), _float64(test.features, normalize)
    y = train.labels
    unconverged: list[float] = []
    chosen, accuracy, count = C_UNCHOSEN, None, 0 if val is None else len(val.labels)
    total = 1 + (len(grid) if count else 0)
    with _threads(x.size * classes):
        if val is not None and count:
            v = _float64(val.features, normalize)
            accuracy = -1.0
            for done, c in enumerate(grid):
                if not fit.fit(x, y, c):
                    unconverged.append(c)
                right = float((fit.predict_rank(v, val.labels) == 0).mean())
                if right > accuracy:
                    chosen, accuracy = c, right
                if progress is not None:
                    progress(done + 1, total)
            if refit:
                x, y = np.concatenate([x, v]), np.concatenate([y, val.labels])
        fit = _LogisticFits(classes)  # what the last fit of the search left behind would be a bad place to start from
        converged = fit.fit(x, y, chosen)
    if progress is not None:
        progress(total, total)
    settings = {
        "c": chosen,
        "c_grid": grid if count else None,
        "val_images": count,
        "val_accuracy": accuracy,
        "refit": "train+val" if refit and count else "train",
        "normalize": normalize,
        "max_iterations": _MAX_ITERATIONS,
        "unconverged": sorted({*unconverged, *([] if converged else [chosen])}),
    }
    return ProbeResult("logistic", settings, fit.predict_rank(q, test.labels), test.labels, classes, len(x))


def hold_out(labels: Integer[np.ndarray, "N"], share: float, seed: int) -> Bool[np.ndarray, "N"]:
    """Which images are held out to choose C: of each class with two or more that share, rounded down, but one at least.

    Raises:
        InputError: a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"expected a share between 0 and 1, got {share:g}")
    rng = np.random.Generator(np.random.PCG64([seed, 0]))
    held = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == c))
        if len(rows) > 1:
            held[rows[: max(1, int(share * len(rows)))]] = True
    return held


def draw_per_class(
    labels: Integer[np.ndarray, "N"], n: int, attempt: int, seed: int, names: Sequence[str] | None = None
) -> Int[np.ndarray, "M"]:
    """n rows of each class, drawn at random; the draws of one try are nested, those of a smaller n being part of those of a larger.

    Raises:
        InputError: n below 1, or a class that has fewer; it is named.
    """
    if n < 1:
        raise InputError(f"expected 1 image a class or more, got {n}")
    rng = np.random.Generator(np.random.PCG64([seed, 1, attempt]))
    drawn = []
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        if len(rows) < n:
            name = names[c] if names is not None else c
            raise InputError(f"class {name} has {len(rows)} images to draw from, expected {n}: ask for fewer a class")
        drawn.append(rng.permutation(rows)[:n])
    return np.sort(np.concatenate(drawn))


def few_shot_probe(
    train: ProbeSet,
    per_class: Sequence[int],
    tries: int,
    seed: int,
    run: Callable[[ProbeSet], list[ProbeResult]],
    names: Sequence[str] | None = None,
) -> list[FewShotResult]:
    """Run probes on n images a class, `tries` times for each n: every probe of a try sees the same images.

    Args:
        run: from a training set to results, the same classifiers in the same order for equal sizes.

    Raises:
        InputError: no tries, or a class with too few images.
    """
    if tries < 1:
        raise InputError(f"expected 1 try or more, got {tries}")
    results = []
    for n in per_class:
        runs = []
        for attempt in range(tries):
            rows = draw_per_class(train.labels, n, attempt, seed, names)
            runs.append(run(ProbeSet(train.features[rows], train.labels[rows])))
        results += [FewShotResult(n, list(of_one)) for of_one in zip(*runs, strict=True)]
    return results


def logistic_model(c: float = 1.0) -> Any:
    """scikit-learn's logistic regression, set up so that it starts where its last fit ended and goes on to the minimum."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, solver="newton-cg", max_iter=_MAX_ITERATIONS, tol=_TOLERANCE, warm_start=True)


def fit_logistic(model: Any, x: Float[np.ndarray, "n d"], y: Integer[np.ndarray, "n"]) -> bool:
    """Fit a `logistic_model`; whether it converged.

    Near the minimum rounding stops a line search, which scikit-learn would warn of: here the gradient says whether it matters.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y)
    return _is_converged(model, x, y)


class _LogisticFits:
    """Logistic regressions on one training set for one C after the other."""

    def __init__(self, classes: int) -> None:
        self._model = logistic_model()
        self._classes = classes

    def fit(self, x: Float[np.ndarray, "n d"], y: Integer[np.ndarray, "n"], c: float) -> bool:
        """Fit; whether it converged."""
        if len(np.unique(y)) < 2:
            raise InputError("expected at least two classes in the training set, got one")
        self._model.C = c
        return fit_logistic(self._model, x, y)

    def predict_rank(self, x: Float[np.ndarray, "n d"], labels: Integer[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The place of each vector's own class; those that the training set does not have come last."""
        scores = np.full((len(x), self._classes), -np.inf)
        decision = self._model.decision_function(x)
        scores[:, self._model.classes_] = np.stack([-decision, decision], 1) if decision.ndim == 1 else decision
        tensor = torch.from_numpy(scores)
        return _rank(tensor, labels, torch.isfinite(tensor))


def _is_converged(model: Any, x: Float[np.ndarray, "n d"], y: Integer[np.ndarray, "n"]) -> bool:
    """Whether the gradient of Σ loss + ‖w‖²/2C is small beside the one at zero weights."""
    target = (y[:, None] == model.classes_).astype(float)
    if len(model.classes_) == 2:
        target = target[:, 1:]
    start = np.full_like(target, 0.5 if target.shape[1] == 1 else 1 / target.shape[1])
    p = model.predict_proba(x)[:, -target.shape[1] :]
    gradient = (p - target).T @ x + model.coef_ / model.C
    bias = (p - target).sum(axis=0)
    first = np.abs((start - target).T @ x).max()
    return bool(max(np.abs(gradient).max(), np.abs(bias).max()) <= _CONVERGED * max(first, 1.0))


@contextlib.contextmanager
def _threads(products: int) -> Iterator[None]:
    """One thread for small matrices."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1 if products < _SMALL_FIT else None):
        yield


def _rank(
    scores: Float[Tensor, "q w"], labels: Integer[np.ndarray, "q"], known: Bool[Tensor, "q w"]
) -> Int[np.ndarray, "q"]:
    """The place of each row's own class when classes are sorted by score, equals by number; last where it is not known."""
    own = torch.from_numpy(labels.astype(np.int64))[:, None]
    score = scores.gather(1, own)
    ahead = (scores > score) | ((scores == score) & (torch.arange(scores.shape[1]) < own))
    rank: Tensor = ahead.sum(dim=1)
    return rank.masked_fill_(~known.gather(1, own)[:, 0], scores.shape[1]).numpy()


def _float64(features: np.ndarray, normalize: bool) -> Float[np.ndarray, "n d"]:
    x = as_table(features).double()
    return (unit(x, what="feature vector") if normalize else x).numpy()


def _check(train: ProbeSet, test: ProbeSet, classes: int) -> None:
    for name, split in (("training", train), ("test", test)):
        if not len(split.labels):
            raise InputError(f"the {name} set is empty")
        if len(split.features) != len(split.labels):
            raise InputError(f"expected {len(split.features)} labels in the {name} set, got {len(split.labels)}")
        if split.labels.min() < 0 or split.labels.max() >= classes:
            raise InputError(f"expected labels from 0 to {classes - 1} in the {name} set")
    if train.features.shape[1] != test.features.shape[1]:
        raise InputError(
            f"expected test features of {train.features.shape[1]} dimensions as the training features, got {test.features.shape[1]}"
        )
