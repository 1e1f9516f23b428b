"""`fewmatch pca`: what looks alike to an encoder, in colours that all images share."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import options, output
from cli.data import EncodingChoice, ImageMaps, encoder_json, encoder_words, open_maps

if TYPE_CHECKING:
    import numpy as np

    from encoders import Encoder
    from figures import MappedImage
    from matching import PatchPCA
    from matching.pca_source import PCACenter
    from matching.pca_styles import PCAStyle

#: Maps of fewer patches along a side show little: the default size gives so many, if it need not be larger than so many pixels for that.
PATCHES, PIXELS = 32, 512
#: The bundled encoder's patches say more of their image and their place in it than of what they show, so by default both are taken out. Not for
#: a foreground, which is better found with them.
CENTER_OF: dict[str, PCACenter] = {"mini": "image+position"}
#: Pictures are shrunk as soon as they are read: one alone to this many pixels on its long side, n to this many over √n, but no further than the
#: least, which is twice what a picture has on a full page.
PICTURE, LEAST_PICTURE = 2400, 310
LARGEST_PICTURE = 1200
#: Components that are fitted and kept where no strips are asked for.
COLOURS = 3


def pca(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES…", help="Images (files, folders, lists), or a store with patches.")
    ],
    encoder: options.Encoder = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Draw the maps there (.png, .svg or .pdf); what does not fit on one page goes to FILE-2, FILE-3 and so on.",
        ),
    ] = None,
    style: Annotated[
        Literal["fewmatch", "dinov2", "dinov3", "capi"] | None,
        typer.Option(
            "--style",
            help="How components become colours: percentiles (fewmatch, by default), or as in the papers on DINOv2, DINOv3 and CAPI; "
            "with --basis the style is the basis's.",
        ),
    ] = None,
    strips: Annotated[
        int | None,
        typer.Option(
            "--strips",
            metavar="N",
            min=1,
            max=16,
            help="In the figure, beside the colours, the first N components in columns of their own, blue to red (6 say much).",
        ),
    ] = None,
    foreground: Annotated[
        bool,
        typer.Option("--foreground", help="Tell foreground from background, and use all colours for the foreground."),
    ] = False,
    center: Annotated[
        Literal["all", "image", "position", "image+position"] | None,
        typer.Option(
            "--center",
            help="What is subtracted from patches: one mean over all, each image's own, what goes with the position in the image, "
            "or both; by default all, with mini image+position unless --foreground or another --style.",
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
        bool, typer.Option("--smooth", help="In the figure, no edges between the patches of a map (not with --strips).")
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
    if strips is not None and out is None:
        raise InputError("--strips are drawn in the figure: give -o FILE for it")
    if strips is not None and smooth:
        raise InputError("--strips show every patch as it is: leave --smooth out")
    if style == "capi" and foreground:
        raise InputError("--style capi has no foreground: leave --foreground out, or choose another style")
    output.check_figure(out, overwrite)
    _check_basis_target(save_basis, overwrite)
    _check_folder(maps, overwrite)
    used = None if basis is None else PatchPCA.load(basis)
    if used is not None and basis is not None:
        _check_options(used, basis, foreground, center, style, strips)
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
        pages = None if out is None else _pages(out, len(found), strips is not None)
        for page in (pages or [])[1:]:
            output.check_target(page, overwrite)
        facts = encoder_json(found.key) or {}
        if used is None:
            plain = not foreground and style in (None, "fewmatch")
            with output.progress("fitting") as update:
                used = PatchPCA.fit(
                    found.map,
                    [found.frame(i) for i in range(len(found))],
                    center=center or (CENTER_OF.get(facts["name"], "all") if plain else "all"),
                    foreground=foreground,
                    style=style or "fewmatch",
                    components=max(COLOURS, strips or 0),
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
        if out is not None and pages is not None:
            pages = _draw(found, used, smooth, strips, out, pages)
        if json:
            output.emit_json(_result(found, used, basis or save_basis, pages, targets))
        else:
            print(output.printable(_summary(found, used)))
        for written in (*(pages or []), save_basis, maps):
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


def _check_options(
    basis: PatchPCA, path: Path, foreground: bool, center: str | None, style: PCAStyle | None, strips: int | None
) -> None:
    """What a basis was fitted with cannot be had otherwise."""
    from encoders import InputError

    if style not in (None, basis.style):
        raise InputError(
            f"{path} was fitted with --style {basis.style}, not {style}: leave --style out, or fit a new basis"
        )
    if strips is not None and strips > len(basis.components):
        raise InputError(
            f"{path} has {len(basis.components)} components, fewer than --strips {strips}: ask for fewer, or fit a new basis with --strips"
        )

    if foreground and basis.foreground_rule is None:
        raise InputError(f"{path} was fitted without --foreground: leave --foreground out, or fit a new basis with it")
    if center not in (None, basis.center):
        raise InputError(
            f"{path} was fitted with --center {basis.center}, not {center}: leave --center out, or fit a new basis"
        )


def _summary(found: ImageMaps, basis: PatchPCA) -> str:
    named = "" if basis.style == "fewmatch" else f"style {basis.style}; "
    count, patches = len(found), sum(int(found.frame(i).real.sum()) for i in range(len(found)))
    return (
        f"{count:,} image{'s' * (count != 1)}, {patches:,} patches; {encoder_words(found.key)}; {named}centre {basis.center}; "
        f"components 1, 2, 3: {_shares(basis)} of the {'foreground’s ' * (basis.foreground_rule is not None)}variance"
    )


def _shares(basis: PatchPCA) -> str:
    return "+".join(f"{100 * share:.0f}" for share in basis.explained[:COLOURS]) + " %"


def _caption(found: ImageMaps, basis: PatchPCA) -> str:
    """What the figure shows, in full."""
    rule = basis.foreground_rule
    less = {
        "all": "less one mean",
        "image": "less their image’s mean",
        "position": "less what goes with their position",
        "image+position": "less their image’s mean and what goes with their position",
    }
    ends = {
        "fewmatch": "percentiles 1 and 99 of them are dark and bright",
        "dinov2": "style of DINOv2: the least and the largest score of all patches are dark and bright",
        "dinov3": "style of DINOv3: whitened, then sigmoid(2 · score)",
        "capi": "style of CAPI: whitened, from −2.3 to 2.3",
    }
    text = (
        f"{encoder_words(found.key)}. Red, green, blue: principal components 1, 2, 3 of {basis.patches:,} "
        f"{'foreground ' * (rule is not None)}patches of {basis.images:,} image{'s' * (basis.images != 1)}, {less[basis.center]}; "
        f"{_shares(basis)} of the variance; {ends[basis.style]}; one range for all images."
    )
    if rule is not None:
        how = (
            "the side of the mean of the first component of all patches that touches borders less"
            if basis.style == "dinov2"
            else "of Otsu’s splits of the first three components, the one that tells most about borders, and its side that touches them less"
        )
        text += f" Foreground: {how} ({100 * rule.share:.0f} % of the patches)."
    return text


def _result(
    found: ImageMaps, basis: PatchPCA, file: Path | None, pages: list[Path] | None, targets: list[Path] | None
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
        style=basis.style,
        center=basis.center,
        fitted={"images": basis.images, "patches": basis.patches},
        explained_variance_ratio=basis.explained.tolist(),
        components=[
            {"colour": colour, "low": low, "high": high}
            for colour, low, high in itertools.zip_longest(
                ("red", "green", "blue"), basis.low.tolist(), basis.high.tolist()
            )
        ],
        foreground=None
        if rule is None
        else {"threshold": rule.threshold, "side": "above" if rule.above else "below", "share": rule.share},
        basis=None if file is None else str(file),
        figure=None if pages is None else str(pages[0]),
        pages=[str(page) for page in pages or []],
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


def _pages(out: Path, count: int, strips: bool) -> list[Path]:
    """A file for each page of the figure: FILE, FILE-2, FILE-3…, as few as hold the images."""
    return [out] + [out.with_name(f"{out.stem}-{k + 2}{out.suffix}") for k in range((count - 1) // _on_a_page(strips))]


def _on_a_page(strips: bool) -> int:
    from figures.component_strips import MOST_STRIPS
    from figures.feature_maps import MOST_IMAGES

    return MOST_STRIPS if strips else MOST_IMAGES


def _draw(
    found: ImageMaps, basis: PatchPCA, smooth: bool, strips: int | None, out: Path, pages: list[Path]
) -> list[Path]:
    """Page after page, so that the pictures of one are held at a time; returns the pages that were drawn."""
    from encoders import InputError
    from figures import feature_map_figure, save_figure
    from figures.component_strips import strips_figure

    most = _on_a_page(strips is not None)
    caption = output.printable(_caption(found, basis))
    if strips is not None:
        caption += " Columns: components one by one, the sign of each such that its scores are skewed to the right."
    drawn: list[Path] = []
    with output.progress("drawing") as update:
        for number, page in enumerate(pages):
            shown = range(number * most, min((number + 1) * most, len(found)))
            items = _items(found, basis, shown)
            update(number + 1, len(pages))
            if not items:
                continue
            text = caption if len(pages) == 1 else f"Page {number + 1} of {len(pages)}. {caption}"
            if strips is None:
                figure = feature_map_figure([item for _, item in items], caption=text, smooth=smooth)
            else:
                figure = strips_figure(
                    [item for _, item in items],
                    [basis.strips(found.map(i), found.frame(i))[..., :strips] for i, _ in items],
                    explained=basis.explained[:strips],
                    limit=basis.limit[:strips],
                    caption=text,
                )
            save_figure(figure, page)
            drawn.append(page)
    if not drawn:
        raise InputError(f"{out} cannot be drawn: the images are no longer where the store found them")
    return drawn


def _items(found: ImageMaps, basis: PatchPCA, shown: range) -> list[tuple[int, MappedImage]]:
    """The images of a page that are still there, with their numbers."""
    from figures import MappedImage

    items = []
    for i in shown:
        picture = found.picture(i)
        if picture is None:
            continue
        feature_map, frame = found.map(i), found.frame(i)
        # In our own style the image shows where there is no foreground; in those of the papers that is black.
        through = basis.foreground_rule is not None and basis.style == "fewmatch"
        item = MappedImage(
            _shrunk(picture, len(shown)),
            basis.colours(feature_map, frame),
            frame,
            output.printable(found.files[i].name),
            basis.foreground(feature_map, frame) if through else None,
        )
        items.append((i, item))
    return items


def _shrunk(picture: np.ndarray, count: int) -> np.ndarray:
    import cv2

    height, width = picture.shape[:2]
    share = min(LARGEST_PICTURE, max(LEAST_PICTURE, PICTURE / count**0.5)) / max(height, width)
    if share >= 1:
        return picture
    shape = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
