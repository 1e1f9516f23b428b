"""What `fewmatch match` prints: a table of the pairs, or one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli import output
from fewmatch.cli.inputs.encoder_choice import encoder_json, encoder_words
from fewmatch.cli.inputs.maps import ImageMaps

if TYPE_CHECKING:
    from fewmatch.cli.match_steps import FoundPair, MatchSteps


def emit_matches(
    maps: ImageMaps, found: Sequence[FoundPair], steps: MatchSteps, written: Sequence[Path], json: bool
) -> None:
    """Print what was found."""
    if json:
        output.emit_json(_document(maps, found, steps, written))
        return
    _emit_pairs(maps, found, steps)
    if steps.points:
        _emit_points(maps, found)


def _document(
    maps: ImageMaps, found: Sequence[FoundPair], steps: MatchSteps, written: Sequence[Path]
) -> dict[str, Any]:
    figures = [str(path) for path in written if path.suffix.lower() in output.FIGURES]
    return output.document(
        encoder=encoder_json(maps.key),
        images=[
            {
                "path": row["path"],
                "width": maps.frame(i).width,
                "height": maps.frame(i).height,
                "grid": list(maps.frame(i).grid),
            }
            for i, row in enumerate(maps.rows)
        ],
        steps=steps.to_json(),
        pairs=[_pair(f) for f in found],
        figure=figures[0] if figures else None,
        written=[str(path) for path in written],
        skipped=output.skipped_json(maps.skipped),
        **output.drawing_json(),
    )


def _pair(f: FoundPair) -> dict[str, Any]:
    return {
        "a": f.a,
        "b": f.b,
        "confidence": f.matches.confidence,
        "mirror": None if f.mirror is None else f.mirror.to_json(),
        "model": None if f.matches.geometry is None else f.matches.geometry.to_json(),
        "matches": f.matches.to_json(),
    } | ({} if f.points is None else {"points": f.points.to_json()})


def _emit_pairs(maps: ImageMaps, found: Sequence[FoundPair], steps: MatchSteps) -> None:
    columns = [("matched with", "left"), ("patches", "right"), ("matches", "right"), ("confidence", "right")]
    several = len({f.a for f in found}) > 1
    if several:
        columns.insert(0, ("image", "left"))
    if steps.mirror != "never":
        columns.append(("mirrored", "left"))
    if steps.verify != "none":
        columns.append((steps.verify, "left"))
    rows = []
    for f in found:
        row = [
            maps.rows[f.b]["path"],
            "{} × {}".format(*maps.frame(f.b).grid),
            f"{len(f.matches):,}",
            f"{f.matches.confidence:.2f}",
        ]
        if several:
            row.insert(0, maps.rows[f.a]["path"])
        if f.mirror is not None:
            row.append("yes" if f.mirror.mirrored else "no")
        if f.matches.geometry is not None:
            row.append(_geometry(f))
        rows.append(tuple(row))
    title = (
        "" if several else "{}: {} × {} patches; ".format(maps.rows[found[0].a]["path"], *maps.frame(found[0].a).grid)
    )
    output.emit_table(
        title + encoder_words(maps.key),
        tuple(columns),
        rows,
        f"matches: {steps.words}; confidence: the mean cosine over the patches of the smaller grid, an unmatched one "
        "counting 0; --json lists every match",
    )


def _geometry(f: FoundPair) -> str:
    geometry = f.matches.geometry
    assert geometry is not None
    if geometry.matrix is None:
        return f"none: {geometry.reason}"
    return f"{int(geometry.inliers.sum()):,} agree within {geometry.threshold:.3g} px"


def _emit_points(maps: ImageMaps, found: Sequence[FoundPair]) -> None:
    rows = []
    for f in found:
        assert f.points is not None
        for n, p in enumerate(f.points.to_json(), start=1):
            rows.append(
                (
                    maps.rows[f.b]["path"],
                    str(n),
                    f"{p['xa']:.1f}, {p['ya']:.1f}",
                    f"{p['xb']:.1f}, {p['yb']:.1f}",
                    f"{p['score']:.2f}",
                    f"{p['cycle']:.0f}",
                )
            )
    output.emit_table(
        f"points of {maps.rows[found[0].a]['path']}",
        (
            ("found in", "left"),
            ("point", "right"),
            ("x, y there", "right"),
            ("x, y here", "right"),
            ("score", "right"),
            ("back within px", "right"),
        ),
        rows,
        "score: cosine similarity; back within px: from the point to where its place leads back to, small if the point was recognised",
    )
