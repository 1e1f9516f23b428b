"""Weights over HTTP from a server on this machine: resumed, retried, verified, refused, shared between processes."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # for loopback
from loopback import Add, Server, adding, online, served, small_weights

from fewmatch.encoders import catalogue, load
from fewmatch.encoders.paths import offline
from fewmatch.encoders.weights import download
from fewmatch.encoders.weights.files import obtain, verify
from fewmatch.encoders.weights.installing import install_weights
from fewmatch.errors import FewmatchError, InputError, WeightsMissingError, WeightsRefusedError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def weights() -> bytes:
    return small_weights()


@pytest.fixture
def server(weights: bytes) -> Iterator[Server]:
    yield from served(weights)


@pytest.fixture
def add(server: Server, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Add]:
    yield from adding(server, monkeypatch)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return online(monkeypatch)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fewmatch home of this test alone; what it has in its weights folder."""
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "home" / "weights"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- the way it should go


def test_load_fetches_what_is_missing_says_so_and_does_it_once(
    server: Server, add: Add, waits: list[float], home: Path
) -> None:
    add(licence="CC-BY-NC-4.0", non_commercial=True)
    notes: list[str] = []
    steps: list[tuple[int, int | None]] = []
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
    encoder = load("made_up", note=notes.append, progress=lambda *step: steps.append(step), **options)
    assert encoder(torch.zeros(1, 3, 16, 16)).feature_map.shape == (1, 2, 2, 256)
    assert (encoder.name, encoder.digest) == ("made_up", sha(server.body))
    assert (home / "made_up.safetensors").read_bytes() == server.body
    assert names(home) == ["made_up.safetensors"]
    assert notes[0] == "made_up: CC-BY-NC-4.0, non-commercial use only"
    size = f"{len(server.body):,} bytes"
    assert notes[1].startswith(f"fetching made_up: {size}, CC-BY-NC-4.0, non-commercial use only") and len(notes) == 2
    assert steps[-1] == (len(server.body), len(server.body)) and steps == sorted(steps) and len(steps) > 1
    assert server.requests[0]["accept-encoding"] == "identity" and "range" not in server.requests[0]
    load("made_up", note=notes.append, **options)
    assert len(server.requests) == 1 and len(notes) == 3 and waits == []


def test_without_callbacks_nothing_is_said(
    server: Server, add: Add, waits: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    add()
    load("made_up", device="cpu", dtype="float32")
    assert capfd.readouterr() == ("", "")


def test_a_server_that_tells_no_length(server: Server, add: Add, waits: list[float], home: Path) -> None:
    server.length = False
    steps: list[tuple[int, int | None]] = []
    obtain(add(), progress=lambda *step: steps.append(step))
    assert (home / "made_up.safetensors").read_bytes() == server.body
    assert steps[-1] == (len(server.body), None)


# --- cut, and resumed


def test_a_cut_connection_is_taken_up_where_it_was_cut(
    server: Server, add: Add, waits: list[float], home: Path
) -> None:
    server.script = ["cut 1000", "cut 70000"]
    obtain(add())
    assert (home / "made_up.safetensors").read_bytes() == server.body and names(home) == ["made_up.safetensors"]
    assert [request.get("range") for request in server.requests] == [None, "bytes=1000-", "bytes=71000-"]
    assert [request.get("if-range") for request in server.requests] == [None, '"one"', '"one"']
    assert waits == [1.0, 1.0]  # each brought something


def test_a_connection_that_stalls_counts_as_cut(
    server: Server, add: Add, waits: list[float], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    server.script = ["stall 5000"]
    obtain(add())
    assert server.requests[1]["range"] == "bytes=5000-" and (home / "made_up.safetensors").read_bytes() == server.body


def test_the_next_call_goes_on_from_what_an_earlier_one_left(
    server: Server, add: Add, waits: list[float], home: Path
) -> None:
    server.script = ["cut 3000", 503, 503, 503, 503, 503]
    record = add()
    with pytest.raises(WeightsMissingError, match=r"the server answered 503 .*; 3,000 bytes are kept"):
        obtain(record)
    assert names(home) == ["made_up.safetensors.part", "made_up.safetensors.part.json"]
    assert record.location() is None
    server.requests.clear()
    server.script = []
    obtain(record)
    assert [request.get("range") for request in server.requests] == ["bytes=3000-"]
    assert (home / "made_up.safetensors").read_bytes() == server.body and names(home) == ["made_up.safetensors"]


@pytest.mark.parametrize("change", ["etag", "ranges", "no validator", "weak", "length", "url", "state lost"])
def test_another_file_is_never_joined_to_the_part_of_one(
    server: Server, add: Add, waits: list[float], home: Path, change: str
) -> None:
    old = bytes(len(server.body))
    new, server.body = server.body, old
    if change in ("no validator", "weak"):
        server.etag = {"no validator": None, "weak": 'W/"one"'}[change]
    server.script = ["cut 4000", 404]
    with pytest.raises(WeightsMissingError):
        obtain(add(sha256=sha(new)))
    server.requests.clear()
    server.body = new
    if change == "etag":
        server.etag = '"two"'
    elif change == "ranges":
        server.ranges = False
    elif change == "length":
        server.body = new[:-1]  # with the same tag: the server is wrong, and found out
    elif change == "state lost":
        (home / "made_up.safetensors.part.json").write_text("[broken")
    path = "elsewhere" if change == "url" else "made_up.safetensors"
    obtain(add(url=server.url(path), sha256=sha(server.body), bytes=len(server.body)))
    assert (home / "made_up.safetensors").read_bytes() == server.body
    asked = [request.get("range") for request in server.requests]
    assert asked == (
        ["bytes=4000-"] if change in ("etag", "ranges") else ["bytes=4000-", None] if change == "length" else [None]
    )


def test_a_rest_of_another_length_is_not_joined_though_no_digest_would_tell(
    server: Server, add: Add, waits: list[float], home: Path
) -> None:
    server.script = ["cut 4000", 404]
    record = add(sha256=None, digest_trust="none", bytes=None)
    with pytest.raises(WeightsMissingError):
        obtain(record)
    server.body = bytes(len(server.body) - 1)
    assert obtain(record).read_bytes() == server.body


def test_no_part_is_ever_described_as_one_of_another_file(
    server: Server, add: Add, waits: list[float], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = ["cut 4000", 404]
    with pytest.raises(WeightsMissingError):
        obtain(add())
    server.etag = '"two"'

    def killed(path: Path, *_: bytes) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        obtain(add())
    assert names(home) == ["made_up.safetensors.part.json"]


def test_more_than_the_server_has_is_fetched_anew(server: Server, add: Add, waits: list[float], home: Path) -> None:
    home.mkdir(parents=True)
    (part := home / "made_up.safetensors.part").write_bytes(server.body + b"more")
    state = {"url": server.url(), "validator": '"one"', "total": len(server.body) + 9}
    part.with_name(part.name + ".json").write_text(json.dumps(state))
    obtain(add())
    assert (home / "made_up.safetensors").read_bytes() == server.body
    assert [request.get("range") for request in server.requests] == [f"bytes={len(server.body) + 4}-", None]


def test_a_whole_part_needs_no_server(server: Server, add: Add, waits: list[float], home: Path) -> None:
    home.mkdir(parents=True)
    (part := home / "made_up.safetensors.part").write_bytes(server.body)
    state = {"url": server.url(), "validator": None, "total": len(server.body)}
    part.with_name(part.name + ".json").write_text(json.dumps(state))
    obtain(add())
    assert server.requests == [] and (home / "made_up.safetensors").read_bytes() == server.body


def test_a_part_that_turns_out_wrong_is_fetched_anew_once(
    server: Server, add: Add, waits: list[float], home: Path
) -> None:
    home.mkdir(parents=True)
    (part := home / "made_up.safetensors.part").write_bytes(b"\0" * 500)
    state = {"url": server.url(), "validator": '"one"', "total": len(server.body)}
    part.with_name(part.name + ".json").write_text(json.dumps(state))
    obtain(add())
    assert [request.get("range") for request in server.requests] == ["bytes=500-", None]
    assert (home / "made_up.safetensors").read_bytes() == server.body


# --- tried again, or not


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_what_may_pass_is_tried_again_with_growing_waits(
    server: Server, add: Add, waits: list[float], home: Path, status: int
) -> None:
    server.script = [status, status, status, status]
    obtain(add())
    assert waits == [1.0, 2.0, 4.0, 8.0] and names(home) == ["made_up.safetensors"]


def test_after_five_tries_that_brought_nothing_it_is_over(server: Server, add: Add, waits: list[float]) -> None:
    server.script = [500] * 9
    with pytest.raises(WeightsMissingError, match="the server answered 500"):
        obtain(add())
    assert len(server.requests) == 5 and len(waits) == 4


def test_a_server_that_never_gets_further_is_given_up(server: Server, add: Add, waits: list[float]) -> None:
    server.ranges = False
    server.script = ["cut 100", "cut 50"] * 10
    with pytest.raises(WeightsMissingError, match=r"the connection was cut after 100 of"):
        obtain(add())
    assert len(server.requests) == 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_will_not_pass_is_not_tried_again(
    server: Server, add: Add, waits: list[float], home: Path, status: int
) -> None:
    server.script = [status]
    with pytest.raises(WeightsMissingError, match=f"the server answered {status} .*-e mini") as caught:
        obtain(add())
    assert len(server.requests) == 1 and waits == [] and caught.value.exit_code == 4
    assert names(home) == [] and str(home / "made_up.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 7), ("0", 1, 1), ("99999", 60, 60), ("soon", 1, 1), ("nan", 1, 1), ("-5", 1, 1), ("date", 5, 30)],
)
def test_retry_after_is_obeyed_within_reason(
    server: Server, add: Add, waits: list[float], value: str, least: float, most: float
) -> None:
    if value == "date":
        value = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.script = [{"status": 503, "headers": {"Retry-After": value}}]
    obtain(add())
    assert len(waits) == 1 and least <= waits[0] <= most


def test_nobody_there_is_tried_twice(add: Add, waits: list[float], home: Path) -> None:
    import socket

    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(WeightsMissingError, match=rf"127\.0\.0\.1:{port} cannot be reached: Connection refused"):
            obtain(add(url=f"http://127.0.0.1:{port}/x"))
    assert waits == [0.5] and names(home) == []


def test_no_such_host_is_tried_twice(add: Add, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    calls = []

    def no_answer(*arguments: Any, **_: Any) -> None:
        calls.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_answer)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(WeightsMissingError, match=r"weights\.example cannot be reached: Name or service not known"):
        obtain(add(url="http://weights.example/x"))
    assert len(calls) == 2 and waits == [0.5]


def test_a_redirect_is_followed_with_the_range(server: Server, add: Add, waits: list[float], home: Path) -> None:
    moved = {"status": 302, "headers": {"Location": server.url("there")}}
    server.script = [moved, "cut 2000", moved]
    obtain(add())
    assert [(request["path"], request.get("range")) for request in server.requests[-2:]] == [
        ("/files/made_up.safetensors", "bytes=2000-"),
        ("/files/there", "bytes=2000-"),
    ]
    assert (home / "made_up.safetensors").read_bytes() == server.body


# --- refused


PAGE = b"\n <!DOCTYPE html><html><form>Log in</form></html>"


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "text/html; charset=utf-8"])
def test_a_web_page_is_refused(server: Server, add: Add, waits: list[float], home: Path, kind: str) -> None:
    body = PAGE if kind.startswith("application") else b"Please log in"
    server.script = [{"status": 200, "headers": {"Content-Type": kind}, "body": body}]
    with pytest.raises(WeightsRefusedError, match=r"is a web page: expected weights; .*--from FILE") as caught:
        obtain(add(sha256=None, digest_trust="none", bytes=None))
    assert names(home) == [] and "\n" not in str(caught.value) and waits == []


@pytest.mark.parametrize("trust", ["published", "observed", "none"])
@pytest.mark.parametrize("trusted", [False, True])
def test_another_length_is_refused_before_it_is_fetched(
    server: Server, add: Add, waits: list[float], home: Path, trust: Any, trusted: bool
) -> None:
    record = add(bytes=len(server.body) + 1, digest_trust=trust, sha256=None if trust == "none" else "00")
    if trusted and trust == "observed":
        assert obtain(record, trust_digest=True).read_bytes() == server.body
        return
    with pytest.raises(
        WeightsRefusedError, match=rf"expected {len(server.body) + 1:,} bytes, got {len(server.body):,}"
    ):
        obtain(record, trust_digest=trusted)
    assert names(home) == []


@pytest.mark.parametrize("trust", ["published", "observed"])
@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_another_digest_is_refused(
    server: Server, add: Add, waits: list[float], home: Path, trust: Any, algorithm: str
) -> None:
    other = "0" * 64 if algorithm == "SHA-256" else "0" * 6
    changes = {"sha256": other} if algorithm == "SHA-256" else {"sha256": None, "md5": other}
    record = add(digest_trust=trust, **changes)
    got = sha(server.body) if algorithm == "SHA-256" else hashlib.md5(server.body).hexdigest()
    with pytest.raises(
        WeightsRefusedError,
        match=rf"expected {algorithm} {other} \({trust}\), got {got}.*"
        + ("--trust-digest" if trust == "observed" else "removed"),
    ):
        obtain(record)
    assert record.location() is None
    assert names(home) == (
        [] if trust == "published" else ["made_up.safetensors.part", "made_up.safetensors.part.json"]
    )
    if trust == "published":
        with pytest.raises(WeightsRefusedError):
            obtain(record, trust_digest=True)
        assert len(server.requests) == 2
    else:
        with pytest.raises(WeightsRefusedError):
            obtain(record)  # fetched anew: what was kept may be at fault
        assert len(server.requests) == 2
        assert obtain(record, trust_digest=True).read_bytes() == server.body
        assert len(server.requests) == 2  # what was kept serves
        with pytest.raises(WeightsRefusedError, match="expected"):
            load("made_up")
        load("made_up", trust_digest=True, device="cpu", dtype="float32")


@pytest.mark.parametrize("known", [64, 8])
def test_the_right_digest_in_full_or_in_part_is_accepted(
    server: Server, add: Add, waits: list[float], known: int
) -> None:
    obtain(add(sha256=sha(server.body)[:known]))
    path = obtain(add(sha256=None, md5=hashlib.md5(server.body).hexdigest()[:6]))
    assert verify(catalogue.find("made_up"), path) == sha(server.body)


def test_where_no_digest_is_known_the_one_seen_is_kept_and_a_change_noticed(
    server: Server, add: Add, waits: list[float], home: Path
) -> None:
    notes: list[str] = []
    record = add(sha256=None, digest_trust="none", bytes=None)
    path = obtain(record, note=notes.append)
    assert sha(server.body) in notes[-1] and "nobody published a digest" in notes[-1]
    assert (home / "made_up.safetensors.sha256").read_text() == f"{sha(server.body)}  made_up.safetensors\n"
    load("made_up", device="cpu", dtype="float32")
    path.write_bytes(server.body[:-1] + b"\x01")
    with pytest.raises(WeightsRefusedError, match=r"changed since it was fetched: expected SHA-256 .* got"):
        load("made_up")
    assert load("made_up", trust_digest=True, device="cpu").digest == sha(path.read_bytes())


def test_where_no_digest_is_known_the_keys_must_be_right(server: Server, add: Add, waits: list[float]) -> None:
    from safetensors.torch import save

    server.body = save({"cls_token": torch.zeros(1, 1, 8)})
    add(sha256=None, digest_trust="none", bytes=None)
    with pytest.raises(WeightsRefusedError, match="not the weights of dinov2_reg"):
        load("made_up")


def test_too_little_room_is_said_before_anything_is_written(
    server: Server, add: Add, waits: list[float], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(10**12, 10**12, len(server.body) - 1))
    with pytest.raises(FewmatchError, match=r"not enough room in .*weights: .* needed, .* free"):
        obtain(add())
    assert names(home) == []
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(10**12, 10**12, len(server.body)))
    obtain(add())


def test_a_folder_that_cannot_be_written_is_named(server: Server, add: Add, waits: list[float], home: Path) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder should be")
    with pytest.raises(FewmatchError, match=r"weights.* cannot be written") as caught:
        obtain(add())
    assert caught.value.exit_code == 1 and waits == []


# --- offline, gated, no address


@pytest.mark.parametrize("variable", ["FEWMATCH_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "yes", "TRUE", "on"])
def test_offline_is_said_at_once(
    server: Server, add: Add, waits: list[float], home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert offline() == variable
    with pytest.raises(WeightsMissingError, match=f"{variable} forbids") as caught:
        load(add().name)
    assert server.requests == [] and names(home) == []
    for part in ("made_up.safetensors", server.url(), sha(server.body), str(home), "curl", "--from", "-e mini", "MIT"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", ["", "0", "no", "false", "off"])
def test_offline_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FEWMATCH_OFFLINE", value)
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert offline() is None


def test_gated_weights_are_never_asked_for(server: Server, add: Add, waits: list[float]) -> None:
    with pytest.raises(WeightsMissingError, match="only on request") as caught:
        load(add(gated=True).name)
    assert server.requests == [] and "curl" not in str(caught.value)
    assert "fewmatch download made_up --from FILE" in str(caught.value)


def test_weights_without_an_address(server: Server, add: Add, waits: list[float]) -> None:
    with pytest.raises(WeightsMissingError, match="no address of them is known"):
        load(add(url=None).name)


# --- found in caches


def test_the_files_of_other_tools_are_found_under_their_names(
    server: Server, add: Add, waits: list[float], tmp_path: Path
) -> None:
    record = add(url=server.url("unlike%20any.pth"), hf_repo="them/theirs")
    assert record.official_names() == ("made_up.safetensors", "unlike any.pth")
    for place in ("torch/hub/checkpoints/unlike any.pth", "torch/hub/checkpoints/made_up.safetensors"):
        (path := tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        assert record.location() == ("cached", path)
        with pytest.raises(WeightsRefusedError, match="expected SHA-256"):  # the released file, so its digest is known
            verify(record, path)
        path.unlink()
    for file in ("model.safetensors", "pytorch_model.bin"):
        (path := tmp_path / "hf/hub/models--them--theirs/snapshots/abc" / file).parent.mkdir(
            parents=True, exist_ok=True
        )
        path.write_bytes(server.body)
        assert record.location() == ("cached", path)
        assert verify(record, path) == sha(server.body)
        path.unlink()
    record = add(url="https://hub.example/them/other/resolve/main/a%20b/w.pth")
    (path := tmp_path / "hf/hub/models--them--other/snapshots/abc/a b/w.pth").parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert record.location() == ("cached", path)


def test_a_name_that_several_files_share_is_not_looked_for(add: Add) -> None:
    from fewmatch.encoders.catalogue import mini

    one = add(name="one", filename="one.pth", url="http://h.example/a/checkpoint.pth")
    two = add(name="two", filename="two.pth", url="http://h.example/b/checkpoint.pth")
    assert {record.name for record in mini.RECORDS} >= {"one", "two"}
    assert (one.official_names(), two.official_names()) == (("one.pth",), ("two.pth",))


def test_files_of_the_catalogue_have_names_of_their_own() -> None:
    files = [record.filename.lower() for record in catalogue.checkpoints()]
    assert len(files) == len(set(files))
    assert not {name for name in files if "/" in name or name.endswith((".part", ".sha256", ".json"))}


# --- several processes


_CHILD = """
import sys
sys.path.insert(0, {tests!r})
from loopback import Server, record
from fewmatch.encoders import catalogue
from fewmatch.encoders.catalogue import mini
from fewmatch.encoders.weights.files import obtain
body = open({body!r}, "rb").read()
made = record(Server(body, port={port}))
mini.RECORDS = (*mini.RECORDS, made)
catalogue.checkpoints.cache_clear()
print("ready", flush=True)
print(obtain(made, note=lambda text: print(text, flush=True)), flush=True)
"""


def test_of_two_processes_one_fetches_and_the_other_waits(
    server: Server, add: Add, waits: list[float], home: Path, tmp_path: Path
) -> None:
    (tmp_path / "body").write_bytes(server.body)
    record = add()
    server.script = ["late"]
    mine = threading.Thread(target=obtain, args=(record,))
    mine.start()
    while not server.requests:
        time.sleep(0.01)
    code = _CHILD.format(tests=str(ROOT / "tests"), body=str(tmp_path / "body"), port=server.port)
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ)
    )
    assert child.stdout is not None
    lines = [child.stdout.readline(), child.stdout.readline()]
    assert lines[0] == "ready\n" and "another process is fetching made_up.safetensors: waiting" in lines[1]
    server.released.set()
    mine.join()
    rest, _ = child.communicate(timeout=60)
    assert child.returncode == 0 and rest == f"{home / 'made_up.safetensors'}\n"
    assert len(server.requests) == 1 and (home / "made_up.safetensors").read_bytes() == server.body


# --- brought by hand


def test_a_file_that_somebody_brought_is_installed(server: Server, add: Add, home: Path, tmp_path: Path) -> None:
    (brought := tmp_path / "usb" / "whatever.safetensors").parent.mkdir()
    brought.write_bytes(server.body)
    record = add()
    assert install_weights(record, brought) == home / "made_up.safetensors"
    assert names(home) == ["made_up.safetensors"] and server.requests == []
    assert load("made_up", device="cpu").digest == sha(server.body)
    (folder := tmp_path / "folder").mkdir()
    brought.rename(folder / "model.safetensors")
    assert install_weights(record, folder) == home / "made_up.safetensors"
    assert install_weights(record, home / "made_up.safetensors").read_bytes() == server.body  # onto itself


def test_the_same_weights_in_the_other_kind_of_file(server: Server, add: Add, home: Path, tmp_path: Path) -> None:
    (brought := tmp_path / "model.safetensors").write_bytes(server.body)
    record = add(filename="made_up.pth", url=server.url("made_up.pth"), sha256="0" * 64)
    path = install_weights(record, brought)
    assert path == home / "made_up.safetensors" == record.location()[1]  # type: ignore[index]
    assert (home / "made_up.safetensors.sha256").is_file()
    assert load("made_up", device="cpu").digest == sha(server.body)
    path.write_bytes(server.body[:-1] + b"\x01")
    with pytest.raises(WeightsRefusedError, match="changed since"):
        load("made_up")


def test_files_that_are_something_else_are_not_installed(server: Server, add: Add, home: Path, tmp_path: Path) -> None:
    from safetensors.torch import save

    (brought := tmp_path / "b.safetensors").write_bytes(server.body[:-1] + b"\x01")
    with pytest.raises(WeightsRefusedError, match=r"expected SHA-256 .*nothing was installed$"):
        install_weights(add(), brought)
    with pytest.raises(WeightsRefusedError, match="nothing was installed, or pass --trust-digest"):
        install_weights(add(digest_trust="observed"), brought)
    open_record = add(sha256=None, digest_trust="none", bytes=None)
    brought.write_bytes(save({"cls_token": torch.zeros(1, 1, 8)}))
    with pytest.raises(WeightsRefusedError, match=r"is not made_up: not the weights of .*nothing was installed"):
        install_weights(open_record, brought)
    brought.write_bytes(PAGE)
    with pytest.raises(WeightsRefusedError, match="is a web page"):
        install_weights(open_record, brought)
    with pytest.raises(InputError, match="no weights at"):
        install_weights(open_record, tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match="part of fewmatch"):
        install_weights(catalogue.find("mini"), brought)
    assert names(home) == []
    brought.write_bytes(server.body[:-1] + b"\x01")
    assert install_weights(add(digest_trust="observed"), brought, trust_digest=True).is_file()
