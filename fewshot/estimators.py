"""Few-shot classifiers and the centring before them as scikit-learn estimators, for pipelines and grid searches."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClassifierMixin, OneToOneFeatureMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.centering import TRANSDUCTIVE, check_base, check_center, mean_vector, shifted
from fewmatch.fewshot.methods import find_method
from fewmatch.fewshot.methods.ncm import check_metric, scores
from fewmatch.fewshot.probes.neighbours import nearest, votes
from fewmatch.fewshot.probes.probes import fit_logistic, logistic_model
from fewmatch.fewshot.table import as_table

#: A centred vector this many rounding errors long, measured against what it was centred from, has no direction.
_ROUNDING_ERRORS = 16

# scikit-learn asks that __init__ takes any value and that fit finds what is wrong with it: so its parameters are Any.


class CenterProject(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Subtract a mean of raw vectors, then bring each to length one.

    Unlike in the evaluation of episodes, a vector that is zero after centring is no error but stays zero: a grid search over data that
    happen to hold one must not stop, and a zero vector is as far from one class as from another.

    Parameters:
        center: `support` (the mean of the rows that it is fitted to), `base`, `none`, or `feature` (each row's own mean over its
            coordinates). `support+query` and `separate` use the queries as a set, which an estimator never sees: they are refused.
        base: (b, d) raw vectors whose mean is subtracted, for `base`.
        prenormalize: bring vectors to length one before the mean is taken (EASY's E-M-E).

    Attributes:
        mean_: (d,) what is subtracted, float64; None for `none` and `feature`.
        n_features_in_: d. feature_names_in_: where columns have names.
    """

    def __init__(self, center: Any = "support", *, base: Any = None, prenormalize: Any = False) -> None:
        self.center = center
        self.base = base
        self.prenormalize = prenormalize

    def fit(self, X: Any, y: Any = None) -> CenterProject:  # noqa: ARG002 (part of the protocol)
        """Take the mean of X (n, d), or of the base set.

        Raises:
            InputError: an unknown or transductive centring, or a base set too many, missing, or of other dimensions.
        """
        X = validate_data(self, X, dtype=(np.float64, np.float32))
        center = check_center(self.center)
        if center in TRANSDUCTIVE:
            raise InputError(
                f"center {center} uses the queries as a set, which an estimator never sees: "
                "use fewmatch.Labeller or fewmatch.evaluate, or center support"
            )
        check_base(center, self.base is not None)
        self.mean_ = None
        if center in ("support", "base"):
            x = _table(X if center == "support" else self.base)
            if x.shape[1] != X.shape[1]:
                raise InputError(f"expected base features of {X.shape[1]} dimensions as the others, got {x.shape[1]}")
            self.mean_ = mean_vector(_unit(x, 0.0) if self.prenormalize else x).numpy()
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n d"]:
        """(n, d) centred rows of length one (or zero), float32 where X is."""
        check_is_fitted(self)
        return self._projected(validate_data(self, X, dtype=(np.float64, np.float32), reset=False)).numpy()

    def _projected(self, X: Float[np.ndarray, "n d"]) -> Float[Tensor, "n d"]:
        x = _table(X)
        if self.prenormalize:
            x = _unit(x, 0.0)
        if self.center == "none":
            return _unit(x, 0.0)
        own = x.mean(dim=1, keepdim=True, dtype=torch.float64)
        mean = own if self.mean_ is None else torch.from_numpy(self.mean_)
        return _unit(shifted(x, mean), torch.linalg.vector_norm(x, dim=1, keepdim=True))


class _FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What the classifiers share: labels, centring, and probabilities from scores.

    `center=None` takes rows as they come, as behind a `CenterProject` or another transformer in a pipeline.
    """

    center: str | None
    base: Any
    prenormalize: bool
    classes_: np.ndarray

    def fit(self, X: Any, y: Any) -> Any:
        """Take in X (n, d) raw vectors with their labels y (n,), two classes or more.

        Raises:
            InputError: one class only, or a parameter with a value that it cannot have.
        """
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError("expected at least two classes, got one class")
        self.projection_ = None
        if self.center is not None:
            self.projection_ = CenterProject(self.center, base=self.base, prenormalize=self.prenormalize).fit(X)
        elif self.base is not None or self.prenormalize:
            raise InputError("base and prenormalize are part of centring: they cannot be used with center None")
        self._learn(self._vectors(X), torch.from_numpy(index.astype(np.int64)))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(n,) the class of each row; of equals the first in `classes_`."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self._scores(self._checked(X)).argmax(dim=1).numpy()])

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n w"]:
        """(n, w) class probabilities, float64; rows sum to one, columns are in the order of `classes_`."""
        check_is_fitted(self)
        return torch.softmax(self._temperature() * self._scores(self._checked(X)), dim=1).numpy()

    def _checked(self, X: Any) -> Float[Tensor, "n d"]:
        return self._vectors(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def _vectors(self, X: Float[np.ndarray, "n d"]) -> Float[Tensor, "n d"]:
        return _table(X) if self.projection_ is None else self.projection_._projected(X)

    def _learn(self, z: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> None:
        raise NotImplementedError

    def _scores(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        raise NotImplementedError

    def _temperature(self) -> float:
        return 1.0


class _WithDecision(_FewShotClassifier):
    """A classifier whose scores are finite."""

    def decision_function(self, X: Any) -> Float[np.ndarray, "..."]:
        """(n, w) scores, the highest wins; for two classes (n,), that of the second minus that of the first."""
        check_is_fitted(self)
        score = self._scores(self._checked(X)).numpy()
        return np.asarray(score[:, 1] - score[:, 0] if score.shape[1] == 2 else score)


class NearestClassMean(_WithDecision):
    """The class whose mean of centred, projected vectors is nearest (Mensink et al. 2013; SimpleShot, Wang et al. 2019).

    Gives what `fewmatch.Labeller` gives.

    Parameters:
        metric: `euclidean` or `cosine`.
        temperature: τ above 0; probabilities are the softmax of −τ·distance².
        center, base, prenormalize: see `CenterProject`; `center=None` takes rows as they come.

    Attributes:
        classes_: (w,). means_: (w, d) the class means. projection_: the fitted `CenterProject`, or None.
    """

    def __init__(
        self,
        metric: Any = "euclidean",
        *,
        temperature: Any = 10.0,
        center: Any = "support",
        base: Any = None,
        prenormalize: Any = False,
    ) -> None:
        self.metric = metric
        self.temperature = temperature
        self.center = center
        self.base = base
        self.prenormalize = prenormalize

    def _learn(self, z: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> None:
        check_metric(self.metric)
        _check_above_zero("temperature", self.temperature)
        total = z.new_zeros(len(self.classes_), z.shape[1]).index_add_(0, index, z)
        self.means_ = (total / torch.bincount(index)[:, None]).numpy()

    def _scores(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        # `scores` takes 1 for the squared length of a query, which says nothing about classes.
        means = torch.from_numpy(self.means_).to(z.dtype)
        return scores(z[None], means[None], self.metric)[0].double()

    def _temperature(self) -> float:
        return float(self.temperature)


class WeightedKNN(_FewShotClassifier):
    """Weighted k nearest neighbours by cosine as in the evaluation of DINO: weights exp(cosine/temperature).

    Of rows that are equally near the first is a neighbour first.

    Parameters:
        k: how many neighbours, 1 or more; of fewer rows all are taken.
        temperature: above 0.
        center, base, prenormalize: see `CenterProject`; the DINO papers do not centre, so `none` is the default.

    Attributes:
        classes_: (w,). vectors_: (n, d) the rows that it was fitted to, of length one.
    """

    def __init__(
        self,
        k: Any = 20,
        *,
        temperature: Any = 0.07,
        center: Any = "none",
        base: Any = None,
        prenormalize: Any = False,
    ) -> None:
        self.k = k
        self.temperature = temperature
        self.center = center
        self.base = base
        self.prenormalize = prenormalize

    def _learn(self, z: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> None:
        if self.k < 1:
            raise InputError(f"expected k of 1 or more, got {self.k}")
        _check_above_zero("temperature", self.temperature)
        self.vectors_, self._index = _unit(z, 0.0).numpy(), index.numpy()

    def _scores(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        vectors = torch.from_numpy(self.vectors_)
        dtype = torch.promote_types(z.dtype, vectors.dtype)
        k = min(self.k, len(vectors))
        cosines, neighbours = nearest(vectors.to(dtype), _unit(z, 0.0).to(dtype), k)
        labels = torch.from_numpy(self._index)[neighbours]
        return torch.log(next(votes(cosines, labels, [k], self.temperature, len(self.classes_)))[1])


class _LinearProbe(_WithDecision):
    """A method whose scores are linear in the centred, projected vector; see `fewmatch.METHODS`."""

    _method = ""
    temperature: float | None

    def _options(self) -> dict[str, Any]:
        return {}

    def _learn(self, z: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> None:
        if self.temperature is not None:
            _check_above_zero("temperature", self.temperature)
        self.coef_, self.intercept_ = self._fitted(z.double(), index)

    def _fitted(self, z: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> tuple[np.ndarray, np.ndarray]:
        """(w, d) weights and (w,) biases."""
        method = find_method(self._method)
        if method.fit is None:
            raise ValueError(f"{self._method}: expected a method with linear scores")
        batch = EpisodeBatch(
            onehot=torch.nn.functional.one_hot(index, len(self.classes_)).double()[None],
            asked=torch.ones(1, 0, dtype=torch.bool),
            classes=torch.ones(1, len(self.classes_), dtype=torch.bool),
            support=z[None],
            query=z[None, :0],
            dimensions=z.shape[1],
        )
        linear = method.fit(batch, **method.chosen(self._options()))
        return linear.in_space(batch)[0].T.contiguous().numpy(), linear.bias[0].numpy()

    def _scores(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        return z.double() @ torch.from_numpy(self.coef_).T + torch.from_numpy(self.intercept_)

    def _temperature(self) -> float:
        return find_method(self._method).temperature if self.temperature is None else self.temperature


class RidgeProbe(_LinearProbe):
    """Ridge regression onto the classes. It solves one n×n system, so it is for hundreds or a few thousand rows.

    Parameters:
        penalty: above 0, beside the sum of squared errors as `alpha` of scikit-learn's `Ridge`.
        temperature: τ of the probabilities softmax(τ·score); None is that of the method `ridge`.
        center, base, prenormalize: see `CenterProject`; `center=None` takes rows as they come.

    Attributes:
        classes_: (w,). coef_: (w, d) and intercept_: (w,), for centred and projected rows.
    """

    _method = "ridge"

    def __init__(
        self,
        penalty: Any = 1.0,
        *,
        temperature: Any = None,
        center: Any = "support",
        base: Any = None,
        prenormalize: Any = False,
    ) -> None:
        self.penalty = penalty
        self.temperature = temperature
        self.center = center
        self.base = base
        self.prenormalize = prenormalize

    def _options(self) -> dict[str, Any]:
        return {"penalty": self.penalty}


class LogisticProbe(_LinearProbe):
    """Multinomial logistic regression with an L2 penalty: one weight vector a class, for two classes as well.

    Parameters:
        C: above 0, the weight of the summed loss beside half the squared weights.
        temperature: τ of the probabilities softmax(τ·score); None is that of the method `logistic`.
        center, base, prenormalize: see `CenterProject`; `center=None` takes rows as they come.

    Attributes:
        classes_: (w,). coef_: (w, d) and intercept_: (w,), for centred and projected rows.
    """

    _method = "logistic"

    def __init__(
        self,
        C: Any = 1.0,
        *,
        temperature: Any = None,
        center: Any = "support",
        base: Any = None,
        prenormalize: Any = False,
    ) -> None:
        self.C = C
        self.temperature = temperature
        self.center = center
        self.base = base
        self.prenormalize = prenormalize

    def _fitted(self, z: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> tuple[np.ndarray, np.ndarray]:
        """The optimum of the method `logistic`, found in the space of the vectors: so its time grows with the rows, not their square."""
        _check_above_zero("C", self.C)
        # For two classes scikit-learn has one vector w where we have −w/2 and w/2, whose penalty is half as large.
        two = len(self.classes_) == 2
        model = logistic_model(2 * self.C if two else self.C)
        if not fit_logistic(model, z.numpy(), index.numpy()):
            warnings.warn(f"logistic regression with C {self.C:g} did not converge", ConvergenceWarning, stacklevel=2)
        if two:
            return np.concatenate([-model.coef_, model.coef_]) / 2, np.concatenate(
                [-model.intercept_, model.intercept_]
            ) / 2
        return model.coef_, model.intercept_


class LDAProbe(_LinearProbe):
    """Linear discriminant analysis with a shrunken covariance and equal priors, for hundreds or a few thousand rows.

    Parameters:
        shrinkage: above 0 and at most 1 (class means alone), or `auto` (Ledoit and Wolf).
        temperature: τ of the probabilities softmax(τ·score); None is that of the method `lda`.
        center, base, prenormalize: see `CenterProject`; `center=None` takes rows as they come.

    Attributes:
        classes_: (w,). coef_: (w, d) and intercept_: (w,), for centred and projected rows.
    """

    _method = "lda"

    def __init__(
        self,
        shrinkage: Any = 0.5,
        *,
        temperature: Any = None,
        center: Any = "support",
        base: Any = None,
        prenormalize: Any = False,
    ) -> None:
        self.shrinkage = shrinkage
        self.temperature = temperature
        self.center = center
        self.base = base
        self.prenormalize = prenormalize

    def _options(self) -> dict[str, Any]:
        return {"shrinkage": self.shrinkage}


def _table(X: Any) -> Float[Tensor, "n d"]:
    """Rows as a tensor; those that lie in a file, as they do in the workers of a parallel search, are copied, for torch takes none."""
    x = np.asarray(X)
    return as_table(x if x.flags.writeable else x.copy())


def _unit(x: Float[Tensor, "n d"], scale: Float[Tensor, "n 1"] | float) -> Float[Tensor, "n d"]:
    """Vectors of length one; one whose length is within rounding of zero at the size `scale` becomes zero."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    zero = norm <= _ROUNDING_ERRORS * torch.finfo(x.dtype).eps * scale
    return (x / torch.where(zero, 1.0, norm)).masked_fill_(zero, 0.0)


def _check_above_zero(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"expected {name} above 0, got {value}")
