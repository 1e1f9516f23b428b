"""DINOv3 (Siméoni et al. 2025), as released by Meta: the vision transformers, by request only."""

from typing import Any

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.preprocessing import Preprocessing

_SIZES: dict[str, dict[str, Any]] = {
    "vits16": {"embed_dim": 384, "depth": 12, "heads": 6, "ffn": "mlp", "hidden_dim": 1536},
    "vits16plus": {"embed_dim": 384, "depth": 12, "heads": 6, "ffn": "swiglu", "hidden_dim": 1536},
    "vitb16": {"embed_dim": 768, "depth": 12, "heads": 12, "ffn": "mlp", "hidden_dim": 3072},
    "vitl16": {"embed_dim": 1024, "depth": 24, "heads": 16, "ffn": "mlp", "hidden_dim": 4096},
    "vith16plus": {"embed_dim": 1280, "depth": 32, "heads": 20, "ffn": "swiglu", "hidden_dim": 5120},
    "vit7b16": {"embed_dim": 4096, "depth": 40, "heads": 32, "ffn": "swiglu", "hidden_dim": 8192},
}
_WEB = Preprocessing(resize=256, crop=224, dense=512)
_SATELLITE = Preprocessing(resize=256, crop=224, dense=512, mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143))


def _record(size: str, sha256: str, parameters: int, real: float | None = None, data: str = "lvd1689m") -> Checkpoint:
    satellite = data == "sat493m"
    folder = f"dinov3_{size}"
    file = f"{folder}_pretrain_{data}-{sha256}.pth"
    return Checkpoint(
        name=folder + ("_sat493m" if satellite else ""),
        family="dinov3",
        filename=file,
        url=f"https://dl.fbaipublicfiles.com/dinov3/{folder}/{file}",
        preprocessing=_SATELLITE if satellite else _WEB,
        architecture=_SIZES[size] | {"patch_size": 16, "registers": 4},
        licence="DINOv3 License",
        gated=True,
        source="facebookresearch/dinov3 @ 6876159, hub code, README and model card",
        # The file name carries the start of it.
        sha256=sha256,
        digest_trust="published",
        parameters=parameters,
        hf_repo=f"facebook/dinov3-{size}-pretrain-{data}",
        notes="trained on satellite images" if satellite else f"linear on ImageNet-ReaL {real}; k-NN is not published",
    )


RECORDS = (
    _record("vits16", "08c60483", 21_600_768, 87.0),
    _record("vits16plus", "4057cbaa", 28_697_088, 88.0),
    _record("vitb16", "73cec8be", 85_668_864, 89.3),
    _record("vitl16", "8aa4cbdd", 303_153_152, 90.2),
    _record("vith16plus", "7c1da9a5", 840_632_320, 90.3),
    _record("vit7b16", "a955f4ea", 6_716_030_976, 90.4),
    _record("vitl16", "eadcf0ff", 303_153_152, data="sat493m"),
    _record("vit7b16", "a6675841", 6_716_030_976, data="sat493m"),
)
