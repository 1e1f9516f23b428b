"""RegNetY: a convolutional network of four stages with grouped convolutions and squeeze and excitation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewmatch.encoders.features import Features
from fewmatch.encoders.models import Backbone, layer_indices
from fewmatch.errors import InputError


@dataclass(frozen=True)
class RegNetArchitecture:
    """The sizes of a RegNetY; tuples have one entry per stage.

    stem: channels of the first convolution. squeezes: channels of the squeeze of each block of each stage.
    group_width: channels per group of the 3×3 convolutions.
    """

    widths: tuple[int, ...]
    squeezes: tuple[tuple[int, ...], ...]
    group_width: int
    stem: int = 32
    eps: float = 1e-5

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        return (
            f"widths {', '.join(map(str, self.widths))}, stages of {', '.join(str(len(blocks)) for blocks in self.squeezes)} blocks, "
            f"groups of {self.group_width}"
        )


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with the statistics of the training, whatever mode the network is in."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class SqueezeExcitation(nn.Module):
    """A factor between 0 and 1 for each channel of an image, from the means of all its channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.excitation = nn.Sequential(
            nn.Conv2d(channels, squeezed, kernel_size=1), nn.ReLU(), nn.Conv2d(squeezed, channels, kernel_size=1)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        out: Tensor = x * self.excitation(x.mean(dim=(2, 3), keepdim=True)).sigmoid()
        return out


class Bottleneck(nn.Module):
    """The residual branch of a block: 1×1, grouped 3×3, squeeze and excitation, 1×1."""

    def __init__(self, before: int, width: int, stride: int, squeezed: int, a: RegNetArchitecture) -> None:
        super().__init__()
        groups = width // a.group_width
        self.a = nn.Sequential(nn.Conv2d(before, width, 1, bias=False), FrozenBatchNorm(width, a.eps))
        self.b = nn.Sequential(
            nn.Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False), FrozenBatchNorm(width, a.eps)
        )
        self.se = SqueezeExcitation(width, squeezed)
        self.c = nn.Conv2d(width, width, 1, bias=False)
        self.final_bn = FrozenBatchNorm(width, a.eps)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        x = F.relu(self.b(F.relu(self.a(x))))
        out: Tensor = self.final_bn(self.c(self.se(x)))
        return out


class Block(nn.Module):
    """One residual block; the first of a stage halves the resolution and projects what it adds to."""

    def __init__(self, before: int, width: int, first: bool, squeezed: int, a: RegNetArchitecture) -> None:
        super().__init__()
        self.proj = nn.Conv2d(before, width, 1, stride=2, bias=False) if first else None
        self.bn = FrozenBatchNorm(width, a.eps) if first else None
        self.f = Bottleneck(before, width, 2 if first else 1, squeezed, a)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        kept = x if self.proj is None or self.bn is None else self.bn(self.proj(x))
        return F.relu(kept + self.f(x))


class RegNet(Backbone):
    """RegNetY (Radosavovic et al. 2020) as SEER has it (Goyal et al. 2021; reference/encoders.md 15), under the official names.

    `feature_map` is the last stage's, at 1/32 of the image's resolution; `global_repr` is its mean. The four stages, which the
    official code calls res2 to res5, are the layers.
    """

    def __init__(self, architecture: RegNetArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.depth = len(a.widths)
        self.embed_dim, self.patch_size = a.widths[-1], 2 << self.depth
        stem = nn.Sequential(
            nn.Conv2d(3, a.stem, 3, stride=2, padding=1, bias=False), FrozenBatchNorm(a.stem, a.eps), nn.ReLU()
        )
        self._feature_blocks = nn.ModuleDict({"conv1": nn.Sequential(OrderedDict(stem=stem))})
        before = a.stem
        for stage, (width, squeezes) in enumerate(zip(a.widths, a.squeezes, strict=True)):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for index, squeezed in enumerate(squeezes):
                blocks[f"block{stage + 1}-{index}"] = Block(before, width, index == 0, squeezed, a)
                before = width
            self._feature_blocks[f"res{stage + 2}"] = nn.Sequential(blocks)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Features:
        """Features of the last stage."""
        return self.intermediate(images, [-1])[0]

    def intermediate(
        self,
        images: Float[Tensor, "b 3 H W"],
        layers: Sequence[int],
        norm: bool = True,  # noqa: ARG002
        facet: str = "token",
    ) -> list[Features]:
        """Features after the stages with these indices (0-based, negative from the end), in the order asked for.

        Each has the channels and the resolution of its stage: 1/4 of the image's after the first, then half of the one before.
        There is no final norm, so `norm` changes nothing.

        Raises:
            ValueError: a layer that is not there, or a size that is no multiple of the patch size.
            InputError: a facet other than `token`.
        """
        self.require_facet(facet)
        wanted = layer_indices(layers, self.depth)
        self.grid(*images.shape[2:])
        x = self._feature_blocks["conv1"](images)
        taken: dict[int, Features] = {}
        for index in range(max(wanted, default=-1) + 1):
            x = self._feature_blocks[f"res{index + 2}"](x)
            if index in wanted:
                taken[index] = Features(
                    global_repr=x.mean(dim=(2, 3)), registers=None, feature_map=x.permute(0, 2, 3, 1).contiguous()
                )
        return [taken[index] for index in wanted]

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        return self.architecture.describe()


def read_architecture(state: Mapping[str, Tensor], heads: int | None = None) -> RegNetArchitecture:
    """The architecture that keys and shapes imply. `heads` may be said to be 0: it is a convolutional network.

    Raises:
        KeyError: an entry that every RegNetY has is missing.
        ValueError: there are not four stages.
        InputError: there are said to be heads.
    """
    if heads:
        raise InputError(f"a convolutional network has no heads: expected 0, got {heads}")
    squeezes, widths = [], []
    for stage in range(1, 5):
        prefix = f"_feature_blocks.res{stage + 1}.block{stage}-"
        count = sum(key.startswith(prefix) and key.endswith(".f.c.weight") for key in state)
        names = [f"{prefix}{index}.f.se.excitation.0.weight" for index in range(max(1, count))]
        squeezes.append(tuple(state[name].shape[0] for name in names))
        widths.append(state[names[0]].shape[1])
    group_width = state["_feature_blocks.res2.block1-0.f.b.0.weight"].shape[1]
    if any(width % group_width for width in widths):
        raise ValueError(
            f"expected widths that {group_width} channels per group divide, got {', '.join(map(str, widths))}"
        )
    return RegNetArchitecture(
        widths=tuple(widths),
        squeezes=tuple(squeezes),
        group_width=group_width,
        stem=state["_feature_blocks.conv1.stem.0.weight"].shape[0],
    )
