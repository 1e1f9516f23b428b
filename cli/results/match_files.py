"""The files that `fewmatch match` writes: figures, a page to click in, tables and archives of matches, dense flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fewmatch.cli import output
from fewmatch.cli.inputs.encoder_choice import encoder_words
from fewmatch.cli.inputs.maps import ImageMaps

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.cli.match_steps import FoundPair, PairFinder
    from fewmatch.figures import MappedImage

#: The figure shows this many pairs, the first ones.
FIGURE_PAIRS = 12
#: Lines in a figure, and numbers where these are drawn instead.
LINES, NUMBERS = 80, 15
_TABLES = (".csv", ".npz")
_FLOWS = (".npz", ".flo")


@dataclass(frozen=True)
class MatchOutputs:
    """What is to be written; as the options of those names."""

    out: Sequence[Path] = ()
    flow: Path | None = None
    warp: Path | None = None
    colour: Literal["position", "score", "pca", "inliers"] | None = None
    lines: int | None = None
    numbered: bool = False

    @property
    def draws(self) -> bool:
        """Whether a figure of the matches, or of the points, is wanted."""
        return any(path.suffix.lower() in output.FIGURES for path in self.out)

    def check(self, overwrite: bool, verified: bool, points: bool) -> None:
        """Refuse what cannot be written, or would be ignored, before anything is encoded."""
        from fewmatch.errors import InputError

        types = (*output.FIGURES, ".html", *_TABLES)
        for path in self.out:
            output.check_target(path, overwrite)
            if path.suffix.lower() not in types:
                raise InputError(
                    f"no output of type {path.suffix or path.name}: expected a name ending in {', '.join(types)}"
                )
        output.check_figure(self.warp, overwrite)
        output.check_target(self.flow, overwrite)
        if self.flow is not None and self.flow.suffix.lower() not in _FLOWS:
            raise InputError(f"no flow of type {self.flow.suffix or self.flow.name}: expected {' or '.join(_FLOWS)}")
        targets = [path for path in (*self.out, self.flow, self.warp) if path is not None]
        if len({path.absolute() for path in targets}) < len(targets):
            raise InputError("two outputs have the same name: expected a file for each")
        for option, given in (
            ("--colour", self.colour is not None),
            ("--lines", self.lines is not None),
            ("--numbered", self.numbered),
        ):
            if given and not self.draws:
                raise InputError(
                    f"{option} is for a figure: expected -o with a name ending in {', '.join(output.FIGURES)}"
                )
            if given and points:
                raise InputError(f"{option} is for lines: with --points the figure shows how similar places are")
        if self.colour == "inliers" and not verified:
            raise InputError("--colour inliers is for --verify, which is not asked for")
        if self.lines is not None and self.lines < 0:
            raise InputError(f"expected --lines of 0 or more, got {self.lines}")
        if self.numbered and (self.lines or 0) > NUMBERS:
            raise InputError(f"expected --lines of at most {NUMBERS} with --numbered, got {self.lines}")


def write_outputs(wanted: MatchOutputs, maps: ImageMaps, found: Sequence[FoundPair], finder: PairFinder) -> list[Path]:
    """Everything that is wanted, in that order; the paths written."""
    from fewmatch.matching import write_flow

    written = []
    for path in wanted.out:
        kind = path.suffix.lower()
        with output.drawing(path):
            if kind == ".html":
                _write_page(path, maps, found, finder)
            elif kind in _TABLES:
                _write_matches(path, maps, found)
            elif finder.steps.points:
                _draw_points(path, maps, found)
            else:
                _draw_matches(path, maps, found, finder, wanted)
            written.append(path)
    if wanted.flow is not None:
        assert found[0].flow is not None
        wanted.flow.parent.mkdir(parents=True, exist_ok=True)
        written.append(write_flow(found[0].flow, wanted.flow))
    if wanted.warp is not None:
        with output.drawing(wanted.warp):
            written.append(_draw_warp(wanted.warp, maps, found, finder))
    return written


def _write_matches(path: Path, maps: ImageMaps, found: Sequence[FoundPair]) -> None:
    from fewmatch.matching import ImagePair, matches_csv, save_matches
    from fewmatch.writing import write_atomically

    pairs = [ImagePair(maps.rows[f.a]["path"], maps.rows[f.b]["path"], f.matches) for f in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".npz":
        save_matches(path, pairs)
    else:
        write_atomically(path, matches_csv(pairs).encode("utf-8", "surrogateescape"))


def _write_page(path: Path, maps: ImageMaps, found: Sequence[FoundPair], finder: PairFinder) -> None:
    from fewmatch.figures import MatchPageImage, match_page
    from fewmatch.writing import write_atomically

    used = sorted({i for f in found for i in (f.a, f.b)})
    images = [
        MatchPageImage(
            output.printable(maps.rows[i]["path"]), maps.picture(i), maps.map(i), maps.frame(i), finder.masks[i]
        )
        for i in used
    ]
    pairs = {(used.index(f.a), used.index(f.b)): f.matches for f in found}
    page = match_page(images, pairs, title="Matches", note=encoder_words(maps.key))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode())
    output.note(f"the page has {output.human_bytes(path.stat().st_size)}")


def _first(found: Sequence[FoundPair]) -> Sequence[FoundPair]:
    if len(found) > FIGURE_PAIRS:
        output.note(f"the figure shows the first {FIGURE_PAIRS} of {len(found)} pairs")
    return found[:FIGURE_PAIRS]


def _pictures(maps: ImageMaps, found: Sequence[FoundPair]) -> dict[int, np.ndarray]:
    """The pictures of these pairs that are still where they were encoded.

    Raises:
        NotDrawnError: no pair has both.
    """
    pictures = {i: maps.picture(i) for i in sorted({i for f in found for i in (f.a, f.b)})}
    there = {i: picture for i, picture in pictures.items() if picture is not None}
    if not any(f.a in there and f.b in there for f in found):
        raise output.NotDrawnError("the images are no longer where they were encoded")
    return there


def _names(maps: ImageMaps, pair: FoundPair) -> str:
    from fewmatch.figures.style.lettering import cut

    turned = " (mirrored)" if pair.matches.mirrored else ""
    return f"{cut(maps.files[pair.a].name, 40)}{turned} – {cut(maps.files[pair.b].name, 40)}"


def _draw_matches(
    path: Path, maps: ImageMaps, found: Sequence[FoundPair], finder: PairFinder, wanted: MatchOutputs
) -> None:
    from fewmatch.figures import MatchedPair, match_figure, save_figure

    found = _first(found)
    pictures = _pictures(maps, found)
    colour = wanted.colour or "position"
    shown = wanted.lines if wanted.lines is not None else NUMBERS if wanted.numbered else LINES
    coloured = _coloured(maps, found, pictures) if colour == "pca" else {}
    pairs = []
    for f in found:
        if f.a not in pictures or f.b not in pictures:
            continue
        drawn = f", {shown} of them drawn" if shown < len(f.matches) else ""
        caption = (
            f"{_names(maps, f)}: {len(f.matches):,} {finder.steps.words}{drawn}; "
            f"confidence {f.matches.confidence:.2f}; {encoder_words(maps.key)}"
        )
        pairs.append(
            MatchedPair(
                pictures[f.a],
                pictures[f.b],
                f.matches,
                shown,
                output.printable(caption),
                colour=colour,
                maps=(coloured[f.a], coloured[f.b]) if coloured else None,
                numbered=wanted.numbered,
            )
        )
    save_figure(match_figure(pairs), path)


def _coloured(maps: ImageMaps, found: Sequence[FoundPair], pictures: dict[int, np.ndarray]) -> dict[int, MappedImage]:
    """The images' patches in the colours of one basis for all that are drawn."""
    from fewmatch.figures import MappedImage
    from fewmatch.matching import PatchPCA

    used = sorted({i for f in found for i in (f.a, f.b) if i in pictures})
    frames = [maps.frame(i) for i in used]
    basis = PatchPCA.fit(lambda k: maps.map(used[k]), frames)
    return {
        i: MappedImage(pictures[i], basis.colours(maps.map(i), frame), frame)
        for i, frame in zip(used, frames, strict=True)
    }


def _draw_points(path: Path, maps: ImageMaps, found: Sequence[FoundPair]) -> None:
    from fewmatch.figures import SimilarImage, save_figure, similarity_figure

    found = _first(found)
    pictures = _pictures(maps, found)
    points = found[0].points
    assert points is not None
    others = []
    for f in found:
        if f.b in pictures:
            assert f.heat is not None
            others.append(SimilarImage(pictures[f.b], maps.frame(f.b), f.heat, output.printable(maps.files[f.b].name)))
    save_figure(
        similarity_figure(
            pictures[found[0].a],
            points.xy_a,
            others,
            name=output.printable(maps.files[found[0].a].name),
            caption=f"{encoder_words(maps.key)}.",
        ),
        path,
    )


def _draw_warp(path: Path, maps: ImageMaps, found: Sequence[FoundPair], finder: PairFinder) -> Path:
    from fewmatch.figures import WarpedPair, save_figure, warp_figure
    from fewmatch.matching import pixel_mask

    found = _first(found)
    pictures = _pictures(maps, found)
    pairs = []
    for f in found:
        if f.a in pictures and f.b in pictures:
            assert f.carried is not None
            caption = output.printable(f"{_names(maps, f)}; {encoder_words(maps.key)}")
            mask = finder.masks[f.a]
            foreground = None if mask is None else pixel_mask(mask, maps.frame(f.a))
            pairs.append(WarpedPair(pictures[f.a], pictures[f.b], f.carried, foreground, caption))
    return save_figure(warp_figure(pairs), path)
