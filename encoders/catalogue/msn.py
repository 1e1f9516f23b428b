"""MSN (Assran et al. 2022), as released by Meta."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import vit
from fewmatch.encoders.preprocessing import Preprocessing

_NOTES = (
    "the official evaluations take CLS before the final norm (`layers=[-1], norm=False`); "
    "they resize bilinearly, fewmatch bicubically as everywhere"
)


def _record(
    size: str, patch: int, epochs: int, hub: str, parameters: int, knn: float | None = None, linear: float | None = None
) -> Checkpoint:
    file = f"vit{size}{patch}_{epochs}ep.pth.tar"
    return Checkpoint(
        name=f"msn_vit{size}{patch}",
        family="msn",
        filename=f"msn_{file}",
        url=f"https://dl.fbaipublicfiles.com/msn/{file}",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224),
        architecture=vit(size, patch),
        licence="CC-BY-NC-4.0",
        non_commercial=True,
        source="facebookresearch/msn @ 4388dc1, README" + ("; DINOv2 paper, table 4 (k-NN, linear)" if knn else ""),
        parameters=parameters,
        hf_repo=f"facebook/vit-msn-{hub}",
        knn=knn,
        linear=linear,
        notes=_NOTES,
    )


RECORDS = (
    _record("s", 16, 800, "small", 21_665_664),
    _record("b", 16, 600, "base", 85_798_656),
    _record("l", 16, 600, "large", 303_301_632),
    _record("b", 4, 300, "base-4", 87_503_616),
    _record("l", 7, 200, "large-7", 303_513_600, 79.2, 80.7),
)
