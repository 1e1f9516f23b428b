"""SAM's image encoder: a vision transformer with attention in windows, decomposed relative positions, and a convolutional neck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewmatch.encoders.features import Features
from fewmatch.encoders.models import Backbone, layer_indices
from fewmatch.encoders.models.vit import Mlp
from fewmatch.encoders.models.windows import from_windows, into_windows
from fewmatch.errors import InputError

#: The most attention biases at a time (1 GB in float32): those of one image of 1024 px in ViT-H. Larger batches take them in turn.
MAX_BIASES = 2**28


@dataclass(frozen=True)
class SAMArchitecture:
    """The sizes of an image encoder.

    width, hidden_dim: of the tokens in the blocks and of their feed-forward layers. embed_dim: channels after the neck.
    position_grid: rows and columns of the stored position table.
    windows: for each block, the side of its attention windows in patches; 0 attends to the whole image.
    """

    embed_dim: int
    width: int
    heads: int
    patch_size: int
    position_grid: tuple[int, int]
    hidden_dim: int
    windows: tuple[int, ...]
    eps: float = 1e-6

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        sides = sorted(set(self.windows) - {0})
        return (
            f"dim {self.embed_dim} after width {self.width}, depth {len(self.windows)}, {self.heads} heads, patch {self.patch_size}, "
            f"windows {', '.join(map(str, sides)) or 'none'}, {self.windows.count(0)} global blocks"
        )


class Attention(nn.Module):
    """Multi-head self-attention of a map of tokens, with learned biases for the distance in rows and in columns."""

    def __init__(self, a: SAMArchitecture, window: int) -> None:
        super().__init__()
        self.heads = a.heads
        rows, columns = (window, window) if window else a.position_grid
        self.qkv = nn.Linear(a.width, 3 * a.width)
        self.proj = nn.Linear(a.width, a.width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * rows - 1, a.width // a.heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * columns - 1, a.width // a.heads))

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        b, h, w, d = x.shape
        q, k, v = self.qkv(x).view(b, h * w, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q = q.unflatten(2, (h, w))  # (b, heads, h, w, head dim)
        by_row = distance_vectors(self.rel_pos_h, h)
        by_column = distance_vectors(self.rel_pos_w, w)
        # Rows of queries do not depend on each other, so that biases need never be there for all of them.
        step = max(1, MAX_BIASES // (b * self.heads * w * h * w))
        out = []
        for first in range(0, h, step):
            some = q[:, :, first : first + step]
            # Biases come from queries before these are divided by the root of their length.
            rows = some @ by_row[first : first + step].transpose(1, 2)  # (b, heads, some, w, h)
            columns = (some.transpose(2, 3) @ by_column.transpose(1, 2)).transpose(2, 3)  # (b, heads, some, w, w)
            bias = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(4).flatten(2, 3)
            out.append(F.scaled_dot_product_attention(some.flatten(2, 3), k, v, attn_mask=bias))
        projected: Tensor = self.proj(torch.cat(out, dim=2).transpose(1, 2).reshape(b, h, w, d))
        return projected


class Block(nn.Module):
    """One pre-norm transformer block on a map of tokens. Windows are filled up with zeros after the norm, which attention sees."""

    def __init__(self, a: SAMArchitecture, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(a.width, eps=a.eps)
        self.attn = Attention(a, window)
        self.norm2 = nn.LayerNorm(a.width, eps=a.eps)
        self.mlp = Mlp(a.width, a.hidden_dim)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        y = self.norm1(x)
        if self.window:
            b, h, w, d = x.shape
            windows = into_windows(y, self.window)
            y = self.attn(windows.reshape(-1, self.window, self.window, d))
            y = from_windows(y.view(b, -1, self.window**2, d), self.window, (h, w))
        else:
            y = self.attn(y)
        x = x + y
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of a map, channels first."""

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, a: SAMArchitecture) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, a.width, kernel_size=a.patch_size, stride=a.patch_size)


class SAM(Backbone):
    """SAM's image encoder (Kirillov et al. 2023; reference/encoders.md 18) under the official parameter names, but `mlp.fc1` and `fc2`.

    `global_repr`, of which SAM has none, is the mean of the feature map. The official code takes images of one size, and gives the
    same features there. At any other, the position table is resized (bicubic, antialiased), those of relative positions linearly, as
    the official code would; windows keep their size in patches.
    """

    def __init__(self, architecture: SAMArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.embed_dim, self.patch_size, self.depth = a.embed_dim, a.patch_size, len(a.windows)
        self.pos_embed = nn.Parameter(torch.zeros(1, *a.position_grid, a.width))
        self.patch_embed = PatchEmbed(a)
        self.blocks = nn.ModuleList(Block(a, window) for window in a.windows)
        self.neck = nn.Sequential(
            nn.Conv2d(a.width, a.embed_dim, kernel_size=1, bias=False),
            ChannelNorm(a.embed_dim, eps=a.eps),
            nn.Conv2d(a.embed_dim, a.embed_dim, kernel_size=3, padding=1, bias=False),
            ChannelNorm(a.embed_dim, eps=a.eps),
        )

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Features:
        """Features after the neck."""
        x = self._tokens(images)
        for block in self.blocks:
            x = block(x)
        return _features(self.neck(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    def intermediate(
        self,
        images: Float[Tensor, "b 3 H W"],
        layers: Sequence[int],
        norm: bool = True,  # noqa: ARG002
        facet: str = "token",
    ) -> list[Features]:
        """Features after the blocks with these indices (0-based, negative from the end), in the order asked for.

        They are those of the transformer, before the neck: they have its width, not `embed_dim`, and those of the last block are not
        the model's output. There is no norm before the neck, so `norm` changes nothing.

        Raises:
            ValueError: a layer that is not there, or a size that is no multiple of the patch size.
            InputError: a facet other than `token`.
        """
        self.require_facet(facet)
        wanted = layer_indices(layers, self.depth)
        x = self._tokens(images)
        taken: dict[int, Features] = {}
        for index, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            x = block(x)
            if index in wanted:
                taken[index] = _features(x)
        return [taken[index] for index in wanted]

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        return self.architecture.describe()

    def _tokens(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b h w d"]:
        grid = self.grid(*images.shape[2:])
        positions: Tensor = self.pos_embed
        if grid != self.architecture.position_grid:
            table = positions.float().permute(0, 3, 1, 2)
            resized = F.interpolate(table, size=grid, mode="bicubic", antialias=True)
            positions = resized.permute(0, 2, 3, 1).to(positions.dtype)
        patches: Tensor = self.patch_embed.proj(images)
        return patches.permute(0, 2, 3, 1) + positions


def _features(x: Float[Tensor, "b h w d"]) -> Features:
    return Features(global_repr=x.mean(dim=(1, 2)), registers=None, feature_map=x.contiguous())


def distance_vectors(table: Float[Tensor, "n c"], length: int) -> Float[Tensor, "q k c"]:
    """The learned vector for each query and key position on an axis: row q − k + length − 1 of a table with 2·length − 1 rows.

    A table of another length is resized linearly.
    """
    if len(table) != 2 * length - 1:
        resized = F.interpolate(table.float().T.unsqueeze(0), size=2 * length - 1, mode="linear")
        table = resized[0].T.to(table.dtype)
    position = torch.arange(length, device=table.device)
    return table[position[:, None] - position + length - 1]


def read_architecture(state: Mapping[str, Tensor], heads: int | None = None) -> SAMArchitecture:
    """The architecture that keys and shapes imply. `heads` shows in the relative positions; where it is given, it has to agree.

    A block whose relative positions cover the whole position table is global; so is each block of a network whose windows are as
    large as its table.

    Raises:
        KeyError: an entry that every such encoder has is missing.
        ValueError: shapes contradict each other.
        InputError: the number of heads is another.
    """
    if state["pos_embed"].ndim != 4:
        raise ValueError(f"expected pos_embed of rows and columns, got shape {tuple(state['pos_embed'].shape)}")
    _, rows, columns, width = state["pos_embed"].shape
    head_dim = state["blocks.0.attn.rel_pos_h"].shape[1]
    if width % head_dim:
        raise ValueError(f"expected heads of a width that divides {width}, got {head_dim}")
    if heads not in (None, width // head_dim):
        raise InputError(f"heads {heads} does not fit: expected {width // head_dim}, as the weights say")
    windows = []
    for index in range(1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))):
        down, across = (len(state[f"blocks.{index}.attn.rel_pos_{axis}"]) for axis in "hw")
        whole = (down, across) == (2 * rows - 1, 2 * columns - 1)
        if not whole and (down != across or down % 2 == 0):
            raise ValueError(
                f"expected square windows or the whole {rows}×{columns} table in block {index}, got relative positions of {down} and {across}"
            )
        windows.append(0 if whole else (down + 1) // 2)
    return SAMArchitecture(
        embed_dim=state["neck.0.weight"].shape[0],
        width=width,
        heads=width // head_dim,
        patch_size=state["patch_embed.proj.weight"].shape[-1],
        position_grid=(rows, columns),
        hidden_dim=state["blocks.0.mlp.fc1.weight"].shape[0],
        windows=tuple(windows),
    )
