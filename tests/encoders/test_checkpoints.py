"""A user's own checkpoint: the network is found whatever stands around it, the right one of several is taken, nothing is guessed."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewmatch.encoders import catalogue, from_state_dict, load
from fewmatch.encoders.families import FamilyOpenError, anchors, choose_network
from fewmatch.encoders.weights.checkpoint import find_networks
from fewmatch.errors import InputError, WeightsRefusedError

State = dict[str, Tensor]
TOLERANCE = 2e-5  # as in test_golden.py
GOLDEN = Path(__file__).parent.parent / "golden"
#: Golden files by family, with one small image each. Where entries leave the family open it has to be told.
FILES = {
    "dinov2": "dinov2", "dinov2_reg": "dinov2_reg", "dinov2_swiglu_hf": "dinov2", "dinov2_swiglu_reg": "dinov2_reg",
    "dinov3": "dinov3", "dino": "dino", "ibot": "ibot", "mugs": "mugs", "msn": "msn", "mae": "mae", "clip": "clip",
    "open_clip": "open_clip", "eva_clip": "eva_clip", "swag": "swag", "beit": "beit", "data2vec2_prenet": "data2vec2",
    "capi": "capi", "sam": "sam", "esvit": "esvit", "seer": "seer",
}  # fmt: skip
OPEN = {"dino", "mae", "open_clip"}


@functools.cache
def golden(name: str) -> tuple[State, dict[str, Any], Tensor, State]:
    """Weights, architecture, an image, and its official global vector (SAM has none) and map."""
    path = GOLDEN / f"{name}.safetensors"
    if not path.is_file():
        path = GOLDEN.parent.parent.parent / "shared" / "golden" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden file {path}")
    with safe_open(path, "pt") as file:
        meta = file.metadata()
        names = list(file.keys())
        number = min((key for key in names if key.startswith("input/")), key=lambda key: file.get_tensor(key).numel())
        state = {key.removeprefix("state/"): file.get_tensor(key) for key in names if key.startswith("state/")}
        pixels = file.get_tensor(number)[:1].float() * float(meta["input_scale"])
        start = number.replace("input", "expected") + "/"
        wanted = {
            end: file.get_tensor(start + end)[:1] for end in ("global_repr", "feature_map") if start + end in names
        }
    return state, {"heads": json.loads(meta["heads"])}, pixels, wanted


def student(state: State) -> State:
    """The same network with other values."""
    return {key: value * 1.5 + 0.125 if value.is_floating_point() else value for key, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def in_the_middle(wrapper: str) -> Callable[[State], State]:
    """A wrapper around the network and around each block."""

    def wrap(state: State) -> State:
        return {
            f"{wrapper}." + re.sub(r"(?<=\.)(\d+)\.", rf"\1.{wrapper}.", key, count=1): v for key, v in state.items()
        }

    return wrap


HEAD: State = {"mlp.0.weight": torch.ones(4, 4), "mlp.0.bias": torch.ones(4), "last_layer.weight_g": torch.ones(9, 1)}
#: What stands around a network: how it is made, the prefix that must be taken, and a part of what is left out.
AROUND: dict[str, tuple[Callable[[State], Any], str, str]] = {
    "teacher_checkpoint.pth of DINOv2's trainer": (
        lambda s: {"teacher": under("backbone.", s) | under("dino_head.", HEAD) | under("ibot_head.", HEAD)},
        "teacher.backbone.",
        "teacher.dino_head (3 entries)",
    ),
    "student and teacher side by side, with losses": (
        lambda s: (
            under("student.backbone.", student(s))
            | under("student.dino_head.", HEAD)
            | under("teacher.backbone.", s)
            | {"dino_loss.center": torch.ones(1, 9), "ibot_patch_loss.center": torch.ones(1, 1, 9)}
        ),
        "teacher.backbone.",
        "dino_loss (1 entry)",
    ),
    "full checkpoint of DINO's trainer": (
        lambda s: {
            "student": under("module.backbone.", student(s)) | under("module.head.", HEAD),
            "teacher": under("backbone.", s) | under("head.", HEAD),
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
            "epoch": 7,
            "dino_loss": {"center": torch.ones(1, 9)},
        },
        "teacher.backbone.",
        "optimizer (1 entry)",
    ),
    "target encoder": (
        lambda s: {"encoder": under("module.", student(s)), "target_encoder": under("module.", s)},
        "target_encoder.module.",
        "encoder (",
    ),
    "moving average beside the model": (
        lambda s: {"model": student(s), "model_ema": s, "args": None},
        "model_ema.",
        "model (",
    ),
    "Lightning module with a classifier": (
        lambda s: {
            "state_dict": under("model.", s)
            | {"classifier.weight": torch.ones(3, 4), "criterion.weight": torch.ones(3)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
            "pytorch-lightning_version": "2.4",
        },
        "state_dict.model.",
        "state_dict.classifier (1 entry)",
    ),
    "pretrained.": (lambda s: under("pretrained.", s), "pretrained.", ""),
    "teacher_backbone. beside student_backbone.": (
        lambda s: under("student_backbone.", student(s)) | under("teacher_backbone.", s),
        "teacher_backbone.",
        "student_backbone (",
    ),
    "compiled": (lambda s: under("model._orig_mod.", s), "model._orig_mod.", ""),
    "averaged model of torch": (
        lambda s: under("module.", s) | {"n_averaged": torch.tensor(5)},
        "module.",
        "n_averaged (1 entry)",
    ),
    "one module under two names": (lambda s: under("encoder.", s) | under("net.", s), "encoder.", "net ("),
    "FSDP": (in_the_middle("_fsdp_wrapped_module"), "_fsdp_wrapped_module.", ""),
    "activation checkpoints": (in_the_middle("_checkpoint_wrapped_module"), "_checkpoint_wrapped_module.", ""),
    "compiled blocks": (in_the_middle("_orig_mod"), "_orig_mod.", ""),
}


def flat(prefix: str, value: Any) -> State:
    """Nested dictionaries and lists with their keys joined by dots."""
    if isinstance(value, Tensor):
        return {prefix: value.clone()}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {k: v for key, inner in pairs for k, v in flat(f"{prefix}.{key}" if prefix else str(key), inner).items()}


#: The whole table for the committed files, a part of it for the others.
SOME = ("student and teacher side by side, with losses", "Lightning module with a classifier", "compiled blocks")
TABLE = [
    (name, around) for name in FILES for around in (AROUND if (GOLDEN / f"{name}.safetensors").is_file() else SOME)
]


@pytest.mark.parametrize(("name", "around"), TABLE)
def test_the_network_is_found_whatever_stands_around_it(name: str, around: str, tmp_path: Path) -> None:
    state, heads, pixels, wanted = golden(name)
    wrap, prefix, left = AROUND[around]
    content = wrap(state)
    nested = any(not isinstance(value, Tensor) for value in content.values())
    if name == "dinov2" and nested:  # both kinds of file hold the same; this one takes longer to read
        torch.save(content, path := tmp_path / "own.pth")
    else:
        save_file(flat("", content), path := tmp_path / "own.safetensors")
    family = FILES[name]
    lines: list[str] = []
    spelled = f"{family}:{path}" if name in OPEN else str(path)
    encoder = load_with(spelled, heads, lines)
    features = encoder(pixels)
    for field, tensor in wanted.items():
        assert float((getattr(features, field) - tensor).abs().max() / tensor.abs().max()) < TOLERANCE
    own = {"capi": "backbone.", "sam": "image_encoder.", "esvit": "module.", "eva_clip": "visual.", "msn": "module."}
    assert (encoder.family, encoder.source["family"]) == (family, family)
    assert encoder.source["family_from"] == ("told" if name in OPEN else "entries")
    assert encoder.source["prefix"].removesuffix(own.get(name, "")) == prefix or encoder.source["prefix"] == prefix
    assert any(text.startswith(left) for text in encoder.source["left_out"]) or not left
    (line,) = lines
    assert line.startswith(f"{path.name}: family {family} (") and encoder.source["prefix"].removesuffix(".") in line
    assert all(text in line for text in encoder.source["left_out"][:5])
    assert all(other.removesuffix(".") in line for other in encoder.source["not_taken"])
    json.dumps(encoder.source)


def load_with(spelled: str, architecture: dict[str, Any], lines: list[str]) -> Any:
    """`load`, for networks that are smaller than any that was released, whose heads nothing tells."""
    from fewmatch.encoders import loading
    from fewmatch.encoders.families import families
    from fewmatch.encoders.weights.checkpoint import weights_file

    family, _, rest = spelled.partition(":")
    path = weights_file(rest if family in families() else spelled)
    return loading._from_file(
        path, family if family in families() else None, lines.append, device="cpu", dtype="float32", **architecture
    )


# --- which network, and what belongs to it


def small(name: str = "dinov2") -> State:
    return dict(golden(name)[0])


def test_networks_that_differ_are_not_chosen_between() -> None:
    state = under("left.", small()) | under("right.", student(small()))
    with pytest.raises(
        WeightsRefusedError, match=r"2 different networks, none of them called teacher or EMA.* \(left, right\)"
    ):
        from_state_dict(state, heads=2)
    with pytest.raises(WeightsRefusedError, match=r"2 different teachers .* \(teacher, model_ema\)"):
        from_state_dict(
            under("teacher.", small()) | under("model_ema.", student(small())) | under("student.", small()), heads=2
        )
    with pytest.raises(WeightsRefusedError, match=r"\(the top level, other\)"):
        from_state_dict(small() | under("other.", student(small())), heads=2)


def test_a_teacher_further_in_is_no_part_of_the_network_around_it() -> None:
    state = student(small()) | under("momentum.", small())
    encoder = from_state_dict(state, heads=2)
    assert torch.equal(
        encoder(golden("dinov2")[2]).global_repr, from_state_dict(small(), heads=2)(golden("dinov2")[2]).global_repr
    )
    assert encoder.source["not_taken"] == [""] and encoder.source["prefix"] == "momentum."
    other = under("decoder.", small("seer"))
    encoder = from_state_dict(
        small() | other, "dinov2", heads=2
    )  # a network of another family below the one at the top level
    assert encoder.source["prefix"] == "" and encoder.source["left_out"] == [f"decoder ({len(other)} entries)"]


def test_the_family_that_is_told_chooses_among_networks() -> None:
    state = under("one.", small("dinov2")) | under("two.", small("dinov2_reg")) | under("three.", small("seer"))
    for family, prefix in (("dinov2", "one."), ("dinov2_reg", "two."), ("seer", "three.")):
        assert choose_network(state, family).network.prefix == prefix


def test_fairseqs_own_moving_average_is_not_taken() -> None:
    state = small("data2vec2_prenet")
    average = under("_ema.", student({key: value for key, value in state.items() if not key.startswith("_ema")}))
    pixels = golden("data2vec2_prenet")[2]
    assert torch.equal(
        from_state_dict(state | average, heads=2)(pixels).feature_map,
        from_state_dict(state, heads=2)(pixels).feature_map,
    )


@pytest.mark.parametrize("head", ["head.weight", "classifier.0.bias", "fc.weight", "linear_head.weight", "dino_head.mlp.0.bias",
                                  "projector.2.weight", "pooler.dense.weight", "koleo_loss.scale"])  # fmt: skip
def test_heads_beside_the_network_are_left_out(head: str) -> None:
    encoder = from_state_dict(small() | {head: torch.ones(3)}, heads=2)
    pixels = golden("dinov2")[2]
    assert torch.equal(encoder(pixels).global_repr, from_state_dict(small(), heads=2)(pixels).global_repr)
    assert encoder.source["left_out"] == [f"{head.split('.')[0]} (1 entry)"]


@pytest.mark.parametrize("prefix", ["", "teacher.backbone."])
@pytest.mark.parametrize(
    "entry",
    [
        "blocks.0.adapter.down.weight",
        "blocks.1.attn.qkv.lora_A.default.weight",
        "blocks.0.head.weight",
        "norm_pre.weight",
        "prompt_embeddings",
        "dist_token",
        "adapters.0.weight",
    ],
)
def test_unknown_entries_of_the_network_are_refused_by_name(prefix: str, entry: str) -> None:
    state = under(prefix, small() | {entry: torch.ones(3)})
    with pytest.raises(WeightsRefusedError, match=rf"1 unexpected \({entry}\)"):
        from_state_dict(state, heads=2)


def test_two_entries_of_one_name_are_refused() -> None:
    state = under("model.", small()) | {"model._orig_mod.norm.bias": torch.ones(64)}
    with pytest.raises(WeightsRefusedError, match=r"two entries are model\.norm\.bias once wrappers are taken out"):
        from_state_dict(state, heads=2)


def test_networks_of_another_family_are_refused_with_the_reason() -> None:
    with pytest.raises(WeightsRefusedError, match=r"not the weights of swag: no entry conv_proj.weight .*; the network at model has "
                       r"patch_embed.proj.weight, as beit or .*dinov2"):  # fmt: skip
        from_state_dict(under("model.", small()), "swag")
    with pytest.raises(WeightsRefusedError, match=r"not the weights of dino .*unexpected \(blocks.0.ls1.gamma"):
        from_state_dict(under("model.", small()), "dino", heads=2)
    with pytest.raises(WeightsRefusedError, match="no patch embedding among 2 entries"):
        from_state_dict({"conv1.weight": torch.ones(1), "layer1.0.bn1.bias": torch.ones(1)})


# --- other names of the same weights


def as_in_timm(state: State) -> State:
    """timm's: registers under another name, the position of CLS added to CLS, both halves of the gated layer in fc1."""
    out = {key: value for key, value in state.items() if key != "mask_token"}
    if "register_tokens" in out:
        table = out["pos_embed"]
        out["reg_token"] = out.pop("register_tokens")
        out["cls_token"], out["pos_embed"] = out["cls_token"] + table[:, :1], table[:, 1:]
    return {key.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): value for key, value in out.items()}


@pytest.mark.parametrize("name", ["dinov2", "dinov2_reg", "dinov2_swiglu", "dinov2_swiglu_reg"])
def test_the_layout_of_timm(name: str) -> None:
    state, heads, pixels, wanted = golden(name)
    encoder = from_state_dict(under("model.", as_in_timm(state)) | {"model.head.bias": torch.ones(3)}, **heads)
    features = encoder(pixels)
    assert encoder.family == FILES.get(name, "dinov2")
    for field, tensor in wanted.items():
        assert float((getattr(features, field) - tensor).abs().max() / tensor.abs().max()) < TOLERANCE


# --- what settles the family


def test_the_digest_of_a_file_of_the_catalogue_settles_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(small("dino"), path := tmp_path / "renamed.safetensors")
    from fewmatch.encoders.catalogue import dinov2

    digests = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "md5": hashlib.md5(path.read_bytes()).hexdigest(),
    }
    for kind, digits in (("sha256", 64), ("sha256", 8), ("md5", 6)):
        record = catalogue.Checkpoint(
            name="made_up",
            family="dino",
            filename="made_up.pth",
            preprocessing=catalogue.Preprocessing(resize=40, crop=32, dense=48),
            architecture={"heads": 2},
            licence="MIT",
            source="this test",
            **{kind: digests[kind][:digits]},  # type: ignore[arg-type]
        )
        with monkeypatch.context() as patch:
            patch.setattr(dinov2, "RECORDS", (*dinov2.RECORDS, record))
            catalogue.checkpoints.cache_clear()
            lines: list[str] = []
            encoder = load(path, device="cpu", dtype="float32", note=lines.append)
        assert (encoder.name, encoder.family, encoder.preprocessing.crop) == ("renamed", "dino", 32)
        assert encoder.source["family_from"] == "digest" and "its digest is that of made_up" in lines[0]
        _, _, pixels, wanted = golden("dino")
        assert float((encoder(pixels).global_repr - wanted["global_repr"]).abs().max()) < 2e-4
        catalogue.checkpoints.cache_clear()
    with pytest.raises(FamilyOpenError, match="leave the family open"):
        load(path)


def folder_of(
    tmp_path: Path, state: State, config: dict[str, Any] | None, processor: dict[str, Any] | None = None
) -> Path:
    (folder := tmp_path / "model").mkdir(exist_ok=True)
    save_file({key: value.clone() for key, value in state.items()}, folder / "model.safetensors")
    for name, content in (("config", config), ("preprocessor_config", processor)):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def hugging_face_names(state: State) -> State:
    from official_layouts import hugging_face_clip, hugging_face_vit

    return hugging_face_clip(state) if "visual.proj" in state else hugging_face_vit(state)


@pytest.mark.parametrize(
    ("act", "family"), [({"hidden_act": "quick_gelu"}, "clip"), ({}, "clip"), ({"hidden_act": "gelu"}, "open_clip")]
)
def test_config_json_tells_the_activation_of_clip_and_the_heads(
    tmp_path: Path, act: dict[str, str], family: str
) -> None:
    vision = {"hidden_size": 64, "num_attention_heads": 2, **act}
    state = {key: value for key, value in hugging_face_names(small("clip")).items() if value.is_floating_point()}
    folder = folder_of(tmp_path, state, {"model_type": "clip", "vision_config": vision})
    lines: list[str] = []
    encoder = load(folder, device="cpu", dtype="float32", note=lines.append)
    assert (encoder.name, encoder.family, encoder.source["family_from"]) == ("model", family, "config.json")
    assert lines[0].startswith(f"model.safetensors: family {family} (as config.json beside it says)")
    _, _, pixels, wanted = golden("clip")
    off = float((encoder(pixels).global_repr - wanted["global_repr"]).abs().max() / wanted["global_repr"].abs().max())
    assert off < TOLERANCE if family == "clip" else off > 1e-3  # heads and activation are those of the configuration
    told = load(f"open_clip:{folder}", device="cpu", dtype="float32", note=lines.append)
    assert told.family == "open_clip" and ("config.json beside it says clip" in lines[1]) == (family == "clip")


def test_config_json_of_a_vit_leaves_open_who_trained_it(tmp_path: Path) -> None:
    state = hugging_face_names({key: value for key, value in small("dino").items() if "head" not in key})
    processor = {"image_mean": [0.5, 0.5, 0.25], "image_std": [0.5, 0.25, 0.5]}
    folder = folder_of(tmp_path, state, {"model_type": "vit", "num_attention_heads": 2}, processor)
    with pytest.raises(FamilyOpenError, match=f"dino:PATH.* mae:PATH.*; hf:{folder} runs it as config.json says"):
        load(folder)
    lines: list[str] = []
    encoder = load(f"dino:{folder}", device="cpu", dtype="float32", note=lines.append)
    _, _, pixels, wanted = golden("dino")
    assert float((encoder(pixels).global_repr - wanted["global_repr"]).abs().max()) < 2e-4  # two heads, as it says
    assert (encoder.preprocessing.mean, encoder.preprocessing.std) == ((0.5, 0.5, 0.25), (0.5, 0.25, 0.5))
    assert "mean and standard deviation of the pixels are those of preprocessor_config.json" in lines[0]
    folder_of(tmp_path, state, {"model_type": "vit_msn", "num_attention_heads": 2})
    assert load(folder, device="cpu").family == "msn"


def test_heads_are_those_of_the_released_size_or_said_to_be_assumed() -> None:
    from official_layouts import layout

    sizes = {"embed_dim": 1280, "depth": 1, "patch_size": 14, "position_grid": 2, "ffn": "mlp", "registers": 0}
    state = {key: torch.zeros(value.shape) for key, value in layout("mae", sizes).items()}
    encoder = from_state_dict(state, "mae", dtype="bfloat16")
    assert "16 heads" in encoder.model.describe() and "heads_from" not in encoder.source  # MAE's ViT-H has heads of 80
    encoder = from_state_dict(small())
    assert (encoder.source["heads"], encoder.source["heads_from"]) == (1, "assumed")


def test_heads_that_are_assumed_are_said(tmp_path: Path) -> None:
    save_file(small(), path := tmp_path / "own.safetensors")
    lines: list[str] = []
    load(path, device="cpu", note=lines.append)
    assert lines == [
        "own.safetensors: family dinov2 (recognised by its entries); attention heads: 1, each of 64 channels, is assumed, "
        "as the file does not say"
    ]


# --- folders that plain -e does not read


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
            "in several files: write hf:{}, which reads them all",
        ),
        (["pytorch_model.bin"], r"write {}/pytorch_model.bin for its weights; hf:{} reads"),
        (["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"], "as pickles in several files: .* hf:{}"),
        ([], "no weights at {}"),
    ],
)
def test_folders_of_hugging_face_are_pointed_to_hf(tmp_path: Path, files: list[str], message: str) -> None:
    for name in ["config.json", *files]:
        (tmp_path / name).write_text("{}")
    for spelled in (str(tmp_path), f"dinov2:{tmp_path}"):
        with pytest.raises(InputError, match=message.replace("{}", str(tmp_path))):
            load(spelled)
    for part in (name for name in files if "-of-" in name):
        with pytest.raises(InputError, match=f"is a part of a model in several files: write hf:{tmp_path}"):
            load(tmp_path / part)


def test_a_pickle_in_the_hugging_face_layout_loads_by_its_own_name(tmp_path: Path) -> None:
    torch.save(small("dinov2_swiglu_hf"), path := tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "dinov2", "num_attention_heads": 2, "hidden_size": 64})
    )
    encoder = load(path, device="cpu", dtype="float32")
    _, _, pixels, wanted = golden("dinov2_swiglu_hf")
    assert float((encoder(pixels).global_repr - wanted["global_repr"]).abs().max()) < 2e-4


def test_anchors_do_not_take_other_convolutions_for_networks() -> None:
    """ResNet's first convolution, the necks of SAM and of detectors, decoders of patches."""
    others = [
        "conv1.weight",
        "layer1.0.conv1.weight",
        "neck.conv1.weight",
        "fpn.patch_embed.norm.weight",
        "x.my_patch_embed.proj.weight",
    ]
    assert find_networks({key: torch.ones(1) for key in others}, anchors()) == []
