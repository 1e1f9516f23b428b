"""Bfloat16: how near the bundled encoder's features are to those in float32, and what is never rounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewmatch.encoders import FrozenEncoder, from_state_dict, load, read_image
from fewmatch.encoders.devices import multiplies_bfloat16
from fewmatch.encoders.frame import crop_frame, resample

#: The cosine to float32 that all but one token in a hundred must reach.
COSINE = 0.9999


def prepared(pictures: list[np.ndarray], encoder: FrozenEncoder) -> Tensor:
    p = encoder.preprocessing
    pixels = [
        resample(x, crop_frame(x.shape[1], x.shape[0], resize=p.resize, crop=p.crop, patch=encoder.patch_size))
        for x in pictures
    ]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return (images - torch.tensor(p.mean).view(3, 1, 1)) / torch.tensor(p.std).view(3, 1, 1)


def tokens(encoder: FrozenEncoder, images: Tensor) -> dict[str, Tensor]:
    """By kind, (N, D) in float64."""
    found: dict[str, list[Tensor]] = {"global": [], "registers": [], "patches": []}
    for batch in images.split(20):
        features = encoder(batch)
        assert features.registers is not None
        found["global"].append(features.global_repr)
        found["registers"].append(features.registers.flatten(0, 1))
        found["patches"].append(features.feature_map.flatten(0, 2))
    return {kind: torch.cat(parts).double() for kind, parts in found.items()}


def first_percentiles(images: Tensor) -> dict[str, float]:
    exact, rough = (tokens(load("mini", device="cpu", dtype=dtype), images) for dtype in ("float32", "bfloat16"))
    return {
        kind: float(torch.nn.functional.cosine_similarity(exact[kind], rough[kind], dim=1).quantile(0.01))
        for kind in exact
    }


def test_pictures_in_bfloat16_stay_near_those_in_float32() -> None:
    import skimage.data

    pictures = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    images = prepared(pictures, load("mini", device="cpu", dtype="float32"))
    for kind, cosine in first_percentiles(images).items():
        assert cosine >= COSINE, (kind, cosine)


@pytest.mark.slow
def test_photos_in_bfloat16_stay_near_those_in_float32(shared_data: Path) -> None:
    # A hundred, or a few of them where bfloat16 is not in the hardware and takes its time.
    count = 100 if multiplies_bfloat16(torch.device("cpu")) else 8
    paths = sorted((shared_data / "pacs" / "photo").glob("*/*"))
    if len(paths) < count:
        pytest.skip(f"no {count} photos in {shared_data / 'pacs' / 'photo'}")
    pictures = [read_image(path).rgb for path in paths[:: len(paths) // count][:count]]
    images = prepared(pictures, load("mini", device="cpu", dtype="float32"))
    for kind, cosine in first_percentiles(images).items():
        assert cosine >= COSINE, (kind, cosine)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pixels_and_the_weights_that_meet_them_are_not_rounded(dtype: torch.dtype) -> None:
    exact = load("mini", device="cpu", dtype="float32").model
    encoder = load("mini", device="cpu", dtype=dtype)
    for name, value in encoder.model.named_parameters():
        embeds = name.startswith("patch_embed.")
        assert value.dtype == (torch.float32 if embeds else dtype), name
        assert not embeds or torch.equal(value, exact.get_parameter(name))
    encoder.model.to(torch.float32).to(dtype)  # nor by moving the network about
    assert torch.equal(
        encoder.model.get_parameter("patch_embed.proj.weight"), exact.get_parameter("patch_embed.proj.weight")
    )
    image = torch.randn(2, 3, 16, 24)
    features = encoder(image)
    assert features.feature_map.dtype == features.global_repr.dtype == dtype
    # Pixels that bfloat16 cannot tell apart make a difference before the first block.
    finer = image + 1e-3 * torch.randn_like(image)
    with torch.inference_mode():
        a, b = (encoder.model.patch_embed(x) for x in (image, finer))
        assert a.dtype == torch.float32 and not torch.equal(a, b)
        exactly = torch.nn.functional.conv2d(
            image.double(), exact.patch_embed.proj.weight.double(), exact.patch_embed.proj.bias.double(), stride=8
        )
    assert torch.allclose(a.double(), exactly.flatten(2).transpose(1, 2), atol=1e-5)


def test_float64_is_float64_all_through() -> None:
    state = load("mini", device="cpu", dtype="float32").model.state_dict()
    assert state["patch_embed.proj.weight"].dtype == torch.float32
    model = from_state_dict(state, "dinov2_reg", heads=4).model.double()
    assert {value.dtype for value in model.parameters()} == {torch.float64}
