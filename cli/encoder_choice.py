"""Which encoder the user wants and how it is to see images; and the same in words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.download import shown
from cli.options import DEFAULT_ENCODER

if TYPE_CHECKING:
    from encoders import FrozenEncoder, TappedEncoder


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
    said: EncodingChoice | None = None  # before `like` filled in what the user left open
    #: The encoder by what it was loaded from and for; `dataclasses.replace` hands it on.
    _loaded: dict[tuple[Any, ...], FrozenEncoder | TappedEncoder] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def loaded(self) -> FrozenEncoder | TappedEncoder:
        """The encoder with the output that is asked for, loaded once, whatever the size."""
        tap = self.layer or "last", self.raw, self.facet
        key = self.encoder, self.device, self.dtype, self.trust_digest, self.stride, self.compile, *tap
        if key not in self._loaded:
            self._loaded.clear()  # two large encoders need not fit into the memory
            self._loaded[key] = self._load()
        return self._loaded[key]

    def _load(self) -> FrozenEncoder | TappedEncoder:
        from encoders import load, tapped

        name = self.encoder or DEFAULT_ENCODER
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
        return tapped(encoder, self.layer or "last", raw=self.raw, facet=self.facet)

    def like(self, key: dict[str, Any]) -> EncodingChoice:
        """The same with a store's encoder, output, dtype and size wherever the user said nothing."""
        from encoders.taps import read_tap

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
            crops=self.crops or key["preprocessing"].get("crops"),
            said=self.said or self,
        )

    def check(self, key: dict[str, Any], path: Path) -> None:
        """Refuse a store that was made with something else than what the user asks for."""
        from encoders import InputError
        from encoders.taps import read_tap

        facts, said, tap = key["encoder"], self.said or self, read_tap(key["layer"])
        for option, asked, got in (
            ("--encoder", said.encoder, facts["name"]),
            ("--dtype", None if said.dtype == "auto" else said.dtype, facts["dtype"]),
            ("--size", said.size, key["preprocessing"].get("crop", key["preprocessing"].get("dense"))),
            ("--resize", said.resize, key["preprocessing"]["rule"]),
            ("--stride", said.stride, facts.get("stride", facts["patch_size"])),
            ("--layer", said.layer, "last" if tap.layers is None else "+".join(map(str, tap.layers))),
            ("--raw", said.raw or None, not tap.norm),
            ("--facet", None if said.facet == "token" else said.facet, tap.facet),
            ("--crops", said.crops, key["preprocessing"].get("crops", 1)),
            ("--fast-decode", said.fast_decode or None, decoded_fast(key)),
        ):
            file = Path(str(asked).rpartition(":")[2])  # without FAMILY: or hf: in front
            if asked is not None and got not in (asked, file.stem, file.name):
                raise InputError(
                    f"the store {path} was made with {option} {got}, not {asked}: leave {option} out, or encode again"
                )


def decoded_fast(key: dict[str, Any]) -> bool:
    """Whether features were made with --fast-decode."""
    return "fast" in str(key["decoder"])


def encoder_json(key: dict[str, Any] | None) -> dict[str, Any] | None:
    """The entry `encoder` of results; None where features came without one."""
    if key is None:
        return None
    facts, preprocessing = key["encoder"], key["preprocessing"]
    return (
        {
            "name": facts["name"],
            "digest": facts["digest"],
            "dtype": facts["dtype"],
            "size": preprocessing.get("crop", preprocessing.get("dense")),
            "layer": key["layer"],
        }
        | ({"resize": preprocessing["rule"]} if key["keep"] == "patches" else {})
        | ({"stride": facts["stride"]} if "stride" in facts else {})
        | ({"fast_decode": True} if decoded_fast(key) else {})
        | ({"crops": preprocessing["crops"]} if "crops" in preprocessing else {})
        | ({"mirror": True} if "mirror" in preprocessing else {})
    )


def encoder_words(key: dict[str, Any] | None) -> str:
    """The encoder for captions."""
    return encoder_facts_words(encoder_json(key))


def encoder_facts_words(facts: dict[str, Any] | None) -> str:
    """The same of the entry `encoder` of a result."""
    if facts is None:
        return "given features"
    rule = facts.get("resize", "keep")
    layer = "" if facts["layer"] == "last" else f", layer {facts['layer']}"
    layer += f", stride {facts['stride']}" if "stride" in facts else ""
    layer += f", {facts['crops']} crops" if "crops" in facts else ""
    layer += ", fast decode" if "fast_decode" in facts else ""
    layer += ", mirrored" if "mirror" in facts else ""
    return f"{facts['name']} at {facts['size']} px{'' if rule == 'keep' else f' ({rule})'}{layer}, {facts['dtype']}"
