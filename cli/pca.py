"""`fewmatch pca`: what looks alike to an encoder, in colours that all images share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import options, output
from cli.data import EncodingChoice, ImageMaps, encoder_json, encoder_words, open_maps

if TYPE_CHECKING:
    import numpy as np

    from encoders import Encoder
    from matching import PatchPCA
    from matching.pca import PCACenter

#: Maps of fewer patches along a side show little: the default size gives so many, if it need not be larger than so many pixels for that.
PATCHES, PIXELS = 32, 512
#: The bundled encoder's patches say more of their image and their place in it than of what they show, so by default both are taken out. Not for
#: a foreground, which is better found with them.
CENTER_OF: dict[str, PCACenter] = {"mini": "image+position"}
#: Pictures are shrunk to this many pixels on their long side as soon as they are read.
PICTURE = 1200


def pca(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES…", help="Images (files, folders, lists), or a store with patches.")
    ],
    encoder: options.Encoder = None,
    out: options.FigureOut = None,
    foreground: Annotated[
        bool,
        typer.Option("--foreground", help="Tell foreground from background, and use all colours for the foreground."),
    ] = False,
    center: Annotated[
        Literal["all", "image", "position", "image+position"] | None,
        typer.Option(
            "--center",
            help="What is subtracted from patches: one mean over all, each image's own, what goes with the position in the image, "
            "or both; by default all, with mini image+position unless --foreground.",
        ),
    ] = None,
    basis: Annotated[
        Path | None,
        typer.Option("--basis", metavar="FILE", help="Colours of an earlier run: a basis that --save-basis wrote."),
    ] = None,
    save_basis: Annotated[
        Path | None, typer.Option("--save-basis", metavar="FILE", help="Keep the basis there (.npz), for --basis.")
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option("--maps", metavar="DIR", help="Write each map there as a PNG of its image's size."),
    ] = None,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="In the figure, no edges between the patches of a map.")
    ] = False,
    overwrite: options.Overwrite = False,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            metavar="PIXELS",
            help="Input size, a multiple of the patch size; by default the store's, or the encoder's, or what makes "
            f"{PATCHES} patches on a side (if that is no more than {PIXELS}).",
        ),
    ] = None,
    resize: options.Resize = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    facet: options.Facet = "token",
    stride: options.Stride = None,
    fast_decode: options.FastDecode = False,
    compile: options.Compile = False,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    no_cache: options.NoCache = False,
    trust_digest: options.TrustDigest = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Draw feature maps: three principal components of all images' patches as red, green and blue.

    One basis and one range serve all images, so their colours can be compared; keep the basis to give other images the same colours.
    """
    from encoders import InputError
    from matching import PatchPCA

    if out is None and save_basis is None and maps is None and not json:
        raise InputError("nothing to write: give -o FILE for the figure, --maps DIR, --save-basis FILE or --json")
    if basis is not None and save_basis is not None:
        raise InputError("--save-basis keeps a new basis and --basis uses an old one: give one of them")
    output.check_figure(out, overwrite)
    _check_basis_target(save_basis, overwrite)
    _check_folder(maps, overwrite)
    used = None if basis is None else PatchPCA.load(basis)
    if used is not None and basis is not None:
        _check_options(used, basis, foreground, center)
    choice = EncodingChoice(
        encoder,
        device,
        dtype,
        size,
        not no_cache,
        trust_digest,
        resize,
        layer=layer,
        raw=raw,
        facet=facet,
        stride=stride,
        fast_decode=fast_decode,
        compile=compile,
    )
    with open_maps(images, choice, default_size=_display_size) as found:
        if not json:
            output.list_skipped(found.skipped)
        if not len(found):
            bad = "; ".join(f"{row['path']}: {row['reason']}" for row in found.skipped[:3])
            raise InputError(f"expected an image or more, got none that can be used ({bad})")
        facts = encoder_json(found.key) or {}
        if used is None:
            with output.progress("fitting") as update:
                used = PatchPCA.fit(
                    found.map,
                    [found.frame(i) for i in range(len(found))],
                    center=center or ("all" if foreground else CENTER_OF.get(facts["name"], "all")),
                    foreground=foreground,
                    encoder=facts,
                    progress=update,
                )
        else:
            used.check_encoder(facts, str(basis))
        targets = None if maps is None else _map_targets(found, maps)
        if save_basis is not None:
            used.save(save_basis)
        if targets is not None:
            _write_maps(found, used, targets)
        if out is not None:
            _draw(found, used, smooth, out)
        if json:
            output.emit_json(_result(found, used, basis or save_basis, out, targets))
        else:
            print(output.printable(_summary(found, used)))
        for written in (out, save_basis, maps):
            if written is not None:
                output.note(f"wrote {output.printable(written)}")
        if found.skipped:
            raise typer.Exit(3)


def _display_size(encoder: Encoder) -> int | None:
    """The encoder's own size, or a larger one that makes a map with enough patches to see something."""
    size = min(PATCHES, PIXELS // encoder.patch_size) * encoder.patch_size
    return size if size > encoder.preprocessing.dense else None


def _check_basis_target(path: Path | None, overwrite: bool) -> None:
    from encoders import InputError

    if path is not None and path.suffix.lower() != ".npz":
        raise InputError(f"no basis of type {path.suffix or path.name}: expected a name ending in .npz")
    output.check_target(path, overwrite)


def _check_folder(path: Path | None, overwrite: bool) -> None:
    from encoders import InputError, OutputExistsError

    if path is None or not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"--maps {path} is a file: expected a folder, which may be new")
    if any(path.iterdir()) and not overwrite:
        raise OutputExistsError(f"{path} holds files already: choose another folder, or --overwrite")


def _check_options(basis: PatchPCA, path: Path, foreground: bool, center: str | None) -> None:
    """What a basis was fitted with cannot be had otherwise."""
    from encoders import InputError

    if foreground and basis.foreground_rule is None:
        raise InputError(f"{path} was fitted without --foreground: leave --foreground out, or fit a new basis with it")
    if center not in (None, basis.center):
        raise InputError(
            f"{path} was fitted with --center {basis.center}, not {center}: leave --center out, or fit a new basis"
        )


def _summary(found: ImageMaps, basis: PatchPCA) -> str:
    count, patches = len(found), sum(int(found.frame(i).real.sum()) for i in range(len(found)))
    return (
        f"{count:,} image{'s' * (count != 1)}, {patches:,} patches; {encoder_words(found.key)}; centre {basis.center}; "
        f"components 1, 2, 3: {_shares(basis)} of the {'foreground’s ' * (basis.foreground_rule is not None)}variance"
    )


def _shares(basis: PatchPCA) -> str:
    return "+".join(f"{100 * share:.0f}" for share in basis.explained) + " %"


def _caption(found: ImageMaps, basis: PatchPCA) -> str:
    """What the figure shows, in full."""
    rule = basis.foreground_rule
    less = {
        "all": "less one mean",
        "image": "less their image’s mean",
        "position": "less what goes with their position",
        "image+position": "less their image’s mean and what goes with their position",
    }
    text = (
        f"{encoder_words(found.key)}. Red, green, blue: principal components 1, 2, 3 of {basis.patches:,} "
        f"{'foreground ' * (rule is not None)}patches of {basis.images:,} image{'s' * (basis.images != 1)}, {less[basis.center]}; "
        f"{_shares(basis)} of the variance; one range for all images."
    )
    if rule is not None:
        text += (
            f" Foreground: of Otsu’s splits of the first three components, the one that tells most about borders, "
            f"and its side that touches them less "
            f"({100 * rule.share:.0f} % of the patches)."
        )
    return text


def _result(
    found: ImageMaps, basis: PatchPCA, file: Path | None, out: Path | None, targets: list[Path] | None
) -> dict[str, Any]:
    rule = basis.foreground_rule
    images = []
    for i, row in enumerate(found.rows):
        frame = found.frame(i)
        share = None
        if rule is not None:
            share = float(basis.foreground(found.map(i), frame).sum() / frame.real.sum())
        images.append(
            {
                "path": row["path"],
                "width": frame.width,
                "height": frame.height,
                "grid": list(frame.grid),
                "foreground": share,
                "map": None if targets is None else str(targets[i]),
            }
        )
    return output.document(
        encoder=encoder_json(found.key),
        images=images,
        center=basis.center,
        fitted={"images": basis.images, "patches": basis.patches},
        explained_variance_ratio=basis.explained.tolist(),
        components=[
            {"colour": colour, "low": low, "high": high}
            for colour, low, high in zip(("red", "green", "blue"), basis.low.tolist(), basis.high.tolist(), strict=True)
        ],
        foreground=None
        if rule is None
        else {"threshold": rule.threshold, "side": "above" if rule.above else "below", "share": rule.share},
        basis=None if file is None else str(file),
        figure=None if out is None else str(out),
        skipped=output.skipped_json(found.skipped),
    )


def _map_targets(found: ImageMaps, folder: Path) -> list[Path]:
    """Where each map goes: under its image's name, with a number where others have it too."""
    taken: set[str] = set()
    targets = []
    for file in found.files:
        name, number = file.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name.casefold())
        targets.append(folder / f"{name}.png")
    return targets


def _write_maps(found: ImageMaps, basis: PatchPCA, targets: list[Path]) -> None:
    import io

    from PIL import Image

    from encoders.writing import write_atomically

    with output.progress("writing maps") as update:
        for i, target in enumerate(targets):
            file = io.BytesIO()
            Image.fromarray(_enlarged(basis, found, i)).save(file, "png")
            write_atomically(target, file.getvalue())
            update(i + 1, len(targets))


def _enlarged(basis: PatchPCA, found: ImageMaps, index: int) -> np.ndarray:
    """A map of exactly its image's size, each pixel in the colour of its patch; white where the encoder did not see the image."""
    import numpy as np

    frame = found.frame(index)
    colours = np.rint(255 * basis.colours(found.map(index), frame)).astype(np.uint8)
    row, _ = frame.to_grid(np.zeros(frame.height), np.arange(frame.height))
    _, column = frame.to_grid(np.arange(frame.width), np.zeros(frame.width))
    rows, columns = (np.floor(place + 0.5).astype(int) for place in (row, column))
    picture = np.full((frame.height, frame.width, 3), 255, np.uint8)
    y, x = (
        np.flatnonzero((place >= 0) & (place < size)) for place, size in zip((rows, columns), frame.grid, strict=True)
    )
    picture[np.ix_(y, x)] = colours[np.ix_(rows[y], columns[x])]
    return picture


def _draw(found: ImageMaps, basis: PatchPCA, smooth: bool, out: Path) -> None:
    from encoders import InputError
    from figures import MappedImage, feature_map_figure, save_figure
    from figures.feature_maps import MOST_IMAGES

    items: list[MappedImage] = []
    gone = 0
    for i in range(len(found)):
        if len(items) == MOST_IMAGES:
            break
        picture = found.picture(i)
        if picture is None:
            gone += 1
            continue
        feature_map, frame = found.map(i), found.frame(i)
        items.append(
            MappedImage(
                _shrunk(picture),
                basis.colours(feature_map, frame),
                frame,
                output.printable(found.files[i].name),
                None if basis.foreground_rule is None else basis.foreground(feature_map, frame),
            )
        )
    if not items:
        raise InputError(f"{out} cannot be drawn: the images are no longer where the store found them")
    caption = output.printable(_caption(found, basis))
    if len(items) + gone < len(found):
        few = f"the first {len(items)} of {len(found):,} images"
        output.note(f"the figure shows {few}")
        caption = f"Shown: {few}. {caption}"
    save_figure(feature_map_figure(items, caption=caption, smooth=smooth), out)


def _shrunk(picture: np.ndarray) -> np.ndarray:
    import cv2

    height, width = picture.shape[:2]
    share = PICTURE / max(height, width)
    if share >= 1:
        return picture
    shape = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
