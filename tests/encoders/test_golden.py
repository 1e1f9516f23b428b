"""The same numbers as the official code, on the same weights and pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from encoders import FrozenEncoder, from_state_dict, load

TOLERANCE = 2e-5


def read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def below(data: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got - wanted).abs().max() / wanted.abs().max())


def check(encoder: FrozenEncoder, data: dict[str, torch.Tensor], scale: float) -> None:
    inputs = below(data, "input/")
    assert inputs
    for number, pixels in inputs.items():
        images = pixels.float() * scale
        wanted = below(data, f"expected/{number}/")
        features = encoder(images)
        assert error(features.global_repr, wanted["global_repr"]) < TOLERANCE
        assert error(features.feature_map, wanted["feature_map"]) < TOLERANCE
        assert (features.registers is not None) == ("registers" in wanted)
        if features.registers is not None:
            assert error(features.registers, wanted["registers"]) < TOLERANCE
        if "block0/patch_prenorm" in wanted:
            (first,) = encoder(images, layers=[0], norm=False)
            assert error(first.feature_map, wanted["block0/patch_prenorm"]) < TOLERANCE
            assert error(first.global_repr, wanted["block0/cls_prenorm"]) < TOLERANCE
        last, again = encoder(images, layers=[-1, 1])
        assert torch.equal(last.feature_map, features.feature_map) and torch.equal(again.global_repr, last.global_repr)


def family_of(name: str) -> str:
    return "dinov2_reg" if "reg" in name else "dinov2"


@pytest.mark.parametrize("name", ["dinov2", "dinov2_reg", "dinov2_swiglu_hf"])
@pytest.mark.parametrize("told", [True, False], ids=["family told", "family from the keys"])
def test_committed_golden_files(golden: Path, name: str, told: bool) -> None:
    meta, data = read(golden / f"{name}.safetensors")
    encoder = from_state_dict(below(data, "state/"), family_of(name) if told else None, heads=int(meta["heads"]))
    check(encoder, data, float(meta["input_scale"]))


@pytest.mark.parametrize("name", ["dinov2", "dinov2_reg", "dinov2_swiglu", "dinov2_swiglu_reg"])
@pytest.mark.parametrize("layout", ["official", "hugging face"])
def test_all_golden_files_at_every_size(shared_golden: Path, name: str, layout: str) -> None:
    meta, data = read(shared_golden / f"{name}.safetensors")
    state = below(data, "state/")
    if layout == "hugging face":
        state = below(read(shared_golden / "hf" / f"{name}.safetensors")[1], "hf_state/")
    check(from_state_dict(state, family_of(name), heads=int(meta["heads"])), data, float(meta["input_scale"]))


def test_the_two_position_rules_are_told_apart(golden: Path) -> None:
    meta, data = read(golden / "dinov2.safetensors")
    state = below(data, "state/")
    images = data["input/2"].float() * float(meta["input_scale"])
    wrong = from_state_dict(state, "dinov2", heads=2, positions="size")(images).global_repr
    assert error(wrong, data["expected/2/global_repr"]) > 1e-2


def test_wrong_heads_show(golden: Path) -> None:
    meta, data = read(golden / "dinov2.safetensors")
    images = data["input/2"].float() * float(meta["input_scale"])
    wrong = from_state_dict(below(data, "state/"), "dinov2", heads=4)(images).global_repr
    assert error(wrong, data["expected/2/global_repr"]) > 1e-2


def test_stored_positions_are_used_only_for_the_square_of_their_size(golden: Path) -> None:
    _, data = read(golden / "dinov2.safetensors")
    model = from_state_dict(below(data, "state/"), "dinov2", heads=2).model
    assert model._positions_at((37, 37)) is model.pos_embed
    flat = model._positions_at((1, 37 * 37))
    assert flat.shape == model.pos_embed.shape and not torch.equal(flat, model.pos_embed)


def test_mini_gives_its_reference_outputs(golden: Path) -> None:
    meta, data = read(golden / "mini.safetensors")
    encoder = load("mini", device="cpu", dtype="float32")
    for number, pixels in below(data, "input/").items():
        features = encoder(pixels.float() * float(meta["input_scale"]))
        assert error(features.global_repr, data[f"expected/{number}/global_repr"]) < TOLERANCE
        assert error(features.feature_map, data[f"expected/{number}/feature_map"]) < TOLERANCE


def test_mini_in_bfloat16_stays_close(golden: Path) -> None:
    meta, data = read(golden / "mini.safetensors")
    images = data["input/0"].float() * float(meta["input_scale"])
    features = load("mini", device="cpu", dtype="bfloat16")(images)
    assert features.global_repr.dtype == torch.bfloat16
    cosine = torch.cosine_similarity(features.global_repr.float(), data["expected/0/global_repr"], dim=-1)
    assert float(cosine.min()) > 0.999


def test_batches_do_not_mix_images(golden: Path) -> None:
    meta, data = read(golden / "mini.safetensors")
    encoder = load("mini", device="cpu", dtype="float32")
    images = data["input/0"].float() * float(meta["input_scale"])
    together = encoder(images).global_repr
    alone = torch.cat([encoder(image[None]).global_repr for image in images])
    assert error(together, alone) < TOLERANCE


def test_sizes_that_are_no_multiple_of_the_patch_are_refused() -> None:
    encoder = load("mini", device="cpu", dtype="float32")
    with pytest.raises(ValueError, match="multiples of the patch size 8, got 60×64"):
        encoder(torch.zeros(1, 3, 60, 64))
    with pytest.raises(ValueError, match="expected layers from -8 to 7, got 8"):
        encoder(torch.zeros(1, 3, 64, 64), layers=[8])
    with pytest.raises(ValueError, match="expected layers with norm=False"):
        encoder(torch.zeros(1, 3, 64, 64), norm=False)
