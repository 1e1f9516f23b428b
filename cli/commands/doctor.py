"""`fewmatch doctor`: what this installation is made of, what it can do, and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from fewmatch.cli import options, output

_PACKAGES = (
    "torch",
    "numpy",
    "scikit-learn",
    "scikit-image",
    "opencv-python",
    "pillow",
    "matplotlib",
    "typer",
    "rich",
    "safetensors",
    "jaxtyping",
)
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def doctor(json: options.Json = False, quiet: options.Quiet = False, debug: options.Debug = False) -> None:
    """Show versions, device, number formats, folders and weights, and name what is wrong."""
    from fewmatch import __version__

    facts = _facts()
    problems = _problems()
    if json:
        output.emit_json(output.document(**facts, problems=problems))
    else:
        rows = [
            ("fewmatch", __version__),
            *((name, version or "missing") for name, version in facts["packages"].items()),
        ]
        rows += [("python", facts["python"]), ("system", facts["system"])]
        rows += [
            ("device", facts["device"]),
            ("CPU", facts["cpu"]),
            ("dtype auto", facts["dtype"]),
            ("CPU threads", str(facts["threads"])),
        ]
        rows += [("home", facts["home"]), *((f"weights {name}", where) for name, where in facts["weights"].items())]
        output.emit_table("", (("what", "left"), ("here", "left")), rows)
        for problem in problems:
            output.error(problem)
        if not problems:
            print("nothing is wrong")
    if problems:
        import typer

        raise typer.Exit(1)


def _facts() -> dict[str, Any]:
    import torch

    from fewmatch.encoders import catalogue
    from fewmatch.encoders.devices import choose_device, choose_dtype, dtype_name
    from fewmatch.encoders.paths import fewmatch_home

    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    placed = {record.name: record.location() for record in catalogue.checkpoints()}
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {package: _version(package) for package in _PACKAGES},
        "device": name,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "dtype": dtype_name(choose_dtype("auto", device)),
        "threads": torch.get_num_threads(),
        "home": str(fewmatch_home()),
        "weights": {name: f"{place[0]}: {place[1]}" for name, place in placed.items() if place},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _problems() -> list[str]:
    from fewmatch.encoders.paths import fewmatch_home

    problems = [
        f"the package {package} is missing: pip install {package}"
        for package in _PACKAGES
        if package not in _OPENCV and _version(package) is None
    ]
    opencv = [package for package in _OPENCV if _version(package)]
    if not opencv:
        problems.append("OpenCV is missing: pip install opencv-python")
    elif len(opencv) > 1:
        problems.append(
            f"several OpenCV packages overwrite each other ({', '.join(opencv)}): uninstall all of them, then install one"
        )
    home = fewmatch_home()
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        problems.append(f"nothing can be written in {home}: set FEWMATCH_HOME to a folder of yours")
    return problems
