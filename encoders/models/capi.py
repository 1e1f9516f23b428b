"""CAPI's network: an encoder with rotary positions and registers, and the decoder block that yields its global feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewmatch.encoders.features import Features
from fewmatch.encoders.models import Backbone, layer_indices
from fewmatch.errors import InputError

#: Cosines and sines of the angles by which every channel of a head is turned, (tokens, channels).
Rotation = tuple[Float[Tensor, "_ c"], Float[Tensor, "_ c"]]


@dataclass(frozen=True)
class CAPIArchitecture:
    """The sizes of a CAPI network; hidden_dim is the width of the feed-forward layers."""

    embed_dim: int
    depth: int
    heads: int
    patch_size: int
    hidden_dim: int
    registers: int = 16
    eps: float = 1e-5

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        return (
            f"dim {self.embed_dim}, depth {self.depth}, {self.heads} heads, patch {self.patch_size}, "
            f"{self.registers} registers, rotary positions"
        )


class Rope(nn.Module):
    """The frequencies that a file stores in every block, in radians per unit of the row and of the column coordinate.

    They are kept in float32 besides, because angles reach 44 rad: rounded to bfloat16, they would be off by a tenth of a radian.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(torch.zeros(2, head_dim))
        self.exact: Tensor | None = None

    def frequencies(self) -> Float[Tensor, "2 c"]:
        return self.freqs.detach().float() if self.exact is None else self.exact


class Attention(nn.Module):
    """Multi-head attention without biases; queries and keys are turned by their positions."""

    def __init__(self, a: CAPIArchitecture) -> None:
        super().__init__()
        self.heads = a.heads
        self.q_proj = nn.Linear(a.embed_dim, a.embed_dim, bias=False)
        self.k_proj = nn.Linear(a.embed_dim, a.embed_dim, bias=False)
        self.v_proj = nn.Linear(a.embed_dim, a.embed_dim, bias=False)
        self.proj = nn.Linear(a.embed_dim, a.embed_dim, bias=False)
        self.rope = Rope(a.embed_dim // a.heads)

    def forward(
        self, queries: Float[Tensor, "b q d"], context: Float[Tensor, "b k d"], at: Rotation, context_at: Rotation
    ) -> Float[Tensor, "b q d"]:
        q = rotated(self._by_head(self.q_proj(queries)), at)
        k = rotated(self._by_head(self.k_proj(context)), context_at)
        out = F.scaled_dot_product_attention(q, k, self._by_head(self.v_proj(context)))  # (b, heads, q, head dim)
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected

    def _by_head(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b heads n c"]:
        b, n, d = x.shape
        return x.view(b, n, self.heads, d // self.heads).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers without biases, with the exact (erf) GELU between them."""

    def __init__(self, a: CAPIArchitecture) -> None:
        super().__init__()
        self.fc1 = nn.Linear(a.embed_dim, a.hidden_dim, bias=False)
        self.fc2 = nn.Linear(a.hidden_dim, a.embed_dim, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Residual(nn.Module):
    """A norm and what follows it, under the official names; `Block` adds the result."""

    def __init__(self, a: CAPIArchitecture, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(a.embed_dim, eps=a.eps)
        self.fn = fn


class Block(nn.Module):
    """One pre-norm block: attention to itself, or to a context, then the feed-forward layer."""

    def __init__(self, a: CAPIArchitecture) -> None:
        super().__init__()
        self.residual1 = Residual(a, Attention(a))
        self.residual2 = Residual(a, Mlp(a))

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        at: Rotation,
        context: Float[Tensor, "b k d"] | None = None,
        context_at: Rotation | None = None,
    ) -> Float[Tensor, "b n d"]:
        normed = self.residual1.norm(x)
        if context is None or context_at is None:
            context, context_at = normed, at
        # A context is taken as it comes: this block's norm is not for it.
        x = x + self.residual1.fn(normed, context, at, context_at)
        out: Tensor = x + self.residual2.fn(self.residual2.norm(x))
        return out


class Blocks(nn.Module):
    """Blocks under their official name."""

    def __init__(self, a: CAPIArchitecture, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(a) for _ in range(depth))


class CAPI(Backbone):
    """CAPI (Darcet et al. 2025; reference/encoders.md 4) under the official parameter names.

    Sequence: registers, then patches row by row; there is no CLS token. `global_repr` is what the mask token, put at every patch
    position, reads from the normed sequence in the first decoder block, normed, as a mean over positions. Released files hold
    further decoder blocks, which only pre-training used.
    """

    compiles = True

    def __init__(self, architecture: CAPIArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.embed_dim, self.patch_size, self.depth = a.embed_dim, a.patch_size, a.depth
        self.mask_token = nn.Parameter(torch.zeros(1, a.embed_dim))
        self.registers = nn.Parameter(torch.zeros(1, a.registers, a.embed_dim))
        self.patch_embed = nn.Conv2d(3, a.embed_dim, kernel_size=a.patch_size, stride=a.patch_size)
        self.encoder = Blocks(a, a.depth)
        self.decoder = Blocks(a, 1)
        self._kept: dict[tuple[int, int], list[Rotation]] = {}

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Features:
        """Features of the last block, after the final norm."""
        return self.intermediate(images, [-1])[0]

    def intermediate(
        self, images: Float[Tensor, "b 3 H W"], layers: Sequence[int], norm: bool = True, facet: str = "token"
    ) -> list[Features]:
        """Features after the encoder blocks with these indices (0-based, negative from the end), in the order asked for.

        The decoder reads the normed sequence of the same block; without `norm`, the final norms are left off what is returned.

        Raises:
            ValueError: a layer that is not there, or a size that is no multiple of the patch size.
            InputError: a facet other than `token`.
        """
        self.require_facet(facet)
        wanted = layer_indices(layers, self.depth)
        grid = self.grid(*images.shape[2:])
        rotations = self._rotations(grid, images.device)
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.registers.expand(len(images), -1, -1), patches], dim=1)
        taken: dict[int, Features] = {}
        for index, block in enumerate(self.encoder.blocks[: max(wanted, default=-1) + 1]):
            x = block(x, rotations[index])
            if index in wanted:
                taken[index] = self._features(x, rotations[-1], grid, norm)
        return [taken[index] for index in wanted]

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        return self.architecture.describe()

    def take_weights(self, entries: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """Take in entries that match `state_dict()` exactly, in this dtype."""
        super().take_weights(entries, dtype)
        for name, module in self.named_modules():
            if isinstance(module, Rope):
                module.exact = entries[f"{name}.freqs"].detach().float()
        self._kept.clear()

    def _features(self, x: Float[Tensor, "b n d"], at: Rotation, grid: tuple[int, int], norm: bool) -> Features:
        count = self.architecture.registers
        normed = self._normed(x)
        patches_at = (at[0][count:], at[1][count:])
        queries = self.mask_token.expand(len(x), len(patches_at[0]), -1)
        read = self.decoder.blocks[0](queries, patches_at, normed, at)
        x, read = (normed, self._normed(read)) if norm else (x, read)
        return Features(
            global_repr=read.mean(dim=1),
            registers=x[:, :count],
            feature_map=x[:, count:].reshape(len(x), *grid, -1),
        )

    def _normed(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The final norm of encoder and decoder, which has no weights."""
        return F.rms_norm(x, (self.embed_dim,), eps=self.architecture.eps)

    def _rotations(self, grid: tuple[int, int], device: torch.device) -> list[Rotation]:
        """Every block's rotation of registers and patches, encoder first; kept, because a run sees few grids."""
        kept = self._kept.get(grid)
        if kept is None or kept[0][0].device != device:
            coordinates = token_coordinates(grid, self.architecture.registers)
            kept = []
            before = None
            for rope in (module for module in self.modules() if isinstance(module, Rope)):
                frequencies = rope.frequencies().cpu()
                # Released files store the same frequencies in every block.
                if before is None or not torch.equal(before, frequencies):
                    angles = coordinates @ frequencies
                    rotation = (angles.cos().to(device), angles.sin().to(device))
                kept.append(rotation)
                before = frequencies
            if len(self._kept) >= 32:
                self._kept.clear()
            self._kept[grid] = kept
        return kept


def token_coordinates(grid: tuple[int, int], registers: int) -> Float[Tensor, "n 2"]:
    """(row, column) of every token, 0 to 1 from the first to the last patch: registers on the border, then patches row by row.

    Registers start at the top left, go down the left side, along the bottom, up the right side and back along the top. Where the grid
    has one row (or column), all have that coordinate 0.
    """
    rows, columns = (torch.linspace(0, 1, length) for length in grid)
    side = registers // 4
    along = torch.arange(side) / side
    zero, one = torch.zeros(side), torch.ones(side)
    border = torch.stack(
        [torch.cat([along, one, 1 - along, zero]), torch.cat([zero, along, one, 1 - along])], dim=1
    ) * torch.tensor([rows.max(), columns.max()])
    return torch.cat([border, torch.cartesian_prod(rows, columns)])


def rotated(x: Float[Tensor, "b heads n c"], at: Rotation) -> Float[Tensor, "b heads n c"]:
    """Channels turned by their tokens' angles, in float32.

    Channel i is paired with i + c/2, although the first half of the channels has the row's angle and the second the column's. That
    is no rotation, but what the weights were trained with.
    """
    first, second = x.float().chunk(2, dim=-1)
    cosines, sines = at
    return (x.float() * cosines + torch.cat([-second, first], dim=-1) * sines).to(x.dtype)


def read_architecture(state: Mapping[str, Tensor], heads: int | None = None) -> CAPIArchitecture:
    """The architecture that keys and shapes imply. `heads` shows in the frequencies; where it is given, it has to agree.

    Raises:
        KeyError: an entry that every CAPI network has is missing.
        ValueError: shapes contradict each other.
        InputError: the number of heads is another.
    """
    dim, registers = state["mask_token"].shape[-1], state["registers"].shape[1]
    head_dim = state["encoder.blocks.0.residual1.fn.rope.freqs"].shape[1]
    if dim % head_dim or head_dim % 4:
        raise ValueError(f"expected heads of a width that divides {dim} and that 4 divides, got {head_dim}")
    if registers % 4 or not registers:
        raise ValueError(f"expected as many registers on each of the four sides, got {registers}")
    if heads not in (None, dim // head_dim):
        raise InputError(f"heads {heads} does not fit: expected {dim // head_dim}, as the weights say")
    return CAPIArchitecture(
        embed_dim=dim,
        depth=1 + max(int(key.split(".")[2]) for key in state if key.startswith("encoder.blocks.")),
        heads=dim // head_dim,
        patch_size=state["patch_embed.weight"].shape[-1],
        hidden_dim=state["encoder.blocks.0.residual2.fn.fc1.weight"].shape[0],
        registers=registers,
    )
