"""Which encoder the user wants and how it is to see images; and the same in words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli import output
from fewmatch.cli.commands.download import shown
from fewmatch.cli.options import DEFAULT_ENCODER

if TYPE_CHECKING:
    from fewmatch.encoders import FrozenEncoder, TappedEncoder
    from fewmatch.encoders.value_range import ValueRange


@dataclass(frozen=True)
class EncodingChoice:
    """What the user said about encoding; None is the default, or what a store already used."""

    encoder: str | None = None
    device: str = "auto"
    dtype: str | None = None
    size: int | None = None
    cache: bool = True
    trust_digest: bool = False
    resize: str | None = None
    layer: str | None = None
    raw: bool = False
    facet: str = "token"
    stride: int | None = None
    fast_decode: bool = False
    compile: bool = False
    crops: int | None = None
    value_range: str | None = None
    said: EncodingChoice | None = None  # before `like` filled in what the user left open
    made_with: dict[str, Any] | None = field(default=None, repr=False)  # the encoder's facts in the key that `like` got
    #: The encoder by what it was loaded from and for; `dataclasses.replace` hands it on.
    _loaded: dict[tuple[Any, ...], FrozenEncoder | TappedEncoder] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def values(self) -> ValueRange:
        """The values that become black and white, as `encode_images` takes them."""
        from fewmatch.encoders.value_range import read_value_range

        return read_value_range(self.value_range or "full")

    @property
    def loaded(self) -> FrozenEncoder | TappedEncoder:
        """The encoder with the output that is asked for, loaded once, whatever the size."""
        tap = self.layer or "last", self.raw, self.facet
        key = self.encoder, self.device, self.dtype, self.trust_digest, self.stride, self.compile, *tap
        if key not in self._loaded:
            self._loaded.clear()  # two large encoders need not fit into the memory
            self._loaded[key] = self._load()
        if self.made_with is not None:
            self._require_the_same(self._loaded[key])
        return self._loaded[key]

    def _load(self) -> FrozenEncoder | TappedEncoder:
        from fewmatch.encoders import load, tapped

        name = self.encoder or DEFAULT_ENCODER
        if self.made_with is not None and (self.said is None or self.said.encoder is None):
            self._require_a_name(name)
        with shown(name) as (note, progress):
            encoder = load(
                name,
                device=self.device,
                dtype=self.dtype or "auto",
                trust_digest=self.trust_digest,
                stride=self.stride,
                compile=self.compile,
                note=note,
                progress=progress,
            )
        if encoder.source.get("family_from") != "catalogue":
            output.state.sources[encoder.digest, encoder.family] = encoder.source
        return tapped(encoder, self.layer or "last", raw=self.raw, facet=self.facet)

    def _require_a_name(self, name: str) -> None:
        """Refuse a store's or model's encoder that was loaded from a file: its name does not say where that is.

        Raises:
            InputError: how to say it.
        """
        from fewmatch.encoders import catalogue
        from fewmatch.errors import InputError

        if name.startswith("hf:") or any(record.name == name for record in catalogue.checkpoints()):
            return
        facts = self.made_with or {}
        place = "hf:FOLDER" if facts.get("family") == "hf" else f"{facts.get('family') or 'FAMILY'}:PATH"
        raise InputError(
            f"the features at hand were made with {name}, weights of your own with the SHA-256 {str(facts.get('digest'))[:12]}…: "
            f"name their file with -e {place}"
        )

    def _require_the_same(self, encoder: FrozenEncoder | TappedEncoder) -> None:
        """Refuse an encoder that is not the one of the store or model at hand, though it may bear its name.

        Raises:
            InputError: naming the first difference.
        """
        from fewmatch.encoders.identity import encoder_facts, key_difference
        from fewmatch.errors import InputError

        difference = key_difference({"encoder": self.made_with}, {"encoder": encoder_facts(encoder)})
        if difference:
            raise InputError(
                f"the features at hand were made with another encoder ({difference}): leave that option out, or name their encoder "
                "with -e (FAMILY:PATH for weights of your own)"
            )

    def like(self, key: dict[str, Any]) -> EncodingChoice:
        """The same with a store's encoder, output, dtype and size wherever the user said nothing."""
        from fewmatch.encoders.layers import read_tap

        facts = key["encoder"]
        tap = read_tap(key["layer"])
        told = self.layer is not None or self.raw or self.facet != "token"
        return replace(
            self,
            encoder=self.encoder or facts["name"],
            dtype=self.dtype or facts["dtype"],
            size=self.size or key["preprocessing"].get("crop"),
            stride=self.stride or facts.get("stride"),
            layer=self.layer if told or tap.layers is None else "+".join(map(str, tap.layers)),
            raw=self.raw if told else not tap.norm,
            facet=self.facet if told else tap.facet,
            fast_decode=self.fast_decode or decoded_fast(key),
            value_range=self.value_range or range_words(key),
            crops=self.crops or key["preprocessing"].get("crops"),
            said=self.said or self,
            made_with=facts,
        )

    def check(self, key: dict[str, Any], path: Path) -> None:
        """Refuse a store that was made with something else than what the user asks for."""
        from fewmatch.encoders.layers import read_tap

        facts, said, tap = key["encoder"], self.said or self, read_tap(key["layer"])
        if said.encoder is not None:
            _check_name(said.encoder, facts, path)
        for option, asked, got in (
            ("--dtype", None if said.dtype == "auto" else said.dtype, facts["dtype"]),
            ("--size", said.size, key["preprocessing"].get("crop", key["preprocessing"].get("dense"))),
            ("--resize", said.resize, key["preprocessing"]["rule"]),
            ("--stride", said.stride, facts.get("stride", facts["patch_size"])),
            ("--layer", said.layer, "last" if tap.layers is None else "+".join(map(str, tap.layers))),
            ("--raw", said.raw or None, not tap.norm),
            ("--facet", None if said.facet == "token" else said.facet, tap.facet),
            ("--crops", said.crops, key["preprocessing"].get("crops", 1)),
            ("--fast-decode", said.fast_decode or None, decoded_fast(key)),
            ("--range", said.value_range and said.value_range.replace(" ", ""), range_words(key)),
        ):
            if asked is not None and got != asked:
                raise _made_with(path, option, got, asked)


def _check_name(asked: str, facts: dict[str, Any], path: Path) -> None:
    """Refuse a store that was made with another encoder than the one that the user names: by name, family and weights."""
    from fewmatch.encoders import catalogue
    from fewmatch.encoders.identity import file_digest
    from fewmatch.encoders.loading import split_family

    family, place = ("hf", asked) if asked.startswith("hf:") else split_family(asked)
    file = Path(place.removeprefix("hf:"))
    record = next((record for record in catalogue.checkpoints() if record.name == place), None)
    digest = record.sha256 if record else None
    weights = file if file.is_file() else file / "model.safetensors"
    if record is None and weights.is_file():
        digest = file_digest(weights)
    folder = weights.parent.name if weights.name == "model.safetensors" else file.name
    names = (place, file.stem, file.name, folder) if record is None else (place,)
    if facts["name"] not in names:
        raise _made_with(path, "--encoder", facts["name"], asked)
    for what, wanted, got in (
        ("the family", family or None, facts.get("family")),
        ("weights with the SHA-256", digest, (facts["digest"] or "")[: len(digest or "")]),
    ):
        if wanted and got and wanted != got:
            raise _made_with(path, what, got, wanted)


def _made_with(path: Path, what: str, got: object, wanted: object) -> Exception:
    from fewmatch.errors import InputError

    option = what if what.startswith("--") else "--encoder"
    return InputError(f"the store {path} was made with {what} {got}, not {wanted}: leave {option} out, or encode again")


def decoded_fast(key: dict[str, Any]) -> bool:
    """Whether features were made with --fast-decode."""
    return "fast" in str(key["decoder"])


def range_words(key: dict[str, Any]) -> str:
    """Which values of images of more than 8 bits became black and white, as --range takes it."""
    values = key["preprocessing"].get("range", "full")
    return values if isinstance(values, str) else ",".join(map(str, values))


def encoder_json(key: dict[str, Any] | None) -> dict[str, Any] | None:
    """The entry `encoder` of results; None where features came without one. Equal `identity`, equal features.

    `source` says what was taken of a weights file that this run loaded by its path (`FrozenEncoder.source`).
    """
    if key is None:
        return None
    from fewmatch.encoders.identity import key_digest

    facts, preprocessing = key["encoder"], key["preprocessing"]
    source = output.state.sources.get((facts["digest"], facts.get("family")))
    return (
        {
            "name": facts["name"],
            "family": facts.get("family"),
            "digest": facts["digest"],
            "identity": key_digest(key),
            "dtype": facts["dtype"],
            "size": preprocessing.get("crop", preprocessing.get("dense")),
            "layer": key["layer"],
        }
        | ({"resize": preprocessing["rule"]} if key["keep"] == "patches" else {})
        | ({"stride": facts["stride"]} if "stride" in facts else {})
        | ({"fast_decode": True} if decoded_fast(key) else {})
        | ({"range": preprocessing["range"]} if "range" in preprocessing else {})
        | ({"crops": preprocessing["crops"]} if "crops" in preprocessing else {})
        | ({"mirror": True} if "mirror" in preprocessing else {})
        | ({} if source is None else {"source": source})
    )


def encoder_words(key: dict[str, Any] | None) -> str:
    """The encoder for captions."""
    return encoder_facts_words(encoder_json(key))


def encoder_facts_words(facts: dict[str, Any] | None) -> str:
    """The same of the entry `encoder` of a result."""
    if facts is None:
        return "given features"
    from fewmatch.encoders import catalogue

    # The name of a checkpoint in the catalogue says its family; the name of a file does not.
    known = any(record.name == facts["name"] for record in catalogue.checkpoints())
    family = "" if known or not facts.get("family") or facts["family"] == "hf" else f" ({facts['family']})"
    rule = facts.get("resize", "keep")
    layer = "" if facts["layer"] == "last" else f", layer {facts['layer']}"
    layer += f", stride {facts['stride']}" if "stride" in facts else ""
    layer += f", {facts['crops']} crops" if "crops" in facts else ""
    layer += ", fast decode" if "fast_decode" in facts else ""
    layer += f", range {range_words({'preprocessing': facts})}" if "range" in facts else ""
    layer += ", mirrored" if "mirror" in facts else ""
    return f"{facts['name']}{family} at {facts['size']} px{'' if rule == 'keep' else f' ({rule})'}{layer}, {facts['dtype']}"
