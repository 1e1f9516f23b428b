"""SWAG (Singh et al. 2022): the layout of the official trunks and that of torchvision's classifiers on them."""

from __future__ import annotations

from torch import Tensor

from fewmatch.encoders.families import Family, State, renamed
from fewmatch.encoders.families.vision_transformers import vision_transformer
from fewmatch.encoders.preprocessing import Preprocessing

_LAYER = r"encoder\.layers\.(?:encoder_)?layer_(\d+)\."
_NAMES = (
    (r"class_token", r"cls_token"),
    (r"conv_proj\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", r"pos_embed"),
    (_LAYER + r"ln_([12])\.(.*)", r"blocks.\1.norm\2.\3"),
    (_LAYER + r"self_attention\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
    (_LAYER + r"self_attention\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"mlp\.(?:linear_1|0)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"mlp\.(?:linear_2|3)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(.*)", r"norm.\1"),
)


#: torchvision calls layers otherwise, those of its own classifiers as well as those of SWAG's.
_OFFICIAL_LAYER = "encoder.layers.layer_0.ln_1.weight"


def _is_swag(state: State) -> bool:
    return {"class_token", "conv_proj.weight", "encoder.pos_embedding"} <= state.keys()


def _official(state: State) -> dict[str, Tensor]:
    out = renamed(state, _NAMES)
    table = out.get("pos_embed")
    if table is not None and table.dim() == 3 and table.shape[1] == 1:
        out["pos_embed"] = table.transpose(0, 1).contiguous()  # the trunks have it as (positions, 1, width)
    return out


FAMILIES = (
    Family(
        name="swag",
        paper="Singh et al. 2022",
        preprocessing=Preprocessing(resize=224, crop=224, dense=224),
        anchors=("conv_proj.weight",),
        recognises=lambda state: _is_swag(state) and _OFFICIAL_LAYER in state,
        official=_official,
        possible=lambda state: _is_swag(state) and _OFFICIAL_LAYER not in state,
        hint="SWAG's trunk under the names of torchvision",
        build=vision_transformer(positions="align-corners"),
    ),
)
