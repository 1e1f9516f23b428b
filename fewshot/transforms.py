"""Transforms of whole tables of features before they are centred, fitted on a base set where they need one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.centering import ZeroVectorError
from fewmatch.fewshot.table import as_table
from fewmatch.fewshot.transform_fits import COUNTED, FITTED, fit_step

#: What each word does to a vector x. In brackets what may follow it, and what holds where nothing does.
#: relu: max(x, 0). power=β: (x + 1e-6)^β for features of zero or more (½). signed-power=β: sign(x)·|x|^β (½). unit: x / ‖x‖.
#: center: minus the mean of the base set. pca=N: its first N principal components. whiten=ρ: all of them, each divided by its
#: standard deviation, of the covariance (1−ρ)·S + ρ·tr(S)/D·I (0; then without those in which the base set does not vary).
#: ica=N: N independent components of it.
WORDS = ("relu", "power[=β]", "signed-power[=β]", "unit", "center", "pca=N", "whiten[=ρ]", "ica=N")
_DEFAULTS = {"power": 0.5, "signed-power": 0.5, "whiten": 0.0}

#: PT-MAP adds this before the power.
_EPSILON = 1e-6
#: Rows that are transformed at a time, in float64.
_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Step:
    """One transform.

    name: as in `WORDS`. number: what follows it, NaN for nothing. arrays: what was fitted, float64: `mean (D,)`, `matrix (D, N)`.
    """

    name: str
    number: float = np.nan
    arrays: Mapping[str, Float64[np.ndarray, "..."]] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """As it is written."""
        return self.name if np.isnan(self.number) else f"{self.name}={self.number!r}".removesuffix(".0")


@dataclass(frozen=True, eq=False)
class Transforms:
    """Some transforms in their order; called with (N, D) features it gives (N, D') ones.

    steps: in order. base: vectors that they were fitted on, 0 where none were needed.
    """

    steps: tuple[Step, ...]
    base: int = 0

    @property
    def words(self) -> str:
        """The words that give these transforms, with their numbers."""
        return ",".join(step.word for step in self.steps)

    def __call__(self, features: Float[np.ndarray | Tensor, "N D"]) -> Float32[np.ndarray, "N D2"]:
        """Features after all steps, each computed in float64.

        Raises:
            InputError: another number of dimensions than the base set's, values that are not finite, a negative feature before
                `power`, or a vector that is zero before `unit`.
        """
        return np.concatenate([chunk.astype(np.float32) for chunk in _chunks(self.steps, features, "feature vector")])

    def describe(self) -> dict[str, Any]:
        """The entry `transforms` of results."""
        fitted = [
            {"word": step.word, "dimensions": len(step.arrays["mean"]), "components": step.arrays["matrix"].shape[1]}
            for step in self.steps
            if "matrix" in step.arrays
        ]
        return {"words": self.words, "base": self.base, "fitted": fitted}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All there is to keep, as plain arrays (for `.npz` or safetensors)."""
        arrays: dict[str, np.ndarray] = {
            "words": np.frombuffer(self.words.encode(), np.uint8).copy(),
            "base": np.array([self.base], np.int64),
        }
        for i, step in enumerate(self.steps):
            arrays.update({f"{i}.{name}": np.ascontiguousarray(array) for name, array in step.arrays.items()})
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Transforms:
        """The transforms that `to_arrays` kept; other arrays may lie beside them.

        Raises:
            InputError: an array is missing or has another type or shape.
        """
        if "words" not in arrays or "base" not in arrays:
            raise InputError(f"expected the arrays words and base of transforms, got {', '.join(arrays) or 'none'}")
        steps = []
        width: int | None = None
        for i, step in enumerate(
            parse_transforms(bytes(np.asarray(arrays["words"], np.uint8)).decode(errors="replace"))
        ):
            kept = {}
            for name in _fitted_names(step.name):
                array = arrays.get(f"{i}.{name}")
                if array is None or array.dtype != np.float64 or array.ndim != (1 if name == "mean" else 2):
                    raise InputError(f"expected an array {i}.{name} of float64 for {step.word}, got {_kind(array)}")
                if len(array) != (width or len(array)):
                    raise InputError(
                        f"expected an array {i}.{name} of {width} rows for {step.word}, got {_kind(array)}"
                    )
                width, kept[name] = len(array), array
            width = kept["matrix"].shape[1] if "matrix" in kept else width
            steps.append(Step(step.name, step.number, kept))
        return cls(tuple(steps), int(np.asarray(arrays["base"]).reshape(-1)[0]))


def parse_transforms(words: str) -> tuple[Step, ...]:
    """The steps that words separated by commas stand for, not fitted yet; see `WORDS`.

    Raises:
        InputError: an unknown word, or a number that is missing, too many or not possible.
    """
    return tuple(_parsed(word.strip()) for word in words.split(","))


def fit_transforms(words: str, base: Float[np.ndarray | Tensor, "B D"] | None = None) -> Transforms:
    """Transforms by their words, in the order given: `relu,power`, or `unit,center,unit` (EASY's E-M-E).

    Each step is fitted on the base set as the steps before it leave it. `center` is EASY's M. `pca` and `ica` subtract that mean too.
    Signs are fixed: of every principal component the loading of largest size is positive. `ica` is scikit-learn's FastICA from a
    fixed start.

    Args:
        words: see `WORDS`.
        base: (B, D) raw features, none of which belongs to the images that are evaluated; may be given though no step needs it.

    Raises:
        InputError: an unknown word, a base set missing, too small or of too few directions, or one that a step cannot take.
    """
    steps = parse_transforms(words)
    needing = [step.word for step in steps if step.name in FITTED]
    if not needing:
        return Transforms(steps)
    if base is None:
        raise InputError(f"{needing[0]} is fitted on a base set: give base features (--base)")
    if len(base) == 0:
        raise InputError("expected base features of one image or more, got none")
    fitted: list[Step] = []
    for step in steps:
        arrays = {}
        if step.name in FITTED:
            arrays = fit_step(step.name, step.number, partial(_chunks, tuple(fitted), base, "base vector"))
        fitted.append(Step(step.name, step.number, arrays))
    return Transforms(tuple(fitted), len(base))


def _parsed(word: str) -> Step:
    name, equals, text = word.partition("=")
    names = {known.partition("[")[0].partition("=")[0]: known for known in WORDS}
    if name not in names:
        raise InputError(
            f"no transform called {word or 'nothing'}: expected some of {', '.join(WORDS)}, separated by commas"
        )
    if "=" not in names[name]:
        if equals:
            raise InputError(f"transform {name} takes no number, got {word}")
        return Step(name)
    try:
        number = float(text) if equals else _DEFAULTS[name]
    except (KeyError, ValueError):
        number = np.nan  # is none of those that fit
    if name in COUNTED:
        if not (number >= 1 and float(number).is_integer()):
            raise InputError(f"expected {name} with a whole number of 1 or more, as {name}=64, got {word}")
    elif name == "whiten":
        if not 0 <= number <= 1:
            raise InputError(f"expected whiten with a number from 0 to 1, got {word}")
    elif not 0 < number < np.inf:
        raise InputError(f"expected {name} with a number above 0, got {word}")
    return Step(name, number)


def _fitted_names(name: str) -> tuple[str, ...]:
    if name not in FITTED:
        return ()
    return ("mean",) if name == "center" else ("mean", "matrix")


def _kind(array: np.ndarray | None) -> str:
    return "none" if array is None else f"{array.shape} of {array.dtype}"


def _chunks(
    steps: Sequence[Step], features: Float[np.ndarray | Tensor, "N D"], what: str
) -> Iterator[Float64[np.ndarray, "n D2"]]:
    """Some rows at a time after these steps; at least one chunk, if of no rows."""
    table = as_table(features)
    for start in range(0, max(len(table), 1), _ROWS):
        x: np.ndarray = table[start : start + _ROWS].double().numpy()
        sizes = np.zeros(len(x))  # of what x was subtracted from
        for i, step in enumerate(steps):
            after = f" after {steps[i - 1].word}" if i else ""
            if "mean" in step.arrays and x.shape[1] != len(step.arrays["mean"]):
                raise InputError(
                    f"expected features of {len(step.arrays['mean'])} dimensions{after} as the base set's, got {x.shape[1]}"
                )
            bad = _impossible(step.name, x, sizes)
            if bad is not None:
                row, why, error = bad
                raise error(f"{what} {start + row}{after} {why}")
            sizes = np.maximum(sizes, np.linalg.norm(x, axis=1)) if step.name in ("center", "pca") else np.zeros(len(x))
            x = _applied(step, x)
        yield x


def _impossible(
    name: str, x: Float64[np.ndarray, "n D"], sizes: Float64[np.ndarray, "n"]
) -> tuple[int, str, type[InputError]] | None:
    """The first row that a step cannot take, what is wrong with it, and the error's type."""
    if name == "unit":
        zero = np.linalg.norm(x, axis=1) <= 16 * np.finfo(np.float64).eps * sizes
        if zero.any():
            return int(zero.argmax()), "is zero, so it has no direction", ZeroVectorError
    if name == "power" and (x < 0).any():
        row, column = np.argwhere(x < 0)[0]
        why = f"has {x[row, column]:.3g}, and power is for features of zero or more: put relu before it, or take signed-power"
        return int(row), why, InputError
    return None


def _applied(step: Step, x: Float64[np.ndarray, "n D"]) -> Float64[np.ndarray, "n D2"]:
    match step.name:
        case "relu":
            out = np.maximum(x, 0)
        case "power":
            out = (x + _EPSILON) ** step.number
        case "signed-power":
            out = np.sign(x) * np.abs(x) ** step.number
        case "unit":
            out = x / np.linalg.norm(x, axis=1, keepdims=True)
        case "center":
            out = x - step.arrays["mean"]
        case _:
            out = (x - step.arrays["mean"]) @ step.arrays["matrix"]
    return np.asarray(out)
