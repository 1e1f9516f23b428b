"""The plain vision transformer, with the switches in which its released checkpoints differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewmatch.encoders.features import Features
from fewmatch.encoders.models import Backbone, layer_indices
from fewmatch.encoders.models.positions import (
    PerGrid,
    PositionRule,
    RelativePositions,
    RotaryPositions,
    resized_table,
    rotated,
)
from fewmatch.errors import InputError

_Ffn = Literal["mlp", "swiglu"]
_Act = Literal["gelu", "quick-gelu"]
_Norms = Literal["pre", "clip", "post"]
_Pool = Literal["cls", "mean"]


@dataclass(frozen=True)
class ViTArchitecture:
    """Everything that decides the forward pass, apart from the weights.

    embed_dim: width of a token.
    depth: number of blocks.
    heads: attention heads of a block.
    patch_size: side of a patch in pixels.
    position_grid: side in patches of the square grid that the table of positions (or relative positions) covers; 0 without a table.
    hidden_dim: width of the feed-forward layer (for swiglu: of the gated product).
    registers: tokens between CLS and the patches that stand for nothing in the image (DINOv3: storage tokens).
    ffn: two layers with an activation between them, or the gated form of the giant models.
    act: exact (erf) GELU, or x·σ(1.702x) (OpenAI's CLIP).
    layer_scale: whether what a block adds is multiplied by learned factors.
    eps: of every LayerNorm.
    positions: how tokens learn where they are (see `PositionRule`).
    stored_periods: with rotary positions, whether the file has the periods (official) or not (Hugging Face).
    norms: `pre` before attention and feed-forward layer, and after the last block; `clip` also before the first; `post` after each
        sum and before the first block, none after the last (data2vec 2.0).
    pool: `global_repr` is the CLS token, or the mean of the patches (data2vec 2.0).
    projection: width of the joint image-text space (CLIP family); 0 without.
    stride: pixels from one patch to the next; None is the patch size, less makes patches overlap (Amir et al. 2021).
    """

    embed_dim: int
    depth: int
    heads: int
    patch_size: int
    position_grid: int
    hidden_dim: int
    registers: int = 0
    ffn: _Ffn = "mlp"
    act: _Act = "gelu"
    layer_scale: bool = True
    eps: float = 1e-6
    positions: PositionRule = "scale-factor"
    stored_periods: bool = False
    norms: _Norms = "pre"
    pool: _Pool = "cls"
    projection: int = 0
    stride: int | None = None

    def __post_init__(self) -> None:
        for name, kind in (
            ("ffn", _Ffn), ("act", _Act), ("positions", PositionRule), ("norms", _Norms), ("pool", _Pool)
        ):  # fmt: skip
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"no {name} {getattr(self, name)}: expected one of {', '.join(get_args(kind))}")
        if self.heads < 1 or self.embed_dim % self.heads:
            raise InputError(f"expected heads that divide the width {self.embed_dim}, got heads {self.heads}")
        if self.positions == "rope" and self.embed_dim // self.heads % 4:
            raise InputError(
                f"expected heads of a width divisible by 4, got {self.embed_dim // self.heads}: rotary positions need that"
            )
        if self.stride is not None and not 1 <= self.stride <= self.patch_size:
            raise InputError(f"expected a stride from 1 to the patch size {self.patch_size}, got {self.stride}")

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        registers = f", {self.registers} registers" if self.registers else ""
        stride = f", stride {self.stride}" if self.stride not in (None, self.patch_size) else ""
        sizes = f"dim {self.embed_dim}, depth {self.depth}, {self.heads} heads, patch {self.patch_size}"
        return f"{sizes}{stride}, {self.ffn}{registers}"


class Attention(nn.Module):
    """Multi-head self-attention; the rows of `qkv` are q, k, v, each head after head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        waves: Float[Tensor, "2 n 1 1 e"] | None = None,
        bias: Float[Tensor, "heads n n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        b, n, d = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, d // self.heads)
        if waves is None:
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
        else:
            q, k = rotated(qkv[:, :, :2], waves).permute(2, 0, 3, 1, 4)
            v = qkv[:, :, 2].transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (b, heads, n, head dim)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(b, n, d))
        return projected

    def facet(self, x: Float[Tensor, "b n d"], facet: str) -> Float[Tensor, "b n d"]:
        """Queries, keys or values alone, heads concatenated, before any rotation."""
        d = x.shape[-1]
        start = ("query", "key", "value").index(facet) * d
        return F.linear(x, self.qkv.weight[start : start + d], self.qkv.bias[start : start + d])


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, dim: int, hidden: int, act: _Act = "gelu") -> None:
        super().__init__()
        self.quick = act == "quick-gelu"
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        x = self.fc1(x)
        out: Tensor = self.fc2(x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x))
        return out


class SwiGLU(nn.Module):
    """The gated feed-forward layer of the giant models: `w12` yields the gate, then the value."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        gate, value = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x * self.gamma


class Block(nn.Module):
    """One transformer block."""

    def __init__(self, a: ViTArchitecture) -> None:
        super().__init__()
        self.post = a.norms == "post"
        self.norm1 = nn.LayerNorm(a.embed_dim, eps=a.eps)
        self.attn = Attention(a.embed_dim, a.heads)
        self.ls1 = LayerScale(a.embed_dim) if a.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(a.embed_dim, eps=a.eps)
        self.mlp = SwiGLU(a.embed_dim, a.hidden_dim) if a.ffn == "swiglu" else Mlp(a.embed_dim, a.hidden_dim, a.act)
        self.ls2 = LayerScale(a.embed_dim) if a.layer_scale else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        waves: Float[Tensor, "2 n 1 1 e"] | None = None,
        bias: Float[Tensor, "heads n n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        if self.post:
            x = self.norm1(x + self.ls1(self.attn(x, waves, bias)))
            x = self.norm2(x + self.ls2(self.mlp(x)))
        else:
            x = x + self.ls1(self.attn(self.norm1(x), waves, bias))
            x = x + self.ls2(self.mlp(self.norm2(x)))
        return x

    def facet(self, x: Float[Tensor, "b n d"], facet: str) -> Float[Tensor, "b n d"]:
        """What this block's attention projects its input to."""
        return self.attn.facet(x if self.post else self.norm1(x), facet)


class PatchEmbed(nn.Module):
    """Patches to tokens, in float32 at least, whatever the dtype of the network.

    The bundled encoder loses more by rounding pixels and these weights to bfloat16 than by all of the rest in bfloat16; and this is one
    percent of its work (docs/encoders.md).
    """

    def __init__(self, a: ViTArchitecture) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, a.embed_dim, kernel_size=a.patch_size, stride=a.stride or a.patch_size)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> PatchEmbed:
        exact = {name: value.data for name, value in self.proj.named_parameters()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in self.proj.named_parameters():
            if value.dtype.itemsize < exact[name].dtype.itemsize:
                value.data = exact[name].to(value.device)  # moved, but never rounded
        return self

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b n d"]:
        x: Tensor = self.proj(images.to(self.proj.weight.dtype))
        return x.flatten(2).transpose(1, 2)


class VisionTransformer(Backbone):
    """A ViT under the official DINOv2 parameter names, and what other families have besides under names of the same kind.

    Sequence: CLS, registers (inserted after positions were added, so they have none), patches row by row.
    """

    facets = ("token", "key", "query", "value")
    image_dtype = torch.float32
    compiles = True

    def __init__(self, architecture: ViTArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.embed_dim, self.patch_size, self.depth, self.stride = a.embed_dim, a.patch_size, a.depth, a.stride
        self.cls_token = nn.Parameter(torch.zeros(1, 1, a.embed_dim))
        self.rope_embed = RotaryPositions(a.embed_dim // a.heads, a.stored_periods) if a.positions == "rope" else None
        self.rel_pos_bias = RelativePositions(a.heads, a.position_grid) if a.positions == "relative" else None
        if a.positions not in ("rope", "relative"):
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + a.position_grid**2, a.embed_dim))
        if a.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, a.registers, a.embed_dim))
        self.patch_embed = PatchEmbed(a)
        self.norm_pre = nn.Identity() if a.norms == "pre" else nn.LayerNorm(a.embed_dim, eps=a.eps)
        self.blocks = nn.ModuleList(Block(a) for _ in range(a.depth))
        self.norm = nn.Identity() if a.norms == "post" else nn.LayerNorm(a.embed_dim, eps=a.eps)
        self.head = nn.Linear(a.embed_dim, a.projection) if a.projection else None
        self._positions = PerGrid(32)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Features:
        """Features of the last block, after the final norm."""
        grid = self.grid(*images.shape[2:])
        x, waves, bias = self._tokens(images, grid), self._waves(grid), self._bias(grid)
        for block in self.blocks:
            x = block(x, waves, bias)
        return self._features(self.norm(x), grid, projected=True)

    def intermediate(
        self, images: Float[Tensor, "b 3 H W"], layers: Sequence[int], norm: bool = True, facet: str = "token"
    ) -> list[Features]:
        """Features after the blocks with these indices, or a facet of them, in the order asked for; never projected."""
        self.require_facet(facet)
        wanted = layer_indices(layers, self.depth)
        grid = self.grid(*images.shape[2:])
        x, waves, bias = self._tokens(images, grid), self._waves(grid), self._bias(grid)
        taken: dict[int, Features] = {}
        last = max(wanted, default=-1)
        for index, block in enumerate(self.blocks[: last + 1]):
            if facet != "token" and index in wanted:
                taken[index] = self._features(cast(Block, block).facet(x, facet), grid)
                if index == last:
                    break
            x = block(x, waves, bias)
            if facet == "token" and index in wanted:
                taken[index] = self._features(self.norm(x) if norm else x, grid)
        return [taken[index] for index in wanted]

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        return self.architecture.describe()

    def take_weights(self, entries: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """As `Backbone.take_weights`, with the factors of LayerScale multiplied into the layers before them.

        That is the same function with two passes over all tokens fewer per block. It is done before any rounding; not for float16,
        whose smallest numbers the products can fall below.
        """
        state = dict(entries)
        wide = torch.promote_types(dtype, torch.float32)
        if self.architecture.layer_scale and dtype != torch.float16:
            last = "mlp.w3" if self.architecture.ffn == "swiglu" else "mlp.fc2"
            for index, block in enumerate(self.blocks):
                for scale, layer in (("ls1", "attn.proj"), ("ls2", last)):
                    factors = state.pop(f"blocks.{index}.{scale}.gamma").to(wide)
                    weight, bias = f"blocks.{index}.{layer}.weight", f"blocks.{index}.{layer}.bias"
                    state[weight] = (state[weight].to(wide) * factors[:, None]).to(dtype)
                    state[bias] = (state[bias].to(wide) * factors).to(dtype)
                    setattr(block, scale, nn.Identity())
        exact = ("rope_embed.periods", "patch_embed.proj.weight", "patch_embed.proj.bias")
        self.load_state_dict(
            {key: value.to(wide if key in exact else dtype) for key, value in state.items()}, strict=True, assign=True
        )

    def _tokens(self, images: Float[Tensor, "b 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "b n d"]:
        patches = self.patch_embed(images)
        cls: Tensor = self.cls_token
        if self.rope_embed is None and self.rel_pos_bias is None:
            positions = self._positions_at(grid)
            cls, patches = cls + positions[:, :1], patches + positions[:, 1:]
        patches = patches.to(cls.dtype)
        tokens = [cls, self.register_tokens, patches] if self.architecture.registers else [cls, patches]
        x: Tensor = self.norm_pre(torch.cat([part.expand(len(images), -1, -1) for part in tokens], dim=1))
        return x

    def _positions_at(self, grid: tuple[int, int]) -> Float[Tensor, "1 n d"]:
        """The position table for a grid, in the weights' dtype."""
        a, table = self.architecture, self.pos_embed
        if grid == (a.position_grid, a.position_grid):
            return table
        return self._positions.get(grid, table.device, table.dtype, lambda: resized_table(table, grid, a.positions))

    def _waves(self, grid: tuple[int, int]) -> Float[Tensor, "2 n 1 1 e"] | None:
        if self.rope_embed is None:
            return None
        return self.rope_embed.at(grid, 1 + self.architecture.registers, self.cls_token.device)

    def _bias(self, grid: tuple[int, int]) -> Float[Tensor, "heads n n"] | None:
        return None if self.rel_pos_bias is None else self.rel_pos_bias.at(grid)

    def _features(self, x: Float[Tensor, "b n d"], grid: tuple[int, int], projected: bool = False) -> Features:
        first = 1 + self.architecture.registers
        patches = x[:, first:]
        pooled = x[:, 0] if self.architecture.pool == "cls" else patches.mean(dim=1)
        return Features(
            global_repr=pooled,
            registers=x[:, 1:first] if self.architecture.registers else None,
            feature_map=patches.reshape(len(x), *grid, -1),
            projected=self.head(pooled) if projected and self.head is not None else None,
        )


def read_architecture(state: Mapping[str, Tensor], **known: object) -> ViTArchitecture:
    """The architecture that keys and shapes under the names of `VisionTransformer` imply.

    `known` adds or overrides what they cannot tell. The number of heads shows only in BEiT's table and in DINOv3's periods;
    elsewhere, without `heads=`, a head width of 64 is assumed.

    Raises:
        KeyError: an entry that every such ViT has is missing.
        ValueError: shapes contradict each other.
        InputError: what `known` says is impossible.
    """
    dim = state["cls_token"].shape[-1]
    swiglu = "blocks.0.mlp.w3.weight" in state
    found: dict[str, object] = {
        "embed_dim": dim,
        "depth": 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
        "patch_size": state["patch_embed.proj.weight"].shape[-1],
        "hidden_dim": state["blocks.0.mlp.w3.weight"].shape[1] if swiglu else state["blocks.0.mlp.fc1.weight"].shape[0],
        "registers": state["register_tokens"].shape[1] if "register_tokens" in state else 0,
        "ffn": "swiglu" if swiglu else "mlp",
        "layer_scale": "blocks.0.ls1.gamma" in state,
        "stored_periods": "rope_embed.periods" in state,
        "projection": state["head.weight"].shape[0] if "head.weight" in state else 0,
        **_read_positions(state, str(known.get("positions", ViTArchitecture.positions))),
        **known,
    }
    if "heads" not in found:
        if dim % 64:
            raise ValueError(f"expected a width divisible by 64, got {dim}: pass heads=")
        found["heads"] = dim // 64
    return ViTArchitecture(**found)  # type: ignore[arg-type]


def _read_positions(state: Mapping[str, Tensor], rule: str) -> dict[str, object]:
    """The side of the square grid that positions are stored for, and the number of heads where positions tell it."""
    if rule == "rope":
        periods = state.get("rope_embed.periods")
        if periods is None:
            return {"position_grid": 0}
        return {"position_grid": 0, "heads": state["cls_token"].shape[-1] // (4 * max(1, len(periods)))}
    if rule == "relative":
        rows, heads_of_table = state["rel_pos_bias.relative_position_bias_table"].shape
        span = math.isqrt(max(0, rows - 3))
        if span**2 + 3 != rows or span % 2 == 0:
            raise ValueError(f"expected relative positions of a square grid and three for CLS, got {rows}")
        return {"position_grid": (span + 1) // 2, "heads": heads_of_table}
    rows = state["pos_embed"].shape[1]
    side = math.isqrt(max(0, rows - 1))
    if side**2 + 1 != rows:
        raise ValueError(f"expected pos_embed with a square grid and one CLS position, got {rows} positions")
    return {"position_grid": side}
