"""Checks of the options of methods, each with an error of one line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

from fewmatch.errors import InputError


def check_number(
    method: str,
    option: str,
    value: object,
    *,
    above: float | int | None = None,
    least: float | int | None = None,
    most: float | int = math.inf,
) -> float:
    """A finite number within limits.

    Args:
        method, option: for the message.
        value: what was given.
        above, least: the number must be larger than this, or at least this.
        most: it may be at most this.

    Raises:
        InputError: anything else.
    """
    limits = [
        *([f"above {above:g}"] if above is not None else []),
        *([f"of at least {least:g}"] if least is not None else []),
        *([f"of at most {most:g}"] if most < math.inf else []),
    ]
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    fits = (above is None or number > above) and (least is None or number >= least) and number <= most
    if not (math.isfinite(number) and fits):
        raise InputError(
            f"{method}: expected {option} to be a number {' and '.join(limits)}".rstrip() + f", got {value!r}"
        )
    return number


def check_count(method: str, option: str, value: object, *, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{method}: expected {option} to be a whole number of at least {least}, got {value!r}")
    return value


def check_choice(method: str, option: str, value: object, choices: Sequence[str]) -> str:
    """One of some words.

    Raises:
        InputError: anything else.
    """
    if value not in choices:
        raise InputError(f"{method}: expected {option} to be one of {', '.join(choices)}, got {value!r}")
    return str(value)


def check_weights(method: str, option: str, value: object, count: int) -> tuple[float, ...]:
    """So many numbers, none below zero.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        raise InputError(f"{method}: expected {option} to be {count} numbers, got {value!r}")
    return tuple(check_number(method, option, number, least=0.0) for number in value)
