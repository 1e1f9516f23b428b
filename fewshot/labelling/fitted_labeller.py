"""What is kept of a support set once it is taken in, and how its temperature and its threshold for rejection are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.centering import Center
from fewmatch.fewshot.labelling.classifiers import Classifier
from fewmatch.fewshot.labelling.held_out import held_out_scores, likeliest_temperature
from fewmatch.fewshot.labelling.projection import Projection
from fewmatch.fewshot.labelling.rejection import KnownClasses, held_out_similarity, threshold_accepting
from fewmatch.fewshot.methods import Method

#: How a number was found.
Chosen = Literal["given", "default", "leave-one-out"]


@dataclass(frozen=True)
class ChosenNumber:
    """A number that decides something, how it was found, and on how many held-out supports where it was fitted."""

    value: float
    chosen: Chosen
    held_out: int | None = None
    accept: float | None = None


@dataclass(frozen=True, eq=False)
class FittedLabeller:
    """All that is kept of a support set once it is taken in.

    method, options, center: what was asked for. projection, classifier: what is done to a query; None where queries are used as a set.
    known: what rejection goes by. temperature: τ. reject: the threshold of similarity, if there is one.
    """

    class_names: tuple[str, ...]
    method: Method
    options: Mapping[str, Any]
    center: Center
    known: KnownClasses
    temperature: ChosenNumber
    reject: ChosenNumber | None
    projection: Projection | None
    classifier: Classifier | None


def is_auto(value: float | str, what: str) -> bool:
    """Whether `auto` is asked for; InputError for any other word."""
    if isinstance(value, str) and value != "auto":
        raise InputError(f"expected a {what} as a number, or auto, got {value}")
    return isinstance(value, str)


def choose_temperature(
    asked: float | str | None,
    method: Method,
    options: Mapping[str, Any],
    center: Center,
    x: Float[Tensor, "n d"],
    index: Int[Tensor, "n"],
    projection: Projection | None,
) -> ChosenNumber:
    """τ as asked for; with `auto` the method's own stays where no support can be held out."""
    if asked is None:
        return ChosenNumber(method.temperature, "default")
    if not is_auto(asked, "temperature"):
        return ChosenNumber(float(asked), "given")
    if method.uses_queries(center) or projection is None:
        raise InputError(
            f"a temperature cannot be fitted where queries are used as a set ({method.name}, center {center}): give a number"
        )
    scores, truth = held_out_scores(x, index, method, options, projection)
    if not len(truth):
        return ChosenNumber(method.temperature, "default", held_out=0)
    return ChosenNumber(likeliest_temperature(scores, truth, method.temperature), "leave-one-out", len(truth))


def choose_threshold(
    asked: float | str | None, accept: float, x: Float[Tensor, "n d"], index: Int[Tensor, "n"]
) -> ChosenNumber | None:
    """The similarity below which a query is none of these."""
    if asked is None:
        return None
    if is_auto(asked, "threshold for rejection"):
        similarity = held_out_similarity(x, index)
        return ChosenNumber(threshold_accepting(similarity, accept), "leave-one-out", len(similarity), accept)
    return given_threshold(float(asked))


def given_threshold(value: float) -> ChosenNumber:
    """A threshold for rejection that somebody chose.

    Raises:
        InputError: it is no cosine.
    """
    if not -1 <= value <= 1:
        raise InputError(f"expected a threshold for rejection from -1 to 1 (a cosine), or auto, got {value:g}")
    return ChosenNumber(value, "given")
