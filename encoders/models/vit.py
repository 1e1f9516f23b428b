"""The plain vision transformer, with the switches in which its released checkpoints differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders.features import Features
from encoders.models import Backbone, layer_indices


@dataclass(frozen=True)
class ViTArchitecture:
    """Everything that decides the forward pass, apart from the weights.

    position_grid: side of the square grid that the stored position table covers, in patches.
    hidden_dim: width of the feed-forward layer (for swiglu: of the gated product).
    positions: how the table is resized to another grid. `scale-factor` is the official DINO and DINOv2 form with its offset of 0.1,
        `size` the antialiased form of the DINOv2 models with registers. They give different features at the same size
        (reference/encoders.md 2 and 3.4).
    """

    embed_dim: int
    depth: int
    heads: int
    patch_size: int
    position_grid: int
    hidden_dim: int
    registers: int = 0
    ffn: Literal["mlp", "swiglu"] = "mlp"
    layer_scale: bool = True
    eps: float = 1e-6
    positions: Literal["scale-factor", "size"] = "scale-factor"

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        registers = f", {self.registers} registers" if self.registers else ""
        return f"dim {self.embed_dim}, depth {self.depth}, {self.heads} heads, patch {self.patch_size}, {self.ffn}{registers}"


class Attention(nn.Module):
    """Multi-head self-attention; the rows of `qkv` are q, k, v, each head after head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)  # (b, heads, n, head dim)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(b, n, d))
        return projected


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
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
    """One pre-norm transformer block."""

    def __init__(self, a: ViTArchitecture) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(a.embed_dim, eps=a.eps)
        self.attn = Attention(a.embed_dim, a.heads)
        self.ls1 = LayerScale(a.embed_dim) if a.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(a.embed_dim, eps=a.eps)
        self.mlp = SwiGLU(a.embed_dim, a.hidden_dim) if a.ffn == "swiglu" else Mlp(a.embed_dim, a.hidden_dim)
        self.ls2 = LayerScale(a.embed_dim) if a.layer_scale else nn.Identity()

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, a: ViTArchitecture) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, a.embed_dim, kernel_size=a.patch_size, stride=a.patch_size)


class VisionTransformer(Backbone):
    """A ViT under the official DINOv2 parameter names.

    Sequence: CLS, registers (inserted after positions were added, so they have none), patches row by row.
    """

    def __init__(self, architecture: ViTArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.embed_dim, self.patch_size, self.depth = a.embed_dim, a.patch_size, a.depth
        self.cls_token = nn.Parameter(torch.zeros(1, 1, a.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + a.position_grid**2, a.embed_dim))
        if a.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, a.registers, a.embed_dim))
        self.patch_embed = PatchEmbed(a)
        self.blocks = nn.ModuleList(Block(a) for _ in range(a.depth))
        self.norm = nn.LayerNorm(a.embed_dim, eps=a.eps)
        self._positions: dict[tuple[int, int], Tensor] = {}

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Features:
        """Features of the last block, after the final norm."""
        x, grid = self._tokens(images)
        for block in self.blocks:
            x = block(x)
        return self._features(self.norm(x), grid)

    def intermediate(
        self, images: Float[Tensor, "b 3 H W"], layers: Sequence[int], norm: bool = True
    ) -> list[Features]:
        """Features after the blocks with these indices (0-based, negative from the end), in the order asked for."""
        wanted = layer_indices(layers, self.depth)
        x, grid = self._tokens(images)
        taken: dict[int, Features] = {}
        for index, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            x = block(x)
            if index in wanted:
                taken[index] = self._features(self.norm(x) if norm else x, grid)
        return [taken[index] for index in wanted]

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        return self.architecture.describe()

    def _tokens(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Tensor, tuple[int, int]]:
        patch = self.architecture.patch_size
        height, width = images.shape[2:]
        if height % patch or width % patch or not (height and width):
            raise ValueError(
                f"expected height and width to be multiples of the patch size {patch}, got {height}×{width}"
            )
        patches = self.patch_embed.proj(images)  # (b, d, h, w)
        grid = (patches.shape[2], patches.shape[3])
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        x = x + self._positions_at(grid)
        if self.architecture.registers:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(images), -1, -1), x[:, 1:]], dim=1)
        return x, grid

    def _features(self, x: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Features:
        first = 1 + self.architecture.registers
        return Features(
            global_repr=x[:, 0],
            registers=x[:, 1:first] if self.architecture.registers else None,
            feature_map=x[:, first:].reshape(len(x), *grid, -1),
        )

    def _positions_at(self, grid: tuple[int, int]) -> Float[Tensor, "1 n d"]:
        """The position table resized to a grid, in the weights' dtype; kept, because a run sees few grids."""
        side = self.architecture.position_grid
        if grid == (side, side):
            return self.pos_embed
        kept = self._positions.get(grid)
        if kept is None or kept.device != self.pos_embed.device or kept.dtype != self.pos_embed.dtype:
            table = self.pos_embed.detach().float()
            patches = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
            if self.architecture.positions == "size":
                resized = F.interpolate(patches, size=grid, mode="bicubic", antialias=True)
            else:
                # The official code passes a factor and leaves recompute_scale_factor unset, so the sampler works with the
                # inexact factor itself; size=grid would sample other places (reference/encoders.md 2).
                factor = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
                resized = F.interpolate(patches, scale_factor=factor, mode="bicubic")
            kept = torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1).to(self.pos_embed.dtype)
            if len(self._positions) >= 32:
                self._positions.clear()
            self._positions[grid] = kept
        return kept


def read_architecture(state: Mapping[str, Tensor], **known: object) -> ViTArchitecture:
    """The architecture that keys and shapes of an official state dict imply.

    `known` adds or overrides what they cannot tell. The number of heads never shows in the shapes: without `heads=`, a head width
    of 64 is assumed, as in every released DINOv2.

    Raises:
        KeyError: an entry that every ViT has is missing.
        ValueError: shapes contradict each other.
    """
    dim = state["cls_token"].shape[-1]
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    if side * side + 1 != state["pos_embed"].shape[1]:
        raise ValueError(
            f"expected pos_embed with a square grid and one CLS position, got {state['pos_embed'].shape[1]} positions"
        )
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    swiglu = "blocks.0.mlp.w3.weight" in state
    found: dict[str, object] = {
        "embed_dim": dim,
        "depth": 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
        "patch_size": state["patch_embed.proj.weight"].shape[-1],
        "position_grid": side,
        "hidden_dim": state["blocks.0.mlp.w3.weight"].shape[1] if swiglu else state["blocks.0.mlp.fc1.weight"].shape[0],
        "registers": registers,
        "ffn": "swiglu" if swiglu else "mlp",
        "layer_scale": "blocks.0.ls1.gamma" in state,
        **known,
    }
    if "heads" not in found:
        if dim % 64:
            raise ValueError(f"expected a width divisible by 64, got {dim}: pass heads=")
        found["heads"] = dim // 64
    return ViTArchitecture(**found)  # type: ignore[arg-type]
