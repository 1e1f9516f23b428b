"""SWAG (Singh et al. 2022): the trunks before fine-tuning, in torchvision's files, whose names carry a digest."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import vit
from fewmatch.encoders.preprocessing import Preprocessing


def _record(size: str, patch: int, sha256: str, parameters: int, linear: float, knn: float | None = None) -> Checkpoint:
    file = f"vit_{size}_{patch}_lc_swag-{sha256}.pth"
    return Checkpoint(
        name=f"swag_vit{size}{patch}",
        family="swag",
        filename=file,
        url=f"https://download.pytorch.org/models/{file}",
        preprocessing=Preprocessing(resize=224, crop=224, dense=224),
        architecture=vit(size, patch),
        licence="CC-BY-NC-4.0",
        non_commercial=True,
        source="facebookresearch/SWAG @ 77b98f5; torchvision (file, digest, linear)"
        + ("; DINOv2 paper, table 4 (k-NN)" if knn else ""),
        sha256=sha256,
        digest_trust="published",
        parameters=parameters,
        knn=knn,
        linear=linear,
        notes="the frozen trunk with a linear head; the same trunk without a digest: "
        f"https://dl.fbaipublicfiles.com/SWAG/vit_{size}{patch}.torch",
    )


RECORDS = (
    _record("b", 16, "4e70ced5", 85_798_656, 81.9),
    _record("l", 16, "4d563306", 303_301_632, 85.1),
    _record("h", 14, "c1eb923e", 630_764_800, 85.7, 82.6),
)
