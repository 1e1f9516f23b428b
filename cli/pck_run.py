"""A run of `fewmatch pck`: the pairs are read, their images encoded once, and every pair is scored that was not yet."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli import output
from fewmatch.cli.inputs.encoder_choice import EncodingChoice
from fewmatch.cli.inputs.maps import ImageMaps, open_maps
from fewmatch.cli.inputs.views import ImageMasks, Views, masks_of, open_views

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
    from fewmatch.matching.benchmarks.pck.convention import Convention
    from fewmatch.matching.benchmarks.pck.places import EncodedImage
    from fewmatch.matching.benchmarks.pck.records import PairRecords
    from fewmatch.matching.benchmarks.pck.report import PCKReport


@dataclass(frozen=True)
class BenchmarkChoice:
    """Which pairs of which benchmark; as the options of those names."""

    folder: Path
    kind: str
    split: str = "test"
    layout: str | None = None
    images: Path | None = None
    pairs: int | None = None
    step: int | None = None
    points: int | None = None
    all_sequences: bool | None = None
    limit: int | None = None
    limit_per_category: int | None = None
    seed: int | None = None

    def check(self) -> None:
        """Refuse limits that exclude each other and a seed that would draw nothing."""
        from fewmatch.errors import InputError

        if self.limit is not None and self.limit_per_category is not None:
            raise InputError("--limit and --limit-per-category together: expected one of them")
        if self.seed is not None and not self._reader_draws and not self._limited:
            raise InputError("--seed draws nothing here: give --limit, --limit-per-category or --points with it")

    @property
    def _limited(self) -> bool:
        return self.limit is not None or self.limit_per_category is not None

    @property
    def _reader_draws(self) -> bool:
        return self.kind == "cub" or self.points is not None

    def read(self) -> tuple[Benchmark, Benchmark]:
        """All pairs of the split, and those within the limits."""
        from fewmatch.matching.benchmarks.limiting import limited
        from fewmatch.matching.benchmarks.reading import read_benchmark

        whole = read_benchmark(
            self.folder,
            self.kind,
            split=self.split,
            layout=self.layout,
            images=self.images,
            pairs=self.pairs,
            seed=self.seed if self._reader_draws else None,
            step=self.step,
            points=self.points,
            all_sequences=self.all_sequences,
        )
        if self.limit is not None:
            return whole, limited(whole, self.limit, self.seed or 0)
        if self.limit_per_category is not None:
            return whole, limited(whole, self.limit_per_category, self.seed or 0, per_category=True)
        return whole, whole


@dataclass(frozen=True)
class RecordUse:
    """What became of the pairs of a run: records of an earlier one were used again, or the pair was scored now.

    file: where the records are, None where they were not kept. reused, scored: how many pairs.
    changed: by kind of input (images, annotations, masks) how many pairs were scored again because it changed since their record was made;
        a pair counts for each kind. again: how many pairs that are in all.
    """

    file: Path | None
    reused: int
    scored: int
    again: int
    changed: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {
            "file": None if self.file is None else str(self.file),
            "reused": self.reused,
            "scored": self.scored,
            "scored_again": self.again,
            "changed": dict(self.changed),
        }

    def in_words(self) -> str:
        """One line; empty where no record was there."""
        words = []
        if self.reused:
            words.append(f"{self.reused:,} of {self.reused + self.scored:,} pairs are scored already in {self.file}")
        if self.again:
            why = ", ".join(f"{kind} of {count:,}" for kind, count in self.changed.items())
            pairs = "1 pair is" if self.again == 1 else f"{self.again:,} pairs are"
            words.append(f"{pairs} scored again, because these changed: {why}")
        return "; ".join(words)


@dataclass(frozen=True)
class PCKResult:
    """What a run found: the report, what encoded the images, and what a user should know besides."""

    report: PCKReport
    key: dict[str, Any]
    notes: Sequence[str]
    skipped: list[dict[str, Any]]
    records: RecordUse


@dataclass(frozen=True)
class PairMaps:
    """The images of pairs as a convention has them encoded; those that are sources mirrored too where it has a flip."""

    place: dict[Path, int]
    views: Views
    fine: Views | None

    def of(self, path: Path) -> EncodedImage:
        index = self.place[path.absolute()]
        fine = None if self.fine is None else self._image(self.fine, index)
        return dataclasses.replace(self._image(self.views, index), fine=fine)

    def _image(self, views: Views, index: int) -> EncodedImage:
        from fewmatch.matching.benchmarks.pck.places import EncodedImage

        view, mirrored = views.view(index), None
        if index in views.place:
            turned = views.view(index, mirrored=True)
            mirrored = turned.map, turned.frame
        return EncodedImage(view.map, view.frame, view.valid, mirrored)


#: Draws examples of these pairs.
Draw = Callable[["Benchmark", "Convention", PairMaps], None]


def run_pck(
    chosen: BenchmarkChoice,
    convention: Convention,
    choice: EncodingChoice,
    records: Path | None,
    masks: Path | None,
    draw: Draw | None,
) -> PCKResult:
    """Score all pairs that were not scored yet, and count; `masks` is the folder that `where` masks needs.

    Raises:
        InputError: a benchmark that cannot be read, a pair without T or that cannot be looked for, or no image that can be used.
        OutputExistsError: `records` is of another run, or another process has it open.
    """
    from fewmatch.matching.benchmarks.pck.records import open_pair_records, run_key
    from fewmatch.matching.benchmarks.pck.report import pck
    from fewmatch.matching.benchmarks.pck.scoring import score_pair

    whole, benchmark = chosen.read()
    for note in benchmark.notes:
        output.note(f"note: {output.printable(note)}")
    _check_pairs(benchmark, convention)
    files = list(dict.fromkeys(path for pair in benchmark.pairs for path in (pair.path_a, pair.path_b)))
    if masks is not None:
        _check_masks(masks, files)
    with open_maps(files, choice, default_size=lambda encoder: convention.fitted(encoder.patch_size).size) as maps:
        place = {file: index for index, file in enumerate(maps.files)}
        skipped = [*maps.skipped, *_other_sizes(benchmark, maps, place)]
        benchmark = _usable(benchmark, place, skipped)
        convention = dataclasses.replace(
            convention, size=maps.key["preprocessing"]["dense"], dtype=maps.key["encoder"]["dtype"]
        )
        found_masks = _masks(maps, masks, convention)
        in_key = found_masks.pixels if masks is not None else found_masks.patches
        inputs = {pair.name: _inputs(pair, maps, place, in_key) for pair in benchmark.pairs}
        run = run_key(convention, maps.key, whole)
        with _records_file(records, chosen.folder, run, choice.cache) as path, open_pair_records(path, run) as kept:
            use, left = _left_to_score(benchmark, inputs, kept, path if records or choice.cache else None)
            if use.in_words():
                output.note(output.printable(use.in_words()))
            needed = left if draw is None else benchmark.pairs
            if needed:
                with _pair_maps(maps, place, found_masks, needed, convention) as pair_maps:
                    with output.progress("scoring pairs") as update:
                        for done, pair in enumerate(left, start=1):
                            record = score_pair(pair, pair_maps.of(pair.path_a), pair_maps.of(pair.path_b), convention)
                            kept.add(dataclasses.replace(record, inputs=inputs[pair.name]))
                            update(done, len(left))
                    if draw is not None:
                        draw(benchmark, convention, pair_maps)
            found = [kept[pair.name] for pair in benchmark.pairs]
        report = pck(found, convention, benchmark=benchmark)
        return PCKResult(report, maps.key, benchmark.notes, skipped, use)


def _inputs(
    pair: BenchmarkPair, maps: ImageMaps, place: dict[Path, int], masks: Sequence[np.ndarray | None]
) -> dict[str, str | None]:
    """Digests of what a pair's record is made from. Those of the images are of the content that was encoded."""
    from fewmatch.matching.benchmarks.pck.records import pair_inputs

    a, b = (place[path.absolute()] for path in (pair.path_a, pair.path_b))
    return pair_inputs(pair, maps.rows[a]["sha256"], maps.rows[b]["sha256"], masks[a], masks[b])


def _left_to_score(
    benchmark: Benchmark, inputs: dict[str, dict[str, str | None]], kept: PairRecords, file: Path | None
) -> tuple[RecordUse, list[BenchmarkPair]]:
    """The pairs without a record and those whose record was made from something else."""
    left, again, changed = [], 0, dict.fromkeys(("images", "annotations", "masks"), 0)
    for pair in benchmark.pairs:
        kinds = kept.changed(pair.name, inputs[pair.name]) if pair.name in kept else None
        if kinds != ():
            left.append(pair)
        again += bool(kinds)
        for kind in kinds or ():
            changed[kind] += 1
    changed = {kind: count for kind, count in changed.items() if count}
    return RecordUse(file, len(benchmark.pairs) - len(left), len(left), again, changed), left


def _check_pairs(benchmark: Benchmark, convention: Convention) -> None:
    """What can be checked of every pair before anything is encoded: left and right, and T unless it needs the images' sizes."""
    from fewmatch.matching.benchmarks.pck.scoring import pair_threshold, require_twins

    for pair in benchmark.pairs:
        require_twins(pair, convention)
    if convention.threshold.startswith("image"):
        return
    for pair in benchmark.pairs:
        if convention.direction != "b-to-a":
            pair_threshold(pair, convention, "a-to-b")
        if convention.direction != "a-to-b":
            pair_threshold(pair, convention, "b-to-a")


def _check_masks(folder: Path, files: Sequence[Path]) -> None:
    """A mask for every image, before anything is encoded."""
    from fewmatch.errors import InputError
    from fewmatch.matching import find_masks

    if not folder.is_dir():
        raise InputError(f"expected --mask to be a folder of masks, got {folder}")
    find_masks([str(folder)], [str(file) for file in files])


def _other_sizes(benchmark: Benchmark, maps: ImageMaps, place: dict[Path, int]) -> list[dict[str, Any]]:
    """The images that do not have the size that the annotation says: points and T would be of another picture."""
    from fewmatch.labels.image_sizes import size_difference

    found: dict[Path, str] = {}
    for pair in benchmark.pairs:
        for path, stated in ((pair.path_a, pair.size_a), (pair.path_b, pair.size_b)):
            if stated is None or path in found or path.absolute() not in place:
                continue
            frame = maps.frame(place[path.absolute()])
            difference = size_difference(stated, (frame.width, frame.height))
            if difference is not None:
                found[path] = str(difference)
    return [{"path": str(path), "reason": reason} for path, reason in found.items()]


def _usable(benchmark: Benchmark, place: dict[Path, int], skipped: Sequence[dict[str, Any]]) -> Benchmark:
    """Without the pairs that have an image that was skipped; these are dropped, with the image's reason."""
    from fewmatch.errors import InputError

    reasons = {Path(row["path"]).absolute(): str(row["reason"]) for row in skipped}
    pairs, dropped = [], list(benchmark.dropped)
    for pair in benchmark.pairs:
        of_pair = (pair.path_a, pair.path_b)
        bad = [path for path in of_pair if path.absolute() not in place or path.absolute() in reasons]
        if bad:
            dropped.append((pair.name, f"{bad[0].name}: {reasons.get(bad[0].absolute(), 'cannot be used')}"))
        else:
            pairs.append(pair)
    if not pairs:
        why = f": {dropped[0][0]}: {dropped[0][1]}" if dropped else ""
        raise InputError(f"no pair can be used, of {len(dropped):,}{why}")
    return dataclasses.replace(benchmark, pairs=tuple(pairs), dropped=tuple(dropped))


@contextlib.contextmanager
def _records_file(records: Path | None, folder: Path, run: str, cache: bool) -> Iterator[Path]:
    """The file of records: the user's, else one in the cache for this run over this folder, else one that is gone afterwards."""
    from fewmatch.encoders.paths import fewmatch_home

    with contextlib.ExitStack() as stack:
        if records is None and cache:
            digest = hashlib.blake2b(f"{run} {folder.resolve()}".encode("utf-8", "surrogateescape"), digest_size=10)
            records = fewmatch_home() / "pck" / f"{digest.hexdigest()}.jsonl"
        elif records is None:
            records = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewmatch-"))) / "records.jsonl"
        records.parent.mkdir(parents=True, exist_ok=True)
        yield records


def _masks(maps: ImageMaps, folder: Path | None, convention: Convention) -> ImageMasks:
    """The patches that take part; an image in which none would takes part whole, which is said."""
    kind = convention.where if convention.where in ("pca", "cls") else "none"
    found = masks_of(maps, [] if folder is None else [folder], kind)
    empty = [i for i, mask in enumerate(found.patches) if mask is not None and not mask.any()]
    if empty:
        output.note(
            f"note: {len(empty):,} of {len(maps):,} images take part whole, as no patch is foreground; the first is "
            f"{output.printable(maps.files[empty[0]])}"
        )
    for i in empty:
        found.patches[i] = found.pixels[i] = None
    return found


@contextlib.contextmanager
def _pair_maps(
    maps: ImageMaps,
    place: dict[Path, int],
    masks: ImageMasks,
    pairs: Sequence[BenchmarkPair],
    convention: Convention,
) -> Iterator[PairMaps]:
    """The maps, with mirror images of the sources of these pairs where the convention has a flip, and fine ones where it has them."""
    sources: dict[int, None] = {}
    for pair in pairs if convention.flip_rule is not None else ():
        if convention.direction != "b-to-a":
            sources[place[pair.path_a.absolute()]] = None
        if convention.direction != "a-to-b":
            sources[place[pair.path_b.absolute()]] = None
    with open_views(maps, maps.files, masks, mirrored=list(sources), fine_size=convention.fine_size) as (views, fine):
        yield PairMaps(place, views, fine)
