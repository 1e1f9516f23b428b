"""Weights files of the catalogue: found, fetched, held against their digests, or a message that says how to get them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.identity import file_digest
from fewmatch.encoders.paths import fewmatch_home, offline, weights_folder
from fewmatch.encoders.weights.download import NotFetchedError, Progress, discard, fetch, finish
from fewmatch.errors import FewmatchError, WeightsMissingError, WeightsRefusedError
from fewmatch.writing import write_atomically

Note = Callable[[str], None]


def obtain(
    record: Checkpoint, *, trust_digest: bool = False, note: Note | None = None, progress: Progress | None = None
) -> Path:
    """The file of a checkpoint: where it is on this machine, or fetched into fewmatch's own folder.

    A file that is there already is not verified here (see `verify`); one that is fetched gets its name only once it is. Of two
    processes that want the same file, one fetches it and the other waits and uses it.

    Args:
        note: called with lines worth showing: what is fetched, how large, under which licence; the digest where none is known.
        progress: called with bytes that are there and bytes in all (None where unknown).

    Raises:
        WeightsMissingError: it is not here and cannot be fetched: offline, gated, or the server does not give it.
        WeightsRefusedError: what came is not the file that the catalogue means.
        FewmatchError: it cannot be written.
    """
    note = note or (lambda _: None)
    place = record.location()
    if place:
        return place[1]
    reason = _forbidden(record)
    if reason or record.url is None:
        raise WeightsMissingError(missing_weights_message(record, reason))
    target = weights_folder() / record.filename
    with being_written(target, note):
        place = record.location()
        if place:
            return place[1]
        note(f"fetching {record.name}: {_size(record)}, {_licence(record)}, to {target}")
        digest = _fetch_verified(record, record.url, target, trust_digest, progress)
        if record.digest_trust == "none":
            remember(target, digest)
            note(
                f"nobody published a digest of {record.name}; this file has SHA-256 {digest}, kept in {memory_file(target)}"
            )
    return target


def _fetch_verified(record: Checkpoint, url: str, target: Path, trust_digest: bool, progress: Progress | None) -> str:
    part = target.with_name(target.name + ".part")
    lenient = trust_digest and record.digest_trust == "observed"
    while True:
        begun = part.is_file()
        try:
            fetch(url, part, size=None if lenient else record.bytes, progress=progress)
        except NotFetchedError as error:
            raise WeightsMissingError(missing_weights_message(record, str(error))) from error
        problem = difference(record, part, trust_digest)
        if problem is None:
            digest = file_digest(part)
            finish(part, target)
            return digest
        if begun:  # what an earlier call left may be at fault
            discard(part)
            continue
        if record.digest_trust == "observed":
            raise WeightsRefusedError(
                f"{url} is not {record.name}: {problem}; what came is kept in {part}: "
                "pass --trust-digest if you know why, or try again to fetch it anew"
            )
        discard(part)
        raise WeightsRefusedError(f"{url} is not {record.name}: {problem}; what came was removed")


def verify(record: Checkpoint, path: Path, trust_digest: bool = False) -> str:
    """The SHA-256 of a checkpoint's file on this machine, after holding it against what is known of it.

    Only the released file has the catalogue's size and digest; the same weights in another layout have only what `remember` kept.

    Raises:
        WeightsRefusedError: it is another file, and `trust_digest` does not allow that.
    """
    if record.bundled or path.name in record.official_names():
        problem = difference(record, path, trust_digest)
        if problem:
            advice = "delete it and fetch it again" + (
                ", or pass --trust-digest if you know the file" if record.digest_trust == "observed" else ""
            )
            raise WeightsRefusedError(f"{path} is not {record.name}: {problem}: {advice}")
    digest = file_digest(path)
    with contextlib.suppress(OSError, UnicodeError):
        seen = memory_file(path).read_text().split(maxsplit=1)[:1]
        if path.parent == weights_folder() and seen != [digest] and not trust_digest:
            raise WeightsRefusedError(
                f"{path} changed since it was fetched: expected SHA-256 {seen[0] if seen else 'in ' + str(memory_file(path))}, "
                f"got {digest}: delete both files and fetch it again, or pass --trust-digest if you know why"
            )
    return digest


def remember(path: Path, digest: str) -> None:
    """Keep the digest of a file of which none is known otherwise, in the format of `sha256sum`, so that a change is noticed."""
    write_atomically(memory_file(path), f"{digest}  {path.name}\n".encode())


def missing_weights_message(record: Checkpoint, reason: str | None = None) -> str:
    """All that a person needs to get the weights by hand, in one line per fact."""
    target = weights_folder() / record.filename
    why = f" ({reason})" if reason else ""
    digest = f"SHA-256  {record.sha256} ({record.digest_trust})" if record.sha256 else "SHA-256  none known"
    if record.md5 and not record.sha256:
        digest = f"MD5      {record.md5} ({record.digest_trust})"
    brought = f"fewmatch download {record.name} --from FILE"
    lines = [
        f"the weights of {record.name} are not on this machine{why}; `-e mini` works now, without them",
        f"  file     {record.filename} ({_size(record)}; {_licence(record)})",
        f"  URL      {record.url or 'none known'}",
        f"  {digest}",
        f"  target   {target}",
    ]
    if record.gated:
        lines.append(f"  command  {brought}   (FILE: what the publisher gives you on request)")
    elif record.url:
        lines.append(f"  command  curl -fL --create-dirs -o '{target}' '{record.url}'")
        lines.append(f"  or       {brought}   (FILE: brought from another machine)")
    places = "torch.hub's and Hugging Face's caches" + (f" ({record.hf_repo})" if record.hf_repo else "")
    return "\n".join([*lines, f"  files in {places} are found there too"])


@contextlib.contextmanager
def being_written(target: Path, note: Note) -> Iterator[None]:
    """Wait until no other process writes this file, and keep others from it meanwhile.

    The lock lies outside the folder of the weights, in which everything is a file of weights or belongs to one.
    """
    locks = fewmatch_home() / "locks"
    name = hashlib.blake2b(str(target).encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            note(f"another process is fetching {target.name}: waiting for it")
            lock.acquire()
    except OSError as error:
        raise FewmatchError(
            f"no lock can be made in {locks} ({error.strerror}): set FEWMATCH_HOME to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _forbidden(record: Checkpoint) -> str | None:
    if record.gated:
        return "its publisher gives them only on request"
    if record.url is None:
        return "and no address of them is known"
    variable = offline()
    return f"and {variable} forbids to fetch them" if variable else None


def difference(record: Checkpoint, path: Path, trust_digest: bool) -> str | None:
    """How a file differs from the released one, None where it does not or where that is accepted."""
    if trust_digest and record.digest_trust == "observed":
        return None
    if record.sha256 and not (got := file_digest(path)).startswith(record.sha256):
        return f"expected SHA-256 {record.sha256} ({record.digest_trust}), got {got}"
    if record.md5 and not (got := file_digest(path, "md5")).startswith(record.md5):
        return f"expected MD5 {record.md5} ({record.digest_trust}), got {got}"
    size = path.stat().st_size
    if record.bytes is not None and size != record.bytes:
        return f"expected {record.bytes:,} bytes, got {size:,}"
    return None


def memory_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _size(record: Checkpoint) -> str:
    if record.bytes:
        return f"{record.bytes:,} bytes"
    return f"about {4 * record.parameters / 1e6:,.0f} MB" if record.parameters else "of unknown size"


def _licence(record: Checkpoint) -> str:
    return record.licence + (", non-commercial use only" if record.non_commercial else "")
