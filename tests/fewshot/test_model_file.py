"""A labeller on disk: the same results, the same bytes, and nothing but one clear line for any other file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from fewmatch.encoders.identity import canonical, state_digest
from fewmatch.errors import InputError
from fewmatch.fewshot import METHODS, Labeller
from fewmatch.fewshot.labelling.model_file import load_labeller, save_labeller

KEY = {"encoder": {"name": "mini", "digest": "abc"}, "layer": "last"}


def data(seed: int = 0, dtype: type = np.float32) -> tuple[np.ndarray, list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = [*["dog"] * 4, *["caf\udce9"] * 3, *["emu"] * 2]
    return (rng.normal(size=(9, 6)) + 2).astype(dtype), labels, (rng.normal(size=(5, 6)) + 2).astype(dtype)


CHOICES: list[dict[str, Any]] = [
    {"method": name} for name, m in METHODS.items() if not m.transductive and m.center != "base"
] + [
    {"center": "none"},
    {"center": "feature", "metric": "cosine"},
    {"center": "base", "base": np.random.default_rng(9).normal(size=(4, 6))},
    {"prenormalize": True, "temperature": "auto", "reject": "auto", "accept": 0.7},
    {"temperature": 3.5, "reject": 0.25},
    {"method": "knn", "options": {"k": 3}},
    {"method": "ridge", "options": {"penalty": 0.1}},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_labeller_gives_the_very_same_results(choice: dict[str, Any], dtype: type, tmp_path: Path) -> None:
    x, labels, q = data(dtype=dtype)
    made = Labeller(x, labels, **choice)
    path = save_labeller(made, tmp_path / "m.safetensors", KEY)
    read, key = load_labeller(path)
    assert key == KEY and read.class_names == made.class_names == ["caf\udce9", "dog", "emu"]
    assert (read.probabilities(q) == made.probabilities(q)).all()
    assert (read.similarity(q) == made.similarity(q)).all()
    assert read.labels(q) == made.labels(q)
    assert (read.temperature, read.reject, read.prenormalize) == (made.temperature, made.reject, made.prenormalize)
    for name in ("temperature", "reject", "options", "center", "method"):
        assert getattr(read.fitted, name) == getattr(made.fitted, name)
    again = save_labeller(read, tmp_path / "again.safetensors", KEY)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "choice", [{"center": "separate"}, *({"method": n} for n, m in METHODS.items() if m.transductive)], ids=str
)
def test_what_uses_queries_as_a_set_cannot_be_saved(choice: dict[str, Any], tmp_path: Path) -> None:
    if METHODS[choice.get("method", "ncm")].center == "base":
        choice = choice | {"base": np.ones((2, 6)) * np.array([[1.0], [2.0]])}
    x, labels, _ = data()
    with pytest.raises(InputError, match="uses the queries as a set"):
        save_labeller(Labeller(x, labels, **choice), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    x, labels, _ = data()
    return save_labeller(Labeller(x, labels, reject=0.5), tmp_path / "m.safetensors", KEY)


def test_every_truncation_and_every_flipped_byte_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    rng = np.random.default_rng(0)
    for length in [0, 1, 7, 8, 9, *rng.integers(10, len(content), 25), len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(InputError, match="cannot be used as a model"):
            load_labeller(saved)
    start = 8 + int.from_bytes(content[:8], "little")
    for place in rng.integers(start, len(content), 25):
        saved.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match="checksum differs"):
            load_labeller(saved)


def test_foreign_files_are_refused_and_nothing_in_them_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "m.safetensors"
    for content in (
        b"",
        b"nothing",
        pickle.dumps(Evil()),
        b"\xff" * 64,
        safetensors.torch.save({"means": torch.zeros(2, 2)}),
        safetensors.torch.save({"means": torch.zeros(2, 2)}, {"fewmatch": "{}"}),
        safetensors.torch.save({"means": torch.zeros(2, 2)}, {"fewmatch": "[" * 100_000}),
        safetensors.torch.save({"means": torch.zeros(2, 2)}, {"fewmatch": "not JSON"}),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be used as a model \(.*\): expected a whole file") as caught:
            load_labeller(path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="no model at"):
            load_labeller(missing)


def rewrite(path: Path, change: dict[str, Any], tensors: dict[str, torch.Tensor | None] | None = None) -> None:
    """The same file with other words or tensors, and a checksum that fits."""
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["fewmatch"])
        now = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    now = {name: tensor for name, tensor in {**now, **(tensors or {})}.items() if tensor is not None}
    header = header | {"sha256": state_digest(now)} | change
    path.write_bytes(safetensors.torch.save(now, {"fewmatch": canonical(header).decode()}))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"kind": "other"},
        {"class_names": ["a", "b"]},
        {"class_names": ["a", "a", "b"]},
        {"class_names": ["a", 1, "b"]},
        {"class_names": "abc"},
        {"method": "nothing"},
        {"method": ["ncm"]},
        {"method": "pt-map"},
        {"method": "knn"},
        {"method": "ridge"},
        {"options": {"k": 1}},
        {"options": {"metric": "l1"}},
        {"options": []},
        {"options": 3},
        {"center": "mean"},
        {"center": "separate"},
        {"prenormalize": 1},
        {"classifier": "weights"},
        {"temperature": None},
        {"temperature": {"value": 0, "chosen": "given"}},
        {"temperature": {"value": "1e999", "chosen": "given"}},
        {"temperature": {"value": 1, "chosen": "somehow"}},
        {"reject": {"value": 2, "chosen": "given"}},
        {"reject": 0.5},
        {"encoder": "mini"},
        {"sha256": "0"},
    ],
    ids=str,
)
def test_words_that_do_not_fit_are_refused(saved: Path, change: dict[str, Any]) -> None:
    rewrite(saved, {})
    load_labeller(saved)
    rewrite(saved, change)
    with pytest.raises(InputError, match="cannot be used as a model"):
        load_labeller(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"means": None},
        {"mean": None},
        {"directions": None},
        {"means": torch.zeros(3, 5)},
        {"means": torch.zeros(3, 6, dtype=torch.int64)},
        {"means": torch.full((3, 6), torch.nan)},
        {"directions": torch.zeros(3)},
        {"directions": torch.zeros(3, 0)},
        {"mean": torch.zeros(7)},
        {"more": torch.zeros(1)},
    ],
    ids=lambda change: f"{next(iter(change))}",
)
def test_tensors_that_do_not_fit_are_refused(saved: Path, change: dict[str, torch.Tensor | None]) -> None:
    rewrite(saved, {}, change)
    with pytest.raises(InputError, match="cannot be used as a model"):
        load_labeller(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"index": torch.full((9,), 3)},
        {"index": torch.full((9,), -1)},
        {"index": torch.zeros(8).long()},
        {"index": torch.zeros(9)},
    ],
)
def test_supports_of_classes_that_are_not_there_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None]
) -> None:
    x, labels, _ = data()
    path = save_labeller(Labeller(x, labels, method="knn"), tmp_path / "m.safetensors")
    load_labeller(path)
    rewrite(path, {}, change)
    with pytest.raises(InputError, match="cannot be used as a model"):
        load_labeller(path)
    path = save_labeller(Labeller(x, labels, method="knn"), tmp_path / "m.safetensors")
    for k in (-3, "many", 1.5):
        rewrite(path, {"options": {"k": k, "temperature": 0.07}})
        with pytest.raises(InputError, match="cannot be used as a model"):
            load_labeller(path)


def test_a_failed_save_leaves_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    x, labels, _ = data(1)
    with pytest.raises(OSError, match="No space"):
        save_labeller(Labeller(x, labels), saved)
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]
