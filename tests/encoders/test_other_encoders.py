"""The encoders that are no plain vision transformers: CAPI, SAM, EsViT (Swin) and SEER (RegNetY)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from official_layouts import layout, network_of
from safetensors import safe_open

from fewmatch.encoders import Features, FrozenEncoder, from_state_dict
from fewmatch.encoders.families import families, find_family, recognise, without_heads
from fewmatch.encoders.models import capi, regnet, sam, swin
from fewmatch.encoders.models.windows import from_windows, into_windows
from fewmatch.encoders.weights.checkpoint import require_match
from fewmatch.errors import InputError, WeightsRefusedError

TOLERANCE = 2e-5
NAMES = ["capi", "sam", "esvit", "seer"]
Golden = tuple[dict[str, str], dict[str, torch.Tensor]]


def read(path: Path) -> Golden:
    with safe_open(path, "pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def below(data: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got.float() - wanted).abs().max() / wanted.abs().max())


def built(golden: Golden, name: str | None, **options: Any) -> FrozenEncoder:
    return from_state_dict(below(golden[1], "state/"), name, **options)


def pixels(golden: Golden) -> dict[str, torch.Tensor]:
    return {
        number: image.float() * float(golden[0]["input_scale"]) for number, image in below(golden[1], "input/").items()
    }


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def outputs(encoder: FrozenEncoder, images: torch.Tensor, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the encoder gives for every entry of a golden file."""
    out: dict[str, torch.Tensor] = {}
    for key in wanted:
        where, _, what = key.rpartition("/")
        if key == "last4_avgpool":  # of the official linear evaluation
            last = encoder(images, layers=[-4, -3, -2, -1])
            out[key] = torch.cat([features.global_repr for features in last], dim=1)
        elif not where:
            out[key] = getattr(encoder(images), what)
        elif where.startswith("block"):
            out[key] = encoder(images, layers=[int(where[5:])], norm=False)[0].feature_map
        elif where.startswith("stage"):  # two blocks each
            index = 2 * int(where[5]) + int(where[-1])
            out[key] = encoder(images, layers=[index], norm=False)[0].feature_map
        else:
            index = {"layer1": 0, "res3": 1}[where]
            out[key] = encoder(images, layers=[index])[0].feature_map
    return out


def worst(encoder: FrozenEncoder, golden: Golden) -> float:
    errors = []
    for number, images in pixels(golden).items():
        wanted = below(golden[1], f"expected/{number}/")
        errors += [error(got, wanted[key]) for key, got in outputs(encoder, images, wanted).items()]
    assert errors
    return max(errors)


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, golden: Path) -> tuple[str, Golden]:
    return request.param, read(golden / f"{request.param}.safetensors")


# --- against the official code


def test_committed_golden_files(case: tuple[str, Golden]) -> None:
    name, golden = case
    assert worst(built(golden, name, heads=json.loads(golden[0]["heads"])), golden) < TOLERANCE


@pytest.mark.parametrize(("name", "hugging_face"), [*((name, False) for name in NAMES), ("sam", True)])
def test_all_golden_files_at_every_size(shared_golden: Path, name: str, hugging_face: bool) -> None:
    golden = read(shared_golden / f"{name}.safetensors")
    if hugging_face:
        state = below(read(shared_golden / "hf" / f"{name}.safetensors")[1], "hf_state/")
        besides = {"mask_decoder.iou_token.weight": torch.zeros(1, 32)}  # as in files of the whole SAM
        encoder = from_state_dict(state | besides)
    else:
        encoder = built(golden, None)
    assert encoder.family == name
    assert worst(encoder, golden) < TOLERANCE


def test_global_features_are_means_where_there_is_no_token(case: tuple[str, Golden]) -> None:
    name, golden = case
    for images in pixels(golden).values():
        features = built(golden, name)(images)
        mean = features.feature_map.double().mean(dim=(1, 2)).float()
        assert (error(features.global_repr, mean) < TOLERANCE) == (name != "capi")


def _rotated_within_axes(x: torch.Tensor, at: capi.Rotation) -> torch.Tensor:
    turned = [torch.cat([-half.chunk(2, -1)[1], half.chunk(2, -1)[0]], -1) for half in x.chunk(2, -1)]
    return x * at[0] + torch.cat(turned, -1) * at[1]


#: Deliberate mistakes: what to put in the place of what.
MISTAKES = {
    "capi, pairs within one axis": (capi, "rotated", lambda _: _rotated_within_axes),
    "capi, rows and columns swapped": (capi, "token_coordinates", lambda f: lambda *a: f(*a).flip(1)),
    "capi, tanh GELU": (capi.F, "gelu", lambda f: lambda x: f(x, approximate="tanh")),
    "sam, distances the other way": (sam, "distance_vectors", lambda f: lambda t, n: f(t.flip(0), n)),
    "sam, scaled queries": (sam, "distance_vectors", lambda f: lambda t, n: f(t, n) * t.shape[1] ** -0.5),
    "sam, no relative positions": (sam, "distance_vectors", lambda f: lambda t, n: f(t * 0, n)),
    "esvit, no mask": (swin, "shift_mask", lambda f: lambda *a: f(*a) * 0),
    "esvit, distances the other way": (swin, "distances", lambda f: lambda n: f(n).T),
    "seer, no excitation": (regnet.SqueezeExcitation, "forward", lambda _: lambda _, x: x),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_show(golden: Path, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = mistake.split(",")[0]
    read_golden = read(golden / f"{name}.safetensors")
    module, attribute, wrong = MISTAKES[mistake]
    monkeypatch.setattr(module, attribute, wrong(getattr(module, attribute)))
    assert worst(built(read_golden, name), read_golden) > 5 * TOLERANCE


@pytest.mark.parametrize(("name", "eps"), [("capi", 1e-6), ("sam", 1e-5), ("esvit", 1e-5), ("seer", 1e-3)])
def test_wrong_epsilons_show(golden: Path, name: str, eps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    module, architecture = {
        "capi": (capi, capi.CAPIArchitecture),
        "sam": (sam, sam.SAMArchitecture),
        "esvit": (swin, swin.SwinArchitecture),
        "seer": (regnet, regnet.RegNetArchitecture),
    }[name]
    read_golden = read(golden / f"{name}.safetensors")
    monkeypatch.setattr(
        f"fewmatch.encoders.families.{name}.read_architecture",
        lambda state: architecture(**{**vars(module.read_architecture(state)), "eps": eps}),
    )
    assert worst(built(read_golden, name), read_golden) > 10 * TOLERANCE


def test_bfloat16_stays_close(case: tuple[str, Golden]) -> None:
    name, golden = case
    encoder = built(golden, name, dtype="bfloat16")
    for number, images in pixels(golden).items():
        features = encoder(images)
        assert features.feature_map.dtype == torch.bfloat16
        wanted = below(golden[1], f"expected/{number}/")["feature_map"]
        cosine = torch.cosine_similarity(features.feature_map.float(), wanted, dim=-1)
        assert float(cosine.min()) > 0.995
    if name == "capi":  # angles, for one, are not rounded
        exact = built(golden, name).model
        grid, cpu = (5, 9), torch.device("cpu")
        for rounded, wanted in zip(encoder.model._rotations(grid, cpu), exact._rotations(grid, cpu), strict=True):
            assert torch.equal(rounded[0], wanted[0]) and torch.equal(rounded[1], wanted[1])


# --- what every one of them does

#: The sizes that each takes, and the step of its feature map: (height, width) in pixels.
SIZES = {
    "capi": (14, [(14, 14), (14, 70), (42, 28)]),
    "sam": (16, [(16, 16), (48, 240), (272, 80)]),
    "esvit": (32, [(4, 4), (32, 96), (100, 236)]),
    "seer": (32, [(32, 32), (32, 96), (128, 64)]),
}


def test_images_do_not_mix_and_may_have_any_shape(case: tuple[str, Golden]) -> None:
    name, golden = case
    step, sizes = SIZES[name]
    encoder = built(golden, name)
    assert encoder.patch_size == step
    for size in sizes:
        images = noise(3, 3, *size)
        together = encoder(images)
        grid = (-(-size[0] // step), -(-size[1] // step))
        assert together.feature_map.shape == (3, *grid, encoder.embed_dim)
        for index, image in enumerate(images):
            alone = encoder(image[None])
            assert error(alone.feature_map[0], together.feature_map[index]) < TOLERANCE
            assert error(alone.global_repr[0], together.global_repr[index]) < TOLERANCE


def test_the_map_of_a_transposed_image_is_another_but_has_its_shape(case: tuple[str, Golden]) -> None:
    name, golden = case
    encoder = built(golden, name)
    images = noise(1, 3, *SIZES[name][1][2])
    straight, turned = encoder(images).feature_map, encoder(images.transpose(2, 3)).feature_map
    assert turned.shape == straight.transpose(1, 2).shape and straight.shape[1] != straight.shape[2]
    assert error(turned.transpose(1, 2), straight) > 1e-2


def test_tapped_layers(case: tuple[str, Golden]) -> None:
    name, golden = case
    encoder = built(golden, name)
    images = next(iter(pixels(golden).values()))
    depth = encoder.model.depth
    assert depth == {"capi": 2, "sam": 2, "esvit": 8, "seer": 4}[name]
    everything = encoder(images, layers=range(depth))
    backwards = encoder(images, layers=range(-1, -1 - depth, -1))
    for one, other in zip(everything, reversed(backwards), strict=True):
        assert torch.equal(one.feature_map, other.feature_map) and torch.equal(one.global_repr, other.global_repr)
    maps = {(features.feature_map.shape[-1], features.feature_map.shape[1]) for features in everything}
    height = images.shape[2]
    assert (
        maps
        == {
            "capi": {(64, height // 14)},
            "sam": {(64, 15)},  # before the neck, which leaves 32
            "esvit": {(8, 30), (16, 15), (32, 8), (64, 4)},
            "seer": {(width, height // step) for width, step in ((16, 4), (24, 8), (40, 16), (64, 32))},
        }[name]
    )
    assert encoder(images, layers=[]) == []
    whole = encoder(images)
    assert torch.equal(whole.feature_map, everything[-1].feature_map) == (name != "sam")


def test_which_layers_the_final_norm_changes(case: tuple[str, Golden]) -> None:
    name, golden = case
    encoder = built(golden, name)
    images = next(iter(pixels(golden).values()))
    layers = range(encoder.model.depth)
    changed = [
        not torch.equal(one.feature_map, other.feature_map) and not torch.equal(one.global_repr, other.global_repr)
        for one, other in zip(encoder(images, layers=layers), encoder(images, layers=layers, norm=False), strict=True)
    ]
    assert (
        changed
        == {
            "capi": [True, True],
            "sam": [False, False],
            "esvit": [False] * 6 + [True, True],
            "seer": [False] * 4,
        }[name]
    )


def test_blocks_behind_the_last_tapped_one_do_not_run(
    case: tuple[str, Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, golden = case
    encoder = built(golden, name)
    images = next(iter(pixels(golden).values()))
    (wanted,) = encoder(images, layers=[0])
    later = {"capi": "encoder.blocks.1", "sam": "blocks.1", "esvit": "layers.1", "seer": "_feature_blocks.res3"}[name]
    for module in encoder.model.get_submodule(later).modules():
        monkeypatch.setattr(module, "forward", None)
    assert torch.equal(encoder(images, layers=[0])[0].feature_map, wanted.feature_map)
    with pytest.raises(TypeError):
        encoder(images)


def test_refusals_of_what_is_asked(case: tuple[str, Golden]) -> None:
    name, golden = case
    encoder = built(golden, name)
    patch = {"capi": 14, "sam": 16, "esvit": 4, "seer": 32}[name]
    for size in ((patch + 1, patch), (patch, patch - 1), (0, patch)):
        with pytest.raises(ValueError, match=f"multiples of the patch size {patch}, got {size[0]}×{size[1]}"):
            encoder(torch.zeros(1, 3, *size))
    images = torch.zeros(1, 3, 4 * patch, 4 * patch)
    depth = encoder.model.depth
    with pytest.raises(ValueError, match=f"expected layers from {-depth} to {depth - 1}, got {depth}"):
        encoder(images, layers=[depth])
    with pytest.raises(InputError, match="has no facet key: expected token"):
        encoder(images, layers=[0], facet="key")


def test_refusals_of_other_weights(case: tuple[str, Golden]) -> None:
    name, golden = case
    state = below(golden[1], "state/")
    ignored = json.loads(golden[0]["must_ignore"])
    needed, vector = {
        "capi": ("patch_embed.weight", "encoder.blocks.0.residual2.norm.weight"),
        "sam": ("neck.2.weight", "blocks.0.norm2.bias"),
        "esvit": ("patch_embed.proj.weight", "layers.1.blocks.0.norm2.bias"),
        "seer": ("_feature_blocks.conv1.stem.0.weight", "_feature_blocks.res5.block4-1.f.b.1.bias"),
    }[name]
    prefix = golden[0].get("prefix", "")
    assert ignored
    with pytest.raises(WeightsRefusedError, match=f"not the weights of {name}"):
        from_state_dict({key: value for key, value in state.items() if key != prefix + needed}, name)
    with pytest.raises(WeightsRefusedError, match=r"1 unexpected \(.*surprise"):
        from_state_dict(state | {f"{prefix}surprise.weight": torch.zeros(2)}, name)
    with pytest.raises(WeightsRefusedError, match="has shape"):
        from_state_dict(state | {prefix + vector: torch.zeros(3)}, name)
    for other in {*families()} - {name}:
        with pytest.raises(WeightsRefusedError):
            from_state_dict(state, other)
    with pytest.raises(InputError, match="no architecture option colour"):
        from_state_dict(state, name, colour=3)


def test_heads_are_what_the_weights_say(case: tuple[str, Golden], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    name, golden = case
    images = next(iter(pixels(golden).values()))
    wanted = built(golden, name)(images).feature_map
    right: dict[str, list[Any]] = {
        "capi": [2, None],
        "sam": [2, None],
        "esvit": [[1, 2, 4, 8], (1, 2, 4, 8), 1, 8, 0, None],
        "seer": [0, None],
    }
    wrong: dict[str, list[Any]] = {
        "capi": [1, 4, [3]], "sam": [4, 1], "esvit": [[1, 2, 4], [1, 2, 4, 4], 3], "seer": [1, [4]]
    }  # fmt: skip
    for heads in right[name]:
        assert torch.equal(built(golden, name, heads=heads)(images).feature_map, wanted)
    for heads in wrong[name]:
        with pytest.raises(InputError, match="expected"):
            built(golden, name, heads=heads)


# --- families and full sizes


def test_the_family_shows_in_the_raw_keys(case: tuple[str, Golden]) -> None:
    name, golden = case
    state = network_of(below(golden[1], "state/"))
    assert recognise(state).name == name
    assert [family.name for family in families().values() if family.recognises(state)] == [name]
    for own in {*NAMES} - {name}:
        assert not find_family(own).recognises(find_family(name).official(state))
    assert find_family(name).recognises(find_family(name).official(state))


def test_entries_besides_the_network_are_no_obstacle(case: tuple[str, Golden]) -> None:
    """CAPI files may hold keys outside `backbone.`, so that prefix is not on all of them."""
    name, golden = case
    besides = {
        "capi": "optimizer.step",
        "sam": "shared_image_embedding.positional_embedding",
        "esvit": "module.head_dense.last_layer.weight_g",
        "seer": "_feature_blocks.res2.block1-0.bn.num_batches_tracked",
    }[name]
    state = below(golden[1], "state/") | {besides: torch.zeros(3)}
    images = next(iter(pixels(golden).values()))
    assert torch.equal(from_state_dict(state)(images).global_repr, built(golden, name)(images).global_repr)


CAPI_L = {"embed_dim": 1024, "heads": 16}
SWIN_T = {"embed_dim": 768, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24), "window": 7}
SWIN_B = {"embed_dim": 1024, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "window": 14}
#: Family, sizes, entries of the whole encoder as released, parameters of what is used. SAM: payload in bytes / 4; RegNetY: what
#: other libraries count, without their classifiers of 1,000 classes.
RELEASED: list[tuple[str, dict[str, Any], int | None, int]] = [
    ("capi", CAPI_L, 328, 315_247_744),
    ("sam", {"width": 768, "depth": 12, "heads": 12}, 177, 358_683_648 // 4),
    ("sam", {"width": 1024, "depth": 24, "heads": 16}, 345, 1_233_113_088 // 4),
    ("sam", {"width": 1280, "depth": 32, "heads": 16}, 457, 2_548_104_192 // 4),
    ("esvit", SWIN_T, 183, 110_077_416 // 4),
    ("esvit", SWIN_T | {"depths": (2, 2, 18, 2)}, None, 48_837_258),
    ("esvit", SWIN_B | {"window": 7}, None, 86_743_224),
    ("esvit", SWIN_T | {"window": 14}, None, 27_569_754),
    ("esvit", SWIN_B, None, 86_917_944),
    ("seer", {"widths": (232, 696, 1392, 3712), "depths": (2, 5, 12, 1), "group_width": 232}, None, 145_046_770 - 3_713_000),
    ("seer", {"widths": (328, 984, 1968, 4920), "depths": (2, 5, 12, 1), "group_width": 328}, None, 281_378_786 - 4_921_000),
    ("seer", {"widths": (528, 1056, 2904, 7392), "depths": (2, 7, 17, 1), "group_width": 264}, None, 644_812_894 - 7_393_000),
    ("seer", {"widths": (746, 1492, 4103, 10444), "depths": (2, 7, 17, 1), "group_width": 373}, None, 1_272_156_138),
    ("seer", {"widths": (2020, 4040, 11110, 28280), "depths": (2, 7, 17, 1), "group_width": 1010}, None, 9_323_934_872),
]  # fmt: skip


@pytest.mark.parametrize(("name", "sizes", "entries", "parameters"), RELEASED)
def test_real_sizes_on_the_meta_device(name: str, sizes: dict[str, Any], entries: int | None, parameters: int) -> None:
    state = layout(name, sizes)
    own = {"capi": "backbone.", "sam": "image_encoder.", "esvit": "module.", "seer": "_feature_blocks."}[name]
    released = [key for key in state if key.startswith(own) and not key.startswith("module.head")]
    assert entries is None or len(released) == entries
    if name == "capi":
        assert sum(state[key].numel() for key in released) == 453_683_712
    family = recognise(network_of(state))
    assert family.name == name
    given = family.official(network_of(state))
    model = family.model(given, heads=sizes.get("heads", 0))
    require_match(without_heads(given, model.state_dict())[0], model.state_dict(), name)
    assert all(value.is_meta for value in model.state_dict().values())
    assert sum(value.numel() for value in model.parameters()) == parameters
    assert model.embed_dim == (256 if name == "sam" else sizes["widths"][-1] if name == "seer" else sizes["embed_dim"])
    assert model.patch_size == {"capi": 14, "sam": 16, "esvit": 32, "seer": 32}[name]


def test_descriptions_name_the_sizes(case: tuple[str, Golden]) -> None:
    name, golden = case
    line = built(golden, name).model.describe()
    assert "\n" not in line
    for part in {
        "capi": ("dim 64", "depth 2", "2 heads", "patch 14", "16 registers"),
        "sam": ("dim 32", "width 64", "depth 2", "2 heads", "patch 16", "windows 14", "1 global"),
        "esvit": ("dim 64", "2, 2, 2, 2 blocks", "heads 1, 2, 4, 8", "patch 4", "windows 7, 7, 7, 7"),
        "seer": ("widths 16, 24, 40, 64", "1, 1, 2, 2 blocks", "groups of 8"),
    }[name]:
        assert part in line


# --- windows


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 1000))
def test_windows_and_back(b: int, h: int, w: int, side: int, seed: int) -> None:
    x = noise(b, h, w, 2, seed=seed)
    windows = into_windows(x, side)
    across = -(-w // side)
    assert windows.shape == (b, -(-h // side) * across, side**2, 2)
    for i in range(-(-h // side) * side):
        for j in range(across * side):
            got = windows[:, i // side * across + j // side, i % side * side + j % side]
            assert torch.equal(got, x[:, i, j] if i < h and j < w else torch.zeros(b, 2))
    assert torch.equal(from_windows(windows, side, (h, w)), x)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize(
    ("h", "w", "window", "shift"), [(5, 9, 3, 0), (5, 9, 3, 1), (4, 8, 4, 2), (3, 3, 7, 3), (1, 10, 3, 1), (7, 2, 2, 1)]
)
def test_swin_attention_by_its_definition(h: int, w: int, window: int, shift: int) -> None:
    """Tokens see each other where the windows that start at −shift have both of them; zeros fill up the last ones of the unshifted."""
    heads, dim = 2, 6
    a = swin.SwinArchitecture(dim, (1,), (heads,), 4, (window,), (shift,))
    block = swin.Block(dim, heads, window, shift, a).requires_grad_(False)
    for index, parameter in enumerate(block.parameters()):
        parameter.copy_(noise(*parameter.shape, seed=index))
    x = noise(2, h, w, dim, seed=99)
    got = block.attend(x).double().numpy()

    rows, columns = -(-h // window) * window, -(-w // window) * window
    full = np.zeros((2, rows, columns, dim))
    full[:, :h, :w] = x.double().numpy()
    weights = {key: value.double().numpy() for key, value in block.attn.state_dict().items()}
    qkv = (full @ weights["qkv.weight"].T + weights["qkv.bias"]).reshape(2, rows, columns, 3, heads, dim // heads)
    table = weights["relative_position_bias_table"].reshape(2 * window - 1, 2 * window - 1, heads)
    for b in range(2):
        for i in range(h):
            for j in range(w):
                seen = [
                    (k, m)
                    for k in range(rows)
                    for m in range(columns)
                    if (k - shift) // window == (i - shift) // window and (m - shift) // window == (j - shift) // window
                ]
                out = []
                for head in range(heads):
                    q = qkv[b, i, j, 0, head] / np.sqrt(dim / heads)
                    logits = [
                        q @ qkv[b, k, m, 1, head] + table[i - k + window - 1, j - m + window - 1, head] for k, m in seen
                    ]
                    out.append(softmax(np.array(logits)) @ np.array([qkv[b, k, m, 2, head] for k, m in seen]))
                wanted = weights["proj.weight"] @ np.concatenate(out) + weights["proj.bias"]
                np.testing.assert_allclose(got[b, i, j], wanted, atol=2e-5)


@pytest.mark.parametrize(("h", "w"), [(1, 1), (2, 2), (3, 5), (5, 4)])
def test_merging_by_its_definition(h: int, w: int) -> None:
    merging = swin.PatchMerging(3, 1e-6).requires_grad_(False)
    for index, parameter in enumerate(merging.parameters()):
        parameter.copy_(noise(*parameter.shape, seed=index))
    x = noise(2, h, w, 3)
    full = np.zeros((2, h + h % 2, w + w % 2, 3))
    full[:, :h, :w] = x.double().numpy()
    got = merging(x).double().numpy()
    assert got.shape == (2, -(-h // 2), -(-w // 2), 6)
    weight, bias = merging.norm.weight.double().numpy(), merging.norm.bias.double().numpy()
    for i in range(got.shape[1]):
        for j in range(got.shape[2]):
            four = [full[:, 2 * i + down, 2 * j + right] for down, right in ((0, 0), (1, 0), (0, 1), (1, 1))]
            v = np.concatenate(four, axis=1)
            normed = (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-6) * weight + bias
            np.testing.assert_allclose(got[:, i, j], normed @ merging.reduction.weight.double().numpy().T, atol=2e-5)


@pytest.mark.parametrize(
    ("windows", "image_size", "shifts"),
    [
        ((7, 7, 7, 7), None, (3, 3, 3, 0)),  # 224 px: the last map is one window
        ((14, 14, 14, 7), None, (7, 7, 0, 0)),  # 224 px: 56, 28, 14 and 7 patches
        ((12, 12, 12, 12), None, (6, 6, 6, 0)),  # cannot be 224 px
        ((7, 7, 7, 3), None, (3, 3, 0, 0)),  # 112 px, where maps of 7 are halved to 3
        ((7, 7, 6, 3), None, (3, 3, 0, 0)),  # 96 px
        ((4, 4, 4, 4), None, (2, 2, 2, 2)),
        ((4, 4, 4, 4), 128, (2, 2, 2, 0)),
        ((7, 7, 7, 7), 448, (3, 3, 3, 3)),
    ],
)
def test_which_swin_blocks_shift(windows: tuple[int, ...], image_size: int | None, shifts: tuple[int, ...]) -> None:
    assert swin._shifts(windows, 4, image_size) == shifts


def test_windows_that_no_image_size_gives() -> None:
    with pytest.raises(InputError, match="image_size 96 does not fit windows of 7, 7, 7, 7 patches"):
        swin._shifts((7, 7, 7, 7), 4, 96)
    with pytest.raises(ValueError, match="expected windows that fit one image size, got 7, 3, 7, 7"):
        swin._shifts((7, 3, 7, 7), 4, None)


def test_the_image_size_of_the_training_decides_on_shifts(golden: Path) -> None:
    read_golden = read(golden / "esvit.safetensors")
    assert worst(built(read_golden, "esvit", image_size=224), read_golden) < TOLERANCE
    assert worst(built(read_golden, "esvit", image_size=448), read_golden) > 1e-2


# --- SAM


@pytest.mark.parametrize("length", [1, 2, 4, 5, 9])
def test_distance_vectors_by_their_definition(length: int) -> None:
    table = noise(7, 3)
    stored = table.double().numpy()
    size = 2 * length - 1
    source = np.clip((np.arange(size) + 0.5) * 7 / size - 0.5, 0, 6)  # pixel centres, clamped to the ends
    below_, share = np.floor(source).astype(int), source % 1
    resized = stored[below_] * (1 - share)[:, None] + stored[np.minimum(below_ + 1, 6)] * share[:, None]
    got = sam.distance_vectors(table, length).double().numpy()
    for q in range(length):
        for k in range(length):
            np.testing.assert_allclose(got[q, k], resized[q - k + length - 1], atol=1e-5)
    if length == 4:  # the table's own size: as it is
        assert torch.equal(sam.distance_vectors(table, 4)[3, 0], table[6])


SMALL_SAM = sam.SAMArchitecture(3, 8, 2, 4, (3, 5), 16, (2, 0))


@pytest.mark.parametrize(("h", "w", "window"), [(3, 5, 0), (3, 5, 2), (2, 2, 2), (1, 4, 2), (4, 3, 0)])
def test_sam_attention_by_its_definition(h: int, w: int, window: int) -> None:
    heads, dim = 2, 8
    block = sam.Block(SMALL_SAM, window).requires_grad_(False)
    for index, parameter in enumerate(block.parameters()):
        parameter.copy_(noise(*parameter.shape, seed=index))
    torch.nn.init.zeros_(block.mlp.fc2.weight), torch.nn.init.zeros_(block.mlp.fc2.bias)
    x = noise(2, h, w, dim, seed=99)
    got = (block(x) - x).double().numpy()

    reach = (window, window) if window else (h, w)
    rows, columns = (-(-side // r) * r for side, r in zip((h, w), reach, strict=True))
    full = np.zeros((2, rows, columns, dim))
    full[:, :h, :w] = block.norm1(x).double().numpy()
    weights = {key: value.double().numpy() for key, value in block.attn.state_dict().items()}
    by_row, by_column = (
        sam.distance_vectors(table, length).double().numpy()
        for table, length in zip((block.attn.rel_pos_h, block.attn.rel_pos_w), reach, strict=True)
    )
    qkv = (full @ weights["qkv.weight"].T + weights["qkv.bias"]).reshape(2, rows, columns, 3, heads, dim // heads)
    for b in range(2):
        for i in range(h):
            for j in range(w):
                top, left = i // reach[0] * reach[0], j // reach[1] * reach[1]
                seen = [(k, m) for k in range(top, top + reach[0]) for m in range(left, left + reach[1])]
                out = []
                for head in range(heads):
                    q = qkv[b, i, j, 0, head]
                    logits = [
                        q @ qkv[b, k, m, 1, head] / np.sqrt(dim / heads)
                        + q @ by_row[i - top, k - top]
                        + q @ by_column[j - left, m - left]
                        for k, m in seen
                    ]
                    out.append(softmax(np.array(logits)) @ np.array([qkv[b, k, m, 2, head] for k, m in seen]))
                wanted = weights["proj.weight"] @ np.concatenate(out) + weights["proj.bias"]
                np.testing.assert_allclose(got[b, i, j], wanted, atol=5e-5)


@pytest.mark.parametrize("limit", [1, 500, 1200, 2000])
def test_biases_in_turn_give_the_same(golden: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    encoder = built(read(golden / "sam.safetensors"), "sam")
    images = noise(2, 3, 80, 48)
    wanted = encoder(images).feature_map
    shapes = []
    attention = F.scaled_dot_product_attention

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor) -> torch.Tensor:
        shapes.append(attn_mask.shape)
        return attention(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(sam, "MAX_BIASES", limit)
    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    assert error(encoder(images).feature_map, wanted) < TOLERANCE
    whole = [shape for shape in shapes if shape[-1] == 15]  # the global block: 5 × 3 tokens, 2 images of 2 heads
    assert len(whole) == {1: 5, 500: 3, 1200: 1, 2000: 1}[limit]  # rows have 2·2·3·15 = 180 biases


def test_sam_positions_are_resized_for_other_sizes_only(golden: Path) -> None:
    model = built(read(golden / "sam.safetensors"), "sam").model
    model.patch_embed.proj.weight.zero_(), model.patch_embed.proj.bias.zero_()
    assert torch.equal(model._tokens(torch.zeros(1, 3, 240, 240)), model.pos_embed)
    model.pos_embed.fill_(2.5)
    assert error(model._tokens(torch.zeros(1, 3, 80, 304)), torch.full((1, 5, 19, 64), 2.5)) < 1e-6
    ramp = torch.arange(15.0).view(1, 15, 1, 1).expand(1, 15, 15, 64)
    model.pos_embed.copy_(ramp)
    assert error(model._tokens(torch.zeros(1, 3, 240, 80)), ramp[:, :, :5]) < 1e-5
    # Patches three times as high have their centres at 1, 4, 7 and so on, but see their neighbours too.
    model.pos_embed.copy_(ramp % 2)
    down = model._tokens(torch.zeros(1, 3, 80, 240))
    assert down.shape == (1, 5, 15, 64) and torch.allclose(down, torch.full_like(down, 0.5), atol=0.15)


def test_sam_block_kinds_are_read_from_the_shapes(golden: Path) -> None:
    state = {"pos_embed": (1, 3, 5, 8), "neck.0.weight": (3, 8, 1, 1), "patch_embed.proj.weight": (8, 3, 4, 4)}
    state |= {"blocks.0.mlp.fc1.weight": (16, 8)}
    for index, (down, across) in enumerate([(3, 3), (5, 9), (3, 3)]):
        state |= {f"blocks.{index}.attn.rel_pos_h": (down, 4), f"blocks.{index}.attn.rel_pos_w": (across, 4)}
    entries = {key: torch.empty(shape, device="meta") for key, shape in state.items()}
    assert sam.read_architecture(entries).windows == (2, 0, 2)
    for key, shape in (("blocks.1.attn.rel_pos_h", (7, 4)), ("blocks.2.attn.rel_pos_w", (5, 4))):
        with pytest.raises(ValueError, match="expected square windows or the whole 3×5 table in block"):
            sam.read_architecture(entries | {key: torch.empty(shape, device="meta")})
    with pytest.raises(ValueError, match="expected pos_embed of rows and columns"):
        sam.read_architecture(entries | {"pos_embed": torch.empty(1, 16, 8, device="meta")})


# --- CAPI


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (3, 1), (2, 5)])
def test_token_coordinates_by_their_definition(grid: tuple[int, int]) -> None:
    rows, columns = ([i / (n - 1) if n > 1 else 0.0 for i in range(n)] for n in grid)
    border = [*zip("0123444443210000", "0000012344444321", strict=True)]  # row and column in quarters
    wanted = [[int(row) / 4 * rows[-1], int(column) / 4 * columns[-1]] for row, column in border]
    wanted += [[row, column] for row in rows for column in columns]
    np.testing.assert_allclose(capi.token_coordinates(grid, 16).numpy(), wanted, atol=1e-6)


def test_rotation_by_its_definition() -> None:
    x, angles = noise(2, 3, 5, 8), noise(5, 8, seed=1)
    got = capi.rotated(x, (angles.cos(), angles.sin())).numpy()
    a, v = angles.double().numpy(), x.double().numpy()
    for channel in range(8):
        partner = -v[..., channel + 4] if channel < 4 else v[..., channel - 4]
        wanted = v[..., channel] * np.cos(a[:, channel]) + partner * np.sin(a[:, channel])
        np.testing.assert_allclose(got[..., channel], wanted, atol=1e-5)


def test_every_block_has_its_own_frequencies(golden: Path) -> None:
    read_golden = read(golden / "capi.safetensors")
    state = below(read_golden[1], "state/")
    images = pixels(read_golden)["2"]
    wanted = from_state_dict(state, "capi")(images)
    for block, changes in (("encoder.blocks.1", (True, True)), ("decoder.blocks.0", (False, True))):
        key = f"backbone.{block}.residual1.fn.rope.freqs"
        got: Features = from_state_dict(state | {key: state[key] * 1.01}, "capi")(images)
        for one, other, changed in zip(
            (got.feature_map, got.global_repr), (wanted.feature_map, wanted.global_repr), changes, strict=True
        ):
            assert (error(one, other) > 1e-4) == changed


def test_rotations_are_kept_for_few_grids_and_forgotten_with_the_weights(golden: Path) -> None:
    read_golden = read(golden / "capi.safetensors")
    encoder = built(read_golden, "capi")
    entries = find_family("capi").official(network_of(below(read_golden[1], "state/")))
    for height in range(1, 40):
        encoder.model._rotations((height, 2), torch.device("cpu"))
    assert len(encoder.model._kept) <= 32
    images = pixels(read_golden)["2"]
    before = encoder(images).feature_map
    faster = {key: value * 2 if key.endswith("freqs") else value for key, value in entries.items()}
    encoder.model.take_weights(faster, torch.float32)
    assert error(encoder(images).feature_map, before) > 1e-2


def test_registers_come_in_four_sides() -> None:
    state = {"mask_token": torch.empty(1, 8), "encoder.blocks.0.residual1.fn.rope.freqs": torch.empty(2, 4)}
    with pytest.raises(ValueError, match="as many registers on each of the four sides, got 6"):
        capi.read_architecture(state | {"registers": torch.empty(1, 6, 8)})
    with pytest.raises(ValueError, match="heads of a width that divides 8 and that 4 divides, got 6"):
        bad = {"encoder.blocks.0.residual1.fn.rope.freqs": torch.empty(2, 6), "registers": torch.empty(1, 16, 8)}
        capi.read_architecture(state | bad)


# --- RegNetY


@pytest.mark.parametrize("training", [False, True])
def test_batch_statistics_never_enter(golden: Path, training: bool) -> None:
    read_golden = read(golden / "seer.safetensors")
    encoder = built(read_golden, "seer")
    encoder.model.train(training)
    assert worst(encoder, read_golden) < TOLERANCE


def test_widths_that_groups_do_not_divide(golden: Path) -> None:
    state = below(read(golden / "seer.safetensors")[1], "state/")
    key = "_feature_blocks.res2.block1-0.f.b.0.weight"
    with pytest.raises(WeightsRefusedError, match="expected widths that 5 channels per group divide"):
        from_state_dict(state | {key: torch.zeros(16, 5, 3, 3)}, "seer")
