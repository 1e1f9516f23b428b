"""DINOv3 (Siméoni et al. 2025), vision transformers: official and Hugging Face layout."""

from __future__ import annotations

from torch import Tensor

from fewmatch.encoders.families import Family, State, renamed, stacked, without
from fewmatch.encoders.families.vision_transformers import vision_transformer, with_zero_bias, with_zero_key_bias
from fewmatch.encoders.preprocessing import Preprocessing

_QKV = r"layer\.(\d+)\.attention\.(?P<part>[qkv]_proj)\.(weight|bias)"
_HUGGING_FACE = (
    (r"embeddings\.cls_token", r"cls_token"),
    (r"embeddings\.mask_token", r"mask_token"),
    (r"embeddings\.register_tokens", r"storage_tokens"),
    (r"embeddings\.patch_embeddings\.(.*)", r"patch_embed.proj.\1"),
    (r"layer\.(\d+)\.(norm[12]\..*)", r"blocks.\1.\2"),
    (r"layer\.(\d+)\.attention\.o_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
)
_HUGGING_FACE_MLP = (
    (r"layer\.(\d+)\.mlp\.up_proj\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"layer\.(\d+)\.mlp\.down_proj\.(.*)", r"blocks.\1.mlp.fc2.\2"),
)
_HUGGING_FACE_SWIGLU = (
    (r"layer\.(\d+)\.mlp\.gate_proj\.(.*)", r"blocks.\1.mlp.w1.\2"),
    (r"layer\.(\d+)\.mlp\.up_proj\.(.*)", r"blocks.\1.mlp.w2.\2"),
    (r"layer\.(\d+)\.mlp\.down_proj\.(.*)", r"blocks.\1.mlp.w3.\2"),
)


def _is_hugging_face(state: State) -> bool:
    """In files, or with `model.` in front of the layers, as in the memory of transformers 5."""
    query = "layer.0.attention.q_proj.weight"
    return "embeddings.register_tokens" in state and (query in state or f"model.{query}" in state)


def _recognises(state: State) -> bool:
    return "storage_tokens" in state or "rope_embed.periods" in state or _is_hugging_face(state)


def _official(state: State) -> dict[str, Tensor]:
    if _is_hugging_face(state):
        state = renamed(state, ((r"model\.(layer\..*)", r"\1"),))
        gated = "layer.0.mlp.gate_proj.weight" in state
        state = with_zero_key_bias(state, r"layer\.(\d+)\.attention\.q_proj\.bias", r"layer.\1.attention.k_proj.bias")
        state = stacked(state, _QKV, ("q_proj", "k_proj", "v_proj"), r"blocks.\1.attn.qkv.\3")
        state = renamed(state, _HUGGING_FACE + (_HUGGING_FACE_SWIGLU if gated else _HUGGING_FACE_MLP))
    state = without(_without_key_bias(state), "mask_token", "local_cls_norm.*")
    if not any(key.endswith(".attn.qkv.bias") for key in state):
        state = with_zero_bias(state, r"blocks\.\d+\.attn\.qkv\.weight")  # the largest model has none
    state = stacked(state, r"blocks\.(\d+)\.mlp\.(?P<part>w1|w2)\.(weight|bias)", ("w1", "w2"), r"blocks.\1.mlp.w12.\3")
    return renamed(state, ((r"storage_tokens", r"register_tokens"),))


def _without_key_bias(state: State) -> dict[str, Tensor]:
    """Biases times their masks, which are zero for keys; where a bias has no mask, its part for keys becomes zero.

    It matters although softmax is blind to shifts: the rotation turns a key bias on patches and leaves it on the other tokens.
    """
    out = dict(state)
    for key, value in state.items():
        if key.endswith(".attn.qkv.bias"):
            mask = out.pop(key + "_mask", None)
            if mask is None:
                third = len(value) // 3
                mask = value.new_ones(len(value))
                mask[third : 2 * third] = 0
            out[key] = value * mask.to(value.dtype)
    return out


FAMILIES = (
    Family(
        name="dinov3",
        paper="Siméoni et al. 2025",
        preprocessing=Preprocessing(resize=256, crop=224, dense=512),
        anchors=("patch_embed.proj.weight", "embeddings.patch_embeddings.weight"),
        recognises=_recognises,
        official=_official,
        build=vision_transformer(reads=("registers", "ffn"), positions="rope", layer_scale=True, eps=1e-5),
    ),
)
