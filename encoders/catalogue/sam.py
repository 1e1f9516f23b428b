"""SAM (Kirillov et al. 2023), as released by Meta: the image encoders."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import VIT_SIZES
from fewmatch.encoders.preprocessing import Preprocessing


def _record(size: str, word: str, md5: str, parameters: int, about: str) -> Checkpoint:
    # The suffix of the file name is the start of the MD5, not of the SHA-256 as torch.hub expects.
    file = f"sam_vit_{size}_{md5[:6]}.pth"
    width = VIT_SIZES[size]
    return Checkpoint(
        name=f"sam_vit{size}16",
        family="sam",
        filename=file,
        url=f"https://dl.fbaipublicfiles.com/segment_anything/{file}",
        preprocessing=Preprocessing(resize=1024, crop=1024, dense=1024),
        # Features leave the neck, which is narrower than the transformer.
        architecture=width | {"embed_dim": 256, "width": width["embed_dim"], "patch_size": 16, "position_grid": 64},
        licence="Apache-2.0",
        source="facebookresearch/segment-anything @ dca509f, README",
        md5=md5,
        digest_trust="published",
        parameters=parameters,
        hf_repo=f"facebook/sam-vit-{word}",
        notes=f"with prompt encoder and mask decoder, about {about}; semantic features are known to be weak (unverified)",
    )


RECORDS = (
    _record("b", "base", "01ec64d29a2fca3f0661936605ae66f8", 89_670_912, "375 MB"),
    _record("l", "large", "0b3195507c641ddb6910d2bb5adee89c", 308_278_272, "1.25 GB"),
    _record("h", "huge", "4b8939a88964f0f4ff5f5b2642c598a6", 637_026_048, "2.56 GB"),
)
