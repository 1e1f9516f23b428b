"""Splits in JSON: easyfsl's, CloserLook's, Meta-Dataset's, CoOp's and those of cross-modal adaptation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewmatch.errors import InputError
from fewmatch.fewshot.splits import known
from fewmatch.fewshot.splits.known import EXPECTED, Published, part_of
from fewmatch.fewshot.splits.path_index import plain_path
from fewmatch.fewshot.splits.splits import Split, named_split, with_overlaps
from fewmatch.names import distinct_names, same_name


def splits_of_json(path: Path, text: str) -> list[Split]:
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error})") from error
    first = content[0] if isinstance(content, list) and content else content
    if isinstance(first, dict) and {"Support", "Query"} <= set(first):
        raise InputError(f"{path} holds episodes, not a split: give it as a file of episodes")
    try:
        return _of_content(path, content)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is none of the known JSON splits ({type(error).__name__}: {error})") from error


def _of_content(path: Path, content: Any) -> list[Split]:
    keys = set(content) if isinstance(content, dict) else set()
    if {"class_names", "class_roots"} <= keys:
        classes, folders = tuple(map(str, content["class_names"])), tuple(map(plain_path, content["class_roots"]))
        if len(classes) != len(folders):
            raise InputError(f"{path}: expected a root for each of {len(classes)} classes, got {len(folders)}")
        published = known.known_class_list(classes, known.CUB_EASYFSL, known.TIERED_EASYFSL)
        return [named_split(path, None, published, classes, folders=folders)]
    if {"label_names", "image_names", "image_labels"} <= keys:
        names = [content["label_names"][label] for label in content["image_labels"]]
        images = tuple(zip(map(plain_path, content["image_names"]), names, strict=True))
        classes = tuple(distinct_names(names)[0])
        return [named_split(path, None, known.known_class_list(classes, known.CUB_CLOSERLOOK, None), classes, images)]
    parts = {key: part for key in content if (part := part_of(key))} if keys else {}
    if not parts:
        raise InputError(f"{path} is none of the known JSON splits: expected {EXPECTED}")
    if not any(content[key] for key in parts):
        raise InputError(f"{path} holds no class and no image in {', '.join(parts)}")
    first = next(content[key] for key in parts if content[key])
    if isinstance(first, list) and isinstance(first[0], str):
        every = [name for key in parts for name in content[key]]
        published = known.known_class_list(every, known.CUB_META_DATASET, None)
        splits = [
            named_split(path, part, published, tuple(content[key])) for key, part in parts.items() if content[key]
        ]
        return with_overlaps(splits)
    splits = []
    for key, part in parts.items():
        # CoOp: [path, label, class name]; cross-modal: {impath, label, classname} in `data`.
        rows = content[key]["data"] if isinstance(content[key], dict) else content[key]
        if not rows:
            continue
        triples = [(r["impath"], r["label"], r["classname"]) if isinstance(r, dict) else tuple(r) for r in rows]
        images = tuple((plain_path(name), str(classname)) for name, _, classname in triples)
        style = "cross-modal" if isinstance(content[key], dict) else "CoOp"
        split = named_split(
            path, part, Published(f"{path.stem} ({style})"), tuple(distinct_names([c for _, c in images])[0]), images
        )
        labels = {(label, same_name(str(classname))) for _, label, classname in triples}
        if len(labels) != len(dict(labels)) or len(labels) != len({classname for _, classname in labels}):
            split = replace(split, warnings=(*split.warnings, f"{split.name}: labels and class names do not pair up"))
        splits.append(split)
    # These divide the images of the same classes, so only shared images are odd.
    return with_overlaps(splits, classes=False)
