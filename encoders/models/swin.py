"""The Swin transformer: four stages of attention in windows that shift from block to block, patches merged between stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewmatch.encoders.features import Features
from fewmatch.encoders.models import Backbone, layer_indices
from fewmatch.encoders.models.vit import Mlp
from fewmatch.encoders.models.windows import from_windows, into_windows
from fewmatch.errors import InputError

#: Size in pixels that every released network was built for.
_USUAL_SIZE = 224


@dataclass(frozen=True)
class SwinArchitecture:
    """The sizes of a Swin transformer; tuples have one entry per stage.

    width: channels of the first stage; they double from stage to stage. patch_size: of the first stage, in pixels.
    windows: side of the attention windows, in patches of the stage. shifts: by how much every other block moves them.
    ratio: width of the feed-forward layers in channels of their stage.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    patch_size: int
    windows: tuple[int, ...]
    shifts: tuple[int, ...]
    ratio: int = 4
    eps: float = 1e-6

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        return (
            f"dim {self.width << len(self.depths) - 1}, stages of {', '.join(map(str, self.depths))} blocks, "
            f"heads {', '.join(map(str, self.heads))}, patch {self.patch_size}, windows {', '.join(map(str, self.windows))}"
        )


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for each distance between two tokens."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("relative_position_index", distances(window), persistent=False)

    def forward(
        self, x: Float[Tensor, "b n s d"], mask: Float[Tensor, "n s s"] | None = None
    ) -> Float[Tensor, "b n s d"]:
        b, n, s, d = x.shape
        q, k, v = self.qkv(x).view(b, n, s, 3, self.heads, d // self.heads).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # (heads, s, s)
        # Fused attention takes one batch and one head axis. The mask differs between windows, not between images.
        if mask is None:
            q, k, v = (part.flatten(0, 1) for part in (q, k, v))
        else:
            q, k, v = (part.flatten(1, 2) for part in (q, k, v))
            bias = (bias + mask.unsqueeze(1)).flatten(0, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0))
        projected: Tensor = self.proj(out.view(b, n, self.heads, s, -1).transpose(2, 3).reshape(b, n, s, d))
        return projected


class Block(nn.Module):
    """One pre-norm transformer block on a map of tokens. Windows are filled up with zeros after the norm, which attention sees."""

    def __init__(self, dim: int, heads: int, window: int, shift: int, a: SwinArchitecture) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim, eps=a.eps)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim, eps=a.eps)
        self.mlp = Mlp(dim, a.ratio * dim)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        y = self.attend(self.norm1(x))
        x = x + y
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def attend(self, y: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        h, w = y.shape[1:3]
        if not self.shift:
            return from_windows(self.attn(into_windows(y, self.window)), self.window, (h, w))
        y = F.pad(y, (0, 0, 0, -w % self.window, 0, -h % self.window))
        grid = (y.shape[1], y.shape[2])
        y = y.roll((-self.shift, -self.shift), dims=(1, 2))
        mask = shift_mask(grid, self.window, self.shift, y.dtype, y.device)
        y = from_windows(self.attn(into_windows(y, self.window), mask), self.window, grid)
        return y.roll((self.shift, self.shift), dims=(1, 2))[:, :h, :w]


class PatchMerging(nn.Module):
    """Two by two patches to one of twice the channels."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h2 w2 d2"]:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # Column by column, unlike the row-by-row order of everything else.
        four = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
        out: Tensor = self.reduction(self.norm(four))
        return out


class Stage(nn.Module):
    """Blocks at one resolution, and the merging that leads to the next."""

    def __init__(self, stage: int, a: SwinArchitecture) -> None:
        super().__init__()
        dim = a.width << stage
        self.blocks = nn.ModuleList(
            Block(dim, a.heads[stage], a.windows[stage], a.shifts[stage] if index % 2 else 0, a)
            for index in range(a.depths[stage])
        )
        self.downsample = PatchMerging(dim, a.eps) if stage + 1 < len(a.depths) else nn.Identity()


class PatchEmbed(nn.Module):
    """Non-overlapping patches to normed tokens."""

    def __init__(self, a: SwinArchitecture) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, a.width, kernel_size=a.patch_size, stride=a.patch_size)
        self.norm = nn.LayerNorm(a.width, eps=a.eps)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b h w d"]:
        out: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return out


class Swin(Backbone):
    """A Swin transformer (Liu et al. 2021) as EsViT has it (Li et al. 2022; reference/encoders.md 13), under the official names.

    `feature_map` is the last stage's, so that `patch_size` is that of the first times 8; `global_repr` is its mean. The official code
    takes square images; here height and width are any multiples of the first stage's patch. Where they are no multiples of
    `patch_size`, maps are filled up with zeros below and at the right before merging, and the last row and column of the feature map
    reach beyond the image. Every block of every stage is a layer, in the order in which they run.
    """

    def __init__(self, architecture: SwinArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        merged = len(a.depths) - 1
        self.embed_dim, self.patch_size, self.depth = a.width << merged, a.patch_size << merged, sum(a.depths)
        self.patch_embed = PatchEmbed(a)
        self.layers = nn.ModuleList(Stage(stage, a) for stage in range(len(a.depths)))
        self.norm = nn.LayerNorm(self.embed_dim, eps=a.eps)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Features:
        """Features of the last block, after the final norm."""
        return self.intermediate(images, [-1])[0]

    def intermediate(
        self, images: Float[Tensor, "b 3 H W"], layers: Sequence[int], norm: bool = True, facet: str = "token"
    ) -> list[Features]:
        """Features after the blocks with these indices (0-based over all stages, negative from the end), in the order asked for.

        Each has the channels and the resolution of its stage. The final norm fits the last stage alone and is applied only there, as
        in the official linear evaluation, which joins the means of the last four blocks.

        Raises:
            ValueError: a layer that is not there, or a size that is no multiple of the first stage's patch.
            InputError: a facet other than `token`.
        """
        self.require_facet(facet)
        wanted = layer_indices(layers, self.depth)
        self.grid(*images.shape[2:])
        taken: dict[int, Features] = {}
        for index, x in enumerate(islice(self._after_blocks(images), max(wanted, default=-1) + 1)):
            if index in wanted:
                out = self.norm(x) if norm and index >= self.depth - self.architecture.depths[-1] else x
                taken[index] = Features(global_repr=out.mean(dim=(1, 2)), registers=None, feature_map=out)
        return [taken[index] for index in wanted]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map of an image of this size in pixels.

        Raises:
            ValueError: the size is no multiple of the first stage's patch size.
        """
        first = self.architecture.patch_size
        if height % first or width % first or not (height and width):
            raise ValueError(
                f"expected height and width to be multiples of the patch size {first}, got {height}×{width}"
            )
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        return self.architecture.describe()

    def _after_blocks(self, images: Float[Tensor, "b 3 H W"]) -> Iterator[Float[Tensor, "b h w d"]]:
        """The map after each block in turn; nothing runs before it is asked for."""
        x = self.patch_embed(images)
        for stage in cast("Sequence[Stage]", self.layers):
            for block in stage.blocks:
                x = block(x)
                yield x
            x = stage.downsample(x)


def distances(window: int) -> Int[Tensor, "s s"]:
    """For two tokens of a window: the row of the bias table that belongs to their distance in rows and columns."""
    # On the CPU, also where a network without values is built: an index is no weight that is going to be loaded.
    token = torch.arange(window**2, device="cpu")
    rows, columns = token // window, token % window
    down, across = rows[:, None] - rows, columns[:, None] - columns
    return (down + window - 1) * (2 * window - 1) + across + window - 1


@lru_cache(maxsize=32)
def shift_mask(
    grid: tuple[int, int], window: int, shift: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "n s s"]:
    """What keeps tokens apart that share a window only because the map was rolled round: −100 between them, else 0."""
    regions = [torch.zeros(length, device=device, dtype=dtype) for length in grid]
    for region in regions:
        region[-window:-shift] = 1
        region[-shift:] = 2
    region = into_windows((3 * regions[0][:, None] + regions[1])[None, :, :, None], window)[0]  # (n, s, 1)
    return (region != region.transpose(1, 2)).to(dtype) * -100


def read_architecture(
    state: Mapping[str, Tensor], heads: int | Sequence[int] | None = None, image_size: int | None = None
) -> SwinArchitecture:
    """The architecture that keys and shapes imply.

    Args:
        state: entries by official name.
        heads: they show in the bias tables; where they are given, they have to agree: one number per stage, or one of these numbers,
            or 0 for what the weights say.
        image_size: size in pixels for which the network was built. In a stage whose map is not larger than a window, windows do not
            shift, at whatever size the network is used. None is 224, or where the bias tables say otherwise, a size that fits them.

    Raises:
        KeyError: an entry that every Swin transformer has is missing.
        ValueError: shapes contradict each other.
        InputError: heads or size do not fit the weights.
    """
    depths: list[int] = []
    while any(key.startswith(f"layers.{len(depths)}.blocks.") for key in state):
        stage = f"layers.{len(depths)}.blocks."
        depths.append(1 + max(int(key.split(".")[3]) for key in state if key.startswith(stage)))
    tables = [state[f"layers.{i}.blocks.0.attn.relative_position_bias_table"].shape for i in range(max(1, len(depths)))]
    windows = tuple((round(rows**0.5) + 1) // 2 for rows, _ in tables)
    found = tuple(number for _, number in tables)
    if any((2 * window - 1) ** 2 != rows for window, (rows, _) in zip(windows, tables, strict=True)):
        raise ValueError(
            f"expected bias tables of square windows, got {', '.join(str(rows) for rows, _ in tables)} rows"
        )
    fits = heads in (None, 0, *found) if isinstance(heads, int | None) else tuple(heads) == found
    if not fits:
        raise InputError(f"heads {heads} do not fit: expected {', '.join(map(str, found))}, as the weights say")
    width, patch = state["patch_embed.proj.weight"].shape[0], state["patch_embed.proj.weight"].shape[-1]
    return SwinArchitecture(
        width=width,
        depths=tuple(depths),
        heads=found,
        patch_size=patch,
        windows=windows,
        shifts=_shifts(windows, patch, image_size),
        ratio=state["layers.0.blocks.0.mlp.fc1.weight"].shape[0] // width,
    )


def _shifts(windows: tuple[int, ...], patch: int, image_size: int | None) -> tuple[int, ...]:
    """Half a window, or 0 in a stage that a single window covers at the size for which the network was built."""
    step = patch << len(windows) - 1
    # Maps are halved and rounded down, so that several sizes have the same last map.
    last = range(windows[-1] * step, (windows[-1] + 1) * step, patch)
    for size in (_USUAL_SIZE, *last) if image_size is None else (image_size,):
        maps = [size // patch >> stage for stage in range(len(windows))]
        if tuple(min(max(windows), side) for side in maps) == windows:
            return tuple(0 if side <= window else window // 2 for side, window in zip(maps, windows, strict=True))
    if image_size is None:
        raise ValueError(f"expected windows that fit one image size, got {', '.join(map(str, windows))}")
    raise InputError(f"image_size {image_size} does not fit windows of {', '.join(map(str, windows))} patches")
