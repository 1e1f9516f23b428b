"""The errors that users meet, each with the exit code the command line gives it."""

from __future__ import annotations

__all__ = [
    "FewmatchError",
    "ImageError",
    "InputError",
    "OutputExistsError",
    "StoreDamagedError",
    "WeightsMissingError",
    "WeightsRefusedError",
]


class FewmatchError(Exception):
    """Something failed; the message is one line that says what, where and what to do."""

    exit_code = 1


class InputError(FewmatchError, ValueError):
    """Wrong usage, or nothing usable in what was given."""

    exit_code = 2


class WeightsMissingError(FewmatchError):
    """The encoder's weights are neither bundled nor on this machine."""

    exit_code = 4


class WeightsRefusedError(FewmatchError):
    """A weights file is damaged, unsafe, of another architecture or not the one its name promises."""


class OutputExistsError(FewmatchError):
    """The output is there already and is not ours to continue, or another process holds it."""

    exit_code = 5


class StoreDamagedError(FewmatchError):
    """A file of a feature store cannot be trusted: truncated, altered, or of another store."""


class ImageError(FewmatchError):
    """One image cannot be used.

    `reason` is one of a fixed set of words (see `fewmatch.encoders.images`), `detail` says what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
