"""Sorting labelled images into class folders: a plan first, then copies or hard links that never replace anything."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fewmatch.cli import output

#: The folder of images that are none of the classes.
NONE_FOLDER = "_none"
#: Bytes of a folder's name; the usual limit is 255.
_LONGEST = 120
_FORBIDDEN = frozenset('<>:"/\\|?*')
_RESERVED = frozenset(["con", "prn", "aux", "nul", *(f"{name}{i}" for name in ("com", "lpt") for i in range(10))])

Action = Literal["copy", "link", "there", "conflict", "gone"]


@dataclass(frozen=True)
class PlannedFile:
    """One image and where it goes: `copy` or `link` it, it is `there` already with the same content, another file of that name is there
    (`conflict`), or it is `gone` from where it was."""

    source: Path
    name: str
    target: Path
    action: Action


class SortPlan:
    """Images on their way into class folders below one folder.

    An image keeps its relative path below its class's folder, so that no two can meet and a second run finds what the first one did.
    """

    def __init__(self, into: Path, class_names: Sequence[str], *, link: bool) -> None:
        """Nothing is written before `apply`.

        Raises:
            InputError: `into` is a file, or cannot be used.
        """
        from fewmatch.errors import InputError
        from fewmatch.names import DiskNames

        if into.exists() and not into.is_dir():
            raise InputError(f"{into} is no folder: give --sort-into a folder")
        self.into, self.link = into, link
        disk = DiskNames()
        # A class's folder that is there already counts however its name is spelled.
        self._folders = {
            name: (disk.find(into / folder) or into / folder).name
            for name, folder in class_folders(class_names).items()
        }
        self.files: list[PlannedFile] = []

    def add(self, row: dict[str, Any], label: str | None) -> None:
        """Plan where the image of a manifest line goes; None for none of the classes."""
        folder = NONE_FOLDER if label is None else self._folders[label]
        source, name = Path(str(row["root"]), str(row["path"])), str(row["path"])
        target = self.into / folder / _inside(name)
        self.files.append(PlannedFile(source, name, target, self._action(source, target)))

    def _action(self, source: Path, target: Path) -> Action:
        from fewmatch.errors import InputError

        if not source.is_file():
            return "gone"
        if not target.resolve().is_relative_to(self.into.resolve()):
            raise InputError(f"{target} leads out of {self.into}: remove the link, or choose another folder")
        if not os.path.lexists(target):
            return "link" if self.link else "copy"
        return "there" if _same(source, target) else "conflict"

    def of(self, *actions: Action) -> list[PlannedFile]:
        return [file for file in self.files if file.action in actions]

    def apply(self) -> None:
        """Do it. What was done before a failure stays; the same command goes on from there.

        Raises:
            OutputExistsError: a file of that name and other content is in the way; nothing is done then.
            FewmatchError: the file system refuses.
        """
        from fewmatch.errors import FewmatchError, OutputExistsError

        conflicts = self.of("conflict")
        if conflicts:
            more = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
            raise OutputExistsError(
                f"{conflicts[0].target} is another file than {conflicts[0].source}{more}: choose another folder for --sort-into"
            )
        for file in self.of("copy", "link"):
            try:
                file.target.parent.mkdir(parents=True, exist_ok=True)
                if self.link:
                    os.link(file.source.resolve(), file.target)
                else:
                    _copy(file.source, file.target)
            except FileExistsError as error:
                raise OutputExistsError(f"{file.target} appeared meanwhile: run the command again") from error
            except OSError as error:
                how = "linked" if self.link else "copied"
                hint = (
                    ": a hard link needs one file system that has them; leave --link out to copy" if self.link else ""
                )
                raise FewmatchError(
                    f"{file.source} cannot be {how} to {file.target} ({error.strerror}){hint}"
                ) from error

    def folders(self) -> list[tuple[str, int, int]]:
        """Folder, files to be written, files that are there already; for every folder that gets or has one."""
        new: Counter[str] = Counter()
        there: Counter[str] = Counter()
        for file in self.files:
            folder = file.target.relative_to(self.into).parts[0]
            new[folder] += file.action in ("copy", "link")
            there[folder] += file.action == "there"
        return [(name, new[name], there[name]) for name in sorted(new) if new[name] or there[name]]

    def to_json(self, applied: bool) -> dict[str, Any]:
        return {
            "into": str(self.into),
            "link": self.link,
            "applied": applied,
            "folders": {name: new + there for name, new, there in self.folders()},
            "files": [
                {"path": file.name, "to": file.target.relative_to(self.into).as_posix(), "action": file.action}
                for file in self.files
            ],
        }

    def show(self, applied: bool) -> None:
        """The plan, or what became of it, as a table; nothing of it with --json."""
        done = {True: ("linked", "copied"), False: ("to link", "to copy")}[applied][0 if self.link else 1]
        output.emit_table(
            "",
            (("folder", "left"), (done, "right"), ("there already", "right")),
            [(name, f"{new:,}", f"{there:,}") for name, new, there in self.folders()],
            f"{'written' if applied else 'nothing is written yet: --apply does it; would be'} below {output.printable(self.into)}",
        )


def class_folders(class_names: Sequence[str]) -> dict[str, str]:
    """A folder's name for each class: its own where any system can take it, else a safe spelling with a digest of the name.

    No two are the same, not even where upper and lower case are not told apart.
    """
    from fewmatch.names import same_name

    folders = {name: safe_name(name) for name in class_names}
    times = Counter(same_name(folder).casefold() for folder in folders.values())
    return {
        name: _marked(folder, name) if times[same_name(folder).casefold()] > 1 and folder == name else folder
        for name, folder in folders.items()
    }


def safe_name(name: str) -> str:
    """A name that stands for one folder below another on any system; unchanged where it is one already."""
    text = _bytes(name).decode()  # what is no UTF-8 has become an escape with a backslash
    clean = "".join("_" if c in _FORBIDDEN or not c.isprintable() else c for c in text)
    clean = clean.lstrip(".").rstrip(". ").strip()
    while len(clean.encode()) > _LONGEST:
        clean = clean[:-1]
    stem = clean.split(".")[0].rstrip().casefold()
    if clean and clean == name and stem not in _RESERVED and clean.casefold() != NONE_FOLDER:
        return name
    return _marked(clean, name)


def _marked(folder: str, name: str) -> str:
    digest = hashlib.sha256(_bytes(name)).hexdigest()[:8]
    return f"{folder.replace('.', '_') or 'class'}~{digest}"  # con.txt is as much reserved as con


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "backslashreplace")


def _inside(name: str) -> Path:
    """A relative path as it is, or flat where it leads upwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." not in parts:
        return Path(*parts)
    stem, dot, ending = parts[-1].rpartition(".")
    digest = hashlib.sha256(_bytes(name)).hexdigest()[:16]
    return Path(f"{stem}~{digest}.{ending}" if dot and stem else f"{parts[-1]}~{digest}")


def _same(source: Path, target: Path) -> bool:
    """Whether two files are one, or have the same content."""
    with contextlib.suppress(OSError):
        return target.is_file() and (target.samefile(source) or filecmp.cmp(source, target, shallow=False))
    return False


def _copy(source: Path, target: Path) -> None:
    """A copy that appears whole or not at all, and replaces nothing.

    Raises:
        FileExistsError: the target is there.
    """
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    temporary = target.with_name(
        f".{digest}.fewmatch-copy"
    )  # one name, so that nothing is left over for good after a kill
    try:
        shutil.copy2(source, temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if os.path.lexists(target):
                raise FileExistsError(target) from None
            os.rename(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
