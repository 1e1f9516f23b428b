"""`fewmatch download` and the commands that fetch on the way, against a server on this machine."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))  # for loopback
from loopback import Add, Server, adding, online, served, small_weights

from fewmatch.cli.main import run


@pytest.fixture(scope="module")
def weights() -> bytes:
    return small_weights()


@pytest.fixture
def server(weights: bytes) -> Iterator[Server]:
    yield from served(weights)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"


@pytest.fixture
def add(server: Server, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Add]:
    online(monkeypatch)
    yield from adding(server, monkeypatch)


def fewmatch(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(result: tuple[int, str, str], code: int = 0) -> list[dict[str, Any]]:
    assert result[0] == code, result[2]
    document = json.loads(result[1])
    assert document["schema"] == 1 and document["version"]
    found: list[dict[str, Any]] = document["weights"]
    return found


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_it_fetches_says_where_and_verifies_the_next_time(
    server: Server, add: Add, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add()
    code, out, err = fewmatch(capsys, "download", "made_up")
    path = home / "made_up.safetensors"
    assert (code, path.read_bytes()) == (0, server.body)
    assert out == f"made_up: {path} (fetched and verified, SHA-256 {sha(server.body)})\n"
    assert err.startswith("fetching made_up: ") and err.count("\n") == 1
    code, out, err = fewmatch(capsys, "download", "made_up")
    assert code == 0 and "here already, verified" in out and err == "" and len(server.requests) == 1
    path.write_bytes(b"damaged")
    code, out, err = fewmatch(capsys, "download", "made_up")
    assert (code, out) == (1, "") and "expected SHA-256" in err and "delete it and fetch it again" in err


def test_json_is_one_document(server: Server, add: Add, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add()
    (got,) = as_json(fewmatch(capsys, "download", "made_up", "--json", "--quiet"))
    path = home / "made_up.safetensors"
    assert got == {
        "name": "made_up",
        "licence": "MIT",
        "digest_trust": "published",
        "status": "fetched",
        "path": str(path),
        "sha256": sha(server.body),
        "bytes": len(server.body),
        "error": None,
    }
    (got,) = as_json(fewmatch(capsys, "download", "made_up", "--json"))
    assert got["status"] == "present"
    (got,) = as_json(fewmatch(capsys, "download", "mini", "--json"))
    assert (got["status"], got["bytes"]) == ("bundled", 12_790_944)


def test_quiet_says_nothing_but_the_result(server: Server, add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add(non_commercial=True)
    code, out, err = fewmatch(capsys, "download", "made_up", "--quiet")
    assert (code, err) == (0, "") and out.count("\n") == 1


def test_a_non_commercial_licence_is_said_in_one_line_whenever_used(
    server: Server, add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add(licence="CC-BY-NC-4.0", non_commercial=True)
    line = "made_up: CC-BY-NC-4.0, non-commercial use only"
    for _ in range(2):
        _, _, err = fewmatch(capsys, "download", "made_up")
        assert err.splitlines().count(line) == 1


def test_several_names_and_patterns(server: Server, add: Add, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("made_a", "made_b", "other"):
        add(name=name, filename=f"{name}.safetensors", url=server.url(name))
    got = as_json(fewmatch(capsys, "download", "made_*", "mini", "made_a", "--json"))
    assert [result["name"] for result in got] == ["made_a", "made_b", "mini"]
    assert sorted(path.name for path in home.iterdir()) == ["made_a.safetensors", "made_b.safetensors"]
    assert [request["path"] for request in server.requests] == ["/files/made_a", "/files/made_b"]


def test_one_failure_leaves_the_others_done(
    server: Server, add: Add, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("made_a", "made_b"):
        add(name=name, filename=f"{name}.safetensors", url=server.url(name))
    server.script = [404]
    result = fewmatch(capsys, "download", "made_a", "made_b", "--json")
    first, second = as_json(result, code=4)
    assert (first["status"], first["path"], second["status"]) == ("failed", None, "fetched")
    assert "404" in first["error"] and "404" in result[2]
    add(name="made_a", filename="made_a.safetensors", sha256="0" * 64)
    add(name="gated", filename="gated.safetensors", gated=True)
    code, out, err = fewmatch(capsys, "download", "made_a", "gated", "made_b")
    assert code == 1 and "made_b: " in out and "made_a: " not in out
    assert "expected SHA-256" in err and "only on request" in err
    assert fewmatch(capsys, "download", "gated", "made_a")[0] == 4


@pytest.mark.parametrize("names", [("made_upp",), ("mini", "nonsense_*"), ()])
def test_unknown_names_are_wrong_usage_before_anything_is_fetched(
    server: Server, add: Add, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    add()
    code, out, err = fewmatch(capsys, "download", "made_up" if names else "--json", *names)
    assert (code, out, server.requests) == (2, "", [])
    assert not names or "did you mean" in err or "`fewmatch encoders` lists them" in err


def test_offline_and_gated_exit_4_with_instructions(
    server: Server, add: Add, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(gated=True)
    code, out, err = fewmatch(capsys, "download", "made_up")
    assert (code, out) == (4, "") and "fewmatch download made_up --from FILE" in err and "curl" not in err
    add()
    monkeypatch.setenv("FEWMATCH_OFFLINE", "1")
    code, out, err = fewmatch(capsys, "download", "made_up")
    assert (code, out) == (4, "") and "FEWMATCH_OFFLINE forbids" in err and "curl" in err and server.url() in err
    assert server.requests == []


def test_a_file_from_elsewhere(
    server: Server, add: Add, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (brought := tmp_path / "brought.safetensors").write_bytes(server.body)
    add(gated=True)
    (got,) = as_json(fewmatch(capsys, "download", "made_up", "--from", brought, "--json"))
    assert (got["status"], got["path"]) == ("installed", str(home / "made_up.safetensors"))
    assert (home / "made_up.safetensors").read_bytes() == server.body and server.requests == []
    brought.write_bytes(server.body[:-1] + b"\x01")
    code, out, err = fewmatch(capsys, "download", "made_up", "--from", brought)
    assert (code, out) == (1, "") and "nothing was installed" in err
    assert (home / "made_up.safetensors").read_bytes() == server.body
    assert fewmatch(capsys, "download", "made_up", "--from", tmp_path / "nowhere")[0] == 2
    code, _, err = fewmatch(capsys, "download", "made_up", "mini", "--from", brought)
    assert code == 2 and "expected one NAME, got 2" in err
    code, _, err = fewmatch(capsys, "download", "mini", "--from", brought)
    assert code == 2 and "part of fewmatch" in err


@pytest.mark.parametrize("way", ["fetched", "brought", "present"])
def test_trust_digest_accepts_what_others_did_not_observe(
    server: Server, add: Add, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    add(sha256="0" * 64, digest_trust="observed")
    (brought := tmp_path / "brought.safetensors").write_bytes(server.body)
    more = ("--from", brought) if way == "brought" else ()
    if way == "present":
        home.mkdir(parents=True)
        (home / "made_up.safetensors").write_bytes(server.body)
    assert fewmatch(capsys, "download", "made_up", *more)[0] == 1
    code, out, _ = fewmatch(capsys, "download", "made_up", *more, "--trust-digest")
    assert code == 0 and sha(server.body) in out
    add(sha256="0" * 64, digest_trust="published")
    assert fewmatch(capsys, "download", "made_up", *more, "--trust-digest")[0] == 1


def test_commands_that_encode_fetch_on_the_way(
    server: Server, add: Add, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(licence="CC-BY-NC-4.0", non_commercial=True)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "images" / "a.png")
    command = ("encode", tmp_path / "images", "-e", "made_up", "--device", "cpu", "--size", "64")
    code, out, err = fewmatch(capsys, *command, "-o", tmp_path / "one", "--dtype", "float32")
    assert code == 0, err
    assert "made_up at 64 px, float32" in out and (home / "made_up.safetensors").is_file()
    assert [line.split(":")[0] for line in err.splitlines()] == ["made_up", "fetching made_up"]
    code, _, err = fewmatch(capsys, *command, "-o", tmp_path / "two", "--dtype", "float32")
    assert code == 0 and err.splitlines() == ["made_up: CC-BY-NC-4.0, non-commercial use only"]
    (home / "made_up.safetensors").unlink()
    server.script = [403]
    code, out, err = fewmatch(capsys, *command, "-o", tmp_path / "three")
    assert (code, out) == (4, "") and "the server answered 403" in err and "curl" in err


def test_a_bar_appears_on_a_terminal_alone(
    server: Server, add: Add, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    code, out, err = fewmatch(capsys, "download", "made_up")
    assert code == 0 and "MB" in err and "made_up" in err and "MB" not in out
    (home / "made_up.safetensors").unlink()
    code, _, err = fewmatch(capsys, "download", "made_up", "--quiet")
    assert (code, err) == (0, "")


def test_debug_shows_where_it_failed(server: Server, add: Add) -> None:
    from fewmatch.errors import WeightsMissingError

    add(gated=True)
    with pytest.raises(WeightsMissingError):
        run(["download", "made_up", "--debug"])
