"""`fewmatch pca`: what looks alike to an encoder, in colours that all images share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewmatch.cli import options, output
from fewmatch.cli.inputs.encoder_choice import EncodingChoice, encoder_json
from fewmatch.cli.inputs.maps import open_maps
from fewmatch.cli.results.pca import COLOURS, draw_pages, figure_pages, map_targets, pca_json, summary, write_maps

if TYPE_CHECKING:
    from fewmatch.encoders import Encoder
    from fewmatch.matching import PatchPCA
    from fewmatch.matching.pca.source import PCACenter
    from fewmatch.matching.pca.styles import PCAStyle

#: Maps of fewer patches along a side show little: the default size gives so many, if it need not be larger than so many pixels for that.
PATCHES, PIXELS = 32, 512
#: The bundled encoder's patches say more of their image and their place in it than of what they show, so by default both are taken out. Not for
#: a foreground, which is better found with them.
CENTER_OF: dict[str, PCACenter] = {"mini": "image+position"}


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
    value_range: options.ValueRange = None,
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
    from fewmatch.encoders.identity import identity_at_any_size
    from fewmatch.errors import InputError
    from fewmatch.matching import PatchPCA

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
        value_range=value_range,
        compile=compile,
    )
    with open_maps(images, choice, default_size=_display_size) as found:
        if not json:
            output.list_skipped(found.skipped)
        if not len(found):
            bad = "; ".join(f"{row['path']}: {row['reason']}" for row in found.skipped[:3])
            raise InputError(f"expected an image or more, got none that can be used ({bad})")
        pages = None if out is None else figure_pages(out, len(found), strips is not None)
        for page in (pages or [])[1:]:
            output.check_target(page, overwrite)
        # Maps of another size can be shown by a basis, so its identity is not the one of the whole key.
        facts = {name: value for name, value in (encoder_json(found.key) or {}).items() if name != "identity"}
        facts |= {} if (identity := identity_at_any_size(found.key)) is None else {"identity": identity}
        differs: dict[str, tuple[Any, Any]] = {}
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
            differs = used.check_encoder(facts, str(basis))
            for name, (was, now) in differs.items():
                output.note(
                    f"note: {output.printable(str(basis))} was fitted with {name.replace('_', ' ')} {was}, these maps have {now}: "
                    "colours mean the same only as far as the features do"
                )
        targets = None if maps is None else map_targets(found, maps)
        if save_basis is not None:
            used.save(save_basis)
        if targets is not None:
            write_maps(found, used, targets)
        drawn: list[Path] = []
        if out is not None and pages is not None:
            with output.drawing(out):
                drawn = draw_pages(found, used, smooth, strips, pages)
        if json:
            output.emit_json(pca_json(found, used, basis or save_basis, drawn, targets, differs))
        else:
            print(output.printable(summary(found, used)))
        for written in (*drawn, save_basis, maps):
            if written is not None:
                output.note(f"wrote {output.printable(written)}")
        output.finish(bool(found.skipped))


def _display_size(encoder: Encoder) -> int | None:
    """The encoder's own size, or a larger one that makes a map with enough patches to see something."""
    size = min(PATCHES, PIXELS // encoder.patch_size) * encoder.patch_size
    return size if size > encoder.preprocessing.dense else None


def _check_basis_target(path: Path | None, overwrite: bool) -> None:
    from fewmatch.errors import InputError

    if path is not None and path.suffix.lower() != ".npz":
        raise InputError(f"no basis of type {path.suffix or path.name}: expected a name ending in .npz")
    output.check_target(path, overwrite)


def _check_folder(path: Path | None, overwrite: bool) -> None:
    from fewmatch.errors import InputError, OutputExistsError

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
    from fewmatch.errors import InputError

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
