"""Any benchmark by its kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks import ap10k, cub, hpatches, pf_pascal, pf_willow, psc6k, spair, tss
from fewmatch.matching.benchmarks.pair import Benchmark

#: By kind: the reader, its splits, and which options it takes.
_READERS: dict[str, tuple[Callable[..., Benchmark], tuple[str, ...], tuple[str, ...]]] = {
    "spair": (spair.read_spair, spair.SPLITS, ("layout",)),
    "pf-pascal": (pf_pascal.read_pf_pascal, pf_pascal.SPLITS, ()),
    "pf-willow": (pf_willow.read_pf_willow, pf_willow.SPLITS, ()),
    "tss": (tss.read_tss, tss.SPLITS, ("step", "points", "seed")),
    "cub": (cub.read_cub, cub.SPLITS, ("pairs", "seed")),
    "ap10k": (ap10k.read_ap10k, ap10k.SPLITS, ()),
    "hpatches": (hpatches.read_hpatches, hpatches.SPLITS, ("step", "points", "seed", "all_sequences")),
    "psc6k": (psc6k.read_psc6k, psc6k.SPLITS, ("images",)),
}

#: What `read_benchmark` reads.
BENCHMARKS = tuple(_READERS)


def read_benchmark(
    folder: str | os.PathLike[str],
    kind: str,
    *,
    split: str = "test",
    layout: str | None = None,
    images: str | os.PathLike[str] | None = None,
    pairs: int | None = None,
    seed: int | None = None,
    step: int | None = None,
    points: int | None = None,
    all_sequences: bool | None = None,
) -> Benchmark:
    """The pairs of one split of a benchmark in its official layout: nothing is converted or copied, and no image is decoded.

    Points come out as pixels of the originals, x then y, centres at integers, whatever the benchmark counts from. Boxes of benchmarks that
    count from 1 are moved with the points; their extents are the annotation's.

    Args:
        folder: the benchmark's own folder, as its module describes it.
        kind: one of `BENCHMARKS`.
        split: test, or what else the benchmark has; trn and train are the same.
        layout: of spair: large or small.
        images: of psc6k: where the lists' paths begin.
        pairs: of cub: how many pairs of each class are drawn, by default 10.
        seed: of cub, of tss and hpatches with `points`: what is drawn, by default 0.
        step: of tss and hpatches: every step-th pixel of every step-th row, by default 1 (tss) and 16 (hpatches).
        points: of tss and hpatches: at most so many for each pair, by default all.
        all_sequences: of hpatches: all 116 sequences and not the usual 108.

    Raises:
        InputError: an unknown kind or split, an option of another kind, or a missing or damaged file, which is named.
    """
    if kind not in _READERS:
        raise InputError(f"no benchmark called {kind}: expected one of {', '.join(BENCHMARKS)}")
    reader, splits, takes = _READERS[kind]
    given: dict[str, Any] = {
        "layout": layout,
        "images": None if images is None else Path(images),
        "pairs": pairs,
        "seed": seed,
        "step": step,
        "points": points,
        "all_sequences": all_sequences,
    }
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if name not in takes:
            kinds = [other for other, (_, _, others) in _READERS.items() if name in others]
            raise InputError(
                f"{kind} has no option {name.replace('_', ' ')}: only {', '.join(kinds)} {'have' if kinds[1:] else 'has'} it"
            )
    if "seed" in options and "points" in takes and "points" not in options:
        raise InputError(f"nothing of {kind} is drawn with a seed: give points as well, or leave out seed")
    same = {"trn": "train", "train": "trn"}
    chosen = split if split in splits else same.get(split, split)
    if chosen not in splits:
        raise InputError(f"{kind} has no split {split}: expected {'one of ' if splits[1:] else ''}{', '.join(splits)}")
    return reader(Path(folder), chosen, **options)
