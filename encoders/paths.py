"""Where things live on this machine: every environment variable that fewmatch reads, and the folders they name."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def fewmatch_home() -> Path:
    """Folder for cached features and weights: `$FEWMATCH_HOME`, else the user's cache folder for fewmatch."""
    home = os.environ.get("FEWMATCH_HOME")
    return Path(home).expanduser() if home else platformdirs.user_cache_path("fewmatch")


def weights_folder() -> Path:
    """Where fewmatch keeps weights files of its own."""
    return fewmatch_home() / "weights"


def feature_cache() -> Path:
    """Where commands keep the features of images they encoded on the way."""
    return fewmatch_home() / "features"


def torch_checkpoints() -> Path:
    """Where torch.hub keeps checkpoints: `$TORCH_HOME/hub/checkpoints`, by default below `$XDG_CACHE_HOME` or `~/.cache`."""
    home = os.environ.get("TORCH_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def hf_hub_cache() -> Path:
    """Where huggingface_hub keeps repositories: `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`."""
    cache = os.environ.get("HF_HUB_CACHE")
    if cache:
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def offline() -> str | None:
    """The variable that forbids downloads, `FEWMATCH_OFFLINE` or `HF_HUB_OFFLINE` (set to 1, on, yes or true); None where none does."""
    for variable in ("FEWMATCH_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "").strip().lower() in ("1", "on", "yes", "true"):
            return variable
    return None
