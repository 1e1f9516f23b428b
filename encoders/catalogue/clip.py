"""CLIP (Radford et al. 2021), as released by OpenAI: the image towers."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.catalogue.vit_sizes import vit
from fewmatch.encoders.preprocessing import Preprocessing

#: Of the images that CLIP was trained on; others took them over.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _record(
    name: str,
    file: str,
    sha256: str,
    hub: str,
    patch: int,
    parameters: int,
    image: int = 224,
    knn: float | None = None,
    linear: float | None = None,
) -> Checkpoint:
    return Checkpoint(
        name=f"clip_{name}",
        family="clip",
        filename=file,
        url=f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}",
        preprocessing=Preprocessing(resize=image, crop=image, dense=image, mean=CLIP_MEAN, std=CLIP_STD),
        architecture=vit(name[3], patch, image, projection_dim=768 if name[3] == "l" else 512),
        licence="MIT",
        source="openai/CLIP @ d05afc4" + ("; DINOv2 paper, table 4 (k-NN, linear)" if knn else ""),
        sha256=sha256,
        digest_trust="published",
        parameters=parameters,
        hf_repo=f"openai/{hub}",
        knn=knn,
        linear=linear,
        notes="a TorchScript archive with the text tower, in half precision",
    )


RECORDS = (
    _record(
        "vitb32",
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        "clip-vit-base-patch32",
        32,
        87_849_216,
    ),
    _record(
        "vitb16",
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "clip-vit-base-patch16",
        16,
        86_192_640,
    ),
    _record(
        "vitl14",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "clip-vit-large-patch14",
        14,
        303_966_208,
        224,
        79.8,
        84.3,
    ),
    _record(
        "vitl14_336",
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "clip-vit-large-patch14-336",
        14,
        304_293_888,
        336,
        80.5,
        85.3,
    ),
)
