"""Encoders by their Hugging Face repository or folder: its files found, fetched by huggingface_hub, and read by transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch

from fewmatch.encoders.devices import DeviceLike, DtypeLike, choose_device, choose_dtype
from fewmatch.encoders.hugging_face.backbone import HuggingFaceBackbone
from fewmatch.encoders.hugging_face.files import (
    ModelFolder,
    ModelRepository,
    digest_of,
    first_line,
    read_json,
    weights_files_of,
)
from fewmatch.encoders.hugging_face.processor_config import preprocessing_of
from fewmatch.encoders.loading import FrozenEncoder
from fewmatch.encoders.weights.download import Progress
from fewmatch.errors import InputError, WeightsRefusedError

#: The first version in which the last hidden state of every network is the one before the final norm.
_OLDEST = (5, 0)
_INSTALL = 'pip install "fewmatch[hf]"'


def load_hugging_face(
    place: str,
    *,
    device: DeviceLike = "auto",
    dtype: DtypeLike = "auto",
    stride: int | None = None,
    progress: Progress | None = None,
) -> FrozenEncoder:
    """The vision backbone of a repository on the Hugging Face Hub, or of a local folder in its layout, as transformers runs it.

    Needed are `config.json`, `preprocessor_config.json` (or `processor_config.json`) and the weights as safetensors, whole or in shards.
    Of a model of images and texts only the vision tower is loaded. Code of a repository is never run, pickles are never opened.
    Files of a repository are fetched into huggingface_hub's own cache, all from one commit, unless `FEWMATCH_OFFLINE` or
    `HF_HUB_OFFLINE` is set.

    Args:
        place: such as `facebook/dinov2-small`, or a folder; a folder of that name wins.
        stride: only the patch size is possible.
        progress: called with the bytes fetched and those in all (None where unknown).

    Returns:
        An encoder called `hf:` and the repository, or by the last part of the folder's path. Its digest is the SHA-256 of the weights
        file; of shards, that of their digests in hex, joined in the order of their names.

    Raises:
        InputError: no such folder or repository, no vision model, a preparation of pixels that is not supported, transformers missing.
        WeightsMissingError: the repository's files are not on this machine and cannot be fetched.
        WeightsRefusedError: weights are pickled, damaged, or not those of the model.
    """
    if not place:
        raise InputError("hf: alone names nothing: expected hf:FOLDER or a repository such as hf:owner/name")
    _require_transformers()
    folder = Path(place).expanduser()
    local = folder.is_dir()
    if not local and (place[:1] in "./~" or place.count("/") > 1):
        raise InputError(f"no folder {place}: expected a folder with config.json, or a repository such as owner/name")
    name = folder.resolve().name if local else f"hf:{place}"
    files = ModelFolder(folder) if local else ModelRepository(place, progress)
    config = files.get("config.json")
    if config is None:
        raise InputError(f"{place} has no config.json: expected a model of transformers")
    architecture, settings = _vision_network(config, place)
    processor, processor_path = _processor(files, place)
    weights = weights_files_of(files, place)
    chosen_device = choose_device(device)
    chosen = choose_dtype(dtype, chosen_device)
    network = _network(architecture, settings, config.parent, place, chosen).to(chosen_device)
    model = HuggingFaceBackbone(network, name)
    if stride not in (None, model.patch_size):
        raise InputError(
            f"expected a stride of {model.patch_size}, the patch size of {place}, got {stride}: networks of transformers have no other"
        )
    return FrozenEncoder(
        model,
        name=name,
        family="hf",
        preprocessing=preprocessing_of(processor, processor_path, patch=model.patch_size, image_size=model.image_size),
        digest=digest_of(weights),
        source={"family": "hf", "family_from": "config.json", "model_type": str(getattr(settings, "model_type", ""))},
        device=chosen_device,
        dtype=chosen,
    )


def _require_transformers() -> None:
    try:
        import transformers
    except ImportError as error:
        raise InputError(f"hf: encoders need transformers, which is not installed: {_INSTALL}") from error
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if version < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        raise InputError(f"hf: encoders need transformers {wanted}, got {transformers.__version__}: {_INSTALL}")


def _vision_network(config: Path, place: str) -> tuple[Any, Any]:
    """The class of transformers that a configuration asks for, and the configuration; of several towers, those of the vision tower."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig

    kind = read_json(config).get("model_type")
    if kind not in CONFIG_MAPPING:
        code = ", and it brings code of its own, which is never run" if "auto_map" in read_json(config) else ""
        raise InputError(f"{place}: transformers {_version()} has no model type {kind}{code}")
    try:
        settings = AutoConfig.from_pretrained(config.parent, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # every kind of configuration has checks, and errors, of its own
        raise InputError(f"{config} cannot be used: {first_line(error)}") from error
    settings = getattr(settings, "vision_config", None) or settings
    try:
        architecture = MODEL_MAPPING.get(type(settings), None)
        takes = getattr(architecture, "main_input_name", None)
    except ImportError as error:
        raise InputError(f"{place} cannot be loaded: {first_line(error)}") from error
    if not isinstance(architecture, type) or takes != "pixel_values":
        raise InputError(f"{place} is no vision backbone: its model type is {kind}")
    if getattr(settings, "num_channels", 3) != 3:
        raise InputError(f"{place} takes images of {settings.num_channels} channels: expected 3")
    return architecture, settings


def _processor(files: ModelFolder | ModelRepository, place: str) -> tuple[dict[str, Any], str]:
    """How pixels are prepared, and the file that says so."""
    path = files.get("preprocessor_config.json")
    if path is not None:
        return read_json(path), str(path)
    path = files.get("processor_config.json")
    inner = read_json(path).get("image_processor") if path is not None else None
    if not isinstance(inner, dict):
        raise InputError(f"{place} has no preprocessor_config.json: nothing says how its pixels are prepared")
    return inner, str(path)


def _network(architecture: Any, settings: Any, folder: Path, place: str, dtype: torch.dtype) -> Any:
    """The network with all of its weights, in evaluation mode; without a pooler that the file has no weights for, or that is BERT's."""
    try:
        with _silent():
            network, told = architecture.from_pretrained(
                folder,
                config=settings,
                dtype=dtype,
                # Said here, since a configuration could name attention code to be fetched from elsewhere.
                attn_implementation="sdpa" if getattr(architecture, "_supports_sdpa", False) else "eager",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except safetensors.SafetensorError as error:
        raise WeightsRefusedError(
            f"the weights of {place} are damaged ({first_line(error)}): fetch them again"
        ) from error
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise WeightsRefusedError(
            f"{place} cannot be loaded by transformers {_version()}: {first_line(error)}"
        ) from error
    missing = sorted(key for key in told["missing_keys"] if not key.endswith("mask_token"))
    pooler = getattr(network, "pooler", None)
    if pooler is not None and (hasattr(pooler, "dense") or any(key.startswith("pooler.") for key in missing)):
        network.pooler = None
        missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        raise WeightsRefusedError(
            f"{place} lacks {len(missing)} weights of {architecture.__name__} ({', '.join(missing[:3])}{' …' if missing[3:] else ''})"
        )
    return network.eval().requires_grad_(False)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """transformers reports unused weights and draws bars; what matters of that becomes an error here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _version() -> str:
    import transformers

    return str(transformers.__version__)
