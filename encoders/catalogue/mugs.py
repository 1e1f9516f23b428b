"""Mugs (Zhou et al. 2022), as released by Sea AI Lab."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import vit
from fewmatch.encoders.preprocessing import Preprocessing


def _record(size: str, word: str, epochs: int, parameters: int, knn: float, linear: float) -> Checkpoint:
    file = f"vit_{word}_backbone_{epochs}ep.pth"
    return Checkpoint(
        name=f"mugs_vit{size}16",
        family="mugs",
        filename=f"mugs_{file}",
        url=f"https://huggingface.co/zhoupans/Mugs/resolve/main/pretrained%20models/vit_{word}_{epochs}ep/{file}",
        preprocessing=Preprocessing(resize=256, crop=224, dense=480),
        architecture=vit(size, 16),
        licence="Apache-2.0",
        source="sail-sg/mugs @ 10ab634, README",
        parameters=parameters,
        knn=knn,
        linear=linear,
        notes=f"ImageNet-1k, {epochs} epochs",
    )


RECORDS = (
    _record("s", "small", 800, 21_665_664, 75.6, 78.9),
    _record("b", "base", 400, 85_798_656, 78.0, 80.6),
    _record("l", "large", 250, 303_301_632, 80.3, 82.1),
)
