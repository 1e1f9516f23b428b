"""DINOv2 (Oquab et al. 2023) and DINOv2 with registers (Darcet et al. 2023), as released by Meta."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.preprocessing import Preprocessing

_SIZES = {
    "s": ("small", {"embed_dim": 384, "depth": 12, "heads": 6, "ffn": "mlp"}),
    "b": ("base", {"embed_dim": 768, "depth": 12, "heads": 12, "ffn": "mlp"}),
    "l": ("large", {"embed_dim": 1024, "depth": 24, "heads": 16, "ffn": "mlp"}),
    "g": ("giant", {"embed_dim": 1536, "depth": 40, "heads": 24, "ffn": "swiglu"}),
}


def _record(
    size: str,
    registers: int,
    parameters: int,
    knn: float,
    linear: float,
    sha256: str | None = None,
    file_bytes: int | None = None,
) -> Checkpoint:
    hub, architecture = _SIZES[size]
    stem = f"dinov2_vit{size}14" + (f"_reg{registers}" if registers else "")
    return Checkpoint(
        name=f"dinov2_vit{size}14" + ("_reg" if registers else ""),
        family="dinov2_reg" if registers else "dinov2",
        filename=f"{stem}_pretrain.pth",
        # The files with registers lie in the folder of the model without.
        url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size}14/{stem}_pretrain.pth",
        preprocessing=Preprocessing(resize=256, crop=224, dense=518),
        architecture=architecture | {"patch_size": 14, "position_grid": 37, "registers": registers},
        licence="Apache-2.0",
        source="facebookresearch/dinov2 @ b8931f7, README and hub/backbones.py; digests as observed by third parties",
        sha256=sha256,
        digest_trust="observed" if sha256 else "none",
        bytes=file_bytes,
        parameters=parameters,
        hf_repo=f"facebook/dinov2-{'with-registers-' if registers else ''}{hub}",
        knn=knn,
        linear=linear,
    )


RECORDS = (
    _record(
        "s", 0, 22_056_576, 79.0, 81.1, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9", 88_283_115
    ),
    _record("b", 0, 86_580_480, 82.1, 84.5, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    _record(
        "l",
        0,
        304_368_640,
        83.5,
        86.3,
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        1_217_586_395,
    ),
    _record("g", 0, 1_136_480_768, 83.5, 86.5, "baf8467e50af"),
    _record(
        "s", 4, 22_058_112, 79.1, 80.9, "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb", 88_291_785
    ),
    _record("b", 4, 86_583_552, 82.0, 84.6, "73182a088cf9"),
    _record("l", 4, 304_372_736, 83.8, 86.7, "36e4deffbaef", 1_217_607_321),
    _record("g", 4, 1_136_486_912, 83.7, 87.1, "746ecb8c6301"),
)
