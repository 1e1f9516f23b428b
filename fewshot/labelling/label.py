"""Labels for new images from a few labelled ones: any few-shot method, probabilities, and none of these."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.centering import TRANSDUCTIVE, center_episodes, check_base, mean_vector, shifted
from fewmatch.fewshot.labelling.classifiers import check_size, fit_classifier, is_nearest_mean, one_episode
from fewmatch.fewshot.labelling.fitted_labeller import (
    FittedLabeller,
    choose_temperature,
    choose_threshold,
    given_threshold,
    is_auto,
)
from fewmatch.fewshot.labelling.projection import fit_projection, prepared
from fewmatch.fewshot.labelling.rejection import ACCEPT, known_classes
from fewmatch.fewshot.methods import METHODS, find_method
from fewmatch.names import distinct_names

#: Factor on the squared distance in the softmax of nearest class mean, where none is fitted.
TEMPERATURE = METHODS["ncm"].temperature


class Labeller:
    """A few-shot method over a support set of any make-up: two classes or more, one image or more each.

    The support set is taken in once; queries may then come in any number of portions, and unless the method or the centring is
    transductive each query's result depends on itself alone.

    Attributes:
        class_names: the classes, sorted; the columns of every result.
        transductive: whether all queries must come at once.
        temperature: τ of the probabilities, softmax of τ·scores over the classes (for nearest class mean the scores are −distance²).
        reject: similarity below which a query is none of these; None where nothing is rejected.
        notes: what the user should know about the method's options under the centring, one sentence each.
        fitted: all that was found, as `fewmatch.fewshot.labelling.model_file` keeps it.
    """

    def __init__(
        self,
        support: Float[np.ndarray | Tensor, "n d"],
        labels: Sequence[str],
        *,
        method: str = "ncm",
        options: Mapping[str, Any] | None = None,
        center: str | None = None,
        base: Float[np.ndarray | Tensor, "b d"] | None = None,
        metric: str = "euclidean",
        prenormalize: bool = False,
        temperature: float | str | None = None,
        reject: float | str | None = None,
        accept: float = ACCEPT,
        device: str | torch.device = "cpu",
    ) -> None:
        """Take in the support set.

        Args:
            support: (n, d) raw features.
            labels: their classes by name; names that differ only in their Unicode normal form are one class.
            method, options, center, base, metric, prenormalize: as in `fewmatch.evaluate`.
            temperature: above 0; None for the method's own, `auto` for the one that makes supports likeliest that are held out one by one
                (`fewmatch.fewshot.labelling.held_out`), where some class has two.
            reject: the similarity (`fewmatch.fewshot.labelling.rejection`, from -1 to 1) below which a query is none of these; `auto` for the
                one that accepts the share `accept` of the supports when they are held out; None to reject nothing.

        Raises:
            InputError: fewer than two classes, shapes that do not fit, an unknown name, a vector that is zero after centring, more
                supports than the method can take, or nothing to hold out where that is asked for.
        """
        how = find_method(method)
        chosen, mode = how.chosen_with(options or {}, metric), how.centring(center)
        check_base(mode, base is not None)
        self.notes = how.notes(options or {}, mode)
        if not (temperature is None or is_auto(temperature, "temperature") or float(temperature) > 0):
            raise InputError(f"expected a temperature above 0, got {float(temperature):g}")
        x = prepared(support, prenormalize, device, "supports")
        if len(labels) != len(x):
            raise InputError(f"expected {len(x)} labels for {len(x)} support vectors, got {len(labels)}")
        names, places = distinct_names(labels)
        if len(names) < 2:
            raise InputError(
                f"expected at least two classes in the support set, got {len(names)}"
                + (f" ({names[0]})" if len(names) else "")
            )
        index = torch.from_numpy(places).to(x.device)
        projection, classifier = None, None
        if mode not in TRANSDUCTIVE:
            projection = fit_projection(x, mode, base, prenormalize=prenormalize, project=how.project)
        if how.uses_queries(mode) or projection is None:
            if not is_nearest_mean(how):
                check_size(how, len(x), len(names))
            self._whole = (x, index)
        else:
            classifier = fit_classifier(how, chosen, projection(x, "support"), index, len(names))
        self._device, self._prenormalize = device, prenormalize
        self._take(
            FittedLabeller(
                tuple(names),
                how,
                chosen,
                mode,
                known_classes(x, index),
                choose_temperature(temperature, how, chosen, mode, x, index, projection),
                choose_threshold(reject, accept, x, index),
                projection,
                classifier,
            )
        )

    @classmethod
    def from_fitted(cls, fitted: FittedLabeller, device: str | torch.device = "cpu") -> Labeller:
        """A labeller without its support set, from what was kept of it."""
        if fitted.projection is None or fitted.classifier is None:
            raise InputError("a labeller that uses queries as a set needs its supports")
        new = cls.__new__(cls)
        new._device, new._prenormalize = device, fitted.projection.prenormalize
        new._take(fitted)
        return new

    notes: tuple[str, ...] = ()
    #: Raw supports and their classes, where they are asked together with the queries.
    _whole: tuple[Tensor, Tensor] | None = None

    def _take(self, fitted: FittedLabeller) -> None:
        self.fitted = fitted
        self.class_names = list(fitted.class_names)
        self.transductive = fitted.classifier is None

    @property
    def temperature(self) -> float:
        return self.fitted.temperature.value

    @property
    def reject(self) -> float | None:
        return None if self.fitted.reject is None else self.fitted.reject.value

    @property
    def prenormalize(self) -> bool:
        return self._prenormalize

    def rejecting(self, threshold: float) -> Labeller:
        """The same labeller with another threshold for rejection.

        Raises:
            InputError: it is no cosine.
        """
        new = copy.copy(self)
        new._take(replace(self.fitted, reject=given_threshold(threshold)))
        return new

    @property
    def dimensions(self) -> int:
        """Of the features it takes."""
        return int(self.fitted.known.directions.shape[1])

    def scores(self, query: Float[np.ndarray | Tensor, "q d"]) -> Float[np.ndarray, "q w"]:
        """What the method gives each query for each class, columns in the order of `class_names`; see `probabilities`."""
        return self._scores(self._prepared(query)).double().cpu().numpy()

    def probabilities(self, query: Float[np.ndarray | Tensor, "q d"]) -> Float[np.ndarray, "q w"]:
        """Class probabilities of each query, columns in the order of `class_names`; every row sums to one.

        Where the labeller is transductive these queries are the whole set.

        Raises:
            InputError: another number of dimensions, or a query that is zero after centring.
        """
        return self._probabilities(self._prepared(query))

    def similarity(self, query: Float[np.ndarray | Tensor, "q d"]) -> Float[np.ndarray, "q"]:
        """How like the known classes each query is, from -1 to 1: the largest cosine with a class's mean (see `rejection.py`)."""
        return self.fitted.known.similarity(self._prepared(query))

    def answer(
        self, query: Float[np.ndarray | Tensor, "q d"]
    ) -> tuple[Float[np.ndarray, "q w"], Float[np.ndarray, "q"] | None, Bool[np.ndarray, "q"]]:
        """Probabilities, similarities (None where nothing is rejected), and which queries are none of these."""
        x = self._prepared(query)
        probabilities = self._probabilities(x)
        if self.reject is None:
            return probabilities, None, np.zeros(len(x), np.bool_)
        similarity = self.fitted.known.similarity(x)
        return probabilities, similarity, similarity < self.reject

    def labels(self, query: Float[np.ndarray | Tensor, "q d"]) -> list[str | None]:
        """The likeliest class of each query, the first of equals; None for none of these."""
        probabilities, _, rejected = self.answer(query)
        best = probabilities.argmax(axis=1)
        return [None if no else self.class_names[i] for i, no in zip(best, rejected, strict=True)]

    def _prepared(self, query: Float[np.ndarray | Tensor, "q d"]) -> Float[Tensor, "q d"]:
        return prepared(query, self._prenormalize, self._device, "queries", self.dimensions)

    def _probabilities(self, x: Float[Tensor, "q d"]) -> Float[np.ndarray, "q w"]:
        return torch.softmax(self.temperature * self._scores(x).double(), dim=-1).cpu().numpy()

    def _scores(self, x: Float[Tensor, "q d"]) -> Float[Tensor, "q w"]:
        fitted = self.fitted
        if len(x) == 0:
            return x.new_zeros(0, len(self.class_names))
        if fitted.classifier is not None and fitted.projection is not None:
            return fitted.classifier.scores(fitted.projection(x, "query"))
        if self._whole is None:
            raise ValueError("expected the supports")
        s, index = self._whole
        if fitted.projection is not None:
            z, q = fitted.projection(s, "support"), fitted.projection(x, "query")
        else:
            # Moved to the supports' mean first, where float32 loses no digits to a common offset; the result does not change.
            mean = mean_vector(s)
            z, q = (part[0] for part in center_episodes(shifted(s, mean)[None], shifted(x, mean)[None], fitted.center))
        return fitted.method.scores(one_episode(z, index, q, len(self.class_names)), **fitted.options)[0]
