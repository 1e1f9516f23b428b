"""The image encoders of CLIP (Radford et al. 2021), OpenCLIP (Cherti et al. 2022) and EVA-CLIP (Fang et al. 2022)."""

from __future__ import annotations

from torch import Tensor

from fewmatch.encoders.families import Family, State, never, renamed, stacked, without
from fewmatch.encoders.families.vision_transformers import vision_transformer, with_zero_bias, with_zero_key_bias
from fewmatch.encoders.preprocessing import Preprocessing

_NAMES = (
    (r"class_embedding", r"cls_token"),
    (r"positional_embedding", r"pos_embed"),
    (r"conv1\.weight", r"patch_embed.proj.weight"),
    (r"ln_pre\.(.*)", r"norm_pre.\1"),
    (r"ln_post\.(.*)", r"norm.\1"),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.*)", r"blocks.\1.mlp.fc2.\2"),
)
#: The image tower of a model of images and texts has this in front; in the memory of transformers 5 one alone does not.
_TOWER = r"(?:vision_model\.)?"
_HUGGING_FACE = (
    (_TOWER + r"embeddings\.class_embedding", r"cls_token"),
    (_TOWER + r"embeddings\.position_embedding\.weight", r"pos_embed"),
    (_TOWER + r"embeddings\.patch_embedding\.weight", r"patch_embed.proj.weight"),
    (_TOWER + r"pre_layrnorm\.(.*)", r"norm_pre.\1"),  # spelt so in every file
    (_TOWER + r"post_layernorm\.(.*)", r"norm.\1"),
    (_TOWER + r"encoder\.layers\.(\d+)\.layer_norm([12])\.(.*)", r"blocks.\1.norm\2.\3"),
    (_TOWER + r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (_TOWER + r"encoder\.layers\.(\d+)\.mlp\.(fc[12]\..*)", r"blocks.\1.mlp.\2"),
    (r"visual_projection\.weight", r"head.weight"),
)
_HUGGING_FACE_QKV = _TOWER + r"encoder\.layers\.(\d+)\.self_attn\.(?P<part>[qkv]_proj)\.(weight|bias)"
_ANCHORS = (
    "class_embedding",
    "visual.class_embedding",
    "embeddings.class_embedding",
    "vision_model.embeddings.class_embedding",
)


def _is_hugging_face(state: State) -> bool:
    return "vision_model.embeddings.class_embedding" in state or "embeddings.class_embedding" in state


def _recognises_clip(state: State) -> bool:
    """OpenAI's archives, and only they, hold the input resolution."""
    return "input_resolution" in state and "visual.class_embedding" in state


def _possible(state: State) -> bool:
    """Nothing else tells the activation: wide towers with quick GELU exist as well as small ones with exact GELU."""
    return any(anchor in state for anchor in _ANCHORS) and not _recognises_clip(state)


def _official(state: State) -> dict[str, Tensor]:
    if _is_hugging_face(state):
        given = without(state, "*embeddings.position_ids")
        if "vision_model.embeddings.class_embedding" in state:
            given = {
                key: value for key, value in given.items() if key.startswith(("vision_model.", "visual_projection."))
            }
        given = stacked(given, _HUGGING_FACE_QKV, ("q_proj", "k_proj", "v_proj"), r"blocks.\1.attn.qkv.\3")
        out = renamed(given, _HUGGING_FACE)
    else:
        out = renamed(_visual(state), _NAMES)
        if "proj" in out:
            out["head.weight"] = out.pop("proj").T.contiguous()
    for key, dimensions in (("cls_token", 1), ("pos_embed", 2)):
        if key in out and out[key].dim() == dimensions:
            out[key] = out[key].reshape((1,) * (3 - dimensions) + out[key].shape)
    return with_zero_bias(out, r"patch_embed\.proj\.weight|head\.weight")


def _visual(state: State) -> dict[str, Tensor]:
    """The image tower alone."""
    tower = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    return tower or dict(state)


def _recognises_eva(state: State) -> bool:
    return {"blocks.0.attn.q_bias", "pos_embed", "head.weight"} <= state.keys() and "blocks.0.gamma_1" not in state


def _official_eva(state: State) -> dict[str, Tensor]:
    given = with_zero_key_bias(state, r"blocks\.(\d+)\.attn\.q_bias", r"blocks.\1.attn.k_bias")
    parts = ("q_bias", "k_bias", "v_bias")
    return stacked(given, r"blocks\.(\d+)\.attn\.(?P<part>[qkv]_bias)", parts, r"blocks.\1.attn.qkv.bias")


_PREPROCESSING = Preprocessing(
    resize=224,
    crop=224,
    dense=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)

# Official CLIP and EVA-CLIP have one size; open_clip's rule serves for others.
FAMILIES = (
    Family(
        name="clip",
        paper="Radford et al. 2021",
        preprocessing=_PREPROCESSING,
        anchors=_ANCHORS,
        recognises=_recognises_clip,
        possible=_possible,
        hint="OpenAI's weights, quick GELU",
        official=_official,
        build=vision_transformer(reads=("projection",), positions="size", norms="clip", eps=1e-5, act="quick-gelu"),
    ),
    Family(
        name="open_clip",
        paper="Cherti et al. 2022",
        preprocessing=_PREPROCESSING,
        anchors=_ANCHORS,
        recognises=never,
        possible=_possible,
        hint="LAION's and most others, exact GELU",
        official=_official,
        build=vision_transformer(reads=("projection",), positions="size", norms="clip", eps=1e-5),
    ),
    Family(
        name="eva_clip",
        paper="Fang et al. 2022",
        preprocessing=_PREPROCESSING,
        anchors=("patch_embed.proj.weight",),
        recognises=_recognises_eva,
        official=_official_eva,
        build=vision_transformer(reads=("projection",), positions="size"),
    ),
)
