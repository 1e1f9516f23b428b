"""OpenCLIP (Cherti et al. 2023) trained on LAION-2B: the image towers."""

from typing import Any

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.clip import CLIP_MEAN, CLIP_STD
from fewmatch.encoders.preprocessing import Preprocessing

_HALF = (0.5, 0.5, 0.5)
_CLIP_PREPROCESSING = Preprocessing(resize=224, crop=224, dense=224, mean=CLIP_MEAN, std=CLIP_STD)


def _record(
    name: str,
    hub: str,
    parameters: int,
    *,
    zero_shot: float,
    preprocessing: Preprocessing = _CLIP_PREPROCESSING,
    knn: float | None = None,
    linear: float | None = None,
    notes: str = "",
    **sizes: Any,
) -> Checkpoint:
    return Checkpoint(
        name=f"openclip_{name}_laion2b",
        family="open_clip",
        # All repositories call it open_clip_pytorch_model.bin; in a cache each needs its own name.
        filename=f"openclip_{name}_laion2b.bin",
        url=f"https://huggingface.co/laion/{hub}/resolve/main/open_clip_pytorch_model.bin",
        preprocessing=preprocessing,
        architecture={"heads": 16, "patch_size": 14, "position_grid": 16, **sizes},
        licence="MIT",
        source="mlfoundations/open_clip @ 89fb801" + ("; DINOv2 paper, table 4 (k-NN, linear)" if knn else ""),
        parameters=parameters,
        hf_repo=f"laion/{hub}",
        knn=knn,
        linear=linear,
        notes=f"with the text tower; zero-shot {zero_shot}; {notes}"
        "licence as the model card says and name of the file in the repository unverified",
    )


RECORDS = (
    _record(
        "vitl14",
        "CLIP-ViT-L-14-laion2B-s32B-b82K",
        303_966_208,
        zero_shot=75.25,
        # Alone among them with Inception's mean and standard deviation.
        preprocessing=Preprocessing(resize=224, crop=224, dense=224, mean=_HALF, std=_HALF),
        embed_dim=1024,
        depth=24,
        hidden_dim=4096,
        projection_dim=768,
    ),
    _record(
        "vith14",
        "CLIP-ViT-H-14-laion2B-s32B-b79K",
        632_076_800,
        zero_shot=77.96,
        knn=81.7,
        linear=84.4,
        embed_dim=1280,
        depth=32,
        hidden_dim=5120,
        projection_dim=1024,
    ),
    _record(
        "vitg14",
        "CLIP-ViT-g-14-laion2B-s34B-b88K",
        1_012_645_632,
        zero_shot=78.47,
        notes="the longer of two runs (the other, s12B-b42K, 76.63); ",
        embed_dim=1408,
        depth=40,
        hidden_dim=6144,
        projection_dim=1024,
    ),
    _record(
        "vitbigg14",
        "CLIP-ViT-bigG-14-laion2B-39B-b160k",
        1_844_907_264,
        zero_shot=80.09,
        knn=83.2,
        linear=86.2,
        embed_dim=1664,
        depth=48,
        hidden_dim=8192,
        projection_dim=1280,
    ),
)
