"""One file over HTTP: resumed where it was cut, tried again where that may help, and never taken for what it is not."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fewmatch.encoders.weights.checkpoint import is_web_page
from fewmatch.errors import FewmatchError, WeightsRefusedError
from fewmatch.writing import write_atomically

Progress = Callable[[int, int | None], None]

#: Seconds without a byte after which a connection counts as dead.
TIMEOUT = 30.0
#: Tries in a row that bring nothing before giving up; waits between them begin with a second and double.
TRIES = 5
#: Where nobody answers at all (no network, no such host), one more try, soon.
TRIES_UNREACHABLE = 2
#: The longest wait that a server can ask for, in seconds.
LONGEST_WAIT = 60.0

_UNREACHABLE = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
_CHUNK = 1 << 18


class NotFetchedError(Exception):
    """The file did not come; the message says why."""


def fetch(url: str, part: Path, *, size: int | None = None, progress: Progress | None = None) -> None:
    """Bring a file to `part`, going on with what is there from an earlier call.

    What came is kept when the connection fails for good or the program is stopped. Beside it, `<part>.json` says what it is a part of:
    the next call asks for the rest on the condition (If-Range) that the server still has the same file, else it starts over.
    Server errors (5xx, 408, 429), timeouts and cut connections are tried again; `Retry-After` is obeyed up to a minute.

    Args:
        size: what the file must have, in bytes; a server that announces another size is refused before anything is fetched.
        progress: called with the bytes that are there and those there will be (None where the server does not say).

    Raises:
        NotFetchedError: refused by the server, or out of reach.
        WeightsRefusedError: the server sent a web page, or announced a file of another size.
        FewmatchError: the file cannot be written, or there is not enough room for it.
    """
    furthest, failures = _length(part), 0
    while True:
        wait = 0.0
        tries = TRIES
        try:
            _go_on(url, part, size, progress)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and _length(part):  # nothing behind what is there: it is no part of that file
                discard(part)
                continue
            problem = f"the server answered {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise NotFetchedError(problem) from error
            wait = _retry_after(error.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise NotFetchedError(f"the server's certificate is not valid: {reason.verify_message}") from error
            problem = f"{_words(reason)} ({_host(url)})"
            if isinstance(reason, socket.gaierror) or getattr(reason, "errno", None) in _UNREACHABLE:
                problem = f"{_host(url)} cannot be reached: {_words(reason)}"
                tries = TRIES_UNREACHABLE
        length = _length(part)
        failures = 1 if length > furthest else failures + 1
        furthest = max(furthest, length)
        if failures >= tries:
            kept = f"; {length:,} bytes are kept, the next try goes on from there" if length else ""
            raise NotFetchedError(f"{problem}{kept}")
        time.sleep(max(wait, (0.5 if tries == TRIES_UNREACHABLE else 1.0) * 2 ** (failures - 1)))


def discard(part: Path) -> None:
    """Remove what came so far."""
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


def finish(part: Path, target: Path) -> None:
    """Give a whole file its name."""
    with _local(target):
        os.replace(part, target)
        _state_file(part).unlink(missing_ok=True)


def require_room(folder: Path, needed: int) -> None:
    """Refuse what would not fit into a folder, before any of it is written.

    Raises:
        FewmatchError: the disk has less room.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FewmatchError(
            f"not enough room in {folder}: {needed / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free; "
            "set FEWMATCH_HOME to a folder on a larger disk"
        )


def _go_on(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    have, state = _length(part), _read_state(part)
    headers = {"User-Agent": "fewmatch", "Accept-Encoding": "identity"}
    if have and (state.get("url"), state.get("total")) == (url, have):
        return
    if have and state.get("url") == url and state.get("validator"):
        headers |= {"Range": f"bytes={have}-", "If-Range": str(state["validator"])}
    else:
        have = 0
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        if url.startswith("https:") and not response.url.startswith("https:"):
            raise NotFetchedError(f"{_host(url)} sends on to {response.url}, which is not encrypted")
        if response.status == 206:
            rest = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if not rest or int(rest[1]) != have or int(rest[2]) != state.get("total"):
                discard(part)
                raise ConnectionError("the server sent another part than the one asked for")
            total: int | None = int(rest[2])
        elif response.status == 200:
            have, total = 0, response.length
        else:
            raise NotFetchedError(f"the server answered {response.status} {response.reason}")
        first = response.read1(_CHUNK)
        if have == 0 and (response.headers.get_content_type() == "text/html" or is_web_page(first)):
            discard(part)
            raise WeightsRefusedError(
                f"{url} is a web page: expected weights; where it asks for a login or a licence, answer it in a browser "
                "and install the file with `fewmatch download NAME --from FILE`"
            )
        if size is not None and total is not None and total != size:
            discard(part)
            raise WeightsRefusedError(f"{url} is not what is expected: expected {size:,} bytes, got {total:,}")
        with _local(part):
            part.parent.mkdir(parents=True, exist_ok=True)
            if total is not None:
                require_room(part.parent, total - have)
            if have == 0:
                part.unlink(missing_ok=True)  # never a part of one file described as that of another
                tag = response.headers.get("ETag", "")
                validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
                write_atomically(
                    _state_file(part), json.dumps({"url": url, "validator": validator, "total": total}).encode()
                )
            file = part.open("ab" if have else "wb")
        with file:
            while first:
                with _local(part):
                    file.write(first)
                have += len(first)
                if progress:
                    progress(have, total)
                first = response.read1(_CHUNK)
            with _local(part):
                file.flush()
                os.fsync(file.fileno())
    if total is not None and have < total:
        raise ConnectionError(f"the connection was cut after {have:,} of {total:,} bytes")


@contextlib.contextmanager
def _local(path: Path) -> Iterator[None]:
    """Tell trouble with the disk from trouble with the network."""
    try:
        yield
    except OSError as error:
        raise FewmatchError(
            f"{path} cannot be written ({error.strerror}): what came is kept, run this again when that is mended"
        ) from error


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _state_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_state(part: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state_file(part).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _retry_after(value: str | None) -> float:
    """Seconds to wait, from a number or a date; 0 for what is neither."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else 0.0


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _words(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return f"nothing came for {TIMEOUT:g} seconds"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__
