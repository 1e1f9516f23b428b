"""Weights files that a person brought: checked like fetched ones, then copied to where they are found by name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.identity import file_digest
from fewmatch.encoders.loading import encoder_of
from fewmatch.encoders.paths import weights_folder
from fewmatch.encoders.weights.checkpoint import weights_file
from fewmatch.encoders.weights.download import require_room
from fewmatch.encoders.weights.files import being_written, difference, memory_file, remember
from fewmatch.errors import FewmatchError, InputError, WeightsRefusedError
from fewmatch.writing import replacing


def install_weights(record: Checkpoint, path: str | os.PathLike[str], *, trust_digest: bool = False) -> Path:
    """Copy a file (or the `model.safetensors` of a folder) into fewmatch's own folder as the weights of a checkpoint.

    A file of the kind of the released one must have its digest, as far as one is known. The same weights in the other kind (the
    `.safetensors` of a Hugging Face repository where the release is a `.pth`) have no known digest; theirs is kept to notice a change.
    In any case keys and shapes must be the checkpoint's. The copy appears whole or not at all.

    Returns:
        Where the copy is.

    Raises:
        InputError: there is no such file, or the checkpoint is bundled.
        WeightsRefusedError: it is not this checkpoint's.
        FewmatchError: it cannot be copied.
    """
    if record.bundled:
        raise InputError(f"{record.name} is part of fewmatch: there is nothing to install")
    source = weights_file(path)
    released = _is_safetensors(source) == _is_safetensors(Path(record.filename))
    other = f"{record.name}.safetensors" if _is_safetensors(source) else f"{record.name}.pth"
    target = weights_folder() / (record.filename if released else other)
    problem = difference(record, source, trust_digest) if released else None
    if problem:
        advice = ", or pass --trust-digest if you know the file" if record.digest_trust == "observed" else ""
        raise WeightsRefusedError(f"{source} is not {record.name}: {problem}: nothing was installed{advice}")
    digest = file_digest(source)
    _check_entries(record, source, digest)
    with being_written(target, lambda _: None):
        if not (target.is_file() and target.samefile(source)):
            _copy(source, target, digest)
        if released and record.digest_trust != "none":
            memory_file(target).unlink(missing_ok=True)
        else:
            remember(target, digest)
    return target


def _check_entries(record: Checkpoint, source: Path, digest: str) -> None:
    try:
        encoder_of(record, source, digest)
    except WeightsRefusedError as error:
        raise WeightsRefusedError(f"{source} is not {record.name}: {error}: nothing was installed") from error


def _copy(source: Path, target: Path, digest: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        require_room(target.parent, source.stat().st_size)
        copied = hashlib.sha256()
        with source.open("rb") as file, replacing(target) as out:
            while block := file.read(1 << 20):
                copied.update(block)
                out.write(block)
            if copied.hexdigest() != digest:
                raise WeightsRefusedError(f"{source} changed while it was copied: nothing was installed")
    except OSError as error:
        raise FewmatchError(f"{source} cannot be copied to {target} ({error.strerror})") from error


def _is_safetensors(path: Path) -> bool:
    return path.suffix == ".safetensors"
