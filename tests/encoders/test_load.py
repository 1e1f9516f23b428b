"""Names, files and caches to encoders, and what is refused on the way."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fewmatch.encoders import catalogue, from_state_dict, identity, load
from fewmatch.encoders.identity import file_digest
from fewmatch.encoders.models.vit import VisionTransformer, ViTArchitecture
from fewmatch.errors import InputError, WeightsMissingError, WeightsRefusedError

SMALL = {"embed_dim": 8, "depth": 2, "heads": 2, "patch_size": 4, "position_grid": 3, "hidden_dim": 16}


def small_state(**changes: object) -> dict[str, torch.Tensor]:
    model = VisionTransformer(ViTArchitecture(**{**SMALL, **changes}))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(value.shape, generator=generator) for key, value in model.state_dict().items()}


IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 12).view(2, 3, 8, 12)


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "folder", "teacher", "wrapped", "chunked"])
def test_files_in_every_wrapping_give_the_same_encoder(tmp_path: Path, suffix: str) -> None:
    state = small_state()
    wanted = from_state_dict(state, "dinov2", heads=2)(IMAGES).global_repr
    path = tmp_path / "weights.pth"
    match suffix:
        case "pth":
            torch.save(state, path)
        case "safetensors":
            save_file(state, path := tmp_path / "weights.safetensors")
        case "folder":
            (path := tmp_path / "folder").mkdir()
            save_file(state, path / "model.safetensors")
        case "teacher":
            torch.save({"epoch": 3, "teacher": {f"backbone.{key}": value for key, value in state.items()}}, path)
        case "wrapped":
            torch.save(
                {"model": {f"module.backbone.{k}": v for k, v in state.items()} | {"module.head.w": torch.ones(1)}},
                path,
            )
        case "chunked":
            torch.save({k.replace("blocks.", "blocks.0."): v for k, v in state.items()}, path)
    from fewmatch.encoders.weights.checkpoint import read_weights

    got = from_state_dict(read_weights(path), heads=2)
    assert got.family == "dinov2"
    torch.testing.assert_close(got(IMAGES).global_repr, wanted, rtol=0, atol=0)


def test_load_takes_a_path_and_says_so_in_name_and_digest(tmp_path: Path) -> None:
    state = small_state(embed_dim=64, heads=1, registers=4)
    save_file(state, path := tmp_path / "my model.safetensors")
    encoder = load(path, device="cpu", dtype="float32")
    assert (encoder.name, encoder.family, encoder.embed_dim, encoder.patch_size) == ("my model", "dinov2_reg", 64, 4)
    assert encoder.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert encoder(IMAGES).feature_map.shape == (2, 2, 3, 64)


def test_gradients_are_off_and_dropout_is_too() -> None:
    encoder = load("mini", device="cpu")
    assert not any(p.requires_grad for p in encoder.model.parameters()) and not encoder.model.training
    assert not encoder(torch.zeros(1, 3, 64, 64)).global_repr.requires_grad


@pytest.mark.parametrize(
    ("place", "variable"),
    [
        ("hub/checkpoints/dinov2_vits14_pretrain.pth", "TORCH_HOME"),
        ("weights/dinov2_vits14_pretrain.pth", "FEWMATCH_HOME"),
    ],
)
def test_caches_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, variable: str) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / place).parent.mkdir(parents=True)
    torch.save(small_state(embed_dim=12), tmp_path / place)  # a width that the six heads of the record divide
    assert catalogue.find("dinov2_vits14").location() == ("cached", tmp_path / place)
    with pytest.raises(WeightsRefusedError, match=r"expected SHA-256 b938bf1b.*\(observed\), got .*--trust-digest"):
        load("dinov2_vits14")
    encoder = load(
        "dinov2_vits14", device="cpu", dtype="float32", trust_digest=True
    )  # heads and sizes are the file's own
    assert encoder.name == "dinov2_vits14"


def test_the_hugging_face_cache_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    snapshot = tmp_path / "hub" / "models--facebook--dinov2-small" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    save_file(small_state(), snapshot / "model.safetensors")
    assert catalogue.find("dinov2_vits14").location() == ("cached", snapshot / "model.safetensors")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert catalogue.find("dinov2_vits14").location() is None


def test_absent_weights_come_with_full_instructions() -> None:
    with pytest.raises(WeightsMissingError) as caught:
        load("dinov2_vitl14_reg")
    text = str(caught.value)
    for part in (
        "dinov2_vitl14_reg4_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth",
        "36e4deffbaef",
        os.environ["FEWMATCH_HOME"],
        "curl",
        "-e mini",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("name", "near"), [("dinov2_vits", "dinov2_vits14"), ("Mini", "mini"), ("dinov2-vitb14", "dinov2_vitb14")]
)
def test_unknown_names_suggest_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"did you mean .*{near}"):
        load(name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weights at .*nowhere\.pth"):
        load(tmp_path / "nowhere.pth")


class Bomb:
    """Pickled, it would make a file when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    trap = tmp_path / "executed"
    path = tmp_path / "evil.pth"
    torch.save({"cls_token": Bomb(str(trap))}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsRefusedError, match="nothing was run"):
        load(path)
    assert not trap.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x80\x02}q\x00.", b"PK\x03\x04 half a zip"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    (path := tmp_path / f"weights{suffix}").write_bytes(content)
    with pytest.raises(WeightsRefusedError) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    torch.save(small_state(), path := tmp_path / "weights.pth")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(WeightsRefusedError):
        load(path)
    save_file(small_state(), path := tmp_path / "weights.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsRefusedError):
        load(path)


def test_pickles_without_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": {"lr": 0.1}}, path := tmp_path / "weights.pth")
    with pytest.raises(WeightsRefusedError, match="holds no state dict"):
        load(path)
    (path := tmp_path / "plain.pth").write_bytes(pickle.dumps([1, 2], protocol=2))
    with pytest.raises(WeightsRefusedError):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.bias"), r"1 missing \(norm.bias\)"),
        (lambda s: s.update(extra=torch.ones(1)), r"1 unexpected \(extra\)"),
        (
            lambda s: s.update({"blocks.1.norm1.bias": torch.ones(5)}),
            r"blocks.1.norm1.bias has shape \(5,\), expected \(8,\)",
        ),
        (lambda s: s.pop("cls_token"), "no entry cls_token"),
        (lambda s: s.update(pos_embed=torch.ones(1, 11, 8)), "square grid"),
        (lambda s: s.update(register_tokens=torch.ones(1, 4, 8)), "is it dinov2_reg"),
    ],
)
def test_other_keys_or_shapes_are_named(change: object, message: str) -> None:
    state = small_state()
    change(state)  # type: ignore[operator]
    with pytest.raises(WeightsRefusedError, match=message):
        from_state_dict(state, "dinov2", heads=2)


def test_unknown_families_and_options_are_named() -> None:
    with pytest.raises(InputError, match=r"no family called dinov9: expected one of .*dinov2, dinov2_reg"):
        from_state_dict(small_state(), "dinov9", heads=2)
    with pytest.raises(InputError, match="no architecture option head"):
        from_state_dict(small_state(), "dinov2", head=2)
    with pytest.raises(WeightsRefusedError, match="no known family"):
        from_state_dict({"conv.weight": torch.ones(1)})
    with pytest.raises(WeightsRefusedError, match="pass heads="):
        from_state_dict(small_state(), "dinov2")


def test_every_option_of_from_state_dict_changes_what_it_should() -> None:
    state = small_state()
    base = from_state_dict(state, "dinov2", heads=2)
    assert not torch.equal(from_state_dict(state, "dinov2", heads=4)(IMAGES).global_repr, base(IMAGES).global_repr)
    assert not torch.equal(
        from_state_dict(state, "dinov2", heads=2, eps=1.0)(IMAGES).global_repr, base(IMAGES).global_repr
    )
    assert from_state_dict(state, "dinov2", heads=2, dtype="float16").dtype == torch.float16
    assert from_state_dict(state, "dinov2", heads=2, name="mine").name == "mine"
    assert base.digest != from_state_dict({**state, "norm.bias": state["norm.bias"] + 1}, "dinov2", heads=2).digest


@pytest.mark.parametrize("device", ["cuda", "mps", "tpu", "cuda:7"])
def test_devices_that_are_not_here_are_refused(device: str) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has an accelerator")
    with pytest.raises(InputError, match=r"no (device called|cuda device|mps device)"):
        load("mini", device=device)


def test_unknown_dtypes_are_refused() -> None:
    with pytest.raises(InputError, match="no dtype int8"):
        load("mini", dtype="int8")


def test_hugging_face_names_with_a_missing_part_are_refused() -> None:
    state = {
        "embeddings.cls_token": torch.ones(1, 1, 8),
        "embeddings.patch_embeddings.projection.weight": torch.ones(8, 3, 4, 4),
        "encoder.layer.0.attention.attention.query.bias": torch.ones(8),
    }
    with pytest.raises(WeightsRefusedError, match=r"query\.bias comes without .*key\.bias"):
        from_state_dict(state, "dinov2", heads=2)


def test_digests_are_remembered_and_forgotten_when_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path := tmp_path / "file").write_bytes(b"one")
    first = file_digest(path)
    assert first == hashlib.sha256(b"one").hexdigest() == file_digest(path)
    memory = Path(os.environ["FEWMATCH_HOME"]) / "digests.json"
    assert not memory.exists() or str(path) not in json.loads(
        memory.read_text()
    )  # the file is too young for its time of change to tell anything
    monkeypatch.setattr(identity, "_SETTLED_NS", 0)
    assert file_digest(path) == first == json.loads(memory.read_text())[str(path)][-1]
    before = path.stat()
    memory.write_text(memory.read_text().replace(first, "remembered"))
    assert file_digest(path) == "remembered"
    time.sleep(0.02)  # longer than a step of the file system's clock
    for replace in (lambda: path.write_bytes(b"two"), lambda: (path.unlink(), path.write_bytes(b"two"))):
        replace()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` and `rsync` do
        assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
        assert file_digest(path) == hashlib.sha256(b"two").hexdigest()
    path.write_bytes(b"other")
    assert file_digest(path) == hashlib.sha256(b"other").hexdigest()
    memory.write_text("[broken")
    assert file_digest(path) == hashlib.sha256(b"other").hexdigest()


def test_a_new_record_is_all_a_checkpoint_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    made_up = catalogue.Checkpoint(
        name="made_up",
        family="dinov2",
        filename="made_up.pth",
        preprocessing=catalogue.Preprocessing(resize=16, crop=12, dense=12),
        architecture={"heads": 2},
        licence="MIT",
        source="this test",
    )
    from fewmatch.encoders.catalogue import dinov2

    monkeypatch.setattr(dinov2, "RECORDS", (*dinov2.RECORDS, made_up))
    catalogue.checkpoints.cache_clear()
    try:
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        torch.save(small_state(), tmp_path / "hub" / "checkpoints" / "made_up.pth")
        encoder = load("made_up", device="cpu", dtype="float32")
        assert encoder(IMAGES).global_repr.shape == (2, 8) and encoder.preprocessing.crop == 12
    finally:
        catalogue.checkpoints.cache_clear()
