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

from encoders import catalogue
from encoders.checkpoint import read_weights, require_match, unwrapped, weights_file
from encoders.devices import DeviceLike, DtypeLike, choose_device, choose_dtype
from encoders.download import Progress
from encoders.errors import FewmatchError, InputError
from encoders.families import families, find_family, recognise
from encoders.features import Features
from encoders.identity import file_digest, state_digest
from encoders.models import Backbone
from encoders.preprocessing import Preprocessing
from encoders.weights_files import Note, obtain, verify


class FrozenEncoder:
    """An encoder with weights: evaluation mode, no gradients, on one device in one dtype.

    Attributes:
        name, family, embed_dim, patch_size, preprocessing: as in the `Encoder` contract.
        stride: pixels from one patch to the next; less than `patch_size` where patches overlap.
        digest: SHA-256 of the weights file, or of the state dict it was made from, in hex.
        architecture: every option that the network was built with, JSON-ready.
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
            folder with `model.safetensors`. A name wins over a file called the same: write `./mini` for the file. `FAMILY:PATH` says the
            family of a file whose keys leave it open, as those of DINO and MAE do. `hf:REPOSITORY` or `hf:FOLDER` is any vision backbone
            that transformers runs (see `encoders.hugging_face.load_hugging_face`).
        device: `auto` (CUDA, then MPS, then CPU), or a torch device.
        dtype: `auto` (bfloat16 where the hardware multiplies it natively, else float32), or a torch dtype or its name.
        trust_digest: accept a file whose digest is not the one that third parties observed.
        stride: pixels from one patch to the next; less than the patch size gives overlapping, denser patches. None is the patch size.
        compile: see `FrozenEncoder.compile`.
        note: called with lines worth showing: what is fetched, its size and licence; that a licence is non-commercial.
        progress: called with the bytes fetched and those in all (None where the server does not say).

    Raises:
        InputError: no such name and no such file; a stride that the encoder cannot have.
        WeightsMissingError: the name is known, its weights are not on this machine and cannot be fetched.
        WeightsRefusedError: the file is damaged, unsafe, or not what its name promises.
        FewmatchError: with `compile`, where `torch.compile` does not work.
    """
    told: dict[str, Any] = {} if stride is None else {"stride": stride}
    text = os.fspath(name_or_path)
    if text.startswith("hf:"):
        from encoders.hugging_face import load_hugging_face

        if compile:
            raise InputError(f"{text} is run by transformers, and not compiled: leave out --compile")
        return load_hugging_face(text.removeprefix("hf:"), device=device, dtype=dtype, stride=stride, progress=progress)
    names = {record.name for record in catalogue.checkpoints()}
    family, text = split_family(text)
    if family or (
        text not in names
        and (os.path.exists(text) or os.sep in text or Path(text).suffix in (".pth", ".pt", ".bin", ".safetensors"))
    ):
        path = weights_file(text)
        encoder = from_state_dict(
            read_weights(path),
            family or None,
            name=_name_of(path),
            digest=file_digest(path),
            device=device,
            dtype=dtype,
            **told,
        )
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
    told |= record.untold(find_family(record.family).options)
    return from_state_dict(
        read_weights(path),
        record.family,
        name=record.name,
        digest=digest,
        preprocessing=record.preprocessing,
        device=device,
        dtype=dtype,
        **told,
    )


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
        state: tensors by name; wrappers in front of the names (`module.`, `backbone.`) are taken off.
        family: such as `dinov2` or `dinov2_reg`; None reads it off the keys.
        architecture: fields of `encoders.models.vit.ViTArchitecture` that keys and shapes cannot tell, such as `heads=2`, or that
            are to be otherwise, such as `stride=4`.

    Raises:
        InputError: an unknown family, or an architecture option that does not exist.
        WeightsRefusedError: keys or shapes are not the family's.
    """
    given = unwrapped(state)
    rules = find_family(family) if family is not None else recognise(given)
    entries = rules.official(given)
    model = rules.model(entries, **architecture)
    require_match(entries, model.state_dict(), f"{rules.name} ({model.describe()})")
    chosen = choose_dtype(dtype, choose_device(device))
    model.take_weights(entries, chosen)
    return FrozenEncoder(
        model,
        name=name or rules.name,
        family=rules.name,
        preprocessing=preprocessing or _fitting(rules.preprocessing, model.patch_size),
        digest=digest or state_digest(entries),
        device=choose_device(device),
        dtype=chosen,
    )


def _fitting(family: Preprocessing, patch: int) -> Preprocessing:
    """The family's sizes, or the nearest that this patch size divides."""
    if family.crop % patch == 0 and family.dense % patch == 0:
        return family
    crop, dense = (max(1, round(size / patch)) * patch for size in (family.crop, family.dense))
    return dataclasses.replace(family, resize=round(crop * family.resize / family.crop), crop=crop, dense=dense)


def _name_of(path: Path) -> str:
    return path.parent.name if path.name == "model.safetensors" else path.stem
