"""MAE (He et al. 2022), as released by Meta: the encoders without their decoders."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import vit
from fewmatch.encoders.preprocessing import Preprocessing


def _record(
    size: str,
    word: str,
    patch: int,
    parameters: int,
    md5: str,
    linear: float,
    knn: float | None = None,
    notes: str = "",
) -> Checkpoint:
    return Checkpoint(
        name=f"mae_vit{size}{patch}",
        family="mae",
        filename=f"mae_pretrain_vit_{word}.pth",
        url=f"https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_{word}.pth",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224),
        architecture=vit(size, patch),
        licence="CC-BY-NC-4.0",
        non_commercial=True,
        source="facebookresearch/mae @ efb2a80, README (start of the MD5, linear)",
        md5=md5,
        digest_trust="published",
        parameters=parameters,
        knn=knn,
        linear=linear,
        notes=notes
        + "the Hugging Face repositories probably hold another training run (unverified), so they are not used",
    )


RECORDS = (
    _record("b", "base", 16, 85_798_656, "8cad7c", 67.8),
    _record("l", "large", 16, 303_301_632, "b8b06e", 76.0),
    _record("h", "huge", 14, 630_764_800, "9bdbb0", 77.2, 49.4, "k-NN as in the DINOv2 paper, table 4; "),
)
