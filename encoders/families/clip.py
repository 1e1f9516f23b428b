"""The image encoders of CLIP (Radford et al. 2021), OpenCLIP (Cherti et al. 2022) and EVA-CLIP (Fang et al. 2022)."""

from __future__ import annotations

from torch import Tensor

from encoders.errors import WeightsRefusedError
from encoders.families import Family, State, renamed, stacked
from encoders.families.vision_transformers import vision_transformer, with_zero_bias, with_zero_key_bias
from encoders.preprocessing import Preprocessing

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
_HUGGING_FACE = (
    (r"vision_model\.embeddings\.class_embedding", r"cls_token"),
    (r"vision_model\.embeddings\.position_embedding\.weight", r"pos_embed"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", r"patch_embed.proj.weight"),
    (r"vision_model\.pre_layrnorm\.(.*)", r"norm_pre.\1"),  # spelt so in every file
    (r"vision_model\.post_layernorm\.(.*)", r"norm.\1"),
    (r"vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(fc[12]\..*)", r"blocks.\1.mlp.\2"),
    (r"visual_projection\.weight", r"head.weight"),
)
_HUGGING_FACE_QKV = r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.(?P<part>[qkv]_proj)\.(weight|bias)"
_HUGGING_FACE_MARK = "vision_model.embeddings.class_embedding"


def _recognises_clip(state: State) -> bool:
    """OpenAI's archives, and only they, hold the input resolution. (An open_clip file of OpenAI's weights has to be told.)"""
    return "input_resolution" in state and "visual.class_embedding" in state


def _recognises_open_clip(state: State) -> bool:
    if _HUGGING_FACE_MARK in state:
        if len(state[_HUGGING_FACE_MARK]) <= 1024:
            raise WeightsRefusedError(
                "these are CLIP's keys in the Hugging Face layout, which leave the activation open: write clip:PATH for OpenAI's "
                "weights (quick GELU), open_clip:PATH for LAION's (exact GELU)"
            )
        return True  # OpenAI released no wider vision transformer
    return "visual.class_embedding" in state and not _recognises_clip(state)


def _official(state: State) -> dict[str, Tensor]:
    if _HUGGING_FACE_MARK in state:
        given = {key: value for key, value in state.items() if key.startswith(("vision_model.", "visual_projection."))}
        given.pop("vision_model.embeddings.position_ids", None)
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
    tower = _visual(state)
    return {"blocks.0.attn.q_bias", "pos_embed"} <= tower.keys() and "blocks.0.gamma_1" not in tower


def _official_eva(state: State) -> dict[str, Tensor]:
    given = with_zero_key_bias(_visual(state), r"blocks\.(\d+)\.attn\.q_bias", r"blocks.\1.attn.k_bias")
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
        recognises=_recognises_clip,
        official=_official,
        build=vision_transformer(reads=("projection",), positions="size", norms="clip", eps=1e-5, act="quick-gelu"),
    ),
    Family(
        name="open_clip",
        paper="Cherti et al. 2022",
        preprocessing=_PREPROCESSING,
        recognises=_recognises_open_clip,
        official=_official,
        build=vision_transformer(reads=("projection",), positions="size", norms="clip", eps=1e-5),
    ),
    Family(
        name="eva_clip",
        paper="Fang et al. 2022",
        preprocessing=_PREPROCESSING,
        recognises=_recognises_eva,
        official=_official_eva,
        build=vision_transformer(reads=("projection",), positions="size"),
    ),
)
