"""Names, files and state dicts to encoders that are ready to run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewmatch.encoders import catalogue
from fewmatch.encoders.devices import DeviceLike, DtypeLike, choose_device, choose_dtype
from fewmatch.encoders.families import Family, FamilyOpenError, choose_network, families, find_family, without_heads
from fewmatch.encoders.features import Features
from fewmatch.encoders.hugging_face.files import settings_beside
from fewmatch.encoders.identity import file_digest, state_digest
from fewmatch.encoders.models import Backbone
from fewmatch.encoders.models.vit import VisionTransformer
from fewmatch.encoders.preprocessing import Preprocessing
from fewmatch.encoders.weights.checkpoint import Network, outside, read_weights, require_match, weights_file
from fewmatch.encoders.weights.download import Progress
from fewmatch.encoders.weights.files import Note, obtain, verify
from fewmatch.errors import FewmatchError, InputError, WeightsRefusedError

#: How many groups of entries that were left out a note names.
_GROUPS_SHOWN = 5


class FrozenEncoder:
    """An encoder with weights: evaluation mode, no gradients, on one device in one dtype.

    Attributes:
        name, family, embed_dim, patch_size, preprocessing: as in the `Encoder` contract.
        stride: pixels from one patch to the next; less than `patch_size` where patches overlap.
        digest: SHA-256 of the weights file, or of the state dict it was made from, in hex.
        architecture: every option that the network was built with, JSON-ready.
        source: how family and network were chosen, ready for JSON: `family` and `family_from` (`catalogue`, `told`, `digest`,
            `config.json` or `entries`), `prefix` of the network in the file, `not_taken` (prefixes of other networks there), `left_out`
            (in words), `heads_from` where they were assumed.
        device, dtype: where and in what the network runs. Outputs have this dtype.
    """

    def __init__(
        self,
        model: Backbone,
        *,
        name: str,
        family: str,
        preprocessing: Preprocessing,
        digest: str,
        device: torch.device,
        dtype: torch.dtype,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.name = name
        self.family = family
        self.embed_dim = model.embed_dim
        self.patch_size = model.patch_size
        self.stride = model.stride or model.patch_size
        self.preprocessing = preprocessing
        self.digest = digest
        self.architecture = model.facts()
        self.device = device
        self.dtype = dtype
        self.source = dict(source or {"family": family})

    @overload
    def __call__(self, images: Float[Tensor, "b 3 H W"], /) -> Features: ...

    @overload
    def __call__(
        self, images: Float[Tensor, "b 3 H W"], /, *, layers: Sequence[int], norm: bool = True, facet: str = "token"
    ) -> list[Features]: ...

    @torch.inference_mode()
    def __call__(
        self,
        images: Float[Tensor, "b 3 H W"],
        /,
        *,
        layers: Sequence[int] | None = None,
        norm: bool = True,
        facet: str = "token",
    ) -> Features | list[Features]:
        """Features of a batch of normalised images.

        Args:
            images: (B, 3, H, W), H and W multiples of `patch_size` (with a smaller stride: at least `patch_size`).
            layers: blocks to tap, 0-based, negative from the end; None is the last alone.
            norm: whether the final norm is applied to tapped blocks, as DINOv2's `get_intermediate_layers` does.
            facet: what to take of tapped blocks: `token`, their output; or `key`, `query`, `value`, what their attention projects
                every token to, heads concatenated (DINO's dense descriptors are keys: Amir et al. 2021). No norm applies to these.

        Returns:
            Features; with `layers`, a list of them in the order asked for.

        Raises:
            ValueError: a size that is no multiple of the patch, or a layer that is not there; `norm=False` without layers.
            InputError: a facet that the network does not have; a facet without layers.
        """
        images = images.to(self.device, self.model.image_dtype or self.dtype)
        if layers is not None:
            return self.model.intermediate(images, layers, norm, facet)
        if facet != "token":
            raise InputError(
                f"expected layers with facet {facet}: without them the features are the model's own output"
            )
        if not norm:
            raise ValueError(
                "expected layers with norm=False: without them the features are the model's own, normed output"
            )
        out: Features = self.model(images)
        return out

    def compile(self) -> FrozenEncoder:
        """Compile the network's blocks by `torch.compile`, in place, for images of any size; returns the encoder itself.

        All blocks of one kind share one compiled form, other layers and facets (`layers=`) run through it too, and a size that was not
        seen before compiles nothing; the first batch of one image alone does, once more. Features differ by rounding.

        Raises:
            InputError: the network is none that is worth it (see `Backbone.compiles`).
            FewmatchError: `torch.compile` does not work here.
        """
        if not self.model.compiles:
            raise InputError(
                f"{self.name} is a {type(self.model).__name__}, which is not compiled: only vision transformers are; leave out --compile"
            )
        for blocks in [module for module in self.model.modules() if isinstance(module, nn.ModuleList)]:
            for block in blocks:
                block.compile(dynamic=True)
        try:
            # Compiled here, where what is missing can be told, and not in the midst of images. Sizes of 1, and equal ones, would be
            # compiled apart.
            self(torch.zeros(2, 3, 3 * self.patch_size, 5 * self.patch_size))
        except (RuntimeError, OSError) as error:
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            needs = "a C++ compiler (g++ or clang++)" if self.device.type == "cpu" else "Triton and a C compiler"
            raise FewmatchError(
                f"torch.compile failed on {self.device} ({first[:200]}): it needs {needs}; without --compile nothing is compiled"
            ) from error
        return self

    def __repr__(self) -> str:
        return f"<encoder {self.name}: {self.family}, {self.model.describe()}, {self.dtype}, {self.device}>"


def load(
    name_or_path: str | os.PathLike[str],
    *,
    device: DeviceLike = "auto",
    dtype: DtypeLike = "auto",
    trust_digest: bool = False,
    stride: int | None = None,
    compile: bool = False,  # noqa: A002 - as torch calls it
    note: Note | None = None,
    progress: Progress | None = None,
) -> FrozenEncoder:
    """Load an encoder by its name in the catalogue, or from a weights file of a known family.

    Weights that are not on this machine are fetched, unless `FEWMATCH_OFFLINE` or `HF_HUB_OFFLINE` is set (docs/weights.md).

    Args:
        name_or_path: such as `mini` or `dinov2_vits14`; or a `.pth` or `.safetensors` file (official or Hugging Face layout), or a
            folder with `model.safetensors`; the network is found in the file, whatever stands around it (docs/weights.md). A name wins over
            a file called the same: write `./mini` for the file. `FAMILY:PATH` says the family of a file whose entries leave it open, as
            those of DINO and MAE do. `hf:REPOSITORY` or `hf:FOLDER` is any vision backbone
            that transformers runs (see `fewmatch.encoders.hugging_face.loading.load_hugging_face`).
        device: `auto` (CUDA, then MPS, then CPU), or a torch device.
        dtype: `auto` (bfloat16 where the hardware multiplies it natively, else float32), or a torch dtype or its name.
        trust_digest: accept a file whose digest is not the one that third parties observed.
        stride: pixels from one patch to the next; less than the patch size gives overlapping, denser patches. None is the patch size.
        compile: see `FrozenEncoder.compile`.
        note: called with lines worth showing: what is fetched, its size and licence; that a licence is non-commercial; of a file, its
            family and how that is known, which network of it was taken, and what was left out.
        progress: called with the bytes fetched and those in all (None where the server does not say).

    Raises:
        InputError: no such name and no such file; a stride that the encoder cannot have.
        WeightsMissingError: the name is known, its weights are not on this machine and cannot be fetched.
        WeightsRefusedError: the file is damaged, unsafe, or not what its name promises; or it leaves its family or network open.
        FewmatchError: with `compile`, where `torch.compile` does not work.
    """
    told: dict[str, Any] = {} if stride is None else {"stride": stride}
    text = os.fspath(name_or_path)
    if text.startswith("hf:"):
        from fewmatch.encoders.hugging_face.loading import load_hugging_face

        if compile:
            raise InputError(f"{text} is run by transformers, and not compiled: leave out --compile")
        return load_hugging_face(text.removeprefix("hf:"), device=device, dtype=dtype, stride=stride, progress=progress)
    names = {record.name for record in catalogue.checkpoints()}
    family, text = split_family(text)
    first, _, rest = text.partition(":")
    if os.path.exists(rest) and not os.path.exists(text):
        find_family(first)  # raises: a family that does not exist
    if family or (
        text not in names
        and (os.path.exists(text) or os.sep in text or Path(text).suffix in (".pth", ".pt", ".bin", ".safetensors"))
    ):
        encoder = _from_file(weights_file(text), family or None, note, device=device, dtype=dtype, **told)
        return encoder.compile() if compile else encoder
    record = catalogue.find(text)
    if record.non_commercial and note:
        note(f"{record.name}: {record.licence}, non-commercial use only")
    path = obtain(record, trust_digest=trust_digest, note=note, progress=progress)
    digest = verify(record, path, trust_digest)
    encoder = encoder_of(record, path, digest, device=device, dtype=dtype, **told)
    return encoder.compile() if compile else encoder


def split_family(name_or_path: str) -> tuple[str, str]:
    """`FAMILY:PATH` as the two; an empty family where none is given."""
    family, _, rest = name_or_path.partition(":")
    return (family, rest) if rest and family in families() else ("", name_or_path)


def encoder_of(
    record: catalogue.Checkpoint,
    path: Path,
    digest: str,
    *,
    device: DeviceLike = "cpu",
    dtype: DtypeLike = "float32",
    **told: Any,
) -> FrozenEncoder:
    """A checkpoint of the catalogue from a file of its weights, in either layout; keys and shapes must be exactly the family's.

    Raises:
        WeightsRefusedError: they are not.
    """
    return _built(
        read_weights(path),
        record.family,
        "catalogue",
        name=record.name,
        digest=digest,
        preprocessing=record.preprocessing,
        device=device,
        dtype=dtype,
        **record.untold(find_family(record.family).options) | told,
    )


def _from_file(path: Path, family: str | None, note: Note | None, **how: Any) -> FrozenEncoder:
    """An encoder from a file that has no name in the catalogue; `note` gets one line that says what was taken for what."""
    try:
        encoder, line = _from_tensors(path, read_weights(path), family, **how)
    except WeightsRefusedError as error:
        if str(path) in str(error):
            raise
        # What is no network of ours, or not said to be one, may be one of transformers.
        other = f"; hf:{path.parent} runs it as config.json says" if (path.parent / "config.json").is_file() else ""
        raise type(error)(f"{path}: {error}{other}") from error
    if note:
        note(f"{path.name}: {line}")
    return encoder


def _from_tensors(path: Path, state: Mapping[str, Tensor], family: str | None, **how: Any) -> tuple[FrozenEncoder, str]:
    """The encoder, and in words how family and network were chosen."""
    digest, beside = file_digest(path), settings_beside(path)
    record = None if family else catalogue.of_digest(sha256=digest)
    reason = "told"
    if family is None and record is None and beside.family:
        family, reason = beside.family, "config.json"
    elif family is None and record is None:
        try:
            choose_network(state)
            reason = "entries"
        except FamilyOpenError:
            record = catalogue.of_digest(md5=file_digest(path, "md5"))
            if record is None:
                raise
    preprocessing = None
    if record:
        family, reason, preprocessing = record.family, "digest", record.preprocessing
        how = record.untold(find_family(family).options) | how
    elif beside.heads:
        how = {"heads": beside.heads} | how
    encoder = _built(state, family, reason, name=_name_of(path), digest=digest, preprocessing=preprocessing, **how)
    line = _source_words(encoder.source, record, beside.family)
    own = encoder.preprocessing
    mean, std = (own.mean, own.std) if record else (beside.mean or own.mean, beside.std or own.std)
    if (mean, std) != (own.mean, own.std):
        encoder.preprocessing = dataclasses.replace(own, mean=mean, std=std)
        encoder.source["pixels_from"] = "preprocessor_config.json"
        line += "; mean and standard deviation of the pixels are those of preprocessor_config.json"
    return encoder, line


def _source_words(source: Mapping[str, Any], record: catalogue.Checkpoint | None, beside: str | None) -> str:
    family = source["family"]
    words = {
        "told": "as given",
        "entries": "recognised by its entries",
        "config.json": "as config.json beside it says",
        "digest": f"its digest is that of {record.name}" if record else "",
    }
    parts = [f"family {family} ({words[source['family_from']]})"]
    if beside not in (None, family):
        parts.append(f"config.json beside it says {beside}")
    if source["prefix"] or source["not_taken"]:
        taken, *others = (
            prefix.removesuffix(".") or "the top level" for prefix in (source["prefix"], *source["not_taken"])
        )
        parts.append(f"the network at {taken}" + (f", not at {', '.join(others)}" if others else ""))
    if source["left_out"]:
        more = len(source["left_out"]) - _GROUPS_SHOWN
        parts.append(
            "left out: " + ", ".join(source["left_out"][:_GROUPS_SHOWN]) + (f" and {more} more" if more > 0 else "")
        )
    if "heads_from" in source:
        heads = source["heads"]
        verb = "is" if heads == 1 else "are"
        parts.append(f"attention heads: {heads}, each of 64 channels, {verb} assumed, as the file does not say")
    return "; ".join(parts)


def from_state_dict(
    state: Mapping[str, Tensor],
    family: str | None = None,
    *,
    name: str | None = None,
    digest: str | None = None,
    preprocessing: Preprocessing | None = None,
    device: DeviceLike = "cpu",
    dtype: DtypeLike = "float32",
    **architecture: Any,
) -> FrozenEncoder:
    """Build an encoder from a state dict in the official or the Hugging Face layout.

    Args:
        state: tensors by name; the network is found among them, whatever stands in front of its names (see
            `fewmatch.encoders.families.choose_network`).
        family: such as `dinov2` or `dinov2_reg`; None reads it off the entries.
        architecture: fields of `fewmatch.encoders.models.vit.ViTArchitecture` that keys and shapes cannot tell, such as `heads=2`, or that
            are to be otherwise, such as `stride=4`.

    Raises:
        InputError: an unknown family, or an architecture option that does not exist.
        WeightsRefusedError: keys or shapes are not the family's, or leave the family or the network open.
    """
    return _built(
        state,
        family,
        "told" if family else "entries",
        name=name,
        digest=digest,
        preprocessing=preprocessing,
        device=device,
        dtype=dtype,
        **architecture,
    )


def _built(
    state: Mapping[str, Tensor],
    family: str | None,
    family_from: str,
    *,
    name: str | None,
    digest: str | None,
    preprocessing: Preprocessing | None,
    device: DeviceLike = "cpu",
    dtype: DtypeLike = "float32",
    **architecture: Any,
) -> FrozenEncoder:
    choice = choose_network(state, family)
    rules, network = choice.family, choice.network
    entries = rules.official(network.entries)
    heads = _released_heads(rules, entries) if "heads" not in architecture else None
    if heads is not None:
        architecture["heads"] = heads
    model = rules.model(entries, **architecture)
    entries, dropped = without_heads(entries, model.state_dict())
    require_match(entries, model.state_dict(), f"{rules.name} ({model.describe()})")
    chosen = choose_dtype(dtype, choose_device(device))
    groups = outside(state, network, choice.others) | {network.prefix + part: n for part, n in dropped.items()}
    groups |= _beside_the_tower(network, rules, entries)
    source: dict[str, Any] = {
        "family": rules.name,
        "family_from": family_from,
        "prefix": network.prefix,
        "not_taken": [other.prefix for other in choice.others],
        "left_out": [f"{group} ({n} {'entry' if n == 1 else 'entries'})" for group, n in groups.items()],
    }
    if isinstance(model, VisionTransformer) and architecture.get("heads") is None and _heads_are_open(entries):
        source |= {"heads": model.architecture.heads, "heads_from": "assumed"}
    model.take_weights(entries, chosen)
    return FrozenEncoder(
        model,
        name=name or rules.name,
        family=rules.name,
        preprocessing=preprocessing or _fitting(rules.preprocessing, model.patch_size),
        digest=digest or state_digest(entries),
        device=choose_device(device),
        dtype=chosen,
        source=source,
    )


def _beside_the_tower(network: Network, rules: Family, entries: Mapping[str, Tensor]) -> dict[str, int]:
    """What a model of several towers has beside the one that is used, such as its text tower, in groups as those of `outside`."""
    tower, _, rest = network.anchor.partition(".")
    if rest not in rules.anchors:
        return {}
    used = {id(value) for value in entries.values()}
    groups: dict[str, int] = {}
    for key, value in network.entries.items():
        if not key.startswith(tower + ".") and id(value) not in used:
            group = network.prefix + key.partition(".")[0]
            groups[group] = groups.get(group, 0) + 1
    return groups


def _heads_are_open(entries: Mapping[str, Tensor]) -> bool:
    """Whether nothing in the entries of a vision transformer tells the number of attention heads."""
    telling = ("rope_embed.periods", "rel_pos_bias.relative_position_bias_table")
    return "cls_token" in entries and not any(key in entries for key in telling)


def _released_heads(rules: Family, entries: Mapping[str, Tensor]) -> int | None:
    if "heads" not in rules.options or not _heads_are_open(entries):
        return None
    return catalogue.released_heads(rules.name, entries["cls_token"].shape[-1])


def _fitting(family: Preprocessing, patch: int) -> Preprocessing:
    """The family's sizes, or the nearest that this patch size divides."""
    if family.crop % patch == 0 and family.dense % patch == 0:
        return family
    crop, dense = (max(1, round(size / patch)) * patch for size in (family.crop, family.dense))
    return dataclasses.replace(family, resize=round(crop * family.resize / family.crop), crop=crop, dense=dense)


def _name_of(path: Path) -> str:
    return path.parent.name if path.name == "model.safetensors" else path.stem
