"""EVA-CLIP (Fang et al. 2023), as released by BAAI: the image tower."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.clip import CLIP_MEAN, CLIP_STD
from fewmatch.encoders.preprocessing import Preprocessing

RECORDS = (
    Checkpoint(
        name="evaclip_vitg14",
        family="eva_clip",
        filename="eva_clip_psz14.pt",
        url="https://huggingface.co/BAAI/EVA/resolve/main/eva_clip_psz14.pt",
        preprocessing=Preprocessing(resize=224, crop=224, dense=224, mean=CLIP_MEAN, std=CLIP_STD),
        architecture={
            "embed_dim": 1408,
            "depth": 40,
            "heads": 16,
            "patch_size": 14,
            "position_grid": 16,
            "hidden_dim": 6144,
            "projection_dim": 1024,
        },
        licence="MIT",
        source="baaivision/EVA @ 5623d08, README; DINOv2 paper, table 4 (k-NN, linear)",
        parameters=1_012_588_928,
        knn=83.5,
        linear=86.4,
        notes="with the text tower, about 2 GB in half precision; the repository gives linear 86.5, zero-shot 78.5",
    ),
)
