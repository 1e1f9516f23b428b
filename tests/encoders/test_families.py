"""Families of vision transformers: which keys are whose, what each layout becomes, and every switch against its definition."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewmatch.encoders import catalogue, from_state_dict, load
from fewmatch.encoders.families import FamilyOpenError, families, recognise, without_heads
from fewmatch.encoders.loading import FrozenEncoder
from fewmatch.encoders.models import Backbone
from fewmatch.encoders.models.positions import PerGrid, relative_bias, resized_table, sincos_table
from fewmatch.encoders.models.vit import VisionTransformer, ViTArchitecture, read_architecture
from fewmatch.encoders.weights.checkpoint import require_match
from fewmatch.errors import InputError, WeightsRefusedError

from official_layouts import hugging_face_clip, hugging_face_vit, layout, network_of  # isort: skip  # beside the tests of all rooms

State = dict[str, Tensor]
#: Families of one layout.
PLAIN = {"dino", "ibot", "mugs", "msn", "mae"}
#: A small checkpoint of each family, in the official layout; what its entries do not tell is the number of heads, 2.
SMALL: dict[str, dict[str, Any]] = {
    "dino": {}, "ibot": {}, "mugs": {}, "msn": {}, "mae": {}, "swag": {}, "beit": {}, "data2vec2": {},
    "dinov2": {"ffn": "mlp", "registers": 0}, "dinov2_reg": {"ffn": "swiglu", "registers": 4},
    "dinov3": {"ffn": "swiglu", "hidden_dim": 24}, "clip": {"projection_dim": 6}, "open_clip": {"projection_dim": 6},
    "eva_clip": {"projection_dim": 6, "hidden_dim": 21},
}  # fmt: skip
#: Families whose entries may be those of another: a random position table is not MAE's, and nothing else tells MAE from DINO.
OPEN = {"dino": PLAIN, "mae": PLAIN, "open_clip": {"clip", "open_clip"}, "swag": {"swag"}}
every_family = pytest.mark.parametrize("family", SMALL)


def small(family: str, seed: int = 0, **changes: Any) -> State:
    """As `_small`, in a dictionary of one's own; the tensors are shared and nobody may write to them."""
    return dict(_small(family, seed, **changes))


@functools.cache
def _small(family: str, seed: int, **changes: Any) -> State:
    """Random weights of a small model in the family's official layout, with everything that files hold besides."""
    sizes = {"embed_dim": 16, "depth": 3, "heads": 2, "patch_size": 4 if family != "dinov3" else 16, "position_grid": 3}
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in layout(family, {**sizes, **SMALL[family], **changes}).items():
        random = torch.randn(value.shape, generator=generator)
        state[key] = random if value.dtype == torch.float32 else torch.zeros(value.shape, dtype=value.dtype)
    if family == "clip":
        state["input_resolution"] = torch.tensor(12)
    if family == "ibot":
        state["masked_embed"] = torch.randn(1, state["cls_token"].shape[2], generator=generator)
    for key in state:
        if key.endswith("bias_mask"):
            state[key] = torch.cat([torch.ones(16), torch.zeros(16), torch.ones(16)])
        if key.endswith("periods"):
            state[key] = torch.tensor([1.0, 10.0])
    return state


def encoder_of(family: str, **options: Any) -> FrozenEncoder:
    return from_state_dict(small(family), family, **{"heads": 2, **options})


def images(patch: int, rows: int = 2, columns: int = 5, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, rows * patch, columns * patch, generator=generator)


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


# --- whose keys


@every_family
def test_raw_keys_tell_the_family_and_no_other_claims_them(family: str) -> None:
    given = network_of(small(family))
    claims = [other.name for other in families().values() if other.recognises(given)]
    if family in OPEN:
        assert claims == []
        with pytest.raises(FamilyOpenError, match=f"leave the family open: write .*{family}:PATH"):
            from_state_dict(small(family), heads=2)
    else:
        assert claims == [family] and recognise(given).name == family
        assert not any(other.possible(given) for other in families().values())
        assert from_state_dict(small(family), heads=2).family == family


def test_golden_files_are_recognised(shared_golden: Path) -> None:
    seen = 0
    for path in sorted(shared_golden.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            keys = [key for key in file.keys() if key.startswith("state/")]  # noqa: SIM118
            state = {key.removeprefix("state/"): file.get_tensor(key) for key in keys}
        name = re.sub(r"_(p\d|swiglu|bf16_periods|prenet)", "", path.stem)
        if name in SMALL:
            entries = network_of(state)
            official_swag = name == "swag"  # under SWAG's own names, not torchvision's
            wanted = [] if name in OPEN and not official_swag else [name]
            assert [f.name for f in families().values() if f.recognises(entries)] == wanted
            assert {f.name for f in families().values() if f.possible(entries)} == (set() if wanted else OPEN[name])
            seen += 1
    assert seen == 21


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_mae_is_told_by_its_fixed_table(dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) for key, value in small("mae").items()}
    state["pos_embed"] = sincos_table(16, 3).to(dtype)
    assert recognise(state).name == "mae"
    moved = state["pos_embed"].clone()
    moved[0, 0, 3] = 0.01  # a position for CLS: learned, so not MAE's
    other = state["pos_embed"].clone()
    other[0, 5, 7] += 0.01
    for table in (moved, other):
        with pytest.raises(FamilyOpenError):
            recognise({**state, "pos_embed": table})


def test_mae_is_told_by_its_decoder() -> None:
    state = small("mae") | {"decoder_pos_embed": torch.zeros(1, 10, 8), "mask_token": torch.zeros(1, 1, 8)}
    assert recognise(state).name == "mae"
    close(from_state_dict(state, heads=2)(images(4)).global_repr, encoder_of("mae")(images(4)).global_repr, 0)


def test_the_fixed_table_is_the_official_one(shared_golden: Path) -> None:
    with safe_open(shared_golden / "mae.safetensors", "pt") as file:
        close(sincos_table(64, 14), file.get_tensor("extra/sincos_pos_embed"), 2e-6)


def test_files_may_be_told_what_they_are(tmp_path: Path) -> None:
    state = small("mae", embed_dim=64)
    save_file(state, path := tmp_path / "weights.safetensors")
    wide = images(4, 5, 5)
    with pytest.raises(
        FamilyOpenError, match=f"{path}: .* write dino:PATH, ibot:PATH, mugs:PATH, msn:PATH or mae:PATH"
    ):
        load(path)
    as_dino, as_mae = (load(f"{start}:{path}", device="cpu", dtype="float32") for start in ("dino", "mae"))
    assert (as_dino.family, as_mae.family) == ("dino", "mae")
    assert not torch.allclose(as_dino(wide).global_repr, as_mae(wide).global_repr, rtol=1e-3)
    close(as_dino(images(4, 3, 3)).global_repr, as_mae(images(4, 3, 3)).global_repr)  # no positions to resize


def test_clip_in_the_hugging_face_layout_is_not_guessed() -> None:
    state = hugging_face_clip(small("clip"))
    spelled = r"leave the family open: write clip:PATH \(.*quick GELU\) or open_clip:PATH \(.*exact GELU\)"
    with pytest.raises(FamilyOpenError, match=spelled):
        recognise(state)
    mark = "vision_model.embeddings.class_embedding"
    for width in (1024, 1280):  # wider than any of OpenAI's, but others trained such towers with quick GELU
        with pytest.raises(FamilyOpenError, match=spelled):
            recognise({mark: torch.zeros(width)})


def test_plain_keys_of_other_families_are_not_taken_for_dino() -> None:
    for extra in ("register_tokens", "blocks.0.ls1.gamma", "blocks.0.gamma_1", "storage_tokens"):
        assert not families()["dino"].recognises(small("dino") | {extra: torch.zeros(1)})
    with pytest.raises(WeightsRefusedError, match="weights of no known family"):
        recognise({"cls_token": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(1, 10, 8)})


# --- layouts


@pytest.mark.parametrize("family", ["dino", "msn", "mae"])
@pytest.mark.parametrize("prefix", ["", "vit."])
def test_the_hugging_face_layout_of_plain_models(family: str, prefix: str) -> None:
    official = {key.removeprefix("module."): value for key, value in small(family).items() if "fc.fc" not in key}
    state = hugging_face_vit(official, prefix) | {f"{prefix}pooler.dense.bias": torch.zeros(16)}
    with pytest.raises(FamilyOpenError):
        from_state_dict(state, heads=2)
    got, wanted = from_state_dict(state, family, heads=2), from_state_dict(official, family, heads=2)
    assert got.digest == wanted.digest
    close(got(images(4)).feature_map, wanted(images(4)).feature_map, 0)


def test_the_hugging_face_layout_of_clip() -> None:
    state = small("clip")
    got = from_state_dict(hugging_face_clip(state), "clip", heads=2)(images(4))
    wanted = from_state_dict(state, "clip", heads=2)(images(4))
    assert got.projected is not None and wanted.projected is not None
    close(got.projected, wanted.projected, 0)
    without = {key: value for key, value in hugging_face_clip(state).items() if key != "visual_projection.weight"}
    assert from_state_dict(without, "clip", heads=2)(images(4)).projected is None


def test_swag_as_torchvision_has_it() -> None:
    state = small("swag")
    other = {}
    for key, value in state.items():
        name = re.sub(r"layers\.layer_", "layers.encoder_layer_", key)
        other[name.replace("mlp.linear_1", "mlp.0").replace("mlp.linear_2", "mlp.3")] = value
    other["encoder.pos_embedding"] = state["encoder.pos_embedding"].transpose(0, 1)
    other["heads.head.weight"] = torch.zeros(1000, 16)
    with pytest.raises(FamilyOpenError, match="torchvision"):
        recognise(other)
    got, wanted = (from_state_dict(s, "swag", heads=2)(images(4)).feature_map for s in (other, state))
    close(got, wanted, 0)


def test_data2vec2_runs_the_blocks_of_its_modality_first() -> None:
    """Two blocks of the modality and one more are three blocks in a row."""
    state = small("data2vec2")
    wanted = from_state_dict(state, "data2vec2", heads=2)(images(4)).feature_map
    own = "modality_encoders.IMAGE.context_encoder."
    split = {}
    for key, value in state.items():
        match = re.match(r"blocks\.(\d)\.(.*)", key)
        moved = match and (f"{own}{key}" if match[1] in "01" else f"blocks.{int(match[1]) - 2}.{match[2]}")
        split[moved or key] = value
    split["_ema.blocks.0.norm1.bias"] = torch.zeros(16)
    assert sum(key.startswith(own + "blocks") for key in split) == 24
    close(from_state_dict(split, heads=2)(images(4)).feature_map, wanted, 0)


def test_data2vec2_gives_cls_no_position() -> None:
    model = encoder_of("data2vec2").model
    assert isinstance(model, VisionTransformer)
    assert float(model.pos_embed[:, 0].abs().max()) == 0 == float(model._positions_at((2, 7))[:, 0].abs().max())


def test_dinov3_without_masks_and_without_biases() -> None:
    state = small("dinov3")
    wanted = from_state_dict(state, "dinov3")(images(16)).feature_map
    no_masks = {key: value for key, value in state.items() if not key.endswith("bias_mask")}
    close(from_state_dict(no_masks, "dinov3")(images(16)).feature_map, wanted, 0)
    zero = {key: torch.zeros_like(value) if key.endswith("qkv.bias") else value for key, value in no_masks.items()}
    none = {key: value for key, value in no_masks.items() if not key.endswith("qkv.bias")}
    assert not torch.allclose(from_state_dict(zero, "dinov3")(images(16)).feature_map, wanted)
    without = from_state_dict(none | {"local_cls_norm.bias": torch.zeros(16)}, "dinov3")(images(16)).feature_map
    close(without, from_state_dict(zero, "dinov3")(images(16)).feature_map, 0)
    with pytest.raises(WeightsRefusedError, match=r"1 missing \(blocks.1.attn.qkv.bias\)"):
        from_state_dict({key: value for key, value in state.items() if "blocks.1.attn.qkv.bias" not in key}, "dinov3")


def test_dinov3_periods_are_the_stored_ones_or_the_official_formula() -> None:
    state = small("dinov3")
    formula = [100 ** (2 * j / 4) for j in range(2)]
    assert formula == state["rope_embed.periods"].tolist()
    none = {key: value for key, value in state.items() if key != "rope_embed.periods"}
    with pytest.raises(WeightsRefusedError, match="pass heads="):
        from_state_dict(none, "dinov3")  # the width of 16 alone does not tell 2 heads; the two periods do
    wanted = from_state_dict(state, "dinov3")(images(16)).feature_map
    close(from_state_dict(none, "dinov3", heads=2)(images(16)).feature_map, wanted, 1e-6)
    other = {**state, "rope_embed.periods": torch.tensor([1.0, 10.06])}
    assert float((from_state_dict(other, "dinov3")(images(16)).feature_map - wanted).abs().max()) > 1e-4


def test_fine_tuned_beit_is_refused() -> None:
    state = small("beit")
    table = state.pop("rel_pos_bias.relative_position_bias_table")
    state |= {f"blocks.{i}.attn.relative_position_bias_table": table for i in range(3)}
    with pytest.raises(WeightsRefusedError, match="fine-tuning on labels: expected the self-supervised weights"):
        from_state_dict(state)


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("dino", lambda s: s.update({"blocks.0.ls1.gamma": torch.zeros(16)}), r"1 unexpected \(blocks.0.ls1.gamma\)"),
        ("dino", lambda s: s.pop("blocks.2.attn.qkv.bias"), r"1 missing \(blocks.2.attn.qkv.bias\)"),
        ("dino", lambda s: s.update({"norm.extra": torch.zeros(1)}), r"1 unexpected \(norm.extra\)"),
        ("beit", lambda s: s.pop("blocks.1.attn.v_bias"), "q_bias comes without blocks.1.attn.v_bias"),
        ("beit", lambda s: s.pop("blocks.1.attn.q_bias"), r"1 missing \(blocks.1.attn.qkv.bias\)"),
        ("beit", lambda s: s.update({"rel_pos_bias.relative_position_bias_table": torch.zeros(20, 2)}), "square grid"),
        ("clip", lambda s: s.pop("visual.ln_pre.bias"), r"1 missing \(norm_pre.bias\)"),
        ("clip", lambda s: s.pop("visual.class_embedding"), "no entry .*visual.class_embedding"),
        ("swag", lambda s: s.pop("encoder.pos_embedding"), "no entry pos_embed"),
        ("data2vec2", lambda s: s.update({"norm.bias": torch.zeros(16)}), r"1 unexpected \(norm.bias\)"),
        ("eva_clip", lambda s: s.update({"visual.pos_embed": torch.zeros(1, 12, 16)}), "square grid"),
        ("dinov3", lambda s: s.update(pos_embed=torch.zeros(1, 10, 16)), r"1 unexpected \(pos_embed\)"),
    ],
)
def test_what_does_not_belong_is_named(family: str, change: Any, message: str) -> None:
    state = small(family)
    change(state)
    with pytest.raises(WeightsRefusedError, match=message):
        from_state_dict(state, family, heads=2)


# --- real sizes


MINE = [record for record in catalogue.checkpoints() if record.family in SMALL and not record.bundled]


@pytest.mark.parametrize("record", MINE, ids=lambda record: record.name)
def test_real_sizes_on_the_meta_device(record: catalogue.Checkpoint) -> None:
    """Every entry of the official file has its place; what is added are the zeros that official code leaves out."""
    a, family = record.architecture, families()[record.family]
    given = network_of(layout(record.family, a))
    entries = family.official(given)
    model = family.model(entries, heads=a["heads"])
    require_match(without_heads(entries, model.state_dict())[0], model.state_dict(), record.name)
    dim, depth = a["embed_dim"], a["depth"]
    has_bias = "blocks.0.attn.qkv.bias" in given
    zeros = {
        "clip": dim + a.get("projection_dim", 0), "open_clip": dim + a.get("projection_dim", 0), "eva_clip": depth * dim,
        "beit": depth * dim, "data2vec2": dim, "dinov3": 0 if has_bias else 3 * depth * dim,
    }.get(record.family, 0)  # fmt: skip
    ignored = re.compile(
        r"mask_token|masked_embed|.*bias_mask|fc\.|relation_blocks|token_embedding|logit_scale|text|lm_head|.*IMAGE\.decoder"
        r"|.*relative_position_index|input_resolution|context_length|vocab_size|heads\."
    )
    official = sum(value.numel() for key, value in given.items() if not ignored.match(key))
    assert sum(value.numel() for value in model.state_dict().values()) == official + zeros
    assert all(value.is_meta for value in model.state_dict().values())


# --- heads and other options


def test_heads_are_read_where_entries_tell_them() -> None:
    assert "2 heads" in from_state_dict(small("beit"), "beit").model.describe()
    assert "2 heads" in from_state_dict(small("dinov3"), "dinov3").model.describe()
    for family in ("dino", "clip", "swag", "eva_clip", "data2vec2"):
        with pytest.raises(WeightsRefusedError, match="expected a width divisible by 64, got 16: pass heads="):
            from_state_dict(small(family), family)
        assert "1 heads" in from_state_dict(small(family, embed_dim=64), family).model.describe()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"heads": 3}, "expected heads that divide the width 16, got heads 3"),
        ({"heads": 0}, "expected heads that divide the width 16, got heads 0"),
        ({"stride": 0}, "expected a stride from 1 to the patch size 4, got 0"),
        ({"stride": 5}, "expected a stride from 1 to the patch size 4, got 5"),
        ({"positions": "sine"}, "no positions sine: expected one of scale-factor, size, "),
        ({"act": "relu"}, "no act relu: expected one of gelu, quick-gelu"),
        ({"pool": "max"}, "no pool max: expected one of cls, mean"),
        ({"norms": "none"}, "no norms none"),
        ({"ffn": "none"}, "no ffn none"),
    ],
)
def test_impossible_options_are_named(option: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=message):
        encoder_of("dino", **option)


def test_rotary_positions_need_heads_of_a_width_divisible_by_four() -> None:
    none = {key: value for key, value in small("dinov3").items() if key != "rope_embed.periods"}
    with pytest.raises(InputError, match="width divisible by 4, got 2"):
        from_state_dict(none, "dinov3", heads=8)


# --- features of every family


@every_family
@pytest.mark.parametrize("size", [(1, 1), (5, 2), (3, 3)])
def test_every_grid_works_and_images_do_not_mix(family: str, size: tuple[int, int]) -> None:
    encoder = encoder_of(family)
    batch = images(encoder.patch_size, *size, batch=3)
    features = encoder(batch)
    assert features.feature_map.shape == (3, *size, 16) == (3, *encoder.model.grid(*batch.shape[2:]), 16)
    for index in range(3):
        alone = encoder(batch[index : index + 1])
        close(features.global_repr[index], alone.global_repr[0])
        close(features.feature_map[index], alone.feature_map[0])
    assert float((features.global_repr[0] - features.global_repr[1]).abs().max()) > 1e-3
    if family == "data2vec2":
        close(features.global_repr, features.feature_map.mean(dim=(1, 2)))
    assert (features.projected is None) == ("clip" not in family)
    assert (features.registers is None) == (family not in ("dinov2_reg", "dinov3"))


@pytest.mark.parametrize("family", ["clip", "eva_clip"])
def test_projections_are_of_the_normed_cls(family: str) -> None:
    state = small(family)
    features = encoder_of(family)(images(4))
    vector = features.global_repr.double().numpy()
    if family == "clip":
        wanted = vector @ state["visual.proj"].double().numpy()
    else:
        wanted = vector @ state["visual.head.weight"].double().numpy().T + state["visual.head.bias"].double().numpy()
    assert features.projected is not None
    np.testing.assert_allclose(features.projected.numpy(), wanted, rtol=1e-4, atol=1e-5)
    (tapped,) = encoder_of(family)(images(4), layers=[-1])
    assert tapped.projected is None and torch.equal(tapped.global_repr, features.global_repr)


def whole(features: Any) -> Tensor:
    """CLS, registers and patches as one sequence again."""
    parts = [features.global_repr[:, None]]
    parts += [] if features.registers is None else [features.registers]
    return torch.cat([*parts, features.feature_map.flatten(1, 2)], dim=1)


@every_family
def test_facets_are_what_the_attention_projects_to(family: str) -> None:
    pool = {"pool": "cls"} if family == "data2vec2" else {}
    encoder = encoder_of(family, **pool)
    seen: list[Tensor] = []
    hooks = [
        block.attn.qkv.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        for block in encoder.model.blocks
    ]
    batch = images(encoder.patch_size, 3, 2)
    encoder(batch)
    for hook in hooks:
        hook.remove()
    for number, facet in enumerate(("query", "key", "value")):
        taken = encoder(batch, layers=[-1, 0, 1, 0], facet=facet, norm=False)
        for got, layer in zip(taken, (2, 0, 1, 0), strict=True):
            close(whole(got), seen[layer][:, :, 16 * number : 16 * (number + 1)])
            assert got.projected is None
        normed = encoder(batch, layers=[0], facet=facet)[0]
        assert torch.equal(whole(normed), whole(taken[1]))  # no norm applies to facets


def test_no_block_runs_whose_output_nobody_asked_for() -> None:
    encoder = encoder_of("dino")
    ran: list[int] = []
    for number, block in enumerate(encoder.model.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    encoder(images(4), layers=[1, 0], facet="key")
    assert ran == [0]
    encoder(images(4), layers=[0, -2])
    assert ran == [0, 0, 1]


def test_facets_that_are_not_there_are_named() -> None:
    encoder = encoder_of("dino")
    with pytest.raises(InputError, match="no facet colour: expected token, key, query or value"):
        encoder(images(4), layers=[0], facet="colour")
    with pytest.raises(InputError, match="expected layers with facet key"):
        encoder(images(4), facet="key")
    with pytest.raises(ValueError, match="expected layers from -3 to 2, got 3"):
        encoder(images(4), layers=[3], facet="key")
    assert encoder(images(4), layers=[]) == []

    class Plain(Backbone):
        def intermediate(self, images: Tensor, layers: object, norm: bool = True, facet: str = "token") -> list[Any]:
            return []

        def describe(self) -> str:
            return "plain"

    with pytest.raises(InputError, match="Plain has no facet key: expected token"):
        Plain().require_facet("key")
    Plain().require_facet("token")


def test_norm_decides_for_tapped_blocks() -> None:
    encoder = encoder_of("dino")
    model = encoder.model
    (bare,) = encoder(images(4), layers=[1], norm=False)
    (normed,) = encoder(images(4), layers=[1])
    close(normed.feature_map, torch.nn.functional.layer_norm(bare.feature_map, (16,), *model.norm.parameters(), 1e-6))
    (bare,), (normed,) = (encoder_of("data2vec2")(images(4), layers=[1], norm=norm) for norm in (False, True))
    assert torch.equal(bare.feature_map, normed.feature_map)  # data2vec 2.0 has no final norm


# --- overlapping patches


@every_family
def test_a_stride_of_the_patch_size_is_the_default(family: str) -> None:
    encoder, same = encoder_of(family), encoder_of(family, stride=16 if family == "dinov3" else 4)
    batch = images(encoder.patch_size, 2, 3)
    assert torch.equal(encoder(batch).feature_map, same(batch).feature_map)
    assert encoder.name == same.name == family and encoder.stride == same.stride == encoder.patch_size
    with pytest.raises(ValueError, match="multiples of the patch size"):
        same(torch.zeros(1, 3, 17, 16))


@every_family
@pytest.mark.parametrize("stride", [1, 3])
def test_smaller_strides_give_denser_maps_of_the_same_patches(family: str, stride: int) -> None:
    """Without positions, a patch's token does not depend on the grid: what the first attention projects it to is the same at
    the patches that both grids have. Further on tokens have looked at other tokens, and differ."""
    patch = 16 if family == "dinov3" else 4
    state = small(family)
    for key in [
        key for key in state if key.endswith(("pos_embed", "positional_embedding", "pos_embedding", "positions"))
    ]:
        state[key] = torch.zeros_like(state[key])
    height, width = 5 * patch, 4 * patch
    batch = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    coarse, dense = (from_state_dict(state, family, heads=2, stride=step) for step in (None, stride))
    rows, columns = dense.model.grid(height, width)
    assert (rows, columns) == ((height - patch) // stride + 1, (width - patch) // stride + 1)
    assert dense(batch).feature_map.shape == (2, rows, columns, 16)
    for facet in ("query", "key", "value"):
        (few,), (many,) = (encoder(batch, layers=[0], facet=facet) for encoder in (coarse, dense))
        both = math.lcm(patch, stride)
        close(
            many.feature_map[:, :: both // stride, :: both // stride],
            few.feature_map[:, :: both // patch, :: both // patch],
        )
    assert dense.name == family and dense.stride == stride and dense.patch_size == patch
    assert f"stride {stride}" in dense.model.describe()


@pytest.mark.parametrize("family", ["dino", "dinov2_reg", "mae", "swag"])
def test_positions_are_those_of_the_denser_grid(family: str) -> None:
    encoder = encoder_of(family, stride=2)
    model = encoder.model
    assert isinstance(model, VisionTransformer)
    batch = torch.randn(
        1, 3, 13, 21, generator=torch.Generator().manual_seed(2)
    )  # the last row and column are not seen
    tokens: list[Tensor] = []
    hook = model.blocks[0].register_forward_pre_hook(lambda _module, inputs: tokens.append(inputs[0]))
    encoder(batch)
    hook.remove()
    table = resized_table(model.pos_embed, (5, 9), model.architecture.positions)
    weight, bias = model.patch_embed.proj.weight.double().flatten(1), model.patch_embed.proj.bias.double()
    first = 1 + model.architecture.registers
    for row, column in ((0, 0), (4, 8), (2, 7)):
        pixels = batch[0, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4].double().flatten()
        wanted = weight @ pixels + bias + table[0, 1 + row * 9 + column].double()
        close(tokens[0][0, first + row * 9 + column].double(), wanted)
    close(tokens[0][0, 0], (model.cls_token + model.pos_embed[:, :1])[0, 0])


def test_the_grid_and_what_is_too_small_for_it() -> None:
    model = encoder_of("dino", stride=3).model
    assert model.grid(4, 4) == (1, 1) and model.grid(6, 7) == (1, 2) and model.grid(224, 100) == (74, 33)
    for size in ((3, 8), (8, 0)):
        with pytest.raises(ValueError, match="at least the patch size 4, got"):
            model.grid(*size)
    with pytest.raises(ValueError, match="multiples of the patch size 4, got 6×8"):
        encoder_of("dino").model.grid(6, 8)


def test_load_passes_the_stride_on(tmp_path: Path) -> None:
    save_file(small("dino", embed_dim=64), path := tmp_path / "weights.safetensors")
    encoder = load(f"dino:{path}", device="cpu", dtype="float32", stride=2)
    assert encoder(images(4, 2, 2)).feature_map.shape == (2, 3, 3, 64) and encoder.name == "weights"
    mini = load("mini", device="cpu", dtype="float32", stride=4)
    assert mini(torch.zeros(1, 3, 16, 16)).feature_map.shape == (1, 3, 3, 256) and mini.stride == 4
    with pytest.raises(InputError, match="expected a stride from 1 to the patch size 8, got 9"):
        load("mini", stride=9)


# --- positions against their definitions


def cubic(x: float) -> float:
    """Keys' kernel with a = −0.75."""
    x = abs(x)
    if x <= 1:
        return 1.25 * x**3 - 2.25 * x**2 + 1
    return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def sampled(length: int, places: list[float]) -> np.ndarray:
    """Matrix that samples a line of values, repeated at its ends, at fractional places."""
    out = np.zeros((len(places), length))
    for i, place in enumerate(places):
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            out[i, min(max(j, 0), length - 1)] += cubic(place - j)
    return out


def antialiased(length: int, wanted: int) -> np.ndarray:
    """Pillow's form: the kernel (a = −0.5) widened by the factor of reduction, cut at the ends and normalised."""

    def kernel(x: float) -> float:
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    scale = length / wanted
    wide = max(1.0, scale)
    out = np.zeros((wanted, length))
    for i in range(wanted):
        centre = (i + 0.5) * scale
        for j in range(max(0, int(centre - 2 * wide + 0.5)), min(length, int(centre + 2 * wide + 0.5))):
            out[i, j] = kernel((j - centre + 0.5) / wide)
    return out / out.sum(axis=1, keepdims=True)


def along(rule: str, side: int, n: int) -> np.ndarray:
    match rule:
        case "scale-factor":
            return sampled(side, [(i + 0.5) * side / (n + 0.1) - 0.5 for i in range(n)])
        case "size-plain":
            return sampled(side, [(i + 0.5) * side / n - 0.5 for i in range(n)])
        case "align-corners":
            return sampled(side, [i * (side - 1) / max(n - 1, 1) for i in range(n)])
        case _:
            return antialiased(side, n)


@pytest.mark.parametrize("rule", ["scale-factor", "size", "size-plain", "align-corners"])
@settings(max_examples=25, deadline=None)
@given(side=st.integers(1, 9), rows=st.integers(1, 14), columns=st.integers(1, 14), seed=st.integers(0, 99))
def test_tables_are_resized_as_defined(rule: Any, side: int, rows: int, columns: int, seed: int) -> None:
    table = torch.randn(1, 1 + side**2, 3, generator=torch.Generator().manual_seed(seed))
    got = resized_table(table, (rows, columns), rule)
    square = table[0, 1:].double().numpy().reshape(side, side, 3)
    wanted = np.einsum("ri,cj,ijd->rcd", along(rule, side, rows), along(rule, side, columns), square)
    assert torch.equal(got[:, 0], table[:, 0])
    np.testing.assert_allclose(got[0, 1:].numpy().reshape(rows, columns, 3), wanted, atol=2e-5)


def test_msn_positions_are_the_official_scalar_form_on_squares() -> None:
    """Official: one factor, sqrt(patches of the image / patches of the table)."""
    table = torch.randn(1, 1 + 14**2, 8, generator=torch.Generator().manual_seed(3))
    square = table[:, 1:].reshape(1, 14, 14, 8).permute(0, 3, 1, 2)
    compared = 0
    for n in [*range(2, 29), 30, 32, 46]:
        official = torch.nn.functional.interpolate(square, scale_factor=math.sqrt(n * n / 14**2), mode="bicubic")
        if official.shape[2:] == (n, n):  # the official code fails at some sizes, where rounding loses a row
            got = resized_table(table, (n, n), "size-plain")[:, 1:].transpose(1, 2).reshape(official.shape)
            close(got, official, 2e-5)
            compared += 1
    assert compared > 20


def test_position_tables_are_made_once_for_each_grid() -> None:
    model = encoder_of("dino").model
    assert isinstance(model, VisionTransformer)
    once = model._positions_at((2, 5))
    assert model._positions_at((2, 5)) is once and model._positions_at((5, 2)).shape == once.shape
    assert not torch.equal(model._positions_at((5, 2)), once)
    model.to(torch.float64)
    assert model._positions_at((2, 5)).dtype == torch.float64
    kept = PerGrid(2)
    made: list[int] = []

    def make() -> Tensor:
        made.append(1)
        return torch.zeros(1)

    for grid in ((1, 1), (1, 2), (1, 1), (1, 3), (1, 1)):
        kept.get(grid, torch.device("cpu"), torch.float32, make)
    assert len(made) == 4 and len(kept.kept) == 2  # full: all are dropped, and made again when wanted


@pytest.mark.parametrize("grid", [(3, 3), (1, 1), (2, 4)])
def test_relative_biases_are_looked_up_by_displacement(grid: tuple[int, int]) -> None:
    """BEiT's index, written out; for another grid the displacements are resized."""
    side, heads = 3, 2
    table = torch.randn((2 * side - 1) ** 2 + 3, heads, generator=torch.Generator().manual_seed(4))
    got = relative_bias(table, grid)
    rows, columns = grid
    square = table[:-3].double().numpy().reshape(2 * side - 1, 2 * side - 1, heads)
    if grid != (side, side):
        by_rows, by_columns = along("size-plain", 2 * side - 1, 2 * rows - 1), along("size-plain", 5, 2 * columns - 1)
        square = np.einsum("ri,cj,ijh->rch", by_rows, by_columns, square)
    places = [(r, c) for r in range(rows) for c in range(columns)]
    wanted = np.zeros((heads, 1 + len(places), 1 + len(places)))
    for i, (r, c) in enumerate(places):
        for j, (s, d) in enumerate(places):
            wanted[:, 1 + i, 1 + j] = square[r - s + rows - 1, c - d + columns - 1]
    from_cls, to_cls, own = table[-3:].numpy()
    wanted[:, 0, 1:], wanted[:, 1:, 0], wanted[:, 0, 0] = from_cls[:, None], to_cls[:, None], own
    np.testing.assert_allclose(got.numpy(), wanted, atol=2e-6)


def rotary_attention(model: VisionTransformer, x: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """The first block's attention of a DINOv3, token by token, in float64 (reference/encoders.md 19)."""
    attention, (rows, columns) = model.blocks[0].attn, grid
    periods = model.rope_embed.periods.double().numpy()
    qkv = attention.qkv(x)[0].double().numpy()
    n, others, width = len(qkv), len(qkv) - rows * columns, qkv.shape[1] // 3 // attention.heads
    out = np.zeros((n, attention.heads * width))
    for head in range(attention.heads):
        q, k, v = (qkv[:, (part * attention.heads + head) * width :][:, :width].copy() for part in range(3))
        for patch in range(rows * columns):
            row, column = 2 * (patch // columns + 0.5) / rows - 1, 2 * (patch % columns + 0.5) / columns - 1
            angle = np.tile(np.concatenate([2 * np.pi * row / periods, 2 * np.pi * column / periods]), 2)
            for vectors in (q, k):
                old = vectors[others + patch].copy()
                turned = np.concatenate([-old[width // 2 :], old[: width // 2]])
                vectors[others + patch] = old * np.cos(angle) + turned * np.sin(angle)
        scores = q @ k.T / np.sqrt(width)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head * width : (head + 1) * width] = weights / weights.sum(axis=1, keepdims=True) @ v
    return out @ attention.proj.weight.double().numpy().T + attention.proj.bias.double().numpy()


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 1)])
def test_rotary_positions_turn_queries_and_keys_of_patches(grid: tuple[int, int]) -> None:
    model = encoder_of("dinov3").model
    assert isinstance(model, VisionTransformer)
    x = torch.randn(1, 5 + grid[0] * grid[1], 16, generator=torch.Generator().manual_seed(5))
    got = model.blocks[0].attn(x, model._waves(grid), None)
    close(got[0].double(), torch.from_numpy(rotary_attention(model, x, grid)))


def test_periods_stay_float32_in_networks_of_another_dtype() -> None:
    state = small("dinov3")
    state["rope_embed.periods"] = torch.tensor([1.0001, 9.9876])
    exact, rough = (from_state_dict(state, "dinov3", dtype=dtype) for dtype in ("float32", "bfloat16"))
    model = rough.model
    assert isinstance(model, VisionTransformer) and model.rope_embed is not None
    assert torch.equal(model.rope_embed.periods, state["rope_embed.periods"])
    assert model.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    waves = model._waves((2, 3))
    assert waves.dtype == torch.float32 and torch.equal(waves, exact.model._waves((2, 3)))
    got, wanted = (encoder(images(16)).global_repr.float() for encoder in (rough, exact))
    assert float(torch.cosine_similarity(got, wanted, dim=-1).min()) > 0.99
    model.to(torch.float64)
    assert model.rope_embed.periods.dtype == torch.float32


# --- weights as they are kept


@pytest.mark.parametrize("family", ["dinov2", "dinov2_reg", "beit", "dinov3"])
def test_layer_scale_is_multiplied_into_the_weights(family: str) -> None:
    state = small(family)
    before = {key: value.clone() for key, value in state.items()}
    encoder = from_state_dict(state, family, heads=2)
    assert all(torch.equal(state[key], before[key]) for key in state)  # what was given stays as it is
    rules = families()[family]
    entries = rules.official(network_of(state))
    plain = VisionTransformer(rules.model(entries, heads=2).architecture).eval()
    entries, heads = without_heads(entries, plain.state_dict())
    assert heads == ({"lm_head": 2} if family == "beit" else {})
    plain.load_state_dict(entries)
    assert any(".ls1." in key for key in entries) and not any(".ls1." in key for key in encoder.model.state_dict())
    batch = images(encoder.patch_size, 2, 3)
    with torch.no_grad():
        close(encoder(batch).feature_map, plain(batch).feature_map)
    half = from_state_dict(state, family, heads=2, dtype="float16")
    assert any(".ls1." in key for key in half.model.state_dict())  # products could fall below what float16 holds
    key, last = "blocks.1.attn.proj.weight", "blocks.1.ls1.gamma"
    rough = from_state_dict(state, family, heads=2, dtype="bfloat16").model.state_dict()[key]
    assert torch.equal(rough, (entries[key] * entries[last][:, None]).to(torch.bfloat16))


def test_the_activation_of_clip() -> None:
    layer = encoder_of("clip").model.blocks[0].mlp
    x = torch.linspace(-6, 6, 80).view(1, 5, 16)
    hidden = layer.fc1(x).double().numpy()
    hidden = hidden / (1 + np.exp(-1.702 * hidden))
    wanted = hidden @ layer.fc2.weight.double().numpy().T + layer.fc2.bias.double().numpy()
    np.testing.assert_allclose(layer(x).numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_the_record_of_switches_says_one_line_about_each() -> None:
    lines = re.findall(r"^    (\w+): ", ViTArchitecture.__doc__ or "", re.MULTILINE)
    assert lines == list(ViTArchitecture.__dataclass_fields__)


def test_architectures_are_read_from_entries() -> None:
    entries = families()["dinov3"].official(small("dinov3"))
    a = read_architecture(entries, positions="rope")
    assert (a.embed_dim, a.depth, a.heads, a.patch_size, a.hidden_dim, a.registers) == (16, 3, 2, 16, 24, 4)
    assert a.ffn == "swiglu" and a.layer_scale and a.stored_periods and a.projection == 0 and a.position_grid == 0
    entries = families()["eva_clip"].official(network_of(small("eva_clip")))
    a = read_architecture(entries, heads=4)
    assert (a.heads, a.hidden_dim, a.projection, a.position_grid, a.ffn, a.layer_scale) == (4, 21, 6, 3, "mlp", False)
