"""iBOT (Zhou et al. 2022), as released by ByteDance: the vision transformers."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import vit
from fewmatch.encoders.preprocessing import Preprocessing

_PARAMETERS = {"s": 21_665_664, "b": 85_798_656, "l": 303_301_632}


def _record(name: str, folder: str, knn: float, linear: float, notes: str, file: str = "teacher") -> Checkpoint:
    size = name[3]
    return Checkpoint(
        name=f"ibot_{name}",
        family="ibot",
        # All released files have the same name; in a cache each needs its own.
        filename=f"ibot_{name}_{file}.pth",
        url=f"https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/{folder}/checkpoint_{file}.pth",
        preprocessing=Preprocessing(resize=256, crop=224, dense=480),
        architecture=vit(size, 16),
        licence="Apache-2.0",
        source="bytedance/ibot @ da316d8, README",
        parameters=_PARAMETERS[size],
        knn=knn,
        linear=linear,
        notes=notes,
    )


RECORDS = (
    _record("vits16", "vits_16", 75.2, 77.9, "ImageNet-1k"),
    _record("vitb16", "vitb_16", 77.1, 79.5, "ImageNet-1k, masks in blocks"),
    _record("vitb16_rand", "vitb_16_rand_mask", 77.3, 79.8, "ImageNet-1k, random masks"),
    _record("vitl16", "vitl_16", 78.0, 81.0, "ImageNet-1k, masks in blocks"),
    _record("vitl16_rand", "vitl_16_rand_mask", 77.7, 81.3, "ImageNet-1k, random masks"),
    _record("vitb16_in22k", "vitb_16_pt22k", 71.1, 79.0, "ImageNet-22k; the student", "student"),
    _record(
        "vitl16_in22k",
        "vitl_16_pt22k",
        72.9,
        82.3,
        "ImageNet-22k; the student. k-NN and linear as in the DINOv2 paper, table 4",
        "student",
    ),
)
