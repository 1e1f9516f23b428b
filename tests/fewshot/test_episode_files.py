"""Episodes in files: they come back as they were, and belong to the data they were drawn from."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmatch.errors import InputError
from fewmatch.fewshot import (
    Episodes,
    FeatureTable,
    load_episodes,
    sample_episodes,
    sample_variable_episodes,
    save_episodes,
    table_of_images,
)
from fewmatch.fewshot.splits.path_index import PathIndex

NAMES = ["ant", "böe", "cat", "dog\udcff", "emu"]


def a_table(sizes: tuple[int, ...] = (9, 12, 8, 10, 9), folder: str = "birds/") -> FeatureTable:
    labels = [NAMES[c] for c, n in enumerate(sizes) for _ in range(n)]
    order = np.random.default_rng(1).permutation(len(labels))
    labels = [labels[i] for i in order]
    paths = [f"{folder}{label}/{i}.jpg" for i, label in enumerate(labels)]
    return table_of_images(np.zeros((len(labels), 2), np.float32), labels, paths, "set")


def some(table: FeatureTable, kind: str) -> Episodes:
    call: dict[str, Any] = {"episodes": 7, "seed": 2**63}
    if kind == "variable":
        return sample_variable_episodes(table.labels, min_ways=2, **call)
    if kind == "ragged":
        return sample_episodes(table.labels, ways=(2, 4), shots=(1, 3), queries_total=5, dirichlet=1.0, **call)
    return sample_episodes(table.labels, ways=3, shots=2, queries=4, **call)


def same(a: Episodes, b: Episodes) -> bool:
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("classes", "support", "query"))


@pytest.mark.parametrize("kind", ["uniform", "ragged", "variable"])
def test_npz_comes_back_whole_and_the_same_bytes(tmp_path: Path, kind: str) -> None:
    table = a_table()
    episodes = some(table, kind)
    path = save_episodes(tmp_path / "new" / "a.npz", episodes, table)
    loaded = load_episodes(path, table)
    assert same(loaded, episodes) and (loaded.seed, loaded.sampler) == (2**63, episodes.sampler)
    assert {a.dtype for a in (loaded.classes, loaded.support, loaded.query)} == {np.dtype(np.int32)}
    assert loaded.ragged == episodes.ragged
    again = save_episodes(tmp_path / "b.npz", loaded, table)
    assert again.read_bytes() == path.read_bytes()
    with np.load(path, allow_pickle=False) as archive:
        header = json.loads(str(archive["header"]))
    assert header["dataset"] == table.describe() and header["class_names"] == table.class_names
    assert (header["schema"], header["version"], header["numpy"]) == ("fewmatch episodes", 1, np.__version__)
    assert header["generator"] == "numpy.random.PCG64"
    assert not [name for name in (tmp_path / "new").iterdir() if name != path]


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    table = a_table()
    episodes = some(table, "uniform")
    save_episodes(tmp_path / "a.npz", episodes, table).rename(tmp_path / "a.json")
    save_episodes(tmp_path / "b.json", episodes, table).rename(tmp_path / "b.npz")
    assert same(load_episodes(tmp_path / "a.json", table), episodes)
    assert same(load_episodes(tmp_path / "b.npz", table), episodes)


def test_other_data_are_refused(tmp_path: Path) -> None:
    table, other = a_table(), a_table(folder="moved/")
    path = save_episodes(tmp_path / "a.npz", some(table, "uniform"), table)
    with pytest.raises(InputError, match=r"drawn from other data: expected set \(48 images, 5 classes\) with digest"):
        load_episodes(path, other)
    assert same(load_episodes(path, replace(table, name="renamed")), some(table, "uniform"))


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
@pytest.mark.parametrize("kind", ["uniform", "ragged", "variable"])
def test_json_comes_back(tmp_path: Path, kind: str, ending: str) -> None:
    table = a_table()
    episodes = some(table, kind)
    path = save_episodes(tmp_path / f"a{ending}", episodes, table)
    loaded = load_episodes(path, table)
    assert same(loaded, episodes) and loaded.seed is None
    assert loaded.sampler == {
        "kind": "file",
        "format": "JSON with Support and Query",
        "queries": "unbalanced" if kind == "ragged" else "balanced",
        "replacement": True,
        "episodes": 7,
    } or (kind == "variable" and loaded.sampler["kind"] == "file")
    text = path.read_text()
    tasks = json.loads(text) if ending == ".json" else [json.loads(line) for line in text.splitlines()]
    assert len(tasks) == 7 and set(tasks[0]) == {"Support", "Query"}
    assert table.paths is not None
    assert tasks[0]["Support"][1][0] == table.paths[episodes.support[0, 1, 0]]


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_pmf_files_of_another_machine(tmp_path: Path) -> None:
    """Ways in any order, paths without the folder the table begins in or with folders before it."""
    table = table_of_images(
        np.zeros((6, 1), np.float32),
        list("aabbcc"),
        ["v/a/1.jpg", "v/a/2.jpg", "v/b/1.jpg", "v/b/2.jpg", "c1.jpg", "c2.jpg"],
        "t",
    )
    task = {"Support": [["b/2.jpg"], ["/data/x/c1.jpg"], ["./v/a/2.jpg"]], "Query": [["b/1.jpg"], ["c2.jpg"], []]}
    loaded = load_episodes(write(tmp_path / "val.json", [task]), table)
    assert loaded.classes.tolist() == [[0, 1, 2]]
    assert loaded.support.tolist() == [[[1], [3], [4]]] and loaded.query.tolist() == [[[-1], [2], [5]]]
    assert loaded.sampler["replacement"] is False and loaded.sampler["queries"] == "unbalanced"
    one = load_episodes(write(tmp_path / "one.json", task), table)
    assert same(one, loaded)
    twice = load_episodes(write(tmp_path / "two.json", [task, task]), table)
    assert twice.sampler["replacement"] is True and len(twice) == 2


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"Support": [["x/9.jpg"], ["b/1.jpg"]], "Query": [[], []]}, r"episode 0: x/9.jpg is not in t \(4 images\)"),
        ({"Support": [["1.jpg"], ["b/1.jpg"]], "Query": [[], []]}, r"episode 0: 1.jpg may be 2 images of t"),
        (
            {"Support": [["a/1.jpg"], ["b/1.jpg"]], "Query": [["b/2.jpg"], []]},
            "way 0: expected .* one class, got a and b",
        ),
        ({"Support": [[], ["b/1.jpg"]], "Query": [["a/2.jpg"], []]}, "way 0: .* got no support"),
        ({"Support": [["a/1.jpg"], ["b/1.jpg"]], "Query": [["a/1.jpg"], []]}, "row 0 is there twice"),
        ({"Support": [["a/1.jpg"], ["a/2.jpg"]], "Query": [[], []]}, "distinct classes"),
        ({"Support": [["a/1.jpg"]], "Query": [["a/2.jpg"]]}, "2 or more distinct classes"),
        ({"Support": [["a/1.jpg"]], "Query": []}, "expected Support and Query, each a list"),
        ({"Support": ["a/1.jpg"], "Query": ["a/2.jpg"]}, "expected Support and Query, each a list"),
        ({"support": []}, "expected Support and Query"),
        (3, "expected Support and Query"),
    ],
)
def test_json_that_does_not_fit_is_refused(tmp_path: Path, task: object, message: str) -> None:
    table = table_of_images(
        np.zeros((4, 1), np.float32), list("aabb"), ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], "t"
    )
    with pytest.raises(InputError, match=message):
        load_episodes(write(tmp_path / "a.json", [task]), table)


def test_tables_without_paths(tmp_path: Path) -> None:
    table = replace(a_table(), paths=None)
    episodes = some(table, "uniform")
    assert same(load_episodes(save_episodes(tmp_path / "a.npz", episodes, table), table), episodes)
    with pytest.raises(InputError, match="holds paths, but set has none"):
        save_episodes(tmp_path / "a.json", episodes, table)
    with pytest.raises(InputError, match="holds paths, but set has none"):
        load_episodes(save_episodes(tmp_path / "b.json", episodes, a_table()), table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file of episodes"),
        (b"\x80\x04N.", "is no file of episodes"),
        (b"PK\x03\x04 half", "cannot be read as an .npz of episodes"),
        (b"[", "is no JSON"),
        (b"{", "neither JSON nor a JSON object a line"),
        (b"[]", "holds no episodes"),
        (b'{"Support": [["a"]]}\n{', "neither JSON nor"),
    ],
)
def test_files_that_are_no_episodes(tmp_path: Path, content: bytes, message: str) -> None:
    (path := tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_episodes(path, a_table())


def test_no_file_and_no_such_ending(tmp_path: Path) -> None:
    table = a_table()
    with pytest.raises(InputError, match="cannot be read"):
        load_episodes(tmp_path / "missing.npz", table)
    with pytest.raises(InputError, match=r"ending in .npz, .json or .jsonl for episodes, got .csv"):
        save_episodes(tmp_path / "a.csv", some(table, "uniform"), table)


def altered(path: Path, **change: Any) -> Path:
    """The same file with other arrays, or with another entry of the header."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(str(arrays["header"]))
    for name, value in change.items():
        if name in arrays:
            arrays[name] = value(arrays[name])
        elif value is None:
            del header[name]
        else:
            header[name] = value
    arrays["header"] = np.array(json.dumps(header))
    np.savez(path, **arrays)
    return path


def put(*places: tuple[tuple[int, ...], int]) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        for place, value in places:
            array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support": put(((0, 0, 0), 999))}, "are not those of set, which has 48 images"),
        ({"support": put(((0, 0, 0), -2))}, "are not those of set"),
        ({"classes": put(((0, 0), -2))}, "are not those of set"),
        ({"support": put(((0, 0, 0), -1))}, "-1 is expected at the end of a row only"),
        ({"support": put(((0, 2, 0), -1), ((0, 2, 1), -1))}, "at least one support for every class"),
        ({"classes": put(((0, 2), -1))}, "none without a class"),
        ({"classes": lambda c: c[:, ::-1]}, "ascending"),
        ({"classes": lambda c: (c + 1) % 5}, "ascending|the class of an image is not the one"),
        ({"query": lambda q: q[:, ::-1]}, "the class of an image is not the one that set gives it"),
        ({"query": lambda q: np.concatenate([q, q[:, :, :1]], axis=2)}, r"episode 0: row \d+ is there twice"),
        ({"query": lambda q: q[:, :2]}, "expected one E and W"),
        ({"query": lambda q: q.astype(float)}, "expected whole numbers of shapes"),
        ({"query": lambda q: q[0]}, "expected whole numbers of shapes"),
        ({"version": 2}, "expected fewmatch episodes, version 1, got fewmatch episodes, version 2"),
        ({"schema": "x"}, "got x, version 1"),
        ({"dataset": None}, "cannot be read as an .npz of episodes"),
        ({"dataset": 3}, "cannot be read as an .npz of episodes"),
        ({"sampler": None}, "cannot be read as an .npz of episodes"),
    ],
)
def test_altered_files_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    table = a_table()
    path = save_episodes(tmp_path / "a.npz", some(table, "uniform"), table)
    with pytest.raises(InputError, match=message):
        load_episodes(altered(path, **change), table)


def test_pickled_arrays_are_not_opened(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.savez(content, header=np.array([{"a": 1}], dtype=object))
    (tmp_path / "a.npz").write_bytes(content.getvalue())
    with pytest.raises(InputError, match=r"cannot be read as an \.npz of episodes"):
        load_episodes(tmp_path / "a.npz", a_table())


def test_episodes_of_other_data_are_not_saved(tmp_path: Path) -> None:
    small = a_table((4, 4, 4, 4, 4))
    with pytest.raises(InputError, match=r"are not those of set|is not the one that set gives it"):
        save_episodes(tmp_path / "a.npz", some(a_table(), "uniform"), small)
    assert not list(tmp_path.iterdir())


def test_bytes_do_not_depend_on_the_layout_in_memory(tmp_path: Path) -> None:
    table = a_table()
    episodes = some(table, "uniform")
    turned = replace(episodes, support=np.asfortranarray(episodes.support))
    one, two = (save_episodes(tmp_path / f"{i}.npz", e, table).read_bytes() for i, e in enumerate((episodes, turned)))
    assert one == two
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_which_row_a_path_means() -> None:
    index = PathIndex(["train/cat/1.jpg", "test/cat/1.jpg", "dog/2.jpg", "2.jpg", "a\\b\\3.jpg", "ox/4.jpg"])
    wanted = {
        "train/cat/1.jpg": [0],
        "cat/1.jpg": [0, 1],
        "1.jpg": [0, 1],
        "2.jpg": [3],
        "/x/dog/2.jpg": [2],
        "/x/hog/2.jpg": [3],
        "./a/b/3.jpg": [4],
        "b/3.jpg": [4],
        "fox/4.jpg": [],
        "x/4.jpg": [],
        "5.jpg": [],
        " ox/4.jpg ": [5],
    }
    assert {path: index.candidates(path) for path in wanted} == wanted
