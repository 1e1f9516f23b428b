"""Vectors that are the mean of several crops: which crops these are, and that everything remembers their number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewmatch.cli.main import run
from fewmatch.encoders import encode_images, load
from fewmatch.encoders.frame import crop_frame, resample
from fewmatch.encoders.store.plan import CROPS, plan_encoding
from fewmatch.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of pictures, wide, tall and square."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i, (height, width) in enumerate(((90, 130), (140, 80), (96, 96))):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(
                tmp_path / "set" / label / f"{i}.png"
            )
    return tmp_path / "set"


@pytest.mark.parametrize("crops", CROPS)
def test_the_vector_is_the_mean_over_the_crops(folder: Path, crops: int) -> None:
    encoder = load("mini", device="cpu", dtype="float32")
    store = encode_images([folder], encoder, size=64, crops=crops)
    p = encoder.preprocessing.at(64, encoder.patch_size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (p.mean, p.std))
    for row, vector in zip(store.images, store.global_repr(), strict=True):
        with Image.open(folder / row["path"]) as image:
            rgb = np.asarray(image.convert("RGB"))
        views = []
        for place in ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))[: 1 if crops == 1 else 5]:
            height, width = rgb.shape[:2]
            frame = crop_frame(width, height, resize=p.resize, crop=p.crop, patch=encoder.patch_size, place=place)
            views.append(resample(rgb, frame))
        if crops == 10:
            views += [np.fliplr(view) for view in views]
        batch = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 255
        wanted = encoder((batch - mean) / std).global_repr.double().mean(dim=0)
        np.testing.assert_allclose(vector, wanted, atol=2e-5)
        assert store.key["preprocessing"].get("crops", 1) == crops


def test_corners_lie_in_the_corners() -> None:
    places = {
        (x, y): crop_frame(130, 90, resize=72, crop=64, patch=8, place=(x, y)) for x in (0.0, 1.0) for y in (0.0, 1.0)
    }
    assert places[0, 0].offset == (0, 0) and places[1, 1].offset == (104 - 64, 72 - 64)
    assert places[1, 0].offset == (40, 0) and places[0, 1].offset == (0, 8)
    assert crop_frame(130, 90, resize=72, crop=64, patch=8).offset == (20, 4)


def test_wrong_crops_are_refused(folder: Path) -> None:
    encoder = load("mini", device="cpu", dtype="float32")
    with pytest.raises(InputError, match="no 3 crops: expected one of 1, 5, 10"):
        plan_encoding([folder], encoder, crops=3)
    with pytest.raises(InputError, match="5 crops are for one vector per image"):
        plan_encoding([folder], encoder, keep="patches", crops=5)


def test_stores_and_results_remember_the_crops(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mini = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64")
    few = ("--ways", "2", "--shots", "1", "--queries", "1", "--episodes", "20", "--json")
    store = str(tmp_path / "store")
    assert run(["encode", str(folder), "-o", store, *mini, "--crops", "5"]) == 0
    capsys.readouterr()
    assert run(["episodes", store, *few]) == 0
    assert json.loads(capsys.readouterr().out)["encoder"]["crops"] == 5
    assert run(["episodes", store, *few, "--crops", "1"]) == 2
    assert "was made with --crops 5, not 1" in capsys.readouterr().err
    assert run(["episodes", str(folder), *mini, *few]) == 0
    assert "crops" not in json.loads(capsys.readouterr().out)["encoder"]
    assert run(["episodes", str(folder), *mini, "--crops", "4", *few]) == 2
    assert "no 4 crops" in capsys.readouterr().err
    # Queries are encoded as the supports in the store were.
    assert run(["classify", "--support", store, "--query", str(folder / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoder"]["crops"] == 5
