"""DINO (Caron et al. 2021), as released by Meta."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import vit
from fewmatch.encoders.preprocessing import Preprocessing


def _record(size: str, word: str, patch: int, parameters: int, knn: float, linear: float, md5: str) -> Checkpoint:
    stem = f"dino_{word}{patch}_pretrain"
    return Checkpoint(
        name=f"dino_vit{size}{patch}",
        family="dino",
        filename=f"{stem}.pth",
        url=f"https://dl.fbaipublicfiles.com/dino/{stem}/{stem}.pth",
        # Dense: the short side of the official video segmentation.
        preprocessing=Preprocessing(resize=256, crop=224, dense=480),
        architecture=vit(size, patch),
        licence="Apache-2.0",
        source="facebookresearch/dino @ 7c446df, README; the start of the MD5 as observed by third parties",
        md5=md5,
        digest_trust="observed",
        parameters=parameters,
        hf_repo=f"facebook/dino-vit{size}{patch}",
        knn=knn,
        linear=linear,
        notes="linear: of the last four CLS tokens" if size == "s" else "linear: of CLS and the mean of the patches",
    )


RECORDS = (
    _record("s", "deitsmall", 16, 21_665_664, 74.5, 77.0, "cf0f22"),
    _record("s", "deitsmall", 8, 21_670_272, 78.3, 79.7, "230cd5"),
    _record("b", "vitbase", 16, 85_798_656, 76.1, 78.2, "552daf"),
    _record("b", "vitbase", 8, 85_807_872, 77.4, 80.1, "556550"),
)
