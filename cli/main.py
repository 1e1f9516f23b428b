"""The entry point: the list of commands, and what errors and signals become."""

from __future__ import annotations

import functools
import io
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
import typer.main

from fewmatch.cli import options, output
from fewmatch.cli.commands import (
    classify,
    demo,
    doctor,
    download,
    encode,
    encoders,
    episodes,
    keypoints,
    match,
    pca,
    pck,
    plane,
    probe,
)

app = typer.Typer(
    name="fewmatch",
    help="Few-shot classification and keypoint matching with frozen vision encoders.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from fewmatch import __version__

        print(f"fewmatch {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Few-shot classification and keypoint matching with frozen vision encoders."""


app.command("encoders")(encoders.encoders)
app.command("download")(download.download)
app.command("encode")(encode.encode)
app.command("episodes")(episodes.episodes)
app.command("classify")(classify.classify)
app.command("plane")(plane.plane)
app.command("probe")(probe.probe)
app.command("match")(match.match)
app.command("keypoints")(keypoints.keypoints)
app.command("pck")(pck.pck)
app.command("pca")(pca.pca)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)


@functools.cache
def _parsers() -> Callable[..., Any]:
    """All commands, built once: it takes a sixth of a second, and the demo runs many."""
    return typer.main.get_command(app)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    output.start()
    try:
        _parsers()(args=arguments, prog_name="fewmatch")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as problem:
        if output.state.debug:
            raise
        return _explain(problem)
    return 0


def _explain(problem: Exception) -> int:
    from fewmatch.errors import FewmatchError

    if isinstance(problem, FewmatchError):
        output.error(str(problem))
        return problem.exit_code
    if isinstance(problem, OSError) and problem.filename is not None:
        output.error(f"{problem.filename}: {problem.strerror}")
        return 1
    first = str(problem).strip().split("\n", maxsplit=1)[0]
    output.error(f"{type(problem).__name__}: {first} (run again with --debug for the traceback)")
    return 1


def main() -> None:
    """Entry point of the `fewmatch` script."""

    def stop(*_: Any) -> None:
        sys.exit(143)  # an ordinary exit, so that temporary files are removed on the way out

    signal.signal(signal.SIGTERM, stop)
    # Pillow warns of pictures over 89 megapixels; ours are measured against a limit of our own before they are decoded.
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± gets a question mark, not a traceback
    sys.exit(run())
