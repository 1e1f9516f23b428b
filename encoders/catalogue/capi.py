"""CAPI (Darcet et al. 2025), as released by Meta."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.preprocessing import Preprocessing


def _record(data: str, file: str, attentive: float, segmentation: float) -> Checkpoint:
    return Checkpoint(
        name=f"capi_vitl14_{data}",
        family="capi",
        filename=f"capi_vitl14_{file}.pth",
        url=f"https://dl.fbaipublicfiles.com/capi/capi_vitl14_{file}.pth",
        # Dense: the size of the published visualisations; the segmentation benchmark squashes images to 224 × 224.
        preprocessing=Preprocessing(resize=256, crop=224, dense=448),
        architecture={"embed_dim": 1024, "depth": 24, "heads": 16, "patch_size": 14, "registers": 16},
        licence="Apache-2.0",
        source="facebookresearch/capi @ 98b4fa1, README",
        parameters=315_247_744,
        notes=f"attentive probe {attentive}, ADE20K k-NN mIoU {segmentation}; k-NN and linear are not published",
    )


RECORDS = (
    _record("p205", "p205", 79.2, 35.2),
    _record("lvd", "lvd", 83.8, 32.1),
    _record("in22k", "i22k", 83.6, 29.7),  # the file has its own spelling
    _record("in1k", "in1k", 82.9, 29.2),
)
