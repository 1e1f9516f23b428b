"""EsViT (Li et al. 2022), as released by Microsoft: Swin transformers with windows of 7 and 14."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.preprocessing import Preprocessing

#: Width of the last stage, blocks and heads of the four stages.
_SIZES = {
    "t": (768, (2, 2, 6, 2), (3, 6, 12, 24)),
    "s": (768, (2, 2, 18, 2), (3, 6, 12, 24)),
    "b": (1024, (2, 2, 18, 2), (4, 8, 16, 32)),
}


def _record(size: str, window: int, folder: str, parameters: int, knn: float, linear: float) -> Checkpoint:
    name = f"esvit_swin{size}_w{window}"
    width, depths, heads = _SIZES[size]
    return Checkpoint(
        name=name,
        family="esvit",
        # All released files have the same name; in a cache each needs its own.
        filename=f"{name}.pth",
        url=f"https://chunyleu.blob.core.windows.net/output/ckpts/esvit/swin/{folder}/checkpoint_best.pth",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224),
        architecture={
            "embed_dim": width,
            "depth": sum(depths),
            "depths": depths,
            "heads": heads,
            "window": window,
            "image_size": 224,
            "patch_size": 32,
        },
        licence="MIT",
        source="microsoft/esvit @ 2d6becd, README",
        parameters=parameters,
        knn=knn,
        linear=linear,
        notes="append the query string that the README of microsoft/esvit prints to the URL; whether it still answers is unverified",
    )


RECORDS = (
    _record("t", 7, "swin_tiny/bl_lr0.0005_gpu16_bs32_dense_multicrop_epoch300", 27_519_354, 75.7, 78.0),
    _record("s", 7, "swin_small/bl_lr0.0005_gpu16_bs32_dense_multicrop_epoch300", 48_837_258, 77.7, 79.5),
    _record(
        "b",
        7,
        "swin_base/bl_lr0.0005_gpu16_bs32_multicrop_epoch300_dino_aug/continued_from0200_dense",
        86_743_224,
        78.9,
        80.4,
    ),
    _record(
        "t",
        14,
        "swin_tiny/bl_lr0.0005_gpu16_bs32_multicrop_epoch300_dino_aug_window14/continued_from0200_dense",
        27_569_754,
        77.0,
        78.7,
    ),
    _record(
        "b",
        14,
        "swin_base/bl_lr0.0005_nodes4_gpu16_bs8_multicrop_epoch300_dino_aug_window14_lv/continued_from_epoch0200_dense_norm_true",
        86_917_944,
        79.3,
        81.3,
    ),
)
