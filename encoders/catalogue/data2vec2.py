"""data2vec 2.0 (Baevski et al. 2023), as released by Meta: the image models before fine-tuning."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import vit
from fewmatch.encoders.preprocessing import Preprocessing


def _record(size: str, word: str, patch: int, parameters: int, notes: str = "") -> Checkpoint:
    return Checkpoint(
        name=f"data2vec2_vit{size}{patch}",
        family="data2vec2",
        filename=f"data2vec2_{word}_imagenet.pt",
        url=f"https://dl.fbaipublicfiles.com/fairseq/data2vec2/{word}_imagenet.pt",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224),
        architecture=vit(size, patch),
        licence="CC-BY-NC",
        non_commercial=True,
        source="facebookresearch/fairseq @ 3d262bb, README of data2vec",
        parameters=parameters,
        notes="a fairseq checkpoint; k-NN and linear unverified" + notes,
    )


RECORDS = (
    _record("b", "base", 16, 85_797_888, "; whether two of its twelve blocks lie in the context encoder is unverified"),
    _record("l", "large", 16, 303_300_608),
    _record("h", "huge", 14, 630_763_520),
)
