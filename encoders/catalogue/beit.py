"""BEiT (Bao et al. 2022), as released by Microsoft: trained on ImageNet-22k without labels."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import vit
from fewmatch.encoders.preprocessing import Preprocessing

_HALF = (0.5, 0.5, 0.5)


def _record(size: str, word: str, parameters: int) -> Checkpoint:
    file = f"beit_{word}_patch16_224_pt22k.pth"
    return Checkpoint(
        name=f"beit_vit{size}16",
        family="beit",
        filename=file,
        url=f"https://github.com/addf400/files/releases/download/v1.0/{file}",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224, mean=_HALF, std=_HALF),
        architecture=vit(size, 16),
        licence="MIT",
        source="microsoft/unilm @ 768a3c8, README of BEiT",
        parameters=parameters,
        notes="weak without fine-tuning; k-NN and linear are not published (unverified)",
    )


RECORDS = (_record("b", "base", 85_665_360), _record("l", "large", 303_136_192))
