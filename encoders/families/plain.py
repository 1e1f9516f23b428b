"""Families that share one plain layout: DINO, iBOT, Mugs, MSN and the encoder of MAE, official and Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from encoders.families import Family, State, renamed, stacked, without
from encoders.families.vision_transformers import vision_transformer
from encoders.models.positions import sincos_table
from encoders.preprocessing import Preprocessing

_HUGGING_FACE = (
    (r"embeddings\.cls_token", r"cls_token"),
    (r"embeddings\.position_embeddings", r"pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(.*)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(.*)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(.*)", r"norm.\1"),
)
_HUGGING_FACE_QKV = r"encoder\.layer\.(\d+)\.attention\.attention\.(?P<part>query|key|value)\.(weight|bias)"
#: Entries that tell a family of this layout from the others.
_OWN = (
    ("mugs", "relation_blocks."),
    ("ibot", "masked_embed"),
    ("msn", "fc.fc1."),
    ("mae", "decoder_pos_embed"),
    ("mae", "decoder.decoder_pos_embed"),
)
#: Entries of other families, which name the rest of their network alike.
_FOREIGN = ("register_tokens", "storage_tokens", "blocks.0.ls1.gamma", "blocks.0.gamma_1", "blocks.0.attn.q_bias")


def _prefix(state: State) -> str | None:
    """What stands in front of the keys of the Hugging Face layout; None for another layout."""
    for prefix in ("", "vit."):
        if {prefix + "embeddings.cls_token", prefix + "encoder.layer.0.layernorm_before.weight"} <= state.keys():
            return prefix
    return None


def _family(state: State) -> str | None:
    """The family that keys in this layout tell.

    Where nothing tells it, it is DINO, whose rules are those of iBOT and Mugs too. MAE is told by its decoder, or by its position
    table, which is a fixed one with zeros for CLS; MSN by its projection `fc`. Without these the two differ from DINO at sizes
    other than the native one: `mae:PATH` and `msn:PATH` say what a file is.
    """
    prefix = _prefix(state)
    plain = {"cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.0.attn.qkv.bias", "norm.weight"}
    if prefix is not None:
        positions = state.get(prefix + "embeddings.position_embeddings")
    elif plain <= state.keys() and not any(key in state for key in _FOREIGN):
        positions = state["pos_embed"]
    else:
        return None
    for name, start in _OWN:
        if any(key.startswith(start) for key in state):
            return name
    return "mae" if positions is not None and _is_sincos(positions) else "dino"


def _is_sincos(positions: Tensor) -> bool:
    """Whether a position table is MAE's, at the precision of a half."""
    if positions.is_meta or positions.dim() != 3 or positions.shape[2] % 4:
        return False
    side = math.isqrt(max(0, positions.shape[1] - 1))
    if side == 0 or side**2 + 1 != positions.shape[1]:
        return False
    return torch.allclose(positions.float().cpu(), sincos_table(positions.shape[2], side), rtol=0, atol=2e-3)


def _recognises(name: str) -> Callable[[State], bool]:
    return lambda state: _family(state) == name


def _official(*dropped: str) -> Callable[[State], dict[str, Tensor]]:
    def official(state: State) -> dict[str, Tensor]:
        prefix = _prefix(state)
        if prefix is not None:
            state = {key.removeprefix(prefix): value for key, value in state.items()}
            state = stacked(state, _HUGGING_FACE_QKV, ("query", "key", "value"), r"blocks.\1.attn.qkv.\3")
            state = without(renamed(state, _HUGGING_FACE), "embeddings.mask_token", "pooler.*")
        return without(state, "head.*", *dropped)

    return official


FAMILIES = tuple(
    Family(
        name=name,
        paper=paper,
        preprocessing=Preprocessing(resize=256, crop=224, dense=dense),
        recognises=_recognises(name),
        official=_official(*dropped),
        build=vision_transformer(positions=positions),
    )
    for name, paper, positions, dense, dropped in (
        ("dino", "Caron et al. 2021", "scale-factor", 480, ()),
        ("ibot", "Zhou et al. 2022", "scale-factor", 480, ("masked_embed",)),
        ("mugs", "Zhou et al. 2022", "scale-factor", 480, ("relation_blocks.*",)),
        # The official code resizes by the scalar sqrt(patches / stored), which is this for squares, and fails or misplaces patches
        # for other shapes (reference/encoders.md 12).
        ("msn", "Assran et al. 2022", "size-plain", 224, ("fc.*",)),
        ("mae", "He et al. 2021", "size-plain", 224, ("decoder*", "mask_token")),
    )
)
