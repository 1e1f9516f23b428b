"""The same numbers as the official code, on the same weights and pixels."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from fewmatch.encoders import FrozenEncoder, from_state_dict, load
from fewmatch.encoders.families import families
from fewmatch.encoders.models.vit import VisionTransformer
from fewmatch.errors import WeightsRefusedError

TOLERANCE = 2e-5

#: The family of each file of the full set.
FAMILY = {
    "dinov2": "dinov2", "dinov2_reg": "dinov2_reg", "dinov2_swiglu": "dinov2", "dinov2_swiglu_reg": "dinov2_reg",
    "capi": "capi", "dino": "dino", "dino_p8": "dino", "ibot": "ibot", "mae": "mae", "clip": "clip", "open_clip": "open_clip",
    "sam": "sam", "dinov3": "dinov3", "dinov3_swiglu": "dinov3", "dinov3_bf16_periods": "dinov3", "msn": "msn",
    "msn_p7": "msn", "mugs": "mugs", "swag": "swag", "beit": "beit", "eva_clip": "eva_clip", "data2vec2": "data2vec2",
    "data2vec2_prenet": "data2vec2", "esvit": "esvit", "seer": "seer",
}  # fmt: skip
IN_HUGGING_FACE_LAYOUT = [
    "dinov2",
    "dinov2_reg",
    "dinov2_swiglu",
    "dinov2_swiglu_reg",
    "dinov3",
    "dinov3_swiglu",
    "mae",
    "clip",
    "open_clip",
    "sam",
]
COMMITTED = ("dinov2", "dinov2_reg", "dinov2_swiglu_hf", "dino", "clip", "beit", "data2vec2_prenet", "dinov3")
#: Entries that belong to one network alone and are tested with it.
ELSEWHERE = re.compile(r"layer1/|stage\d|last4_avgpool|res3/")


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def below(data: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}


def error(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got - wanted).abs().max() / wanted.abs().max())


def family_of(name: str) -> str:
    family = FAMILY[name.removesuffix("_hf")]
    if family not in families():
        pytest.skip(f"the family {family} has no module in encoders/families yet")
    return family


def last_attention(encoder: FrozenEncoder, images: Tensor, heads: int) -> Tensor:
    """The attention of the last block out of the queries and keys that it projects."""

    def tokens(facet: str) -> Tensor:
        (taken,) = encoder(images, layers=[-1], facet=facet)
        sequence = torch.cat([taken.global_repr[:, None], taken.feature_map.flatten(1, 2)], dim=1)
        return sequence.unflatten(2, (heads, -1)).transpose(1, 2)

    query, key = tokens("query"), tokens("key")
    return (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(dim=-1)


def check(encoder: FrozenEncoder, meta: dict[str, str], data: dict[str, Tensor]) -> None:
    """Every expected tensor of a file that this network gives."""
    inputs = below(data, "input/")
    assert inputs
    for number, pixels in inputs.items():
        images = pixels.float() * float(meta["input_scale"])
        wanted = below(data, f"expected/{number}/")
        features = encoder(images)
        for field in ("registers", "projected"):
            assert (getattr(features, field) is not None) == (field in wanted), field
        for name, tensor in wanted.items():
            if ELSEWHERE.match(name):
                continue
            block = re.fullmatch(r"(block\d+|last)/(patch|cls|registers)_prenorm", name)
            if block:
                layer = -1 if block[1] == "last" else int(block[1].removeprefix("block"))
                (tapped,) = encoder(images, layers=[layer], norm=False)
                part = {"patch": "feature_map", "cls": "global_repr", "registers": "registers"}[block[2]]
                got = getattr(tapped, part)
            elif name in ("cls_prenorm", "cls_prenorm_last2"):  # MSN: the official low-shot features
                layers = [-2, -1] if name.endswith("last2") else [-1]
                got = torch.cat([f.global_repr for f in encoder(images, layers=layers, norm=False)], dim=1)
            elif name == "linear_eval_last":  # BEiT
                (tapped,) = encoder(images, layers=[-1], norm=False)
                got = torch.cat([tapped.global_repr, tapped.feature_map.mean(dim=(1, 2))], dim=1)
            elif name == "last_selfattention":
                got = last_attention(encoder, images, int(meta["heads"]))
            elif name == "cls":  # data2vec 2.0, whose global vector is a mean
                got = from_state_dict(
                    below(data, "state/"), encoder.family, heads=int(meta["heads"]), pool="cls"
                )(images).global_repr  # fmt: skip
            else:
                got = getattr(features, name)
            assert error(got, tensor) < TOLERANCE, (number, name)
        if isinstance(encoder.model, VisionTransformer):
            last, again = encoder(images, layers=[-1, encoder.model.depth - 1])
            assert torch.equal(last.feature_map, features.feature_map)
            assert torch.equal(again.global_repr, last.global_repr)


def options(meta: dict[str, str], family: str) -> dict[str, Any]:
    """What a golden file says and its entries do not tell."""
    return {"heads": json.loads(meta["heads"])} if "heads" in families()[family].options else {}


@pytest.mark.parametrize("name", COMMITTED)
@pytest.mark.parametrize("told", [True, False], ids=["family told", "family from the keys"])
def test_committed_golden_files(golden: Path, name: str, told: bool) -> None:
    meta, data = read(golden / f"{name}.safetensors")
    family = family_of(name)
    if name == "dino" and not told:
        with pytest.raises(WeightsRefusedError, match="leave the family open: write dino:PATH"):
            from_state_dict(below(data, "state/"), heads=2)
        return
    encoder = from_state_dict(below(data, "state/"), family if told else None, heads=int(meta["heads"]))
    assert encoder.family == family
    check(encoder, meta, data)


def test_no_golden_file_is_forgotten(shared_golden: Path) -> None:
    assert {path.stem for path in shared_golden.glob("*.safetensors")} == FAMILY.keys()
    assert {path.stem for path in (shared_golden / "hf").glob("*.safetensors")} == set(IN_HUGGING_FACE_LAYOUT)
    assert {family for family in families() if family not in FAMILY.values()} == set()


@pytest.mark.parametrize("name", FAMILY)
def test_all_golden_files_at_every_size(shared_golden: Path, name: str) -> None:
    family = family_of(name)
    meta, data = read(shared_golden / f"{name}.safetensors")
    check(from_state_dict(below(data, "state/"), family, **options(meta, family)), meta, data)


@pytest.mark.parametrize("name", IN_HUGGING_FACE_LAYOUT)
def test_the_hugging_face_layout_gives_the_official_numbers(shared_golden: Path, name: str) -> None:
    family = family_of(name)
    meta, data = read(shared_golden / f"{name}.safetensors")
    state = below(read(shared_golden / "hf" / f"{name}.safetensors")[1], "hf_state/")
    check(from_state_dict(state, family, **options(meta, family)), meta, data)


# --- mistakes show

State = dict[str, Tensor]


def zeroed(*ends: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        for key in [key for key in state if key.endswith(ends)]:
            state[key] = torch.zeros_like(state[key])

    return change


def no_layer_scale(state: State) -> None:
    for key in [key for key in state if ".ls" in key]:
        state[key] = torch.ones_like(state[key])


def no_mask(state: State) -> None:
    for key in [key for key in state if key.endswith("bias_mask")]:
        state[key] = torch.ones_like(state[key])


def zero_cls_position(state: State) -> None:
    (key,) = (key for key in state if key.endswith(("pos_embed", "pos_embedding")))
    table = state[key] = state[key].clone()
    (table[:1] if table.shape[1] == 1 else table[:, :1]).zero_()


def no_entries_for_cls(state: State) -> None:
    key = "rel_pos_bias.relative_position_bias_table"
    state[key] = torch.cat([state[key][:-3], torch.zeros_like(state[key][-3:])])


def other_mask_token(state: State) -> None:
    state["mask_token"] = state["mask_token"] + 1


def swapped(one: str, other: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        for key in [key for key in state if one in key]:
            state[key], state[key.replace(one, other)] = state[key.replace(one, other)], state[key]

    return change


def halves_swapped(state: State) -> None:
    for key in [key for key in state if ".w12." in key]:
        state[key] = torch.cat(state[key].chunk(2)[::-1])


#: Deliberate mistakes of the files' metadata: as an option, or as a change of the weights.
MISTAKES: dict[str, dict[str, Any] | Callable[[State], None]] = {
    "norm eps 1e-12": {"eps": 1e-12},
    "norm eps 1e-06": {"eps": 1e-6},
    "norm eps 1e-05": {"eps": 1e-5},
    "pos: size, no antialias": {"positions": "size-plain"},
    "pos: size, antialias": {"positions": "size"},
    "pos: scale_factor with 0.1": {"positions": "scale-factor"},
    "pos: align_corners False": {"positions": "size-plain"},
    "erf gelu instead of quick": {"act": "gelu"},
    "pre-norm blocks": None,  # type: ignore[dict-item]  # another network
    "zero pos of CLS": zero_cls_position,
    "zero positions": zeroed("pos_embed", "positional_embedding", "encoder.positions"),
    "zero registers": zeroed("register_tokens"),
    "zero storage tokens": zeroed("storage_tokens"),
    "zero CLS": zeroed("extra_tokens"),
    "no layerscale": no_layer_scale,
    "no pre-norm bias": zeroed("ln_pre.bias"),
    "no q bias": zeroed("q_bias"),
    "no v bias": zeroed("v_bias"),
    "no rel-pos": zeroed("bias_table"),
    "no CLS entries in rel-pos": no_entries_for_cls,
    "K bias not masked": no_mask,
    "mask_token changed (must be 0)": other_mask_token,
    "swap gate and value": halves_swapped,
    "swap w1 and w2": swapped(".w1.", ".w2."),
}
TANH = "tanh gelu"
#: Mistakes in code that has no switch for them.
NOT_POSSIBLE = re.compile(r"qkv rows interleaved|rope|no rope|rel-pos transposed|pre-norm blocks")
VITS = [name for name in FAMILY if name not in ("capi", "sam", "esvit", "seer")]


@pytest.mark.parametrize("name", VITS)
def test_mistakes_show_as_much_as_in_the_official_code(
    shared_golden: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change that was tried on the official code has the same effect here, within the two digits that were noted."""
    meta, data = read(shared_golden / f"{name}.safetensors")
    known = json.loads(meta["sensitivity"])
    tried = 0
    for mistake, (on_global, on_map) in known.items():
        if NOT_POSSIBLE.search(mistake):
            continue
        state = below(data, "state/")
        extra: dict[str, Any] = {}
        if mistake == TANH:
            monkeypatch.setattr(F, "gelu", lambda x: torch.ops.aten.gelu(x, approximate="tanh"))
        elif callable(change := MISTAKES[mistake]):
            change(state)
        else:
            extra = change
        encoder = from_state_dict(state, family_of(name), heads=int(meta["heads"]), **extra)
        worst = [0.0, 0.0]
        for number, pixels in below(data, "input/").items():
            got = encoder(pixels.float() * float(meta["input_scale"]))
            for i, field in enumerate(("global_repr", "feature_map")):
                worst[i] = max(worst[i], error(getattr(got, field), data[f"expected/{number}/{field}"]))
        monkeypatch.undo()
        assert worst == pytest.approx([on_global, on_map], rel=0.1, abs=5e-6), mistake
        tried += 1
    assert tried >= 2


def test_the_two_position_rules_are_told_apart(golden: Path) -> None:
    meta, data = read(golden / "dinov2.safetensors")
    state = below(data, "state/")
    images = data["input/2"].float() * float(meta["input_scale"])
    wrong = from_state_dict(state, "dinov2", heads=2, positions="size")(images).global_repr
    assert error(wrong, data["expected/2/global_repr"]) > 1e-2


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("dino", {"eps": 1e-5}),
        ("dino", {"positions": "size-plain"}),
        ("dino", {"act": "quick-gelu"}),
        ("dino", {"heads": 4}),
        ("clip", {"eps": 1e-6}),
        ("clip", {"act": "gelu"}),
        ("beit", {"eps": 1e-5}),
        ("data2vec2_prenet", {"eps": 1e-5}),
        ("data2vec2_prenet", {"pool": "cls"}),
        ("dinov3", {"eps": 1e-6}),
        ("dinov2", {"heads": 4}),
    ],
)
def test_wrong_switches_show(golden: Path, name: str, mistake: dict[str, Any]) -> None:
    meta, data = read(golden / f"{name}.safetensors")
    number, pixels = next(iter(below(data, "input/").items()))
    told = {"heads": int(meta["heads"]), **mistake}
    wrong = from_state_dict(below(data, "state/"), family_of(name), **told)(pixels.float() * float(meta["input_scale"]))
    assert error(wrong.global_repr, data[f"expected/{number}/global_repr"]) > 1e-4


def test_stored_positions_are_used_only_for_the_square_of_their_size(golden: Path) -> None:
    _, data = read(golden / "dinov2.safetensors")
    model = from_state_dict(below(data, "state/"), "dinov2", heads=2).model
    assert model._positions_at((37, 37)) is model.pos_embed
    flat = model._positions_at((1, 37 * 37))
    assert flat.shape == model.pos_embed.shape and not torch.equal(flat, model.pos_embed)


# --- the bundled encoder


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
