"""A labeller as one file: safetensors with a description in JSON, so that reading it runs nothing that it holds.

metadata "fewmatch"   JSON: schema, kind, class_names, method, options, center, prenormalize, classifier, temperature, reject,
                      encoder (the key of the features it was made from, or null), sha256 of the tensors
tensors               directions (w, d); mean (d,) float64 where one is subtracted; those of the classifier:
                      means (w, d), or weights (d, w) and bias (w,), or support (s, d) and index (s,)
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fewmatch.encoders.identity import canonical, state_digest
from fewmatch.errors import InputError
from fewmatch.fewshot.centering import check_center
from fewmatch.fewshot.labelling.classifiers import (
    Classifier,
    ClassMeans,
    KeptSupports,
    LinearWeights,
    is_nearest_mean,
    keep_supports,
)
from fewmatch.fewshot.labelling.fitted_labeller import ChosenNumber, FittedLabeller, given_threshold
from fewmatch.fewshot.labelling.label import Labeller
from fewmatch.fewshot.labelling.projection import Projection
from fewmatch.fewshot.labelling.rejection import KnownClasses
from fewmatch.fewshot.methods import find_method
from fewmatch.fewshot.methods.ncm import check_metric
from fewmatch.names import same_name
from fewmatch.writing import write_atomically

SCHEMA = 1
KIND = "labeller"
_CLASSIFIERS: dict[str, type] = {"means": ClassMeans, "weights": LinearWeights, "supports": KeptSupports}
_FLOATS = (torch.float32, torch.float64)


def save_labeller(labeller: Labeller, path: str | os.PathLike[str], encoder: Mapping[str, Any] | None = None) -> Path:
    """Write a labeller whole or not at all; equal labellers give equal bytes. Returns the path.

    Args:
        encoder: the key of the features it takes (`FeatureStore.key`), for whoever reads the file.

    Raises:
        InputError: it uses queries as a set, so its supports are needed each time.
    """
    fitted = labeller.fitted
    if fitted.classifier is None or fitted.projection is None:
        raise InputError(
            f"{fitted.method.name} with center {fitted.center} uses the queries as a set, so nothing can be computed beforehand: "
            "only methods and centrings that take queries one by one can be saved"
        )
    tensors = {"directions": fitted.known.directions, **fitted.classifier.tensors()}
    if fitted.projection.mean is not None:
        tensors["mean"] = fitted.projection.mean
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    kind = next(name for name, cls in _CLASSIFIERS.items() if isinstance(fitted.classifier, cls))
    header = {
        "schema": SCHEMA,
        "kind": KIND,
        "class_names": list(fitted.class_names),
        "method": fitted.method.name,
        "options": dict(fitted.options),
        "center": fitted.center,
        "prenormalize": fitted.projection.prenormalize,
        "classifier": kind,
        "temperature": dataclasses.asdict(fitted.temperature),
        "reject": None if fitted.reject is None else dataclasses.asdict(fitted.reject),
        "encoder": None if encoder is None else dict(encoder),
        "sha256": state_digest(tensors),
    }
    # One entry only: safetensors keeps metadata in a hash map, and several would be written in any order.
    return write_atomically(Path(path), safetensors.torch.save(tensors, {"fewmatch": canonical(header).decode()}))


def load_labeller(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> tuple[Labeller, dict[str, Any] | None]:
    """Read what `save_labeller` wrote: the labeller, and the key of the features it takes.

    Its results are those of the labeller that was saved, bit for bit on the same machine.

    Raises:
        InputError: no such file, or one that is truncated, altered, of another kind, or of a newer fewmatch.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no model at {path}: expected a file that `fewmatch classify --save-model` wrote")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if "fewmatch" not in metadata:
                raise _UnfitError("it is no labeller")
            header = json.loads(metadata["fewmatch"])
            _check_kind(header)
            names = list(file.keys())
            if not set(names) <= {"directions", "mean", "means", "weights", "bias", "support", "index"}:
                raise _UnfitError("it holds other tensors than a labeller's")
            tensors = {name: file.get_tensor(name) for name in names}
        if state_digest(tensors) != header["sha256"]:
            raise _UnfitError("its checksum differs")
        fitted = _fitted(header, {name: tensor.to(device) for name, tensor in tensors.items()})
        encoder = header["encoder"]
        if encoder is not None and not isinstance(encoder, dict):
            raise _UnfitError("its encoder is not described")
    except (safetensors.SafetensorError, OSError, _UnfitError, InputError, *_MALFORMED) as error:
        what = str(error).strip().split("\n", maxsplit=1)[0][:200] if not isinstance(error, _MALFORMED) else "malformed"
        raise InputError(
            f"{path} cannot be used as a model ({what}): expected a whole file that `fewmatch classify --save-model` wrote"
        ) from error
    return Labeller.from_fitted(fitted, device), encoder


class _UnfitError(Exception):
    """What is wrong with a file."""


#: What untrusted JSON of the wrong make leads to.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def _check_kind(header: Any) -> None:
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise _UnfitError("it is no labeller")
    if header.get("schema") != SCHEMA:
        raise _UnfitError(f"it has schema {str(header.get('schema'))[:20]}, this fewmatch reads schema {SCHEMA}")


def _fitted(header: dict[str, Any], tensors: dict[str, Tensor]) -> FittedLabeller:
    """The parts, each checked against the others."""
    class_names = header["class_names"]
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise _UnfitError("its class names are not text")
    if len(class_names) < 2 or len({same_name(name) for name in class_names}) < len(class_names):
        raise _UnfitError("its class names are not two or more different ones")
    method = find_method(_text(header["method"]))
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in header["options"].items()}
    options = method.chosen(options)
    if "metric" in options:
        check_metric(_text(options["metric"]))
    center = check_center(_text(header["center"]))
    if method.uses_queries(center):
        raise _UnfitError(f"{method.name} with center {center} cannot be saved")
    prenormalize = header["prenormalize"]
    if not isinstance(prenormalize, bool):
        raise _UnfitError("it does not say whether vectors are normalised first")
    w = len(class_names)
    directions = _tensor(tensors, "directions", (w, None))
    d = int(directions.shape[1])
    mean = None
    if center in ("support", "base"):
        mean = _tensor(tensors, "mean", (d,)).double()
    classifier: Classifier
    kind = header["classifier"]
    expected = "means" if is_nearest_mean(method) else "supports" if method.fit is None else "weights"
    if kind != expected:
        raise _UnfitError(f"{method.name} keeps {expected}")
    if kind == "means":
        metric = str(options.get("metric", "euclidean"))
        classifier = ClassMeans(_tensor(tensors, "means", (w, d)), metric)
    elif kind == "weights":
        weights = _tensor(tensors, "weights", (d, w))
        classifier = LinearWeights(weights, _tensor(tensors, "bias", (w,)).to(weights.dtype))
    else:
        support, index = _tensor(tensors, "support", (None, d)), tensors["index"]
        if index.dtype != torch.int64 or index.shape != support.shape[:1] or not len(index):
            raise _UnfitError("its supports have no classes")
        if not 0 <= int(index.min()) <= int(index.max()) < w:
            raise _UnfitError("its supports are of classes that it does not name")
        classifier = keep_supports(method, options, support, index, w)
    return FittedLabeller(
        tuple(class_names),
        method,
        options,
        center,
        KnownClasses(directions),
        _temperature(header["temperature"]),
        None if header["reject"] is None else _threshold(header["reject"]),
        Projection(center, d, mean, prenormalize, method.project),
        classifier,
    )


def _tensor(tensors: dict[str, Tensor], name: str, shape: tuple[int | None, ...]) -> Tensor:
    if name not in tensors:
        raise _UnfitError(f"{name} is missing")
    tensor = tensors[name]
    fits = len(tensor.shape) == len(shape) and all(
        want is None or got == want for got, want in zip(tensor.shape, shape, strict=True)
    )
    if tensor.dtype not in _FLOATS or not fits or not tensor.numel() or not bool(torch.isfinite(tensor).all()):
        raise _UnfitError(f"{name} is not what the class names and the other tensors ask for")
    return tensor


def _temperature(stored: Any) -> ChosenNumber:
    found = _number(stored)
    if not found.value > 0:
        raise _UnfitError("its temperature is not above 0")
    return found


def _threshold(stored: Any) -> ChosenNumber:
    found = _number(stored)
    given_threshold(found.value)
    return found


def _number(stored: Any) -> ChosenNumber:
    value, chosen = float(stored["value"]), stored["chosen"]
    if not math.isfinite(value) or chosen not in ("given", "default", "leave-one-out"):
        raise _UnfitError("one of its numbers is none")
    held_out, accept = stored.get("held_out"), stored.get("accept")
    return ChosenNumber(
        value, chosen, None if held_out is None else int(held_out), None if accept is None else float(accept)
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _UnfitError("a name in it is no text")
    return value
