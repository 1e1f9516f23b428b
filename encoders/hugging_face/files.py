"""The files of a Hugging Face model: in a folder, or in a repository, from which huggingface_hub fetches them."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewmatch.encoders.identity import file_digest
from fewmatch.encoders.paths import hf_hub_cache, offline
from fewmatch.encoders.weights.download import Progress
from fewmatch.errors import InputError, WeightsMissingError, WeightsRefusedError

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_INDEX = "model.safetensors.index.json"

#: Files that nothing goes without: what is missing when the last of several names is not found.
_DECISIVE = {
    "config.json": "config.json",
    "processor_config.json": "preprocessor_config.json",
    _INDEX: "model.safetensors",
}


class ModelFolder:
    """The files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, filename: str) -> Path | None:
        """A file; None where there is none."""
        path = self.folder / filename
        return path if path.is_file() else None

    has = get


class ModelRepository:
    """The files of a repository, from huggingface_hub's cache or the Hub; the first one decides which commit all others are of."""

    def __init__(self, repo: str, progress: Progress | None) -> None:
        self.repo, self.progress = repo, progress
        self.offline = offline()
        self.commit: str | None = None

    def get(self, filename: str) -> Path | None:
        """A file, fetched if need be; None where the repository has none.

        Raises:
            InputError: there is no such repository.
            WeightsMissingError: it is not here and cannot be fetched.
        """
        from huggingface_hub import errors, hf_hub_download
        from huggingface_hub.utils import logging

        level = logging.get_verbosity()
        logging.set_verbosity_error()  # what matters of its warnings becomes an error here
        try:
            path = Path(
                hf_hub_download(
                    self.repo,
                    filename,
                    revision=self.commit,
                    cache_dir=hf_hub_cache(),
                    local_files_only=self.offline is not None,
                    endpoint=os.environ.get("HF_ENDPOINT"),
                    library_name="fewmatch",
                    **_bar(self.progress),
                )
            )
        except errors.HFValidationError as error:
            raise InputError(
                f"no folder {self.repo}, and no name of a repository: expected such as owner/name"
            ) from error
        except errors.GatedRepoError as error:
            raise self._missing(
                "its publisher gives them on request: accept the terms on its page, and log in with `hf auth login`"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise InputError(
                f"no folder {self.repo}, and no such repository on the Hugging Face Hub, or a private one: check the name, or log in "
                "with `hf auth login`"
            ) from error
        except errors.LocalEntryNotFoundError as error:
            if self.offline is None:
                raise self._missing("the Hugging Face Hub cannot be reached") from error
            # Whether the repository lacks a file or only this machine cannot be known; so the last of several names decides.
            if filename in _DECISIVE:
                raise self._missing(f"{_DECISIVE[filename]} is not, and {self.offline} forbids to fetch it") from error
            return None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:  # the classes of network errors differ between versions of huggingface_hub
            raise self._missing(first_line(error)) from error
        finally:
            logging.set_verbosity(level)
        self.commit = self.commit or path.parent.name
        return path

    def has(self, filename: str) -> bool:
        """Whether the repository has a file, which is not fetched."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        return self.offline is None and api.file_exists(self.repo, filename, revision=self.commit)

    def _missing(self, reason: str) -> WeightsMissingError:
        place = hf_hub_cache() / f"models--{self.repo.replace('/', '--')}"
        return WeightsMissingError(
            f"the files of hf:{self.repo} are not all on this machine ({reason}): looked in {place}; "
            f"`hf download {self.repo} config.json preprocessor_config.json model.safetensors` gets them; `-e mini` works now, without"
        )


def _bar(progress: Progress | None) -> dict[str, Any]:
    """huggingface_hub's own progress bar made to tell ours."""
    if progress is None:
        return {}
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import tqdm

    report = progress

    class Told(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: Any = 1) -> None:
            self.n += n or 0
            report(int(self.n), None if self.total is None else int(self.total))

    return {"tqdm_class": Told} if "tqdm_class" in inspect.signature(hf_hub_download).parameters else {}


def weights_files_of(files: ModelFolder | ModelRepository, place: str) -> list[Path]:
    """The weights files, in the order of their names."""
    whole = files.get("model.safetensors")
    if whole is not None:
        return [whole]
    index = files.get(_INDEX)
    if index is None:
        if any(files.has(name) for name in _PICKLES):
            raise WeightsRefusedError(
                f"{place} has its weights as pickles ({_PICKLES[0]}), which can run code: expected model.safetensors"
            )
        raise InputError(f"{place} has no model.safetensors: expected weights of transformers")
    names = sorted({str(name) for name in dict(read_json(index).get("weight_map") or {}).values()})
    paths = []
    for name in names:
        if os.path.basename(name) != name or not name.endswith(".safetensors"):
            raise WeightsRefusedError(f"{index} names {name}: expected .safetensors files beside it")
        path = files.get(name)
        if path is None:
            raise WeightsMissingError(f"{place} has no {name}, which {_INDEX} names: fetch it again")
        paths.append(path)
    if not paths:
        raise WeightsRefusedError(f"{index} names no files: expected weight_map")
    return paths


def digest_of(weights: list[Path]) -> str:
    digests = [file_digest(path) for path in weights]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@dataclass(frozen=True)
class Settings:
    """What the files beside weights in the Hugging Face layout say of them; None is what they leave open.

    family: of ours. heads: of a block's attention. mean, std: of the pixels, for values from 0 to 1.
    """

    family: str | None = None
    heads: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


#: Our family of each `model_type`. Not of `vit`, under which DINO's weights were published, and those of classifiers as well.
_FAMILIES = {
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2_reg",
    "dinov3_vit": "dinov3",
    "vit_mae": "mae",
    "vit_msn": "msn",
}
_CLIP = {"quick_gelu": "clip", "gelu": "open_clip"}


def settings_beside(weights: Path) -> Settings:
    """What `config.json` and `preprocessor_config.json` beside a weights file say, where it has a name of transformers.

    Raises:
        InputError: one of them is damaged.
    """
    config = weights.parent / "config.json"
    if weights.name not in ("model.safetensors", "pytorch_model.bin") or not config.is_file():
        return Settings()
    settings = read_json(config)
    kind = settings.get("model_type")
    inner = settings.get("vision_config")
    settings = inner if isinstance(inner, dict) else settings
    family = _FAMILIES.get(str(kind))
    if kind in ("clip", "clip_vision_model"):
        family = _CLIP.get(settings.get("hidden_act", "quick_gelu"))
    # transformers leaves out what is its default.
    heads = settings.get("num_attention_heads", 6 if family == "dinov3" else 12) if family or kind == "vit" else None
    processor = weights.parent / "preprocessor_config.json"
    pixels = read_json(processor) if processor.is_file() else {}
    mean, std = (_three(pixels.get(name)) for name in ("image_mean", "image_std"))
    return Settings(family, heads if isinstance(heads, int) else None, mean, std)


def _three(numbers: Any) -> tuple[float, float, float] | None:
    if isinstance(numbers, list) and len(numbers) == 3 and all(isinstance(number, int | float) for number in numbers):
        return numbers[0], numbers[1], numbers[2]
    return None


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no JSON object")
    return content


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0][:200]
