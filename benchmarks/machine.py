"""What every benchmark says about the machine in its first lines, and how its numbers are read from the command line."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import fewmatch


def machine(threads: int, *packages: str) -> str:
    """Processor, load and versions, those of these packages among them, in two lines."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    others = "".join(f", {package} {version(package) or 'not installed'}" for package in packages)
    return (
        f"{model}, {os.cpu_count()} cores, {threads} threads{load}; torch uses {torch.backends.cpu.get_cpu_capability()}\n"
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__} ({blas['name']} {blas['version']})"
        f"{others}, fewmatch {fewmatch.__version__} in {Path(fewmatch.__file__).parents[1]}"
    )


def version(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def options_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose description is the first line of a script's docstring."""
    return argparse.ArgumentParser(
        description=(doc or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def add_numbers(parser: argparse.ArgumentParser, numbers: Sequence[tuple[str, float, str]]) -> None:
    """Options with a number each, as (--name, default, meaning); a whole default takes whole numbers only."""
    for name, default, meaning in numbers:
        parser.add_argument(name, type=type(default), default=default, help=meaning)


def parse_numbers(parser: argparse.ArgumentParser, at_least_1: Sequence[str]) -> argparse.Namespace:
    """The options of the command line, refused where one of these is below 1."""
    options = parser.parse_args()
    for name in at_least_1:
        if getattr(options, name) < 1:
            parser.error(f"expected --{name.replace('_', '-')} of 1 or more, got {getattr(options, name)}")
    return options
