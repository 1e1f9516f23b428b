"""Episodes in files: our own `.npz`, and the JSON lists of paths that PMF (Hu et al. 2022) and others exchange."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewmatch.errors import InputError
from fewmatch.fewshot.episodes.episodes import Episodes
from fewmatch.fewshot.splits.path_index import PathIndex
from fewmatch.fewshot.table import FeatureTable
from fewmatch.writing import write_atomically

SCHEMA = "fewmatch episodes"
VERSION = 1
#: What `zipfile` writes when no time is given; spelled out, so that the same episodes give the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_UNREADABLE = (OSError, ValueError, EOFError, AttributeError, TypeError, KeyError, zipfile.BadZipFile)


def save_episodes(path: str | os.PathLike[str], episodes: Episodes, table: FeatureTable) -> Path:
    """Write episodes to a file; the same episodes of the same data give the same bytes. Returns the path.

    `.npz`: the arrays `classes`, `support`, `query`, and `header`, a JSON text with seed, sampler, generator, the data's name and digest,
    class names and NumPy's version (for information). Nothing is compressed and nothing is pickled.
    `.json` or `.jsonl`: {"Support": [[path, …] for each way], "Query": …} for each episode, one list or one line each, as PMF
    has them. This keeps neither seed nor sampler, and needs a table with paths.

    Args:
        path: the file; one that exists is replaced.
        episodes: rows of `table`.
        table: the data they were drawn from.

    Raises:
        InputError: another ending, a table without paths where they are needed, or episodes that do not fit the table.
    """
    path = Path(path)
    _check(episodes, table, str(path))
    ending = path.suffix.lower()
    if ending == ".npz":
        return write_atomically(path, _as_npz(episodes, table))
    if ending not in (".json", ".jsonl"):
        raise InputError(
            f"{path}: expected a file ending in .npz, .json or .jsonl for episodes, got {ending or 'none'}"
        )
    paths = _paths(table, path)
    tasks = [
        {
            name: [[paths[row] for row in rows if row >= 0] for rows, c in zip(part, classes, strict=True) if c >= 0]
            for name, part in (("Support", support.tolist()), ("Query", query.tolist()))
        }
        for classes, support, query in zip(episodes.classes.tolist(), episodes.support, episodes.query, strict=True)
    ]
    if ending == ".json":
        text = json.dumps(tasks)
    else:
        text = "\n".join(json.dumps(task) for task in tasks)
    return write_atomically(path, (text + "\n").encode())


def load_episodes(path: str | os.PathLike[str], table: FeatureTable) -> Episodes:
    """Read episodes that `save_episodes` wrote, or PMF's JSON (one list, or one object a line), whatever the file is called.

    In JSON, paths are matched with the table's relative paths: exactly, else by the one path that ends with it, else by the longest
    of the table's paths that it ends with. Ways are put in the order of their classes.

    Args:
        path: the file.
        table: the data it is used with.

    Raises:
        InputError: the file cannot be read, belongs to other data, names an image that is not there, or contradicts itself.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    if start[:1] in (b"{", b"["):
        return _from_json(path, table)
    if start[:2] != b"PK":
        raise InputError(f"{path} is no file of episodes: expected an .npz, or JSON with Support and Query")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
            arrays = [archive[name] for name in ("classes", "support", "query")]
        if header["schema"] != SCHEMA or header["version"] != VERSION:
            raise InputError(
                f"{path}: expected {SCHEMA}, version {VERSION}, got {header['schema']}, version {header['version']}"
            )
        data, seed, sampler = header["dataset"], header["seed"], header["sampler"]
        digest, described = data["digest"], f"{data['name']} ({data['images']} images, {data['classes']} classes)"
    except _UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} cannot be read as an .npz of episodes ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from error
    if digest != table.digest:
        raise InputError(
            f"{path} was drawn from other data: expected {described} with digest {str(digest)[:12]}…, got {table.name} "
            f"({len(table.labels)} images, {len(table.class_names)} classes) with {table.digest[:12]}…; "
            "give the data it was drawn from, or draw new episodes"
        )
    if any(a.ndim != n or a.dtype.kind not in "iu" for a, n in zip(arrays, (2, 3, 3), strict=True)):
        raise InputError(f"{path}: expected whole numbers of shapes (E, W), (E, W, K) and (E, W, Q)")
    classes, support, query = (a.astype(np.int32) for a in arrays)
    if not classes.shape == support.shape[:2] == query.shape[:2]:
        raise InputError(f"{path}: expected one E and W, got {classes.shape}, {support.shape} and {query.shape}")
    episodes = Episodes(classes, support, query, seed, sampler)
    _check(episodes, table, str(path))
    return episodes


def _as_npz(episodes: Episodes, table: FeatureTable) -> bytes:
    header = {
        "schema": SCHEMA,
        "version": VERSION,
        "seed": episodes.seed,
        "sampler": episodes.sampler,
        "generator": None if episodes.seed is None else "numpy.random.PCG64",
        "dataset": table.describe(),
        "class_names": table.class_names,
        "numpy": np.__version__,
    }
    arrays = {
        "header": np.array(json.dumps(header)),
        "classes": episodes.classes,
        "support": episodes.support,
        "query": episodes.query,
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", _NO_TIME)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
            archive.writestr(entry, content.getvalue())
    return file.getvalue()


def _from_json(path: Path, table: FeatureTable) -> Episodes:
    tasks = _tasks(path)
    if not tasks:
        raise InputError(f"{path} holds no episodes")
    index = PathIndex(_paths(table, path))
    read = [_ways(task, index, table, f"{path}, episode {e}") for e, task in enumerate(tasks)]
    ways = max(len(task) for task in read)
    classes = np.full((len(read), ways), -1, np.int32)
    support = np.full((len(read), ways, max(len(s) for task in read for _, s, _ in task)), -1, np.int32)
    query = np.full((len(read), ways, max(len(q) for task in read for _, _, q in task)), -1, np.int32)
    for e, task in enumerate(read):
        for w, (c, s, q) in enumerate(task):
            classes[e, w], support[e, w, : len(s)], query[e, w, : len(q)] = c, s, q
    rows = np.concatenate([support[support >= 0], query[query >= 0]])
    queries = {len(q) for task in read for _, _, q in task}
    sampler = {
        "kind": "file",
        "format": "JSON with Support and Query",
        "queries": "balanced" if len(queries) == 1 else "unbalanced",
        "replacement": len(np.unique(rows)) < len(rows),
        "episodes": len(read),
    }
    episodes = Episodes(classes, support, query, None, sampler)
    _check(episodes, table, str(path))
    return episodes


def _tasks(path: Path) -> list[Any]:
    """The episodes of one JSON list, or of JSON lines."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            if not text.lstrip().startswith("{"):
                raise InputError(f"{path} is no JSON ({error})") from error
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is neither JSON nor a JSON object a line ({error})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    return content if isinstance(content, list) else [content]


def _ways(task: Any, index: PathIndex, table: FeatureTable, where: str) -> list[tuple[int, list[int], list[int]]]:
    """(class, rows of supports, rows of queries) for each way of one episode, in the order of the classes."""
    support, query = ((task.get(name) or []) if isinstance(task, dict) else [] for name in ("Support", "Query"))
    if not (_is_lists(support) and _is_lists(query) and len(support) == len(query) > 0):
        raise InputError(f"{where}: expected Support and Query, each a list of paths for every way")
    ways = []
    for number, (s, q) in enumerate(zip(support, query, strict=True)):
        rows = [[_row(p, index, table, where) for p in part] for part in (s, q)]
        classes = {int(table.labels[row]) for row in rows[0] + rows[1]}
        if not rows[0] or len(classes) > 1:
            got = "no support" if not rows[0] else " and ".join(sorted(table.class_names[c] for c in classes))
            raise InputError(f"{where}, way {number}: expected supports and queries of one class, got {got}")
        ways.append((classes.pop(), rows[0], rows[1]))
    return sorted(ways)


def _is_lists(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(w, list) and all(isinstance(p, str) for p in w) for w in part)


def _row(path: str, index: PathIndex, table: FeatureTable, where: str) -> int:
    rows = index.candidates(path)
    if len(rows) != 1:
        found = f"may be {len(rows)} images of" if rows else "is not in"
        raise InputError(f"{where}: {path} {found} {table.name} ({len(table.labels)} images)")
    return rows[0]


def _paths(table: FeatureTable, path: Path) -> Sequence[str]:
    if table.paths is None:
        raise InputError(f"{path} holds paths, but {table.name} has none: give images or a feature store")
    return table.paths


def _check(episodes: Episodes, table: FeatureTable, where: str) -> None:
    """Whether episodes can be of this table: rows that are there, of the classes that are said, none twice in an episode."""
    classes = episodes.classes
    used = np.concatenate([episodes.support, episodes.query], axis=2)
    if not len(classes) or not episodes.shots:
        raise InputError(f"{where}: no episodes with supports")
    if used.max() >= len(table.labels) or min(used.min(), classes.min()) < -1:
        raise InputError(
            f"{where}: rows {used.min()} to {used.max()} are not those of {table.name}, which has {len(table.labels)} images"
        )
    for part in (classes, episodes.support, episodes.query):
        if ((part[..., :-1] < 0) & (part[..., 1:] >= 0)).any():
            raise InputError(f"{where}: -1 is expected at the end of a row only")
    ascending = (classes[:, 1:] > classes[:, :-1]) | (classes[:, 1:] < 0)
    if not ascending.all() or (classes[:, :2] < 0).any() or episodes.ways < 2:
        raise InputError(f"{where}: expected 2 or more distinct classes in every episode, ascending")
    if ((episodes.support[:, :, 0] < 0) != (classes < 0)).any():
        raise InputError(f"{where}: expected at least one support for every class, and none without a class")
    expected = np.broadcast_to(classes[:, :, None], used.shape)
    if (np.where(used < 0, expected, table.labels[used]) != expected).any() or ((used >= 0) & (expected < 0)).any():
        raise InputError(f"{where}: the class of an image is not the one that {table.name} gives it")
    flat = np.sort(used.reshape(len(used), -1), axis=1)
    twice = np.argwhere((flat[:, 1:] == flat[:, :-1]) & (flat[:, 1:] >= 0))
    if len(twice):
        e = int(twice[0, 0])
        raise InputError(f"{where}, episode {e}: row {flat[e, twice[0, 1]]} is there twice")
