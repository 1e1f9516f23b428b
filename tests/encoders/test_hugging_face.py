"""`hf:` encoders: tiny random networks of transformers, saved and loaded, give what transformers itself gives of them."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewmatch.encoders import FeatureStore, Preprocessing, encode_images, from_state_dict, load, tapped
from fewmatch.encoders.frame import crop_frame, resample
from fewmatch.encoders.hugging_face.backbone import HuggingFaceBackbone
from fewmatch.encoders.hugging_face.processor_config import preprocessing_of
from fewmatch.encoders.paths import hf_hub_cache
from fewmatch.encoders.store.plan import plan_encoding
from fewmatch.encoders.weights.checkpoint import read_weights
from fewmatch.errors import FewmatchError, InputError, WeightsMissingError, WeightsRefusedError

transformers = pytest.importorskip("transformers")

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 64,
    "patch_size": 16,
}
CONV = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99}
SAM = VIT | {"output_channels": 24, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 48}
#: Configuration, its arguments, patch, tokens before the patches, what the vector is, whether there is a norm after the last block
#: (None: no plain blocks).
PLAIN: dict[str, tuple[str, dict[str, Any], int, int, str, bool | None]] = {
    "vit": ("ViTConfig", VIT, 16, 1, "cls", True),
    "deit": ("DeiTConfig", VIT, 16, 2, "cls", True),
    "dinov2": ("Dinov2Config", VIT, 16, 1, "pooler", True),
    "dinov2_registers": ("Dinov2WithRegistersConfig", VIT | {"num_register_tokens": 3}, 16, 4, "pooler", True),
    "dinov3": ("DINOv3ViTConfig", VIT | {"num_register_tokens": 4}, 16, 5, "pooler", True),
    "ijepa": ("IJepaConfig", VIT, 16, 0, "mean", True),
    "siglip": ("SiglipVisionConfig", VIT, 16, 0, "pooler", True),
    "clip": ("CLIPVisionConfig", VIT, 16, 1, "pooler", False),
    "beit": ("BeitConfig", VIT | {"use_relative_position_bias": True, "use_mean_pooling": True}, 16, 1, "pooler", False),
    "mae": ("ViTMAEConfig", VIT, 16, 1, "cls", True),
    "msn": ("ViTMSNConfig", VIT, 16, 1, "cls", True),
    "sam": ("SamVisionConfig", SAM, 16, 0, "mean", None),
    "resnet": ("ResNetConfig", CONV | {"embedding_size": 8, "layer_type": "basic"}, 32, 0, "pooler", None),
    "convnext": ("ConvNextConfig", CONV | {"image_size": 64}, 32, 0, "pooler", None),
    "dinov3_convnext": ("DINOv3ConvNextConfig", CONV | {"image_size": 64}, 32, 1, "pooler", None),
    "aimv2": ("Aimv2VisionConfig", VIT, 16, 0, "pooler", True),
    "mobilevit": (
        "MobileViTConfig",
        {"image_size": 64, "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 24]},
        32, 0, "pooler", None,
    ),
    "swin": (
        "SwinConfig",
        {"image_size": 64, "patch_size": 4, "embed_dim": 12, "depths": [2, 1, 1], "num_heads": [2, 2, 2], "window_size": 4},
        16, 0, "pooler", None,
    ),
}  # fmt: skip
ONE_SIZE = ("sam", "aimv2")
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 72},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 64, "width": 64},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
}


@pytest.fixture(autouse=True, scope="module")
def silent_and_small() -> Iterator[None]:
    """No reports of transformers; and one thread, since several wait for each other longer than networks as small as these take."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network_of(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A network of random weights, none of which is one or zero: a norm left out or taken for another shows."""
    from transformers import MODEL_MAPPING

    config = getattr(transformers, PLAIN[kind][0])(**PLAIN[kind][1] | changes)
    return randomised(MODEL_MAPPING[type(config)](config), seed)


def randomised(network: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(
                1 + 0.3 * noise if "norm" in name and name.endswith("weight") and value.ndim == 1 else 0.2 * noise
            )
    return network.eval()


def save(network: Any, folder: Path, processor: dict[str, Any] | None = None) -> Path:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR if processor is None else processor))
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """A network of each kind and the folder that it is saved in."""
    made: dict[str, tuple[Any, Path]] = {}

    def get(kind: str) -> tuple[Any, Path]:
        if kind not in made:
            network = network_of(kind)
            made[kind] = network, save(network, tmp_path_factory.mktemp("models") / kind)
        return made[kind]

    return get


def loaded(folder: Path | str, **options: Any) -> Any:
    return load(f"hf:{folder}", **{"device": "cpu", "dtype": "float32"} | options)


def noise(height: int, width: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height * width))


@torch.no_grad()
def official(network: Any, images: Tensor, **more: Any) -> Any:
    """What transformers gives; MAE unmasked and in order, positions of other sizes interpolated where it takes that."""
    import inspect

    arguments = inspect.signature(network.forward).parameters
    if "interpolate_pos_encoding" in arguments and images.shape[2:] != (64, 64):
        more["interpolate_pos_encoding"] = True
    if "noise" in arguments:
        network.config.mask_ratio = 0.0
        count = images.shape[2] // 16 * (images.shape[3] // 16)
        more["noise"] = torch.linspace(0, 1, count).expand(len(images), -1)
    return network(pixel_values=images, **more)


def close(got: Tensor, wanted: Tensor) -> bool:
    return got.shape == wanted.shape and bool((got - wanted).abs().max() <= 1e-6 * max(1.0, float(wanted.abs().max())))


def wanted_features(kind: str, out: Any, grid: tuple[int, int]) -> tuple[Tensor, Tensor | None, Tensor]:
    """Vector, registers and map from transformers' output, written out."""
    tokens, prefix, rule = out.last_hidden_state, PLAIN[kind][3], PLAIN[kind][4]
    if tokens.ndim == 4:
        rows = tokens.flatten(2).transpose(1, 2)
    else:
        rows = tokens[:, prefix:]
    patches = torch.stack(
        [torch.stack([rows[:, i * grid[1] + j] for j in range(grid[1])], 1) for i in range(grid[0])], 1
    )
    vector = {
        "cls": lambda: tokens[:, 0],
        "mean": lambda: rows.double().mean(1).float(),
        "pooler": lambda: out.pooler_output.reshape(len(tokens), -1),
    }[rule]()
    return vector, tokens[:, 1:prefix] if prefix > 1 else None, patches


@pytest.mark.parametrize("kind", PLAIN)
def test_features_are_those_of_transformers(kind: str, saved: Callable[[str], tuple[Any, Path]]) -> None:
    network, folder = saved(kind)
    encoder = loaded(folder)
    patch = PLAIN[kind][2]
    assert (encoder.name, encoder.patch_size, encoder.stride, encoder.family) == (kind, patch, patch, "hf")
    for height, width in ((64, 64), (96, 64), (64, 128)):
        images = noise(height, width)
        if kind in ONE_SIZE and (height, width) != (64, 64):
            with pytest.raises(InputError, match=r"takes images of 64×64 px alone, got .*: use --size 64 and"):
                encoder(images)
            continue
        got = encoder(images)
        grid = (height // patch, width // patch)
        vector, registers, patches = wanted_features(kind, official(network, images), grid)
        assert close(got.feature_map, patches) and close(got.global_repr, vector)
        assert (got.registers is None) == (registers is None)
        assert registers is None or close(got.registers, registers)
        assert got.global_repr.shape[1] == got.feature_map.shape[3] == encoder.embed_dim
        assert not got.feature_map.requires_grad
        again = encoder(images)
        assert torch.equal(again.feature_map, got.feature_map) and torch.equal(again.global_repr, got.global_repr)


@pytest.mark.parametrize("kind", [kind for kind, facts in PLAIN.items() if facts[5] is not None])
def test_layers_are_those_of_transformers(kind: str, saved: Callable[[str], tuple[Any, Path]]) -> None:
    """Blocks by hooks, not by hidden states; the norm by its name."""
    network, folder = saved(kind)
    encoder = loaded(folder)
    *_, prefix, _, has_norm = PLAIN[kind]
    blocks = next(
        module for module in network.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == 3
    )
    final: torch.nn.Module = torch.nn.Identity()
    if has_norm:
        norm_name = {"siglip": "post_layernorm", "dinov3": "norm", "aimv2": "rms_norm"}.get(kind, "layernorm")
        named = [(name, module) for name, module in network.named_modules() if name.split(".")[-1] == norm_name]
        final = min(named, key=lambda item: item[0].count("."))[1]  # AIMv2 has such norms deeper inside too
    outputs: list[Tensor] = []

    def remember(_: Any, __: Any, out: Any) -> None:
        outputs.append(out if isinstance(out, Tensor) else out[0])

    hooks = [block.register_forward_hook(remember) for block in blocks]
    images = noise(64, 64 if kind in ONE_SIZE else 96)
    official(network, images)
    for hook in hooks:
        hook.remove()
    assert len(outputs) == encoder.model.depth == 3
    for layer in range(3):
        with torch.no_grad():
            wanted = final(outputs[layer])
        got = tapped(encoder, str(layer))
        assert got.layer == str(layer) and got.embed_dim == encoder.embed_dim
        out = got(images)
        assert close(out.feature_map.flatten(1, 2), wanted[:, prefix:])
        assert close(out.global_repr, wanted[:, 0] if prefix else wanted.mean(1))
        if has_norm:
            raw = tapped(encoder, str(layer), raw=True)(images)
            assert close(raw.feature_map.flatten(1, 2), outputs[layer][:, prefix:])
            assert not close(raw.feature_map, out.feature_map)
        else:
            with pytest.raises(InputError, match="no norm after its last block: leave out --raw"):
                tapped(encoder, str(layer), raw=True)
    two = tapped(encoder, "last2")(images)
    assert two.feature_map.shape[-1] == 2 * encoder.embed_dim and close(two.global_repr[:, 32:], out.global_repr)


@pytest.mark.parametrize("kind", ["resnet", "swin", "sam", "dinov3_convnext"])
def test_stages_are_no_layers(kind: str, saved: Callable[[str], tuple[Any, Path]]) -> None:
    encoder = loaded(saved(kind)[1])
    assert tapped(encoder, "last") is encoder
    with pytest.raises(InputError, match=f"{kind} has no layers to choose from"):
        tapped(encoder, "1")


def test_facets_and_strides_are_refused(saved: Callable[[str], tuple[Any, Path]]) -> None:
    folder = saved("vit")[1]
    with pytest.raises(InputError, match="vit has no facet key: expected token"):
        tapped(loaded(folder), "1", facet="key")
    assert loaded(folder, stride=16).stride == 16
    for stride in (8, 32):
        with pytest.raises(InputError, match=f"expected a stride of 16, .*, got {stride}"):
            loaded(folder, stride=stride)
    with pytest.raises(InputError, match="not compiled: leave out --compile"):
        loaded(folder, compile=True)
    with pytest.raises(ValueError, match="multiples of the patch size 16, got 40×64"):
        loaded(folder)(noise(40, 64))


def test_one_small_image_does_not_change_swin(saved: Callable[[str], tuple[Any, Path]]) -> None:
    """transformers makes Swin's windows smaller when it sees a small image, and leaves them so."""
    network, folder = saved("swin")
    encoder = loaded(folder)
    images = noise(64, 64)
    before = encoder(images)
    with pytest.raises(InputError, match="swin takes no images of 16×16 px"):
        encoder(noise(16, 16))
    after = encoder(images)
    assert torch.equal(before.feature_map, after.feature_map)
    vector, _, patches = wanted_features("swin", official(network, images), (4, 4))
    assert close(after.feature_map, patches) and close(after.global_repr, vector)


def test_the_vision_tower_of_two(tmp_path: Path) -> None:
    clip = randomised(transformers.CLIPModel(transformers.CLIPConfig(vision_config=VIT, text_config=TEXT)))
    siglip = randomised(transformers.SiglipModel(transformers.SiglipConfig(vision_config=VIT, text_config=TEXT)))
    for kind, network in (("clip", clip), ("siglip", siglip)):
        encoder = loaded(save(network, tmp_path / kind))
        assert not [name for name, _ in encoder.model.named_parameters() if "text" in name]
        images = noise(64, 64)
        vector, _, patches = wanted_features(kind, official(network.vision_model, images), (4, 4))
        got = encoder(images)
        assert close(got.feature_map, patches) and close(got.global_repr, vector)


def test_a_fine_tuned_network_without_pooler_gives_cls(tmp_path: Path) -> None:
    """The file of a classifier has no pooler: transformers would make one up."""
    network = randomised(transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)))
    images = noise(64, 64)
    got = loaded(save(network, tmp_path / "classifier"))(images)
    tokens = official(network.vit, images).last_hidden_state
    assert close(got.global_repr, tokens[:, 0]) and close(got.feature_map.flatten(1, 2), tokens[:, 1:])


def test_size_that_is_no_multiple_of_the_patch(tmp_path: Path) -> None:
    """SigLIP's so400m takes 384 px with patches of 14 and leaves 6 px at the right and below unseen."""
    network = network_of("siglip", image_size=70)
    side = PROCESSOR | {"image_processor_type": "SiglipImageProcessor", "size": {"height": 70, "width": 70}}
    encoder = loaded(save(network, tmp_path / "seventy", side | {"do_center_crop": None, "crop_size": None}))
    p = encoder.preprocessing
    assert (p.resize, p.crop, p.dense, p.squash) == (70, 70, 64, True) and p.at(70, 16) == p
    assert crop_frame(300, 200, resize=70, crop=70, patch=16, squash=True).input_size == (64, 64)
    images = noise(70, 70)
    with torch.no_grad():
        wanted = network(pixel_values=images)
    got = encoder(images[:, :, :64, :64].contiguous())
    assert close(got.feature_map.flatten(1, 2), wanted.last_hidden_state) and close(
        got.global_repr, wanted.pooler_output
    )


@pytest.mark.parametrize("kind", ["dinov3", "vit"])
def test_bfloat16_is_that_of_transformers(kind: str, saved: Callable[[str], tuple[Any, Path]]) -> None:
    network, folder = saved(kind)
    encoder = loaded(folder, dtype="bfloat16")
    assert encoder.dtype == torch.bfloat16
    theirs = type(network).from_pretrained(folder, dtype=torch.bfloat16).eval()
    images = noise(64, 96)
    got, wanted = encoder(images), official(theirs, images.bfloat16())
    assert got.feature_map.dtype == torch.bfloat16
    assert torch.equal(got.feature_map.flatten(1, 2), wanted.last_hidden_state[:, PLAIN[kind][3] :])
    exact = official(network, images).last_hidden_state[:, 0]
    assert not torch.equal(got.global_repr.float(), exact)
    assert torch.nn.functional.cosine_similarity(got.global_repr.float(), exact).min() > 0.99


# What is not understood or not safe is refused.


class Odd(torch.nn.Module):
    """A network whose tokens are patches in another order, or too many, or no tokens at all."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.cls_token = torch.nn.Parameter(torch.ones(1, 1, 3 * 8 * 8))
        self.config = transformers.PretrainedConfig(patch_size=8, image_size=32)

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False, return_dict: bool = True) -> Any:
        patches = torch.nn.functional.unfold(pixel_values, 8, stride=8).transpose(1, 2)
        if self.fault == "columns first":
            rows, columns = pixel_values.shape[2] // 8, pixel_values.shape[3] // 8
            patches = patches.unflatten(1, (rows, columns)).transpose(1, 2).flatten(1, 2)
        parts = [self.cls_token.expand(len(patches), -1, -1), patches]
        if self.fault == "CLS at the end":
            parts.reverse()
        if self.fault == "one too many":
            parts.append(patches[:, :1])
        tokens = torch.cat(parts, dim=1)
        if self.fault == "vectors":
            tokens = tokens.mean(1)
        states = () if self.fault == "no states" else (tokens, tokens)
        return transformers.utils.ModelOutput(last_hidden_state=tokens, hidden_states=states)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("none", None),
        ("columns first", "expected row by row"),
        ("CLS at the end", "expected row by row"),
        ("no states", "expected row by row"),
        ("one too many", "gives 8 tokens of 24×16 px: expected 2×3 patches of 8 px and 1 tokens before them"),
        ("vectors", "neither tokens nor a map"),
    ],
)
def test_tokens_are_not_taken_on_trust(fault: str, message: str | None) -> None:
    if message is None:
        backbone = HuggingFaceBackbone(Odd(fault), "odd")
        assert (backbone.cls, backbone.prefix, backbone.patch_size, backbone.embed_dim) == (1, 1, 8, 192)
        return
    with pytest.raises(InputError, match=message):
        HuggingFaceBackbone(Odd(fault), "odd")


def _text(folder: Path) -> None:
    config = transformers.BertConfig(**TEXT, max_position_embeddings=16)
    transformers.BertModel(config).save_pretrained(folder)


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _written(name: str, text: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode()) and None


def _changed(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: _written(name, json.dumps(json.loads((folder / name).read_text()) | changes))(folder)


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _indexed(names: dict[str, str]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))

    return change


def _without_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    key = next(key for key in state if "cls_token" in key)
    save_file(
        {name: value for name, value in state.items() if name != key}, folder / "model.safetensors", {"format": "pt"}
    )


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_text, InputError, "is no vision backbone: its model type is bert"),
        (_without("config.json"), InputError, "has no config.json"),
        (_without("preprocessor_config.json"), InputError, "has no preprocessor_config.json"),
        (_without("model.safetensors"), InputError, "has no model.safetensors"),
        (_written("config.json", "{"), InputError, "config.json is no JSON"),
        (_written("preprocessor_config.json", "[]"), InputError, "is no JSON object"),
        (_changed("config.json", model_type="mine", auto_map={"AutoModel": "m.M"}), InputError, "no model type mine, and it brings code"),
        (_changed("config.json", num_channels=1), InputError, "images of 1 channels: expected 3"),
        (_changed("config.json", hidden_size=64), WeightsRefusedError, "cannot be loaded by transformers"),
        (_changed("config.json", hidden_size="many"), FewmatchError, "many|cannot be"),
        (_pickled, WeightsRefusedError, "weights as pickles .*, which can run code"),
        (_indexed({"a": "../model.safetensors"}), WeightsRefusedError, "names ../model.safetensors"),
        (_indexed({"a": "pytorch_model.bin"}), WeightsRefusedError, "names pytorch_model.bin"),
        (_indexed({"a": "one.safetensors"}), WeightsMissingError, "no one.safetensors"),
        (_indexed({}), WeightsRefusedError, "names no files"),
        (_truncated, WeightsRefusedError, "the weights of .* are damaged"),
        (_without_weight, WeightsRefusedError, "lacks 1 weights of ViTModel .*cls_token"),
        (_changed("preprocessor_config.json", resample=0), InputError, "resample is 0, expected one of 1 .lanczos."),
    ],
)  # fmt: skip
def test_refusals_are_one_line(
    change: Callable[[Path], None], error: type[FewmatchError], message: str,
    tmp_path: Path, saved: Callable[[str], tuple[Any, Path]],
) -> None:  # fmt: skip
    folder = tmp_path / "model"
    shutil.copytree(saved("vit")[1], folder)
    change(folder)
    with pytest.raises(error, match=message) as caught:
        loaded(folder)
    assert type(caught.value) is error or error is FewmatchError
    assert len(str(caught.value).splitlines()) == 1


def test_names_that_name_nothing(tmp_path: Path) -> None:
    for name in ("./nothing", str(tmp_path / "nothing"), "~/no such folder", "a/b/c"):
        with pytest.raises(InputError, match="no folder"):
            loaded(name)
    with pytest.raises(InputError, match="no name of a repository"):
        loaded("a b?")
    with pytest.raises(InputError, match="hf: alone names nothing"):
        loaded("")


def test_transformers_is_needed_only_here(
    monkeypatch: pytest.MonkeyPatch, saved: Callable[[str], tuple[Any, Path]]
) -> None:
    folder = saved("vit")[1]
    with monkeypatch.context() as patched:
        patched.setattr("fewmatch.encoders.hugging_face.loading._OLDEST", (99, 1))
        with pytest.raises(InputError, match=r'need transformers 99.1, got .*: pip install "fewmatch\[hf\]"'):
            loaded(folder)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r'not installed: pip install "fewmatch\[hf\]"'):
        loaded(folder)
    assert load("mini", device="cpu").name == "mini"


def test_transformers_and_torchvision_are_not_imported_without_need() -> None:
    code = (
        "import sys, fewmatch.encoders; fewmatch.load('mini', device='cpu'); "
        "sys.exit(str([m for m in ('transformers', 'huggingface_hub', 'torchvision') if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert "torchvision" not in sys.modules


# Digests and shards.


def test_digest_is_of_the_weights(tmp_path: Path, saved: Callable[[str], tuple[Any, Path]]) -> None:
    network, folder = saved("vit")
    whole = loaded(folder)
    assert whole.digest == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    network.save_pretrained(tmp_path / "parts", max_shard_size="40KB")
    shutil.copy(folder / "preprocessor_config.json", tmp_path / "parts")
    shards = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(shards) > 1
    parts = loaded(tmp_path / "parts")
    each = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in shards)
    assert parts.digest == hashlib.sha256(each.encode()).hexdigest() != whole.digest
    images = noise(64, 64)
    assert torch.equal(parts(images).feature_map, whole(images).feature_map)
    other = save(network_of("vit", seed=1), tmp_path / "other")
    assert loaded(other).digest != whole.digest


# How pixels are prepared.


def made(kind: str | None, **entries: Any) -> dict[str, Any]:
    base = {"resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return base | ({"image_processor_type": kind} if kind else {}) | entries


@pytest.mark.parametrize(
    ("processor", "wanted"),
    [
        (made("ViTImageProcessor", size={"height": 224, "width": 224}), (224, 224, True)),
        (made("ViTFeatureExtractor", size=224), (224, 224, True)),
        (made(None, feature_extractor_type="CLIPFeatureExtractor", size=224, crop_size=224, do_center_crop=True), (224, 224, False)),
        (made("CLIPImageProcessor", size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}), (256, 224, False)),
        (made("CLIPImageProcessor", size={"shortest_edge": 256}, crop_size=224, do_center_crop=False), (256, 256, False)),
        (made("DINOv3ViTImageProcessorFast", size={"height": 256, "width": 256}, crop_size=None, do_center_crop=None), (256, 256, True)),
        (made("DeiTFeatureExtractor", size=256, crop_size=224, do_center_crop=True), (256, 224, True)),
        (made("BeitFeatureExtractor", size=224, crop_size=192, do_center_crop=False), (224, 224, True)),
        (made("ConvNextFeatureExtractor", size=224, crop_pct=0.875), (256, 224, False)),
        (made("ConvNextImageProcessor", size={"shortest_edge": 224}, crop_pct=0.95), (235, 224, False)),
        (made("ConvNextImageProcessor", size={"shortest_edge": 384}, crop_pct=0.875), (384, 384, True)),
        (made("SamImageProcessor", size={"longest_edge": 1024}, do_pad=True), (1024, 1024, False)),
    ],
)  # fmt: skip
def test_sizes_as_processors_mean_them(processor: dict[str, Any], wanted: tuple[int, int, bool]) -> None:
    p = preprocessing_of(processor, "here", patch=16)
    assert (p.resize, p.crop, p.squash) == wanted and p.dense == p.crop // 16 * 16
    assert preprocessing_of(processor, "here", patch=14, image_size=518).dense == 518
    assert preprocessing_of(processor, "here", patch=14, image_size=384).dense == 378


@pytest.mark.parametrize(
    ("entries", "mean", "std"),
    [
        ({}, 0.5, 0.25),
        ({"rescale_factor": 0.00392156862745098}, 0.5, 0.25),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}, 0.5, 0.2),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, 0.5, 0.5),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"image_mean": 0.25, "image_std": 0.5}, 0.25, 0.5),
    ],
)
def test_any_factor_is_told_for_values_from_zero_to_one(entries: dict[str, Any], mean: float, std: float) -> None:
    p = preprocessing_of(made("ViT", size=32) | {"image_std": [0.25] * 3} | entries, "here", patch=16)
    assert p.mean == pytest.approx((mean,) * 3, abs=1e-12) and p.std == pytest.approx((std,) * 3, abs=1e-12)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"size": None}, "size is None, expected one number"),
        ({"size": {"shortest_edge": 480, "longest_edge": 640}}, "expected one number"),
        ({"size": {"height": 224, "width": 192}}, "expected a square"),
        ({"size": 0}, "expected a square"),
        ({"size": 8}, "images of 8 px are smaller than a patch of 16"),
        ({"crop_size": 40}, "crop_size is 40, expected at most the 32 px"),
        ({"crop_size": {"height": 16, "width": 32}}, "expected a square"),
        ({"do_center_crop": True}, "crop_size is None"),
        ({"do_resize": False}, "do_resize is off"),
        ({"resample": None}, "resample is None"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order is True"),
        ({"image_mean": None}, "image_mean is None and image_std"),
        ({"image_std": [0.5, 0.5, 0.0]}, "expected three numbers"),
        ({"image_mean": [123.0] * 3}, "image_mean is .*, expected colours"),
    ],
)
def test_preparations_that_are_refused(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^here: .*{message}.*is not supported"):
        preprocessing_of(made("ViTImageProcessor", size=32) | entries, "here", patch=16)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ViTImageProcessor", {"size": {"height": 48, "width": 48}}),
        ("ViTImageProcessor", {"size": {"height": 48, "width": 48}, "resample": 3}),
        ("ViTImageProcessor", {"size": {"height": 48, "width": 48}, "resample": 1}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}}),
        ("DeiTImageProcessor", {"size": {"height": 54, "width": 54}, "crop_size": {"height": 48, "width": 48}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 48}}),
        ("SiglipImageProcessor", {"size": {"height": 400, "width": 400}}),
    ],
)
def test_pixels_are_those_of_the_processor(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """The same file read by us and by transformers' own processor (Pillow's, without torchvision), on photos of noise and slopes."""
    module = {"ViT": "vit", "CLIP": "clip", "DeiT": "deit", "ConvNext": "convnext", "Siglip": "siglip"}[
        name.removesuffix("ImageProcessor")
    ]
    try:
        source = __import__(f"transformers.models.{module}.image_processing_pil_{module}", fromlist=["_"])
        processor = getattr(source, f"{name}Pil")(**options)
    except ModuleNotFoundError:  # the first versions 5 call the one that needs no torchvision by the plain name
        source = __import__(f"transformers.models.{module}.image_processing_{module}", fromlist=["_"])
        processor = getattr(source, name)(**options)
    processor.save_pretrained(tmp_path)
    p = preprocessing_of(json.loads((tmp_path / "preprocessor_config.json").read_text()), "here", patch=16)
    for height, width in ((100, 150), (180, 96), (64, 64)):
        y, x = np.mgrid[:height, :width]
        rng = np.random.default_rng(height)
        slopes = np.stack([x * 255 / width, y * 255 / height, (x + y) % 64 * 3], -1)
        image = np.clip(slopes + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
        wanted = processor(images=Image.fromarray(image), return_tensors="np")["pixel_values"][0]
        frame = crop_frame(width, height, resize=p.resize, crop=p.crop, patch=16, squash=p.squash)
        pixels = resample(image, frame, interpolation=p.interpolation).astype(np.float64)
        got = ((pixels / 255 - p.mean) / p.std).transpose(2, 0, 1)
        levels = np.abs(got - wanted) * 255 * np.array(p.std)[:, None, None]
        assert got.shape == wanted.shape
        if height - p.crop > 2 * (width - p.crop) and height > p.crop and p.squash:
            # Pillow 13 resizes the height of such images first, which rounds otherwise; here the width always comes first.
            assert levels.mean() < 0.25 and levels.max() < 6
        else:
            assert levels.mean() < 0.002 and levels.max() < 1.01


def test_interpolation_and_shape_reach_the_encoder(tmp_path: Path, picture: Callable[..., Path]) -> None:
    """What the file says decides the pixels that come to the network, and tells stores apart."""
    network = network_of("vit")
    seen: dict[str, tuple[bytes, str]] = {}
    path = picture(tmp_path / "set" / "a" / "0.png", 0, (90, 60))
    for name, changes in {
        "bicubic": {},
        "bilinear": {"resample": 2},
        "lanczos": {"resample": 1},
        "squash": {"size": {"height": 72, "width": 72}},
        "mean": {"image_mean": [0.3, 0.5, 0.6]},
    }.items():
        encoder = loaded(save(network, tmp_path / name / "vit", PROCESSOR | changes))
        assert encoder.name == "vit"
        plan = plan_encoding([path], encoder)
        store = encode_images([path], encoder, out=tmp_path / f"store {name}")
        p: Preprocessing = encoder.preprocessing
        frame = crop_frame(90, 60, resize=p.resize, crop=p.crop, patch=16, squash=p.squash)
        pixels = resample(np.asarray(Image.open(path)), frame, interpolation=p.interpolation)
        images = torch.from_numpy((pixels / 255 - p.mean) / p.std).permute(2, 0, 1)[None].float()
        assert np.allclose(store.global_repr(), official(network, images).last_hidden_state[:, 0], atol=1e-4)
        seen[name] = store.global_repr().tobytes(), json.dumps(plan.key)
    assert (
        len(set(seen.values()))
        == len({key for _, key in seen.values()})
        == len({vector for vector, _ in seen.values()})
        == 5
    )


def test_a_store_is_used_again_without_a_forward_pass(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, saved: Callable[[str], tuple[Any, Path]]
) -> None:
    folder = saved("dinov2_registers")[1]
    for keep in ("global", "patches"):
        first = encode_images([pictures], loaded(folder), out=tmp_path / keep, keep=keep, resize="keep")
        again = loaded(folder)
        with monkeypatch.context() as patched:
            patched.setattr(HuggingFaceBackbone, "forward", None)
            second = encode_images([pictures], again, out=tmp_path / keep, keep=keep, resize="keep")
        assert np.array_equal(first.global_repr(), second.global_repr())
    store = FeatureStore.open(tmp_path / "global")
    assert store.key["encoder"]["digest"] == again.digest and store.key["encoder"]["name"] == "dinov2_registers"


# Repositories: a Hub of our own on this machine.


class Hub:
    """What huggingface_hub asks for: `files` of one repository at one commit; `refusals` by repository are error codes of the Hub."""

    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.fetched: list[str] = []
        self.revisions: list[str] = []
        self.port = 0


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, body: bool) -> None:
            repo, _, rest = self.path.removeprefix("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            hub.revisions.append(revision)
            if repo in hub.refusals:
                status, code = hub.refusals[repo]
                headers, data = {"X-Error-Code": code, "X-Error-Message": code}, b""
            elif name not in hub.files:
                status, headers, data = 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit}, b""
            else:
                data = hub.files[name]
                etag = hashlib.sha256(data).hexdigest()
                status, headers = 200, {"X-Repo-Commit": hub.commit, "ETag": f'"{etag}"'}
                if body:
                    hub.fetched.append(name)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name in ("FEWMATCH_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.port}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of connections that huggingface_hub keeps open
        yield hub
        import huggingface_hub

        getattr(huggingface_hub, "close_session", lambda: None)()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_repository_is_fetched_once(
    hub: Hub, saved: Callable[[str], tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    _, folder = saved("dinov2")
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"pytorch_model.bin": b"never"}
    told: list[tuple[int, int | None]] = []
    encoder = loaded("someone/dinov2-tiny", progress=lambda done, total: told.append((done, total)))
    assert encoder.name == "hf:someone/dinov2-tiny"
    assert sorted(hub.fetched) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert (tmp_path / "hub" / "models--someone--dinov2-tiny" / "snapshots" / hub.commit / "config.json").is_file()
    # Whatever happens on the Hub meanwhile, all files are of one commit.
    assert hub.revisions[0] == "main" and hub.commit in hub.revisions
    assert "main" not in hub.revisions[hub.revisions.index(hub.commit) :]
    size = len(hub.files["model.safetensors"])
    assert "tqdm_class" not in _download_arguments() or (size, size) in told
    images = noise(64, 64)
    assert torch.equal(encoder(images).feature_map, loaded(folder)(images).feature_map)
    assert encoder.digest == loaded(folder).digest
    for variable in ("FEWMATCH_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as patched:
            patched.setenv(variable, "1")
            patched.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
            assert loaded("someone/dinov2-tiny").digest == encoder.digest
    hub.fetched.clear()
    loaded("someone/dinov2-tiny")
    assert hub.fetched == []


def _download_arguments() -> set[str]:
    import inspect

    from huggingface_hub import hf_hub_download

    return set(inspect.signature(hf_hub_download).parameters)


@pytest.mark.parametrize("variable", ["FEWMATCH_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_what_is_missing_and_how_to_get_it(
    hub: Hub, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(WeightsMissingError) as caught:
        loaded("someone/never-seen")
    message = str(caught.value)
    assert "hf:someone/never-seen" in message and f"{variable} forbids" in message and len(message.splitlines()) == 1
    assert str(hf_hub_cache() / "models--someone--never-seen") in message
    assert "`hf download someone/never-seen config.json preprocessor_config.json model.safetensors`" in message
    assert hub.fetched == []


@pytest.mark.parametrize(
    ("left_out", "error", "message"),
    [
        ("config.json", InputError, "has no config.json"),
        ("preprocessor_config.json", InputError, "has no preprocessor_config.json"),
        ("model.safetensors", InputError, "has no model.safetensors"),
    ],
)
def test_repositories_that_lack_something(
    left_out: str, error: type[FewmatchError], message: str, hub: Hub, saved: Callable[[str], tuple[Any, Path]],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.files = {path.name: path.read_bytes() for path in saved("vit")[1].iterdir() if path.name != left_out}
    with pytest.raises(error, match=message):
        loaded("someone/lacking")
    assert "model.safetensors" not in hub.fetched
    if left_out == "model.safetensors":
        hub.files["pytorch_model.bin"] = b"never"
        with pytest.raises(WeightsRefusedError, match="pickles"):
            loaded("someone/lacking")
        assert "pytorch_model.bin" not in hub.fetched
    monkeypatch.setenv("FEWMATCH_OFFLINE", "1")
    with pytest.raises(WeightsMissingError, match="FEWMATCH_OFFLINE forbids to fetch"):
        loaded("someone/lacking")


def test_processor_inside_a_processor_config(
    hub: Hub, tmp_path: Path, saved: Callable[[str], tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.files = {path.name: path.read_bytes() for path in saved("vit")[1].iterdir()}
    inner = json.loads(hub.files.pop("preprocessor_config.json"))
    hub.files["processor_config.json"] = json.dumps(
        {"image_processor": inner, "processor_class": "CLIPProcessor"}
    ).encode()
    assert loaded("someone/nested").preprocessing == loaded(saved("vit")[1]).preprocessing


@pytest.mark.parametrize(
    ("refusal", "error", "code", "message"),
    [
        ((403, "GatedRepo"), WeightsMissingError, 4, "only on request|gives them on request"),
        ((404, "RepoNotFound"), InputError, 2, "no such repository"),
        ((500, ""), WeightsMissingError, 4, "someone/refused"),
    ],
)
def test_repositories_that_are_not_given(
    refusal: tuple[int, str], error: type[FewmatchError], code: int, message: str, hub: Hub
) -> None:
    hub.refusals["someone/refused"] = refusal
    with pytest.raises(error, match=message) as caught:
        loaded("someone/refused")
    assert caught.value.exit_code == code and len(str(caught.value).splitlines()) == 1


def test_a_hub_that_cannot_be_reached(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsMissingError, match=r"cannot be reached|refused|Cannot send"):
        loaded("someone/else")


# The golden files of our own families, where transformers has the same network.


GOLDEN = ["dinov2", "dinov2_reg", "dinov2_swiglu", "dinov2_swiglu_reg", "dinov3", "dinov3_swiglu", "mae", "clip", "sam"]


@pytest.mark.parametrize("family", GOLDEN)
def test_golden_numbers(family: str, shared_golden: Path, tmp_path: Path) -> None:
    """The official numbers where transformers has them too; its own where it differs (positions of DINOv2 without registers)."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(shared_golden / "hf" / f"{family}.safetensors", "pt") as file:
        meta = file.metadata()
        theirs = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    network = getattr(transformers, meta["hf_class"])
    config = network.config_class(**json.loads(meta["hf_config"]))
    config.save_pretrained(tmp_path)
    state = {key.removeprefix("hf_state/"): value for key, value in theirs.items() if key.startswith("hf_state/")}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    encoder = loaded(tmp_path)
    compared = 0
    with safe_open(shared_golden / f"{family}.safetensors", "pt") as file:
        keys = set(file.keys())
        for number in range(3):
            if f"input/{number}" not in keys:
                continue
            images = file.get_tensor(f"input/{number}").float() * float(file.metadata()["input_scale"])
            got = encoder(images)
            for name in ("global_repr", "registers", "feature_map"):
                # CLIP's patches are those before the final norm in transformers.
                key = f"{number}/" + ("last/patch_prenorm" if (family, name) == ("clip", "feature_map") else name)
                if f"expected/{key}" not in keys:
                    continue
                wanted = theirs.get(f"hf_expected/{key}", file.get_tensor(f"expected/{key}"))
                value = getattr(got, name).reshape(wanted.shape)
                assert (value - wanted).abs().max() <= 2e-5 * wanted.abs().max(), (number, name)
                compared += 1
    assert compared


# --- state dicts of networks in the memory of transformers, whose names are not those of its files

#: The Hugging Face golden files whose network has an official counterpart of ours, and whether the family has to be told.
IN_MEMORY = {
    "dinov2": "", "dinov2_reg": "", "dinov2_swiglu": "", "dinov2_swiglu_reg": "", "dinov3": "", "dinov3_swiglu": "", "sam": "",
    "mae": "mae:", "clip": "clip:", "open_clip": "open_clip:",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_registers", "dinov3", "vit", "mae", "msn", "clip", "sam"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_states_of_live_networks_are_those_of_their_files(
    kind: str, prefix: str, saved: Callable[[str], tuple[Any, Path]], tmp_path: Path
) -> None:
    network, folder = saved(kind)
    family = {"dinov2_registers": "dinov2_reg", "vit": "dino"}.get(kind, kind)
    torch.save({prefix + key: value for key, value in network.state_dict().items()}, path := tmp_path / "live.pth")
    file, live = (from_state_dict(read_weights(place), family, heads=2) for place in (folder, path))
    assert live.source["prefix"].startswith(prefix) and live.digest == file.digest
    assert torch.equal(live(noise(64, 64)).feature_map, file(noise(64, 64)).feature_map)


@pytest.mark.parametrize("name", IN_MEMORY)
def test_states_of_live_networks_give_the_official_numbers(name: str, shared_golden: Path, tmp_path: Path) -> None:
    with safe_open(shared_golden / "hf" / f"{name}.safetensors", "pt") as file:
        meta = file.metadata()
        names = [key for key in list(file.keys()) if key.startswith("hf_state/")]
        state = {key.removeprefix("hf_state/"): file.get_tensor(key) for key in names}
    network = getattr(transformers, meta["hf_class"])
    config = json.loads(meta["hf_config"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(state, tmp_path / "model.safetensors")
    live = network.from_pretrained(tmp_path)
    torch.save(live.state_dict(), path := tmp_path / "live.pth")
    with safe_open(shared_golden / f"{name}.safetensors", "pt") as file:
        number = sorted(key for key in file.keys() if key.startswith("input/"))[-1].removeprefix("input/")  # noqa: SIM118
        images = file.get_tensor(f"input/{number}").float() * float(file.metadata()["input_scale"])
        wanted = file.get_tensor(f"expected/{number}/feature_map")
    family = IN_MEMORY[name].removesuffix(":") or None
    encoder = from_state_dict(read_weights(path), family, heads=config["num_attention_heads"])
    got = encoder(images).feature_map
    assert float((got - wanted).abs().max() / wanted.abs().max()) < 2e-5


@pytest.mark.parametrize(
    ("kind", "family"), [("Dinov2", "dinov2"), ("ViT", "dino"), ("Dinov2WithRegisters", "dinov2_reg")]
)
def test_classifiers_of_transformers_load_without_their_heads(kind: str, family: str) -> None:
    network = getattr(transformers, f"{kind}ForImageClassification")(
        getattr(transformers, f"{kind}Config")(**VIT, num_labels=3)
    )
    encoder = from_state_dict(randomised(network).state_dict(), family, heads=2)
    bare = next(module for name, module in network.named_children() if name != "classifier").state_dict()
    assert torch.equal(
        encoder(noise(64, 64)).global_repr, from_state_dict(bare, family, heads=2)(noise(64, 64)).global_repr
    )
