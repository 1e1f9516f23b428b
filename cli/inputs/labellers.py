"""A labeller from labelled examples, or from the file that kept one, as `fewmatch classify` is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli import output
from fewmatch.cli.inputs.data import read_base, read_table
from fewmatch.cli.inputs.encoder_choice import EncodingChoice
from fewmatch.cli.inputs.method_runs import MethodRun, method_runs

if TYPE_CHECKING:
    from fewmatch.fewshot import Labeller


@dataclass(frozen=True)
class Asked:
    """What the user said about the method; None is its default."""

    method: str | None
    settings: list[str]
    center: str | None
    base: Path | None
    metric: str | None
    prenormalize: bool
    temperature: str | None
    reject: str | None
    accept: float | None

    def run(self) -> MethodRun:
        """The one method that is meant, with its options and centring."""
        from fewmatch.errors import InputError

        name = self.method or "ncm"
        if "," in name or name == "all":
            raise InputError(f"expected one method, got {name}: images get one label")
        if self.center is not None and "," in self.center:
            raise InputError(f"expected one centring, got {self.center}")
        return method_runs(name, self.settings, self.center, self.metric, base=self.base is not None)[0]


@dataclass(frozen=True)
class MadeLabeller:
    """A labeller, the key of the features it takes, and what JSON says of where it comes from."""

    labeller: Labeller
    key: dict[str, Any]
    origin: dict[str, Any]
    skipped: list[dict[str, Any]]

    def describe(self) -> dict[str, Any]:
        """What results say of the method."""
        fitted = self.labeller.fitted
        temperature, reject = fitted.temperature, fitted.reject
        return {
            **self.origin,
            "queries": 0,
            "method": fitted.method.name,
            "options": {name: list(v) if isinstance(v, tuple) else v for name, v in fitted.options.items()},
            "center": fitted.center,
            "notes": list(self.labeller.notes),
            "transductive": self.labeller.transductive,
            "metric": fitted.options.get("metric"),
            "prenormalize": self.labeller.prenormalize,
            "temperature": temperature.value,
            "temperature_chosen": temperature.chosen,
            "temperature_held_out": temperature.held_out,
            "reject": None
            if reject is None
            else {
                "measure": "similarity",
                "threshold": reject.value,
                "chosen": reject.chosen,
                "accept": reject.accept,
                "held_out": reject.held_out,
            },
        }


def make_labeller(support: Path, asked: Asked, choice: EncodingChoice) -> MadeLabeller:
    """Take in labelled examples."""
    from fewmatch.errors import InputError
    from fewmatch.fewshot import Labeller
    from fewmatch.fewshot.labelling.rejection import ACCEPT

    if asked.accept is not None and asked.reject != "auto":
        raise InputError("--accept goes with --reject auto")
    run = asked.run()
    labelled = read_table(support, choice)
    table, key = labelled.table, labelled.key
    if key is None:
        raise InputError(f"{support} holds features without their images: give --support as images or a feature store")
    labeller = Labeller(
        table.features,
        [table.class_names[i] for i in table.labels],
        method=run.method,
        options=run.options,
        center=asked.center,
        base=read_base(asked.base, choice, key),
        prenormalize=asked.prenormalize,
        temperature=_number("--temperature", asked.temperature),
        reject=_number("--reject", asked.reject),
        accept=ACCEPT if asked.accept is None else asked.accept,
    )
    for text in labeller.notes:
        output.note(f"note: {text}")
    if asked.temperature == "auto" and labeller.fitted.temperature.chosen == "default":
        output.note(
            f"note: every class has one example, so none can be held out: the temperature stays at {labeller.temperature:g}"
        )
    output.list_skipped(labelled.skipped)
    origin = {"support": table.describe() | {"skipped": output.skipped_json(labelled.skipped)}}
    return MadeLabeller(labeller, key, origin, labelled.skipped)


def read_labeller(model: Path, asked: Asked) -> MadeLabeller:
    """Read what --save-model kept. What it decided cannot be chosen again, but for the value of --reject."""
    from fewmatch.encoders.identity import require_known_encoder
    from fewmatch.errors import InputError
    from fewmatch.fewshot.labelling.model_file import load_labeller

    for option, value in (
        ("--method", asked.method),
        ("--set", asked.settings),
        ("--center", asked.center),
        ("--base", asked.base),
        ("--metric", asked.metric),
        ("--prenormalize", asked.prenormalize),
        ("--temperature", asked.temperature),
        ("--accept", asked.accept),
        ("--reject auto", asked.reject == "auto"),
    ):
        if value:
            raise InputError(f"{option} was decided when {model} was saved: leave it out, or give --support")
    labeller, key = load_labeller(model)
    line = _number("--reject", asked.reject)
    if line is not None:
        labeller = labeller.rejecting(float(line))
    if key is None or not _is_key(key, labeller.dimensions):
        raise InputError(f"{model} does not say which encoder its features come from: save it again")
    require_known_encoder(key["encoder"], f"the model {model}", "save it again with --support and --save-model")
    return MadeLabeller(labeller, key, {"model": str(model), "classes": len(labeller.class_names)}, [])


def _is_key(key: dict[str, Any], dimensions: int) -> bool:
    """Whether what a file says of its encoder has the make of a store's key; what it says is checked when it is used."""
    from fewmatch.encoders.layers import read_tap

    try:
        facts, preprocessing = key["encoder"], key["preprocessing"]
        words = (facts["name"], facts["dtype"], preprocessing["rule"], key["keep"], key["layer"])
        numbers = (facts["patch_size"], facts["embed_dim"], *(facts.get(name) or 1 for name in ("stride",)))
        sizes = [preprocessing[name] for name in ("crop", "dense") if name in preprocessing]
        read_tap(key["layer"])
        return (
            all(isinstance(word, str) for word in words)
            and all(isinstance(number, int) for number in (*numbers, *sizes))
            and facts["embed_dim"] == dimensions
            and "decoder" in key
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _number(option: str, text: str | None) -> float | str | None:
    from fewmatch.errors import InputError

    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"no {option} {text}: expected auto or a number") from error
