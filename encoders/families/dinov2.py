"""DINOv2 (Oquab et al. 2023), and with registers (Darcet et al. 2023): official and Hugging Face layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from encoders.families import Family, State, renamed, stacked, without
from encoders.models.vit import VisionTransformer, read_architecture
from encoders.preprocessing import Preprocessing

_HUGGING_FACE = (
    (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
    (r"embeddings\.position_embeddings", r"pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.(norm[12]\..*)", r"blocks.\1.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.(fc[12]\..*)", r"blocks.\1.mlp.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.(.*)", r"blocks.\1.mlp.w12.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.(.*)", r"blocks.\1.mlp.w3.\2"),
    (r"layernorm\.(.*)", r"norm.\1"),
)
_HUGGING_FACE_QKV = r"encoder\.layer\.(\d+)\.attention\.attention\.(?P<part>query|key|value)\.(weight|bias)"


def _official(state: State) -> dict[str, Tensor]:
    """The Hugging Face layout of the same weights gives the official features (reference/encoders.md 3.6)."""
    for prefix in ("dinov2.", "dinov2_with_registers."):
        if prefix + "embeddings.cls_token" in state:
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if "embeddings.cls_token" in state:
        state = stacked(state, _HUGGING_FACE_QKV, ("query", "key", "value"), r"blocks.\1.attn.qkv.\3")
        state = renamed(state, _HUGGING_FACE)
    return without(state, "mask_token")


def _recognises(registers: bool) -> Any:
    def recognises(state: State) -> bool:
        layer_scale = any(key.endswith(("blocks.0.ls1.gamma", "encoder.layer.0.layer_scale1.lambda1")) for key in state)
        table = any(key.endswith(("pos_embed", "position_embeddings")) for key in state)  # DINOv3 has none
        return layer_scale and table and any(key.endswith("register_tokens") for key in state) == registers

    return recognises


def _build(positions: str, registers: bool) -> Any:
    def build(state: State, **options: Any) -> VisionTransformer:
        a = read_architecture(state, **{"positions": positions, "projection": 0, **options})
        if bool(a.registers) != registers:
            other = "dinov2_reg" if a.registers else "dinov2"
            raise ValueError(f"got {a.registers} registers; is it {other}?")
        return VisionTransformer(a)

    return build


_PREPROCESSING = Preprocessing(resize=256, crop=224, dense=518)

FAMILIES = tuple(
    Family(
        name=name,
        paper=paper,
        preprocessing=_PREPROCESSING,
        recognises=_recognises(registers),
        official=_official,
        build=_build(positions, registers),
    )
    for name, paper, positions, registers in (
        ("dinov2", "Oquab et al. 2023", "scale-factor", False),
        ("dinov2_reg", "Darcet et al. 2023", "size", True),
    )
)
