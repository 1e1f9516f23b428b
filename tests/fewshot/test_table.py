"""Tables of features: read from .npz, named by a digest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewmatch.errors import InputError
from fewmatch.fewshot import read_npz, table_of_images

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("labels", "names", "wanted_labels", "wanted_names"),
    [
        (np.array([3, 1, 3, 1]), None, [1, 0, 1, 0], ["1", "3"]),
        (np.array(["b", "a", "b", "a"]), None, [1, 0, 1, 0], ["a", "b"]),
        (np.array([b"b", b"a", b"b", b"a"]), None, [1, 0, 1, 0], ["a", "b"]),
        (np.array([2, 0, 2, 0], np.uint8), np.array(["x", "y", "z"]), [1, 0, 1, 0], ["x", "z"]),
    ],
)
def test_labels_of_every_kind(
    tmp_path: Path, labels: np.ndarray, names: np.ndarray | None, wanted_labels: list[int], wanted_names: list[str]
) -> None:
    arrays = {"features": X, "labels": labels} | ({} if names is None else {"class_names": names})
    table = read_npz(write(tmp_path / "set.npz", **arrays))
    assert table.labels.tolist() == wanted_labels and table.class_names == wanted_names
    assert np.array_equal(table.features, X) and table.features.dtype == np.float32
    assert table.describe() == {"name": "set", "images": 4, "classes": 2, "digest": table.digest, "notes": []}


def test_other_number_formats_become_float(tmp_path: Path) -> None:
    labels = np.array([0, 0, 1, 1])
    for dtype, wanted in ((np.float16, np.float32), (np.float64, np.float64), (np.int64, np.float32)):
        table = read_npz(write(tmp_path / "set.npz", features=X.astype(dtype), labels=labels))
        assert table.features.dtype == wanted and np.array_equal(table.features, X)


def test_digest_follows_the_content(tmp_path: Path) -> None:
    labels = np.array([0, 0, 1, 1])
    one, two, three = (
        read_npz(write(tmp_path / f"{i}.npz", features=x, labels=y)).digest
        for i, (x, y) in enumerate([(X, labels), (X, labels), (X + 1, labels)])
    )
    assert one == two != three
    images = [
        table_of_images(X, list("aabb"), paths, "set").digest for paths in (list("1234"), list("1234"), list("1235"))
    ]
    assert images[0] == images[1] != images[2]
    assert table_of_images(X, list("aabc"), list("1234"), "set").digest != images[0]
    assert len(table_of_images(X, ["\udcff"] * 4, ["a\udcff", "b", "c", "d"], "set").digest) == 64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"expected the arrays features \(N, D\) and labels \(N,\), got x"),
        ({"features": X[0], "labels": np.zeros(3, int)}, "expected features of shape"),
        ({"features": X.astype(str), "labels": np.zeros(4, int)}, "a real type"),
        ({"features": X, "labels": np.zeros(3, int)}, "expected 4 labels"),
        ({"features": X, "labels": np.zeros(4)}, "expected 4 labels, numbers or names"),
        ({"features": X, "labels": np.array([0, 1, 2, 0]), "class_names": np.array(["a", "b"])}, "indices from 0 to 1"),
        (
            {"features": X, "labels": np.array([0, -1, 1, 0]), "class_names": np.array(["a", "b"])},
            "indices from 0 to 1",
        ),
        ({"features": np.array([object()]), "labels": np.zeros(1, int)}, "cannot be read as an .npz of plain arrays"),
    ],
)
def test_other_content_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_npz(write(tmp_path / "set.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 half", b"\x93NUMPY"])
def test_files_that_are_no_npz_are_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read as an \.npz"):
        read_npz(path)
    with pytest.raises(InputError, match=r"cannot be read as an \.npz"):
        read_npz(tmp_path / "missing.npz")


def test_a_single_array_is_no_table(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", X)
    (tmp_path / "set.npy").rename(tmp_path / "set.npz")
    with pytest.raises(InputError, match=r"cannot be read as an \.npz"):
        read_npz(tmp_path / "set.npz")
