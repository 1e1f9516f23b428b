"""What the user says about few-shot methods: names, options and centrings, as the runs that are made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MethodRun:
    """One method with its options under one centring."""

    method: str
    options: dict[str, Any]
    center: str

    @property
    def label(self) -> str:
        """For tables and figures: `ncm, support`; options that the user chose are named."""
        chosen = "".join(f", {name} {value}" for name, value in self.options.items())
        return f"{self.method}{chosen}, {self.center}"


def method_runs(
    methods: str, settings: Sequence[str], centers: str | None, metric: str | None, *, base: bool
) -> list[MethodRun]:
    """Every method with every centring, in the order given.

    Args:
        methods: names with commas between, or `all`: all that can run with what is given.
        settings: `METHOD.OPTION=VALUE` each; values are JSON, or else text.
        centers: centrings with commas between; None is each method's own. A method that is defined with one runs with that.
        metric: for the methods that have a choice. base: whether there is a base set.

    Raises:
        InputError: an unknown name, option or centring; a setting for a method that does not run; a base set missing or not used.
    """
    from fewmatch.errors import InputError
    from fewmatch.fewshot.centering import check_center
    from fewmatch.fewshot.methods import METHODS, find_method

    names = [name.strip() for name in methods.split(",")]
    if names == ["all"]:
        names = [
            name for name, method in METHODS.items() if base or not (method.own_center and method.center == "base")
        ]
    chosen = {name: find_method(name) for name in names}
    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    if metric is not None:
        with_metric = [name for name in names if "metric" in chosen[name].options and not chosen[name].own_center]
        if not with_metric:
            raise InputError(f"--metric is for methods that compare with class means (ncm), not for {', '.join(names)}")
        for name in with_metric:
            options[name]["metric"] = metric
    for setting in settings:
        left, equals, value = setting.partition("=")
        name, _, option = left.partition(".")
        if not equals or not option:
            raise InputError(f"no setting {setting}: expected METHOD.OPTION=VALUE, such as knn.k=5")
        if name not in options:
            raise InputError(f"--set {setting}: {name} is not among the methods {', '.join(names)}")
        options[name][option] = _value(value)
        chosen[name].chosen(options[name])
    asked = None if centers is None else [check_center(center.strip()) for center in centers.split(",")]
    runs = [
        MethodRun(name, options[name], center)
        for name, method in chosen.items()
        for center in ([method.center] if method.own_center or asked is None else asked)
    ]
    uses_base = [run for run in runs if run.center == "base"]
    if uses_base and not base:
        how = (
            "--center base needs --base DATA"
            if asked and "base" in asked
            else f"{uses_base[0].method} needs --base DATA"
        )
        raise InputError(f"{how}, the images or features whose mean is subtracted")
    return runs


def _value(text: str) -> Any:
    """A number, a list of numbers as a tuple, true or false; anything else is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value
