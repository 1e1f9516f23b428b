"""Families that share one plain layout: DINO, iBOT, Mugs, MSN and the encoder of MAE, official and Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fewmatch.encoders.families import Family, State, renamed, stacked, without
from fewmatch.encoders.families.vision_transformers import vision_transformer
from fewmatch.encoders.models.positions import sincos_table
from fewmatch.encoders.preprocessing import Preprocessing

#: In files `encoder.layer.`, in the memory of transformers 5 `layers.`.
_LAYER = r"(?:encoder\.layer|layers)\.(\d+)\."
_HUGGING_FACE = (
    (r"embeddings\.cls_token", r"cls_token"),
    (r"embeddings\.position_embeddings", r"pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (_LAYER + r"layernorm_before\.(.*)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"layernorm_after\.(.*)", r"blocks.\1.norm2.\2"),
    (_LAYER + r"attention\.(?:output\.dense|o_proj)\.(.*)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"(?:intermediate\.dense|mlp\.fc1)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"(?:output\.dense|mlp\.fc2)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(.*)", r"norm.\1"),
)
_HUGGING_FACE_QKV = (
    (_LAYER + r"attention\.attention\.(?P<part>query|key|value)\.(weight|bias)", ("query", "key", "value")),
    (_LAYER + r"attention\.(?P<part>[qkv]_proj)\.(weight|bias)", ("q_proj", "k_proj", "v_proj")),
)
_ANCHORS = (
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.weight",
    # As the encoder of a larger model, whose other entries may tell the family.
    "vit.embeddings.patch_embeddings.projection.weight",
)
#: Entries that tell a family of this layout from the others.
_OWN = (
    ("mugs", "relation_blocks."),
    ("ibot", "masked_embed"),
    ("msn", "fc.fc1."),
    ("mae", "decoder_pos_embed"),
    ("mae", "decoder.decoder_pos_embed"),
)
#: Entries of other networks, which name the rest alike.
_FOREIGN = (
    "register_tokens",
    "reg_token",
    "storage_tokens",
    "norm_pre.weight",
    "blocks.0.ls1.gamma",
    "blocks.0.gamma_1",
    "blocks.0.attn.q_bias",
    "blocks.0.attn.rel_pos_h",
    "dist_token",
    "embeddings.distillation_token",
    "encoder.layer.0.lambda_1",
    "layers.0.lambda_1",
)


def _prefix(state: State) -> str | None:
    """What stands in front of the keys of the Hugging Face layout; None for another layout."""
    for prefix in ("", "vit."):
        layers = (f"{prefix}{name}.0.layernorm_before.weight" for name in ("encoder.layer", "layers"))
        embeddings = {f"{prefix}embeddings.cls_token", f"{prefix}embeddings.position_embeddings"}
        if embeddings <= state.keys() and any(layer in state for layer in layers):
            return prefix
    return None


def _is_plain(state: State) -> bool:
    plain = {"cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.0.attn.qkv.bias", "norm.weight"}
    prefix = _prefix(state)
    return (plain <= state.keys() or prefix is not None) and not any((prefix or "") + key in state for key in _FOREIGN)


def _family(state: State) -> str | None:
    """The family that entries of its own tell.

    MAE has its decoder, or its position table, which is a fixed one with zeros for CLS; MSN the projection `fc`. Where nothing tells it,
    as in most files of DINO, the family is asked for: the others have other rules at sizes other than the native one, and a network of
    the same layout that was trained on labels may want other pixels.
    """
    for name, start in _OWN:
        if any(key.startswith(start) for key in state):
            return name
    key = "pos_embed" if _prefix(state) is None else f"{_prefix(state)}embeddings.position_embeddings"
    return "mae" if _is_sincos(state[key]) else None


def _is_sincos(positions: Tensor) -> bool:
    """Whether a position table is MAE's, at the precision of a half."""
    if positions.is_meta or positions.dim() != 3 or positions.shape[2] % 4:
        return False
    side = math.isqrt(max(0, positions.shape[1] - 1))
    if side == 0 or side**2 + 1 != positions.shape[1]:
        return False
    return torch.allclose(positions.float().cpu(), sincos_table(positions.shape[2], side), rtol=0, atol=2e-3)


def _recognises(name: str) -> Callable[[State], bool]:
    return lambda state: _is_plain(state) and _family(state) == name


def _possible(state: State) -> bool:
    return _is_plain(state) and _family(state) is None


def _official(*dropped: str) -> Callable[[State], dict[str, Tensor]]:
    def official(state: State) -> dict[str, Tensor]:
        prefix = _prefix(state)
        if prefix is not None:
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            for pattern, parts in _HUGGING_FACE_QKV:
                state = stacked(state, pattern, parts, r"blocks.\1.attn.qkv.\3")
            state = without(renamed(state, _HUGGING_FACE), "embeddings.mask_token")
        return without(state, *dropped)

    return official


FAMILIES = tuple(
    Family(
        name=name,
        paper=paper,
        preprocessing=Preprocessing(resize=256, crop=224, dense=dense),
        anchors=_ANCHORS,
        recognises=_recognises(name),
        possible=_possible,
        official=_official(*dropped),
        build=vision_transformer(positions=positions),
    )
    for name, paper, positions, dense, dropped in (
        ("dino", "Caron et al. 2021", "scale-factor", 480, ()),
        ("ibot", "Zhou et al. 2022", "scale-factor", 480, ("masked_embed",)),
        ("mugs", "Zhou et al. 2022", "scale-factor", 480, ("relation_blocks.*",)),
        # The official code resizes by the scalar sqrt(patches / stored), which is this for squares, and fails or misplaces patches
        # for other shapes (reference/encoders.md 12).
        ("msn", "Assran et al. 2022", "size-plain", 224, ()),
        ("mae", "He et al. 2021", "size-plain", 224, ("decoder*", "mask_token")),
    )
)
