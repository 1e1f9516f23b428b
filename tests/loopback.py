"""A server on this machine that answers as real ones do on bad days, and records with it: downloads without a network."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from safetensors.torch import save

from fewmatch.encoders import catalogue, load


@dataclass
class Server:
    """What the server gives (`body`, with `etag`), how (`script`: one entry per request, then as it should), what it was asked for.

    Entries of the script: a status code; `cut N` (closes after N bytes); `stall N` (sends nothing more after N bytes);
    `late` (waits for `released`); or a dict with `status`, `headers` and `body`.
    """

    body: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    length: bool = True
    script: list[Any] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def url(self, path: str = "made_up.safetensors") -> str:
        return f"http://127.0.0.1:{self.port}/files/{path}"


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            server.requests.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
            step = server.script.pop(0) if server.script else "whole"
            if isinstance(step, int):
                step = {"status": step}
            if isinstance(step, dict):
                self.send_response(step["status"])
                body = step.get("body", b"")
                for name, value in {"Content-Length": str(len(body)), **step.get("headers", {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                return
            if step == "late":
                server.released.wait(20)
            start = 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if server.ranges and asked and self.headers.get("If-Range") in (None, server.etag):
                start = int(asked[1])
                if start >= len(server.body):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
            else:
                self.send_response(200)
            if server.length:
                self.send_header("Content-Length", str(len(server.body) - start))
            if server.etag:
                self.send_header("ETag", server.etag)
            self.end_headers()
            rest = server.body[start:]
            word, _, count = step.partition(" ")
            with contextlib.suppress(ConnectionError):  # a client that has seen enough hangs up
                self.wfile.write(rest[: int(count)] if count else rest)
            if word == "stall":
                self.wfile.flush()
                server.released.wait(20)

    return Handler


def served(body: bytes) -> Iterator[Server]:
    """A running server."""
    server = Server(body)
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http_server.daemon_threads = True
    server.port = http_server.server_address[1]
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        http_server.shutdown()
        http_server.server_close()
        thread.join()


def small_weights() -> bytes:
    """The bundled encoder's first two blocks as a file."""
    state = load("mini", device="cpu", dtype="float32").model.state_dict()
    kept = {key: value for key, value in state.items() if not re.match(r"blocks\.[2-9]", key)}
    return save({key: value.half().contiguous() for key, value in kept.items()})


def record(server: Server, **changes: Any) -> catalogue.Checkpoint:
    """The checkpoint `made_up`, which the server has; its digest is published unless something else is said."""
    base = catalogue.Checkpoint(
        name="made_up",
        family="dinov2_reg",
        filename="made_up.safetensors",
        preprocessing=catalogue.find("mini").preprocessing,
        architecture=catalogue.find("mini").architecture,
        licence="MIT",
        source="this test",
        url=server.url(),
        sha256=hashlib.sha256(server.body).hexdigest(),
        digest_trust="published",
        bytes=len(server.body),
    )
    return dataclasses.replace(base, **changes)


Add = Callable[..., catalogue.Checkpoint]


def adding(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """A function that puts `record(server, …)` into the catalogue."""
    from fewmatch.encoders.catalogue import mini

    before = mini.RECORDS

    def add(**changes: Any) -> catalogue.Checkpoint:
        made = record(server, **changes)
        others = tuple(other for other in mini.RECORDS if other.name != made.name)
        monkeypatch.setattr(mini, "RECORDS", (*others, made))
        catalogue.checkpoints.cache_clear()
        return made

    yield add
    monkeypatch.setattr(mini, "RECORDS", before)
    catalogue.checkpoints.cache_clear()


def online(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Allow downloads, past any proxy, and make waits take no time; returns the waits."""
    import time

    for name in ("FEWMATCH_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    waits: list[float] = []
    from fewmatch.encoders.weights import download

    fake = type(time)("time")
    fake.__dict__.update(time.__dict__)
    fake.__dict__["sleep"] = waits.append
    monkeypatch.setattr(download, "time", fake)
    return waits
