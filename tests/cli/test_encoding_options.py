"""--fast-decode, --range, --compile and files as encoders on the command line: they reach the encoding of every command, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from fewmatch.cli.main import run

MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "32")
COMMANDS = ["encode", "episodes", "plane", "classify", "match", "pca"]


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(result: tuple[int, str, str], code: int = 0) -> Any:
    assert result[0] == code, result[2]
    return json.loads(result[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four JPEG files, large enough to be reduced for 32 px; read only."""
    root = tmp_path_factory.mktemp("options")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        for i in range(4):
            path = root / "set" / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray((level + rng.integers(-50, 50, (60, 80, 3))).astype(np.uint8))
            coarse.resize((400, 300), Image.Resampling.BICUBIC).save(path, quality=90)
    return root / "set"


def words(name: str, folder: Path, tmp_path: Path, number: int) -> tuple[object, ...]:
    pair = (folder / "dark" / "0.jpg", folder / "dark" / "1.jpg")
    return {
        "encode": (folder, "-o", tmp_path / f"store{number}", "--keep", "patches"),
        "episodes": (folder, "--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 20),
        "plane": (folder, "--ways", 2, "--shots", 1, "--queries", 2),
        "classify": ("--support", folder, "--query", folder / "dark"),
        "match": pair,
        "pca": pair,
    }[name]


#: What in the results the features decide; accuracies of a few episodes may agree by chance.
TELLING = {"plane": "queries", "classify": "results", "match": "pairs", "pca": "explained_variance_ratio"}


@pytest.mark.parametrize("name", COMMANDS)
def test_fast_decode_reaches_every_command(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact, fast = (
        as_json(command(capsys, name, *words(name, folder, tmp_path, i), *MINI, "--json", *option))
        for i, option in enumerate(((), ("--fast-decode",)))
    )
    assert "fast_decode" not in exact["encoder"] and fast["encoder"].pop("fast_decode") is True
    assert fast["encoder"].pop("identity") != exact["encoder"].pop("identity")
    assert fast["encoder"] == exact["encoder"]
    if name in TELLING:
        assert fast[TELLING[name]] != exact[TELLING[name]]
    if name == "match":  # coordinates are those of the originals
        assert [image["width"] for image in fast["images"]] == [400, 400]
    if name == "encode":
        from fewmatch.encoders import FeatureStore

        stores = [FeatureStore.open(tmp_path / f"store{i}") for i in range(2)]
        assert stores[0].frame(0) == stores[1].frame(0)
        assert not np.array_equal(stores[0].feature_map(0), stores[1].feature_map(0))


def test_a_store_remembers_fast_decode(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, options in enumerate(((), ("--fast-decode",))):
        assert command(capsys, "encode", folder, "-o", tmp_path / f"{number}", *MINI, *options)[0] == 0
    code, out, _ = command(capsys, "encode", folder, "-o", tmp_path / "1", *MINI, "--fast-decode")
    assert code == 0 and "mini at 32 px, fast decode, float32" in out
    assert command(capsys, "encode", folder, "-o", tmp_path / "1", *MINI)[0] == 5
    ways = ("--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 5)
    assert command(capsys, "episodes", tmp_path / "1", *ways, "--fast-decode")[0] == 0
    code, _, err = command(capsys, "episodes", tmp_path / "0", *ways, "--fast-decode")
    assert code == 2 and "was made with --fast-decode False, not True" in err
    # New images are decoded as those of the store were.
    by_store = as_json(command(capsys, "classify", "--support", tmp_path / "1", "--query", folder / "dark", "--json"))
    by_folder = as_json(
        command(capsys, "classify", "--support", folder, "--query", folder / "dark", *MINI, "--fast-decode", "--json")
    )
    assert by_store["encoder"]["fast_decode"] is True and by_store["results"] == by_folder["results"]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four PNG files: 12-bit values in 16 bits; the first has a twin of 8 bits beside the classes."""
    root = tmp_path_factory.mktemp("deep")
    rng = np.random.default_rng(1)
    for name, level in (("dark", 1200), ("light", 2900)):
        for i in range(4):
            values = np.clip(level + rng.integers(-1100, 1100, (24, 24)), 0, 4095).astype(np.uint16)
            path = root / "set" / name / f"{i}.jpg"  # by content a PNG; the name is that of the other set's files
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", values)[1].tobytes())
            if (name, i) == ("dark", 0):
                twin = np.rint(values / 4095 * 255).astype(np.uint8)
                (root / "twin.png").write_bytes(cv2.imencode(".png", twin)[1].tobytes())
    return root / "set"


@pytest.mark.parametrize("name", COMMANDS)
def test_range_reaches_every_command_and_its_note_the_user(
    name: str, deep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = []
    for i, option in enumerate(((), ("--range", "auto"), ("--range", "0,4095"))):
        code, out, err = command(capsys, name, *words(name, deep, tmp_path, i), *MINI, "--json", *option)
        assert code == 0, err
        results.append(json.loads(out))
        noted = "less than a tenth of its 16-bit range is used, so it is nearly of one colour: use --range 0,4095"
        assert (noted in err) is (not option) and bool(results[-1]["image_notes"]) is (not option)
    assert [result["encoder"].get("range") for result in results] == [None, "auto", [0, 4095]]
    assert len({result["encoder"]["identity"] for result in results}) == 3
    if name in TELLING:
        assert len({json.dumps(result[TELLING[name]]) for result in results}) == 3
    quiet = command(capsys, name, *words(name, deep, tmp_path, 0), *MINI, "--json", "--quiet")
    assert quiet[2] == "" and json.loads(quiet[1])["image_notes"] == results[0]["image_notes"]


def test_12_bit_images_match_their_8_bit_twins(deep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = (deep / "dark" / "0.jpg", deep.parent / "twin.png")
    plain, fixed = (
        as_json(command(capsys, "match", *pair, *MINI, "--json", *option)) for option in ((), ("--range", "0,4095"))
    )
    assert fixed["pairs"][0]["confidence"] == pytest.approx(1, abs=1e-6)
    assert plain["pairs"][0]["confidence"] < 0.9


def test_a_store_remembers_its_range_and_pictures_are_drawn_with_it(
    deep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fewmatch.cli.inputs.data import picture_of
    from fewmatch.encoders import FeatureStore

    assert command(capsys, "encode", deep, "-o", tmp_path / "s", *MINI, "--range", "0,4095")[0] == 0
    by_store = as_json(command(capsys, "classify", "--support", tmp_path / "s", "--query", deep / "dark", "--json"))
    assert by_store["encoder"]["range"] == [0, 4095] and by_store["image_notes"] == []
    ways = ("--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 5)
    code, _, err = command(capsys, "episodes", tmp_path / "s", *ways, "--range", "auto")
    assert code == 2 and "was made with --range 0,4095, not auto" in err
    assert command(capsys, "episodes", tmp_path / "s", *ways, "--range", "0,4095")[0] == 0
    row = FeatureStore.open(tmp_path / "s").images[0]
    assert row["values"] == [0, 4095]
    twin = cv2.imread(str(deep.parent / "twin.png"), cv2.IMREAD_GRAYSCALE)  # noqa: TID251 - a plain name
    assert np.abs(picture_of(row)[..., 0].astype(int) - twin).max() <= 1


@pytest.mark.parametrize("name", COMMANDS)
def test_compile_reaches_every_command_and_changes_no_result(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without compiling anything: that compiled features are the same is tested with the encoders."""
    compiled: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compiled.append(type(self).__name__))
    results = []
    for i, option in enumerate(((), ("--compile",))):
        cache = () if name == "encode" else ("--no-cache",)
        got = as_json(command(capsys, name, *words(name, folder, tmp_path, i), *MINI, "--json", *cache, *option))
        assert len(compiled) == (8 if option else 0)
        results.append(got)
    telling = TELLING.get(name)
    assert results[0]["encoder"] == results[1]["encoder"]
    assert telling is None or results[0][telling] == results[1][telling]


def test_a_file_whose_family_is_open_has_to_be_told_and_a_store_of_it_is_found_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(__file__).parents[1] / "golden" / "dino.safetensors"
    with safe_open(own, "pt") as file:
        state = {key.removeprefix("state/"): file.get_tensor(key) for key in list(file.keys()) if key[:6] == "state/"}
    monkeypatch.chdir(tmp_path)
    save_file({f"teacher.{key}": value for key, value in state.items()}, "own.safetensors")
    encode = ("encode", folder, "-o", "store", "--size", 32, "--device", "cpu", "--dtype", "float32")
    code, _, err = command(capsys, *encode, "-e", "own.safetensors")
    assert code == 1 and "own.safetensors: the entries leave the family open: write dino:PATH, ibot:PATH" in err
    assert not Path("store").exists()
    code, _, err = command(capsys, *encode, "-e", "dino:own.safetensors")
    assert code == 0 and "own.safetensors: family dino (as given); the network at teacher; attention heads: 1," in err
    few = ("--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 5)
    assert command(capsys, "episodes", "store", *few, "-e", "dino:own.safetensors")[0] == 0
    code, _, err = command(capsys, "episodes", "store", *few, "-e", "dino:other.safetensors")
    assert code == 2 and "was made with --encoder own, not dino:other.safetensors" in err


def test_a_store_is_compared_with_the_encoder_that_is_named_beside_it(tmp_path: Path) -> None:
    from fewmatch.cli.inputs.encoder_choice import EncodingChoice
    from fewmatch.encoders.identity import file_digest
    from fewmatch.errors import InputError

    weights = tmp_path / "own" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"made up: only its digest is looked at")
    facts = {"name": "own", "family": "dino", "digest": file_digest(weights), "dtype": "float32", "patch_size": 8}
    key = {"encoder": facts, "layer": "last", "preprocessing": {"crop": 64, "rule": "crop"}, "decoder": 1}
    for name in (weights.parent, weights, f"dino:{weights}", f"dino:{weights.parent}"):
        EncodingChoice(str(name)).check(key, tmp_path)
    for name, reason in (
        (f"mae:{weights}", "the family dino, not mae"),
        (f"hf:{weights.parent}", "the family dino, not hf"),  # the same file, run by other code
        ("mini", "--encoder own, not mini"),
    ):
        with pytest.raises(InputError, match=reason):
            EncodingChoice(name).check(key, tmp_path)
    weights.write_bytes(b"other weights under the same name")
    with pytest.raises(InputError, match="weights with the SHA-256"):
        EncodingChoice(str(weights)).check(key, tmp_path)
