"""`-e hf:…` on the command line: every command takes it, every option reaches it, and what goes wrong is one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewmatch.cli.main import run

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DINOv2 of random weights."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, mlp_ratio=2, image_size=64, patch_size=8
    )
    folder = tmp_path_factory.mktemp("models") / "tiny.v2"
    network = transformers.Dinov2Model(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    processor = {
        "size": {"shortest_edge": 72},
        "crop_size": 64,
        "resample": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    (folder / "preprocessor_config.json").write_text(
        json.dumps(processor | {"image_processor_type": "BitImageProcessor"})
    )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of four pictures; read only."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("grey", 120), ("light", 190)):
        for i in range(4):
            path = root / "set" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((level + rng.integers(-50, 50, (48, 64, 3))).astype(np.uint8)).save(path)
    return root / "set"


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(result: tuple[int, str, str]) -> Any:
    assert result[0] == 0, result[2]
    return json.loads(result[1])


def test_every_command_takes_it(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hf = ("-e", f"hf:{model}", "--device", "cpu", "--dtype", "float32")
    few = ("--ways", 2, "--shots", 1, "--queries", 2)
    one, other = pictures / "dark" / "0.png", pictures / "light" / "1.png"
    documents = [
        as_json(command(capsys, *words, *hf, "--json"))
        for words in (
            ("encode", pictures, "-o", tmp_path / "store"),
            ("classify", "--support", pictures, "--query", pictures / "dark"),
            ("episodes", pictures, *few, "--episodes", 5),
            ("plane", pictures, *few),
            ("match", one, other),
            ("pca", one, other, "-o", tmp_path / "pca.png"),
        )
    ]
    for document in documents:
        facts = document["encoder"]
        assert (facts["name"], facts["dtype"], facts["layer"]) == ("tiny.v2", "float32", "last")
        assert facts["digest"] == documents[0]["encoder"]["digest"]
    assert documents[0]["encoder"]["size"] == 64
    # The store is of this encoder, and of no other.
    assert command(capsys, "episodes", tmp_path / "store", *few, "--episodes", 5, "-e", f"hf:{model}")[0] == 0
    code, _, err = command(capsys, "episodes", tmp_path / "store", *few, "-e", "hf:someone/else")
    assert code == 2 and "was made with --encoder tiny.v2, not hf:someone/else" in err


def test_every_option_reaches_it(model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hf = ("-e", f"hf:{model}", "--device", "cpu", "--json")
    pair = ("match", pictures / "dark" / "0.png", pictures / "light" / "1.png", *hf)
    results = [
        as_json(command(capsys, *pair, *options))
        for options in (
            ("--dtype", "float32"),
            ("--dtype", "bfloat16"),
            ("--dtype", "float32", "--size", 96),
            ("--dtype", "float32", "--layer", 1),
            ("--dtype", "float32", "--layer", 1, "--raw"),
            ("--dtype", "float32", "--layer", "last2"),
        )
    ]
    assert [result["encoder"]["layer"] for result in results] == ["last"] * 3 + ["1", "1, raw", "1+2"]
    assert [result["encoder"]["size"] for result in results] == [64, 64, 96, 64, 64, 64]
    assert len({json.dumps(result["pairs"]) for result in results}) == len(results)
    assert as_json(command(capsys, *pair, "--dtype", "float32", "--stride", 8))["pairs"] == results[0]["pairs"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--stride", 4), 2, "expected a stride of 8, the patch size of"),
        (("--size", 60), 2, "size 60 is not a multiple of the patch size 8"),
        (("--facet", "key"), 2, "has no facet key"),
        (("--layer", 3), 2, "no layer 3: the encoder has blocks 0 to 2"),
        (("-e", "hf:"), 2, "hf: alone names nothing"),
        (("-e", "hf:./nowhere"), 2, "no folder ./nowhere"),
        (("-e", "hf:someone/nothing"), 4, "the files of hf:someone/nothing are not all on this machine"),
    ],
)
def test_what_goes_wrong_is_one_line(
    options: tuple[object, ...],
    code: int,
    message: str,
    model: Path,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair = ("match", pictures / "dark" / "0.png", pictures / "light" / "1.png", "-e", f"hf:{model}", "--device", "cpu")
    got, out, err = command(capsys, *pair, *options)
    assert (got, out) == (code, "") and message in err and len(err.splitlines()) == 1
