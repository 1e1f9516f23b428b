"""Features with labels in one table, and where such tables come from when not from images."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.names import distinct_names, same_name, spelling_notes


@dataclass(frozen=True)
class FeatureTable:
    """A labelled data set as features.

    features: (N, D) raw. labels: (N,) indices into class_names. name: for people. digest: SHA-256 of the labels and of what
    identifies the images (their relative paths; for a bare table the features themselves). paths: (N,) relative paths of the images,
    with forward slashes, or None where the rows are no files. notes: what a user should know though nothing is wrong, such as classes
    whose names are spelled in two ways.
    """

    features: Float[np.ndarray, "N D"]
    labels: Int[np.ndarray, "N"]
    class_names: list[str]
    name: str
    digest: str
    paths: list[str] | None = None
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The entry `dataset` of results."""
        return {
            "name": self.name,
            "images": len(self.labels),
            "classes": len(self.class_names),
            "digest": self.digest,
            "notes": list(self.notes),
        }


def table_of_images(
    features: Float[np.ndarray, "N D"], labels: Sequence[str], paths: Sequence[str], name: str
) -> FeatureTable:
    """A table whose rows are images: classes sorted by name, digest of relative paths and labels.

    Names that differ only in their Unicode normal form are one class, and give the same digest (`fewmatch.names`).
    """
    class_names, index = distinct_names(labels)
    content = "".join(f"{path}\t{label}\n" for path, label in zip(paths, labels, strict=True))
    digest = hashlib.sha256(same_name(content).encode("utf-8", "surrogateescape")).hexdigest()
    notes = spelling_notes(dict.fromkeys(labels), "one class")
    return FeatureTable(features, index, class_names, name, digest, list(paths), tuple(notes))


def read_npz(path: str | os.PathLike[str]) -> FeatureTable:
    """Read an `.npz` with `features (N, D)`, `labels (N,)` and, if wanted, `class_names`.

    Labels are numbers or names. With `class_names`, labels are indices into it.

    Raises:
        InputError: the file cannot be read, or its arrays are not these.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name in ("features", "labels", "class_names")}
            got = ", ".join(archive.files)
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an .npz of plain arrays ({str(error).splitlines()[0]})") from error
    if "features" not in arrays or "labels" not in arrays:
        raise InputError(f"{path}: expected the arrays features (N, D) and labels (N,), got {got or 'none'}")
    features, labels = arrays["features"], arrays["labels"]
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: expected features of shape (N, D) and a real type, got {features.shape} of {features.dtype}"
        )
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "iuUS":
        raise InputError(
            f"{path}: expected {len(features)} labels, numbers or names, got {labels.shape} of {labels.dtype}"
        )
    digest = hashlib.sha256(np.ascontiguousarray(features).tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
    if "class_names" in arrays:
        names = [_text(name) for name in arrays["class_names"]]
        if labels.dtype.kind not in "iu" or (len(labels) and not 0 <= labels.min() <= labels.max() < len(names)):
            raise InputError(f"{path}: with class_names, labels must be indices from 0 to {len(names) - 1}")
        present = np.unique(labels)
        # Classes without a feature are no classes of this table.
        index, spelled = np.searchsorted(present, labels), [names[i] for i in present]
    else:
        distinct, index = np.unique(labels, return_inverse=True)
        spelled = [_text(name) for name in distinct]
    notes = spelling_notes(spelled, "one class")
    class_names = spelled
    if notes:
        class_names, own = distinct_names(spelled)
        index = own[index]
    as_float = features if features.dtype in (np.float32, np.float64) else features.astype(np.float32)
    return FeatureTable(as_float, index, class_names, path.stem, digest.hexdigest(), notes=tuple(notes))


def as_table(features: Any, device: str | torch.device = "cpu") -> Float[Tensor, "N D"]:
    """Features as a float32 or float64 tensor of shape (N, D) on a device.

    Raises:
        InputError: another shape, or values that are not finite.
    """
    x = torch.as_tensor(features)
    if x.ndim != 2 or x.shape[1] == 0:
        raise InputError(f"expected features of shape (N, D), got {tuple(x.shape)}")
    x = x.to(device=device, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    if bool(torch.isfinite(x.sum(dim=1)).all()):  # a finite sum proves a finite vector, and costs little
        return x
    bad = ~torch.isfinite(x).all(dim=1)
    if bool(bad.any()):
        raise InputError(
            f"feature vector {int(bad.nonzero()[0])} has values that are not finite ({int(bad.sum())} of {len(x)} vectors)"
        )
    return x


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
