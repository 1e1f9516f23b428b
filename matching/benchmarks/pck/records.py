"""What is kept of a scored pair, with digests of what it was made from, and a file of such records from which a later run goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fewmatch.encoders.identity import canonical
from fewmatch.encoders.store.lock import locked
from fewmatch.errors import FewmatchError, InputError, OutputExistsError
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
from fewmatch.matching.benchmarks.pck.convention import Convention

#: Of the file; another number is another layout.
SCHEMA = 3

#: By input of a record which kind it is of, as messages and results name it.
_KINDS = {"image_a": "images", "image_b": "images", "annotation": "annotations", "mask_a": "masks", "mask_b": "masks"}


@dataclass(frozen=True, eq=False)
class PairRecord:
    """How far the points of one pair were found from where they are.

    name, category, facts: the pair's. K points; of both directions, those from A to B come first.
    errors: (K,) distances in pixels of the original image in which the points were looked for. thresholds: (K,) T in the same pixels.
    own_nearest: (K,) whether no other point of the pair lies nearer to where the point was found than its own place does.
    kept: (K,) whether the convention's filters let the point through; None takes all. Points that they do not are wrong wherever they are.
    twins: (K,) whether the point's mirror image is among the pair's points; None where the benchmark does not say.
    moved: how many points were given outside their image and looked up at its border. mirrored: in how many of the directions the source was
        taken as its mirror image.
    inputs: digests of what it was made from, by `pair_inputs`; empty where nobody took them.
    """

    name: str
    category: str
    errors: Float[np.ndarray, "K"]
    thresholds: Float[np.ndarray, "K"]
    own_nearest: Bool[np.ndarray, "K"]
    twins: Bool[np.ndarray, "K"] | None = None
    kept: Bool[np.ndarray, "K"] | None = None
    facts: Mapping[str, int | float | str] = field(default_factory=dict)
    moved: int = 0
    mirrored: int = 0
    inputs: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {
            len(x) for x in (self.errors, self.thresholds, self.own_nearest, self.twins, self.kept) if x is not None
        }
        if len(lengths) > 1:
            raise InputError(
                f"{self.name}: expected as many errors, thresholds and marks as points, got {sorted(lengths)}"
            )
        if not (np.isfinite(self.errors).all() and (self.errors >= 0).all()):
            raise InputError(f"{self.name}: expected finite errors of 0 or more pixels")
        if not (np.isfinite(self.thresholds).all() and (self.thresholds > 0).all()):
            raise InputError(f"{self.name}: expected finite thresholds T above 0 pixels")

    def __len__(self) -> int:
        return len(self.errors)

    def to_json(self) -> dict[str, Any]:
        """One object; every number reads back as the same float."""
        same = list(set(self.thresholds.tolist()))
        return {
            "name": self.name,
            "category": self.category,
            "n": len(self),
            "errors": self.errors.tolist(),
            # One number where the direction is one, for the size of the file.
            "thresholds": same[0] if len(same) == 1 else self.thresholds.tolist(),
            "own_nearest": _bits(self.own_nearest),
            "twins": None if self.twins is None else _bits(self.twins),
            "kept": None if self.kept is None else _bits(self.kept),
            "facts": dict(self.facts),
            "moved": self.moved,
            "mirrored": self.mirrored,
            "inputs": dict(self.inputs),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PairRecord:
        """The record back; anything amiss raises KeyError, TypeError or ValueError (InputError is one)."""
        record = cls(
            name=data["name"],
            category=data["category"],
            errors=np.array(data["errors"], np.float64),
            thresholds=_filled(data["thresholds"], len(data["errors"])),
            own_nearest=_marks(data["own_nearest"]),
            twins=None if data["twins"] is None else _marks(data["twins"]),
            kept=None if data["kept"] is None else _marks(data["kept"]),
            facts=data["facts"],
            moved=data["moved"],
            mirrored=data["mirrored"],
            inputs=dict(data["inputs"]),
        )
        if len(record) != data["n"]:
            raise ValueError(f"{data['n']} points, yet {len(record)} errors")
        return record


def _bits(marks: Bool[np.ndarray, "K"]) -> str:
    return "".join("1" if mark else "0" for mark in marks)


def _marks(bits: str) -> Bool[np.ndarray, "K"]:
    if set(bits) - {"0", "1"}:
        raise ValueError(f"expected 0 and 1, got {bits[:20]!r}")
    return np.array([bit == "1" for bit in bits], bool)


def _filled(thresholds: float | list[float], count: int) -> Float[np.ndarray, "K"]:
    values = np.asarray(thresholds, np.float64)
    return np.full(count, values) if values.ndim == 0 else values


def benchmark_digest(benchmark: Benchmark) -> str:
    """A short name for the pairs of a benchmark and what is annotated in them, wherever the images lie."""
    pairs = [_annotated(pair) for pair in benchmark.pairs]
    return _digest([benchmark.kind, benchmark.split, pairs])


def _annotated(pair: BenchmarkPair) -> list[Any]:
    return [
        pair.name,
        pair.category,
        *(
            hashlib.blake2b(np.ascontiguousarray(points, "<f8").tobytes(), digest_size=10).hexdigest()
            for points in (pair.points_a, pair.points_b)
        ),
        [None if box is None else [float(edge) for edge in box] for box in (pair.box_a, pair.box_b)],
        None if pair.twins is None else list(map(int, pair.twins)),
        [pair.path_a.name, pair.path_b.name],
        {name: str(value) for name, value in pair.facts.items()},
    ]


def _digest(content: Any) -> str:
    return hashlib.blake2b(canonical(content), digest_size=10).hexdigest()


def pair_inputs(
    pair: BenchmarkPair,
    image_a: str,
    image_b: str,
    mask_a: Bool[np.ndarray, "_ha _wa"] | None = None,
    mask_b: Bool[np.ndarray, "_hb _wb"] | None = None,
) -> dict[str, str | None]:
    """Digests of what a pair's record is made from, besides what `run_key` covers.

    Args:
        image_a, image_b: digests of the content of the images' files.
        mask_a, mask_b: the patches or pixels that take part in each image; None for all.
    """
    sizes = [None if size is None else list(size) for size in (pair.size_a, pair.size_b)]
    return {
        "image_a": image_a,
        "image_b": image_b,
        "annotation": _digest([_annotated(pair), sizes]),
        "mask_a": _mask_digest(mask_a),
        "mask_b": _mask_digest(mask_b),
    }


def images_digest(records: Sequence[PairRecord]) -> str | None:
    """A short name for the images of scored pairs, in whatever order; None where a record does not say."""
    rows = [[record.name, record.inputs.get("image_a"), record.inputs.get("image_b")] for record in records]
    return None if any(None in row for row in rows) else _digest(sorted(rows))


def run_key(convention: Convention, encoder: Mapping[str, Any], benchmark: Benchmark) -> str:
    """A short name for what all records of a run have in common; `pair_inputs` covers what differs from pair to pair.

    Alphas, `<=` or `<` and the headline's average are in neither: the same records are counted again.

    Args:
        encoder: facts of the encoder as its features' key has them (`FeatureStore` meta, or `fewmatch.encoders.store.plan.EncodingPlan.key`).
        benchmark: before any limit, so that a run over more of its pairs goes on from one over fewer. Its kind, split and choices count.
    """
    which = [benchmark.kind, benchmark.split, dict(benchmark.choices)]
    return _digest([SCHEMA, convention.finding(), dict(encoder), which])


def _mask_digest(mask: Bool[np.ndarray, "h w"] | None) -> str | None:
    if mask is None:
        return None
    return hashlib.blake2b(np.packbits(mask).tobytes() + str(mask.shape).encode(), digest_size=10).hexdigest()


class PairRecords:
    """The records of a file by the names of their pairs; `add` puts one more into both. See `open_pair_records`.

    A pair that was scored again has several lines in the file, of which the last counts.
    """

    def __init__(self, file: int, path: Path, records: dict[str, PairRecord]) -> None:
        self._file, self._path, self._records = file, path, records

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __getitem__(self, name: str) -> PairRecord:
        return self._records[name]

    def changed(self, name: str, inputs: Mapping[str, str | None]) -> tuple[str, ...]:
        """Which of images, annotations and masks differ from those that the pair's record was made from; none where it can be used again.

        Raises:
            KeyError: the pair is not there.
        """
        before = self._records[name].inputs
        differ = [kind for part, kind in _KINDS.items() if part not in before or before[part] != inputs[part]]
        return tuple(dict.fromkeys(differ))

    def add(self, record: PairRecord) -> None:
        """Write the line of a pair, in one piece. It takes the place of one that was made from other inputs.

        Raises:
            InputError: the pair is there, made from the same. FewmatchError: the file cannot be written.
        """
        if record.name in self._records and self._records[record.name].inputs == record.inputs:
            raise InputError(f"{self._path}: the pair {record.name} is there already")
        _write(self._file, self._path, record.to_json())
        self._records[record.name] = record


@contextlib.contextmanager
def open_pair_records(path: str | os.PathLike[str], run: str) -> Iterator[PairRecords]:
    """Open a file of records to read what is there and to add to it: one line of JSON each, after one that names the run.

    A last line without its end, as a run that was killed leaves it, is cut off. Nobody else can open it for writing meanwhile.

    Args:
        path: the file, made where there is none. run: the run's name, by `run_key`.

    Raises:
        OutputExistsError: the file is of another run or no such file, or another process has it open.
        InputError: a line in the file is damaged.
        FewmatchError: it cannot be read or written.
    """
    path = Path(path)
    with locked(path, (1, 1), wait=False):
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise FewmatchError(f"{path} cannot be opened for records: {error.strerror}") from error
        try:
            records, whole = _read(path, run)
            os.ftruncate(file, whole)
            if whole == 0:
                _write(file, path, {"schema": SCHEMA, "kind": "fewmatch pck records", "run": run})
            yield PairRecords(file, path, records)
        finally:
            os.close(file)


def _read(path: Path, run: str) -> tuple[dict[str, PairRecord], int]:
    """The records of the whole lines, and how many bytes these are."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    lines = data[:whole].splitlines()
    if not lines:
        # Only what could be the beginning of our own first line is cut off.
        if data and not data.startswith(b'{"kind":"fewmatch pck records"'[: len(data)]):
            raise OutputExistsError(f"{path} is no file of PCK records: choose another file")
        return {}, 0
    try:
        head = json.loads(lines[0])
        ours = head["kind"] == "fewmatch pck records"
    except (ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise OutputExistsError(f"{path} is no file of PCK records: choose another file")
    if head.get("schema") != SCHEMA:
        raise OutputExistsError(
            f"{path} holds records of schema {head.get('schema')}, this fewmatch writes schema {SCHEMA}: choose another file, or remove it"
        )
    if head.get("run") != run:
        raise OutputExistsError(
            f"{path} holds the records of another run (other convention, encoder, benchmark or split): choose another file, or remove it"
        )
    records: dict[str, PairRecord] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            record = PairRecord.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}, line {number}: no record of a pair; remove the line to score its pair again"
            ) from error
        records[record.name] = record
    return records, whole


def _write(file: int, path: Path, data: dict[str, Any]) -> None:
    line = canonical(data) + b"\n"
    try:
        written = os.write(file, line)
        while written < len(line):
            written += os.write(file, line[written:])
    except OSError as error:
        raise FewmatchError(f"{path} cannot be written: {error.strerror}") from error
