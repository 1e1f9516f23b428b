"""A network of transformers as a backbone: which of its outputs are the image's vector, its registers and its map, found and verified."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewmatch.encoders.features import Features
from fewmatch.encoders.models import Backbone, layer_indices
from fewmatch.errors import InputError

_CLS = ("cls_token", "class_token", "class_embedding")
_OTHER_TOKENS = ("register_tokens", "distillation_token")

_NOT_ARCHITECTURE = ("id2label", "label2id", "transformers_version", "architectures", "dtype", "torch_dtype")

#: Pixels from one vector of a convolutional network's map to the next, nearly always.
_USUAL_STEP = 32

#: What networks raise for images of a size they do not take.
_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, ZeroDivisionError)


class HuggingFaceBackbone(Backbone):
    """A network of transformers that makes of `pixel_values` a `last_hidden_state`: tokens (B, N, D), or a map (B, D, h, w).

    Nothing about its tokens is taken on trust. Their number has to be that of the patches, row by row, and of the parameters that are
    tokens (CLS, registers, DeiT's distillation token), which come first; that patches come row by row is tried on two images that
    differ in one patch, or, in networks of several stages, held against the map that the network itself gives.

    transformers' own rules hold for images of another size than the network's own, and may refuse them.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        """`network` is in evaluation mode and in its dtype; `name` is for messages.

        Raises:
            InputError: what it gives is not understood.
        """
        super().__init__()
        self.network, self.name = network, name
        config: Any = network.config
        if getattr(config, "mask_ratio", None):
            config.mask_ratio = 0.0  # MAE would hide three patches of four
        self._arguments = set(inspect.signature(network.forward).parameters)
        # Swin makes its windows smaller when it sees a small image, for good.
        self._windows = [
            (module, module.window_size, module.shift_size)
            for module in network.modules()
            if hasattr(module, "set_shift_and_window_size")
        ]
        self.any_size = True
        first = _side(getattr(config, "patch_size", None))
        stages = len(getattr(config, "depths", None) or getattr(config, "hidden_sizes", None) or [0])
        self.patch_size = first * 2 ** (stages - 1) if first else _USUAL_STEP
        side = _side(getattr(config, "image_size", None))
        self.image_size = side  # of the images it was made for, where its configuration says
        self.own_size = (side, side) if side else (7 * self.patch_size, 7 * self.patch_size)
        self._understand()

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Features:
        """Features of the network's own output."""
        grid = self.grid(*images.shape[2:])
        out = self._run(images)
        return self._features(out.last_hidden_state, grid, getattr(out, "pooler_output", None) if self.pooled else None)

    def intermediate(
        self, images: Float[Tensor, "b 3 H W"], layers: Sequence[int], norm: bool = True, facet: str = "token"
    ) -> list[Features]:
        """Features after the blocks with these indices; their vector is CLS, or the mean where there is none: poolers are for the end.

        Raises:
            ValueError: a layer that is not there.
            InputError: another facet than `token`; stages of several sizes; `norm=False` of a network without a final norm of its tokens.
        """
        self.require_facet(facet)
        if self._final_norm is None:
            raise InputError(f"{self.name} has no layers to choose from: its blocks do not all give tokens of one size")
        (final_norm,) = self._final_norm
        if not norm and isinstance(final_norm, nn.Identity):
            raise InputError(f"{self.name} has no norm after its last block: leave out --raw")
        wanted = layer_indices(layers, self.depth)
        grid = self.grid(*images.shape[2:])
        states = self._run(images, output_hidden_states=True).hidden_states[1:]
        return [self._features(final_norm(states[i]) if norm else states[i], grid) for i in wanted]

    def require_facet(self, facet: str) -> None:
        if facet != "token":
            raise InputError(f"{self.name} has no facet {facet}: expected token (others are given by our own families)")

    def facts(self) -> dict[str, Any]:
        """The configuration of the network, without what changes no number: labels of classes, and who wrote the file with what."""
        config: Any = self.network.config
        return {"class": type(self.network).__name__} | {
            name: value
            for name, value in config.to_dict().items()
            if name not in _NOT_ARCHITECTURE and not name.startswith("_")
        }

    def describe(self) -> str:
        layers = f", depth {self.depth}" if self._final_norm else ""
        return f"{type(self.network).__name__}, dim {self.embed_dim}{layers}, patch {self.patch_size}"

    def to(self, *args: Any, **kwargs: Any) -> HuggingFaceBackbone:
        """As `torch.nn.Module.to`, but the dtype stays: transformers loaded every part in the one meant for it, some in float32."""
        kwargs.pop("dtype", None)
        return super().to(*args, **kwargs)

    @torch.no_grad()
    def _understand(self) -> None:
        """Find patch size, tokens, vector and layers, on an image of few patches where the network takes one."""
        patch = self.patch_size
        own = self.own_size
        sizes = [(2 * patch, 3 * patch), (own[0], own[1] + patch), own]
        for size in sizes:
            images = _two_images(size, patch, self.network)
            try:
                out = self._run(images, output_hidden_states=True)
                break
            except InputError:
                if size == own:
                    raise
        self.smallest, self.any_size = size, size != own
        tokens = getattr(out, "last_hidden_state", None)
        if not isinstance(tokens, Tensor) or tokens.ndim not in (3, 4):
            raise InputError(f"{self.name} gives neither tokens nor a map of an image: expected a vision backbone")
        states = tuple(getattr(out, "hidden_states", None) or ())
        pooled = getattr(out, "pooler_output", None)
        self.embed_dim = tokens.shape[1 if tokens.ndim == 4 else 2]
        self.cls, self.prefix = 0, 0
        self.depth = max(1, len(states) - 1)
        self._final_norm: tuple[nn.Module] | None = None
        if tokens.ndim == 4:
            step = size[0] // tokens.shape[2]
            if (tokens.shape[2] * step, tokens.shape[3] * step) != size:
                if patch == _USUAL_STEP:
                    raise InputError(
                        f"{self.name} gives a map of {tokens.shape[2]}×{tokens.shape[3]} of {size[1]}×{size[0]} px: expected whole patches"
                    )
                self.patch_size = _USUAL_STEP  # its configuration did not tell
                self._understand()
                return
            self.patch_size = step
        else:
            self._understand_tokens(tokens, states, getattr(out, "reshaped_hidden_states", None), pooled, size)
        self.pooled = isinstance(pooled, Tensor) and pooled.numel() == len(images) * self.embed_dim

    def _understand_tokens(
        self, tokens: Tensor, states: tuple[Tensor, ...], maps: Any, pooled: Any, size: tuple[int, int]
    ) -> None:
        rows, columns = size[0] // self.patch_size, size[1] // self.patch_size
        dim = self.embed_dim
        counts = {
            # (AIMv2's head has a token for itself.)
            key: sum(
                value.numel() // dim
                for name, value in self.network.named_parameters()
                if name.endswith(key) and "head." not in name
            )
            for key in (*_CLS, *_OTHER_TOKENS)
        }
        self.cls, self.prefix = sum(counts[key] for key in _CLS), sum(counts.values())
        found = tokens.shape[1] - rows * columns
        if self.prefix == 0 and found == 1 and isinstance(pooled, Tensor) and torch.equal(tokens[:, 0], pooled):
            self.cls = self.prefix = 1  # DINOv3's ConvNeXt puts the mean in front
        if found != self.prefix:
            raise InputError(
                f"{self.name} gives {tokens.shape[1]} tokens of {size[1]}×{size[0]} px: expected {rows}×{columns} patches of "
                f"{self.patch_size} px and {self.prefix} tokens before them"
            )
        plain = bool(states) and all(state.shape == tokens.shape for state in states)
        if plain:
            changed = (states[0][0] != states[0][1]).any(dim=-1).nonzero().flatten().tolist()
            in_order = changed == [self.prefix + 1]
            norm = self._norm_between(states[-1], tokens)
            self._final_norm = None if norm is None else (norm,)  # in a tuple, not to be a part of the network twice
        else:
            last = (maps or states or (tokens,))[-1]
            in_order = last.ndim == 4 and (
                self._norm_between(last.flatten(2).transpose(1, 2), tokens[:, self.prefix :]) is not None
            )
        if not in_order:
            raise InputError(f"{self.name} gives tokens whose places in the image are not known: expected row by row")

    def _norm_between(self, before: Tensor, after: Tensor) -> nn.Module | None:
        """The norm of the network that makes one of the other; the identity where they are the same, None where neither is so."""
        if before.shape != after.shape:
            return None
        if torch.equal(before, after):
            return nn.Identity()
        best, least = None, 1e-3 * float(after.abs().max())
        for module in self.network.modules():
            weight = getattr(module, "weight", None)
            if "Norm" in type(module).__name__ and weight is not None and weight.shape == before.shape[-1:]:
                difference = float((module(before) - after).abs().max())
                if difference < least:
                    best, least = module, difference
        return best

    def _run(self, images: Float[Tensor, "b 3 H W"], **more: Any) -> Any:
        """The network's output for images; as it was before, whatever it saw."""
        size = (images.shape[2], images.shape[3])
        if not self.any_size and size != self.own_size:
            height, width = self.own_size
            raise InputError(
                f"{self.name} takes images of {width}×{height} px alone, got {size[1]}×{size[0]}: use --size {height} and, for feature "
                "maps, --resize crop, pad or squash"
            )
        for module, window_size, shift_size in self._windows:
            module.window_size, module.shift_size = window_size, shift_size
        if "interpolate_pos_encoding" in self._arguments and size != self.own_size:
            more["interpolate_pos_encoding"] = True
        if "noise" in self._arguments and hasattr(self.network.config, "mask_ratio"):
            # Patches are shuffled by sorting this.
            count = (size[0] // self.patch_size) * (size[1] // self.patch_size)
            more["noise"] = torch.arange(count, device=images.device, dtype=torch.float32).expand(len(images), -1)
        try:
            return self.network(pixel_values=images, return_dict=True, **more)
        except _REFUSALS as error:
            if "memory" in str(error) or isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            raise InputError(f"{self.name} takes no images of {size[1]}×{size[0]} px: {_first_line(error)}") from error

    def _features(self, tokens: Float[Tensor, "b *s"], grid: tuple[int, int], pooled: Tensor | None = None) -> Features:
        if tokens.ndim == 4:
            feature_map = tokens.permute(0, 2, 3, 1)
        else:
            feature_map = tokens[:, self.prefix :].reshape(len(tokens), *grid, -1)
        if pooled is not None:
            vector = pooled.reshape(len(tokens), -1)
        else:
            vector = tokens[:, 0] if self.cls else feature_map.mean(dim=(1, 2))
        return Features(
            global_repr=vector,
            registers=tokens[:, 1 : self.prefix] if self.prefix > 1 else None,
            feature_map=feature_map,
        )


def _side(value: Any) -> int | None:
    """One number, or the one of a pair of equals."""
    sides = set(value) if isinstance(value, list | tuple) else {value}
    side = sides.pop() if len(sides) == 1 else None
    return side if isinstance(side, int) and side > 0 else None


def _two_images(size: tuple[int, int], patch: int, network: nn.Module) -> Float[Tensor, "2 3 H W"]:
    """Two images that differ in their second patch alone."""
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    images[1, :, :patch, patch : 2 * patch] += 1
    weight = next(network.parameters())
    return images.to(weight.device, weight.dtype)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0][:160]
