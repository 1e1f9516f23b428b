"""`fewmatch encoders` as a user runs it: columns, widths, patterns, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewmatch.cli import output
from fewmatch.cli.main import run
from fewmatch.encoders import catalogue


def encoders(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["encoders", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def table(out: str) -> tuple[list[str], list[list[str]]]:
    """Headings and rows; cells are set apart by two spaces or more."""
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    split = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines]
    return split[0], [row for row in split[2:] if len(row) == len(split[0])]


def as_json(result: tuple[int, str, str]) -> list[dict[str, Any]]:
    assert result[0] == 0, result[2]
    found: list[dict[str, Any]] = json.loads(result[1])["encoders"]
    return found


def test_all_encoders_within_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = encoders(capsys)
    headings, rows = table(out)
    assert (code, err) == (0, "")
    assert headings == ["name", "family", "params", "size", "k-NN", "licence", "weights"]
    assert [row[0] for row in rows] == [record.name for record in catalogue.search()]
    assert max(map(len, out.splitlines())) <= 100
    shown = {row[0]: row[1:] for row in rows}
    assert shown["mini"] == ["dinov2_reg", "6.4 M", "128/8", "–", "Apache-2.0", "bundled"]
    assert shown["dinov2_vitg14"] == ["dinov2", "1.14 B", "224/14", "83.5", "Apache-2.0", "downloadable"]
    assert shown["mae_vith14"] == ["mae", "630.8 M", "224/14", "49.4", "CC-BY-NC-4.0", "downloadable"]
    assert shown["seer_regnety10b"] == ["seer", "9.32 B", "224/32", "–", "Meta SEER NC", "downloadable"]
    assert shown["dinov3_vit7b16"] == ["dinov3", "6.72 B", "224/16", "–", "DINOv3 License", "gated"]
    assert all(("NC" in row[5]) == catalogue.find(row[0]).non_commercial for row in rows)
    assert "NC: non-commercial" in out and "NC: non-commercial" not in encoders(capsys, "mini")[1]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (140, ["name", "family", "params", "size", "k-NN", "licence", "weights"]),
        (100, ["name", "family", "params", "size", "k-NN", "licence", "weights"]),
        (99, ["name", "params", "size", "k-NN", "licence", "weights"]),
        (80, ["name", "params", "size", "licence", "weights"]),
        (70, ["name", "params", "licence", "weights"]),
        (53, ["name", "params", "weights"]),
    ],
)
def test_narrow_terminals_get_fewer_columns_and_whole_names(
    columns: int, expected: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = encoders(capsys)[1]
    headings, rows = table(out)
    assert headings == expected
    assert [row[0] for row in rows] == [record.name for record in catalogue.search()]
    assert max(map(len, out.splitlines())) <= columns
    caption = out[out.rindex("─") :]
    assert ("k-NN:" in caption) == ("k-NN" in expected) and ("pixels/patch" in caption) == ("size" in expected)
    assert ("NC:" in caption) == ("licence" in expected)


def test_few_rows_need_less_room(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert table(encoders(capsys, "mini")[1])[0] == ["name", "family", "params", "size", "k-NN", "licence", "weights"]


def test_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    def names(*patterns: str) -> list[str]:
        return [entry["name"] for entry in as_json(encoders(capsys, *patterns, "--json"))]

    assert names("dino_*8") == ["dino_vitb8", "dino_vits8"]
    assert names("SAM_vitb", "mini", "sam_vitb16") == ["mini", "sam_vitb16"]
    assert names("open_clip") == [f"openclip_vit{size}14_laion2b" for size in ("bigg", "g", "h", "l")]
    assert [row[0] for row in table(encoders(capsys, "dino_*8")[1])[1]] == ["dino_vitb8", "dino_vits8"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["dinov4"], "no encoder matches dinov4: did you mean dinov3 or"),
        (["mini", "ibot_vits-16"], "no encoder matches ibot_vits-16: did you mean ibot_vits16"),
        (["clpi*"], "no encoder matches clpi*: did you mean clip"),
        (["####"], "no encoder matches ####: `fewmatch encoders` lists them"),
    ],
)
def test_unknown_patterns_suggest_the_nearest(
    patterns: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = encoders(capsys, *patterns)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_json_has_all_fields(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "dino_deitsmall16_pretrain.pth").touch()
    result = encoders(capsys, "--json")
    document = json.loads(result[1])
    assert document["schema"] == output.SCHEMA and document["version"]
    entries = {entry["name"]: entry for entry in as_json(result)}
    assert set(entries) == {record.name for record in catalogue.checkpoints()}
    fields = {*catalogue.Checkpoint.__dataclass_fields__, "where", "path"}
    assert all(set(entry) == fields for entry in entries.values())
    assert entries["mini"]["where"] == "bundled" and Path(entries["mini"]["path"]).is_file()
    assert entries["mini"]["bytes"] == 12_790_944 and entries["mini"]["preprocessing"]["crop"] == 128
    assert entries["dino_vits16"]["where"] == "cached" and entries["dino_vits8"]["where"] == "downloadable"
    assert entries["dino_vits16"]["path"] == str(tmp_path / "weights" / "dino_deitsmall16_pretrain.pth")
    assert entries["esvit_swinb_w14"]["architecture"]["heads"] == [4, 8, 16, 32]
    sam = entries["sam_vitb16"]
    assert (sam["md5"], sam["sha256"], sam["gated"]) == ("01ec64d29a2fca3f0661936605ae66f8", None, False)
    assert entries["dinov3_vits16"]["gated"] and entries["dinov3_vits16"]["where"] == "gated"
    row = next(row for row in table(encoders(capsys, "dino_vits16")[1])[1])
    assert row[-1] == "cached"
