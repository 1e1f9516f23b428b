"""Equal keys mean equal numbers: whatever changes features changes the key, and kept features are never those of another encoder."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from patch_local import PatchLocalEncoder

from fewmatch.encoders import FeatureStore, FrozenEncoder, catalogue, encode_images, from_state_dict, identity, tapped
from fewmatch.encoders.identity import encoder_facts, key_difference, key_digest, plain_json, require_known_encoder
from fewmatch.encoders.models.vit import VisionTransformer, ViTArchitecture
from fewmatch.encoders.store.store import META, Shard, write_manifest
from fewmatch.errors import InputError, OutputExistsError

SMALL = {"embed_dim": 16, "depth": 2, "heads": 2, "patch_size": 4, "position_grid": 3, "hidden_dim": 32}


def state(seed: int = 0, **changes: Any) -> dict[str, torch.Tensor]:
    model = VisionTransformer(ViTArchitecture(**{**SMALL, **changes}))
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(value.shape, generator=generator) for key, value in model.state_dict().items()}


STATE = state()


def encoder(weights: dict[str, torch.Tensor] = STATE, family: str = "dinov2", **options: Any) -> FrozenEncoder:
    return from_state_dict(weights, family, name="small", heads=options.pop("heads", 2), **options)


def prepared(**changes: Any) -> FrozenEncoder:
    one = encoder()
    one.preprocessing = dataclasses.replace(one.preprocessing, **changes)
    return one


#: What a number depends on: an encoder and the options of `encode_images` that differ from the plain case in this alone.
INGREDIENTS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "weights": (lambda: encoder(STATE | {"norm.bias": STATE["norm.bias"] + 1e-3}), {}),
    "heads": (lambda: encoder(heads=4), {}),
    "activation": (lambda: encoder(act="quick-gelu"), {}),
    "eps": (lambda: encoder(eps=1e-3), {}),
    "pool": (lambda: encoder(pool="mean"), {}),
    "position rule": (lambda: encoder(positions="size"), {}),
    "stride": (lambda: encoder(stride=2), {}),
    "dtype": (lambda: encoder(dtype="bfloat16"), {}),
    "layer": (lambda: tapped(encoder(), "0"), {}),
    "raw": (lambda: tapped(encoder(), "1", raw=True), {}),
    "facet": (lambda: tapped(encoder(), "1", facet="key"), {}),
    "mean": (lambda: prepared(mean=(0.5, 0.5, 0.5)), {}),
    "deviation": (lambda: prepared(std=(0.5, 0.5, 0.5)), {}),
    "interpolation": (lambda: prepared(interpolation="bilinear"), {}),
    "size": (encoder, {"size": 20}),
    "resize rule": (encoder, {"resize": "squash"}),
    "mirror": (encoder, {"mirror": True}),
    "fast decoding": (encoder, {"fast_decode": True}),
    "value range": (encoder, {"value_range": "auto"}),
    "two values": (encoder, {"value_range": (0, 4095)}),
    "resize before the crop": (lambda: prepared(resize=40), {"keep": "global"}),
    "squash before the crop": (lambda: prepared(squash=True), {"keep": "global"}),
    "crops": (encoder, {"keep": "global", "crops": 5}),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large JPEG, which fast decoding reduces, and a 16-bit PNG of 12-bit values."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    (folder / "large.jpg").write_bytes(cv2.imencode(".jpg", coarse)[1].tobytes())
    deep = cv2.resize(rng.integers(0, 4096, (12, 16, 3)).astype(np.uint16), (48, 36), interpolation=cv2.INTER_NEAREST)
    (folder / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    return folder


def numbers(store: FeatureStore) -> list[np.ndarray]:
    maps = [store.feature_map(i) for i in range(len(store))] if store.key["keep"] == "patches" else []
    return [store.global_repr(), *maps]


@pytest.mark.parametrize("ingredient", INGREDIENTS)
def test_whatever_changes_the_features_changes_the_key(ingredient: str, photos: Path) -> None:
    make, options = INGREDIENTS[ingredient]
    options = {"keep": "patches", "size": 24, **options}
    plain = {"keep": options["keep"], "size": 24}
    one, other = encode_images([photos], encoder(), **plain), encode_images([photos], make(), **options)
    assert one.path != other.path  # the cache keeps them apart
    assert key_digest(one.key) != key_digest(other.key) and key_difference(one.key, other.key)
    assert any(
        a.shape != b.shape or not np.array_equal(a, b) for a, b in zip(numbers(one), numbers(other), strict=True)
    )
    again = encode_images([photos], encoder(), **plain)
    assert again.key == one.key and again.path == one.path
    assert all(np.array_equal(a, b) for a, b in zip(numbers(one), numbers(again), strict=True))


def test_the_family_is_part_of_the_key_even_where_the_network_is_the_same() -> None:
    weights = state(layer_scale=False)
    one, other = (encoder_facts(encoder(weights, family)) for family in ("dino", "ibot"))
    assert (one["family"], other["family"]) == ("dino", "ibot") and one["architecture"] == other["architecture"]
    assert key_difference({"encoder": one}, {"encoder": other}) == "encoder family was dino, now ibot"


def test_every_option_of_an_architecture_is_in_the_key() -> None:
    facts = encoder_facts(encoder())["architecture"]
    assert facts.keys() == {field.name for field in dataclasses.fields(ViTArchitecture)}
    assert json.loads(json.dumps(facts)) == facts


def test_a_store_of_a_guess_is_not_used_for_another_family(photos: Path, tmp_path: Path) -> None:
    """The same name and the same weights: only the activation differs."""
    encode_images([photos], encoder(), out=tmp_path / "store", size=24)
    with pytest.raises(OutputExistsError, match="encoder architecture act was gelu, now quick-gelu"):
        encode_images([photos], encoder(act="quick-gelu"), out=tmp_path / "store", size=24)


def test_encoders_without_a_digest_are_told_apart_by_what_they_compute(pictures: Path) -> None:
    def without_digest(seed: int) -> PatchLocalEncoder:
        made = PatchLocalEncoder(seed=seed)
        del made.digest
        return made

    one, same, other = (encode_images([pictures], without_digest(seed)) for seed in (0, 0, 1))
    assert one.path == same.path != other.path and one.key["encoder"]["digest"] is None
    assert not np.array_equal(one.global_repr(), other.global_repr())
    second = without_digest(0)
    encode_images([pictures], second)
    assert second.images_seen == 1  # the fixed image of the fingerprint, and none of the pictures


def test_hugging_face_configurations_are_in_the_key(tmp_path: Path, photos: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    stores = []
    for act in ("gelu", "relu"):
        torch.manual_seed(0)
        folder = tmp_path / act / "net"  # the same name
        network = transformers.ViTModel(
            transformers.ViTConfig(**sizes, image_size=32, patch_size=8, hidden_act=act), add_pooling_layer=False
        )
        network.save_pretrained(folder)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
        from fewmatch.encoders import load

        stores.append(encode_images([photos], load(f"hf:{folder}", device="cpu", dtype="float32")))
    one, other = stores
    assert one.key["encoder"]["digest"] == other.key["encoder"]["digest"]  # the same weights
    assert key_difference(one.key, other.key) == "encoder architecture hidden_act was gelu, now relu"
    assert one.path != other.path and not np.array_equal(one.global_repr(), other.global_repr())


def test_values_that_json_lacks_become_text() -> None:
    given = {"a": (1, 2.5, None), 3: float("inf"), "b": {"c": torch.float16}, "d": True}
    assert plain_json(given) == {"a": [1, 2.5, None], "3": "inf", "b": {"c": "torch.float16"}, "d": True}


# --- replaced files


def test_a_replaced_image_of_the_same_size_and_time_is_encoded_again(pictures: Path, tmp_path: Path) -> None:
    target = pictures / "a" / "0.png"
    padded = max((pictures / "a" / name).stat().st_size for name in ("0.png", "1.png"))
    images = [(pictures / "a" / name).read_bytes().ljust(padded, b"\0") for name in ("0.png", "1.png")]
    target.write_bytes(images[0])
    os.utime(target, (1, 1))
    before = encode_images([pictures], PatchLocalEncoder(), out=tmp_path / "store").global_repr()
    time.sleep(0.02)  # longer than a step of the file system's clock
    target.write_bytes(images[1])
    os.utime(target, (1, 1))
    run = PatchLocalEncoder()
    again = encode_images([pictures], run, out=tmp_path / "store")
    assert run.images_seen == 1
    row = next(i for i, line in enumerate(again.images) if line["path"] == "a/0.png")
    assert not np.array_equal(before[row], again.global_repr()[row])
    assert np.array_equal(again.global_repr()[row], again.global_repr()[again.names.index("a/1.png")])


# --- stores and models of version 0.1


def as_schema_1(store: FeatureStore, facts: dict[str, Any]) -> None:
    """Rewrite a store as version 0.1 wrote it: no family, no architecture, one checksum over a shard, none of the manifest."""
    import hashlib

    import safetensors.torch

    key = store.key | {"encoder": facts}
    names = {row["shard"] for row in store.rows}
    shards = {name: Shard.read(store.path / name, key_digest(store.key)) for name in names}
    for name, shard in shards.items():
        rows = [{k: v for k, v in row.items() if k not in ("ctime_ns", "inode")} for row in shard.rows]
        tensors = {"global_repr": shard.global_repr} | (
            {} if shard.feature_map is None else {"feature_map": shard.feature_map}
        )
        total = hashlib.sha256()
        for entry, tensor in sorted(tensors.items()):
            total.update(f"{entry} {tuple(tensor.shape)} {tensor.dtype}".encode())
            total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        header = {"features": total.hexdigest(), "key": key_digest(key), "rows": rows, "sha256": "0" * 64}
        data = safetensors.torch.save(tensors, {"fewmatch": identity.canonical(header).decode()})
        length = 8 + int.from_bytes(data[:8], "little")
        before, _, after = data[:length].rpartition(b"0" * 64)
        signed = before + hashlib.sha256(data[:length]).hexdigest().encode() + after
        (store.path / name).write_bytes(signed + data[length:])
    write_manifest(store.path, [{k: v for k, v in row.items() if k not in ("ctime_ns", "inode")} for row in store.rows])
    (store.path / "manifest.sha256").unlink()
    (store.path / META).write_text(json.dumps({"schema": 1, "key": key}))


def old_facts(store: FeatureStore, **changes: Any) -> dict[str, Any]:
    facts = {k: v for k, v in store.key["encoder"].items() if k not in ("family", "architecture")}
    return facts | changes


@pytest.fixture
def old(pictures: Path, tmp_path: Path) -> tuple[FeatureStore, list[np.ndarray]]:
    """A store that is about to become one of version 0.1 of `mini`, and its numbers."""
    digest = catalogue.find("mini").sha256
    made = PatchLocalEncoder(digest=digest, family="dinov2_reg", architecture={"heads": 4})
    made.name = "mini"
    store = encode_images([pictures], made, out=tmp_path / "store", keep="patches")
    return store, numbers(store)


def test_an_old_store_of_a_published_encoder_is_read(
    old: tuple[FeatureStore, list[np.ndarray]], pictures: Path
) -> None:
    store, before = old
    key = store.key
    as_schema_1(store, old_facts(store))
    opened = FeatureStore.open(store.path)
    opened.verify()
    assert all(np.array_equal(a, b) for a, b in zip(numbers(opened), before, strict=True))
    assert key_difference(opened.key, key) is None and key_difference(key, opened.key) is None
    assert key_difference(opened.key, key | {"layer": "3"}) == "layer was last, now 3"
    made = PatchLocalEncoder(digest=key["encoder"]["digest"], family="dinov2_reg", architecture={"heads": 4})
    made.name = "mini"
    with pytest.raises(OutputExistsError, match="older fewmatch, whose stores can be read but not added to"):
        encode_images([pictures], made, out=store.path, keep="patches")
    shard = store.path / opened.images[0]["shard"]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for index in (0, 7):  # there is one checksum for all maps of a shard
        with pytest.raises(Exception, match="its checksum differs"):
            FeatureStore.open(store.path).feature_map(index)


WITHOUT_DIGEST = next(record.name for record in catalogue.checkpoints() if not record.sha256)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "ft"}, "ft is no encoder of the catalogue"),
        ({"digest": "0" * 64}, "its weights are not those of mini in the catalogue"),
        ({"name": WITHOUT_DIGEST}, f"no SHA-256 of {WITHOUT_DIGEST} is known"),
    ],
)
def test_an_old_store_that_does_not_say_enough_is_refused(
    old: tuple[FeatureStore, list[np.ndarray]], changes: dict[str, Any], reason: str
) -> None:
    store, _ = old
    as_schema_1(store, old_facts(store, **changes))
    with pytest.raises(InputError, match=f"did not record the encoder's family and architecture, and {reason}: encode"):
        FeatureStore.open(store.path)


def test_what_says_family_and_architecture_is_known() -> None:
    require_known_encoder(encoder_facts(encoder()), "it", "nothing")
