"""Width, depth and heads of the vision transformers that most families share."""

from __future__ import annotations

from typing import Any

#: Small, base, large: heads of 64 channels. Huge: of 80.
VIT_SIZES: dict[str, dict[str, Any]] = {
    "s": {"embed_dim": 384, "depth": 12, "heads": 6},
    "b": {"embed_dim": 768, "depth": 12, "heads": 12},
    "l": {"embed_dim": 1024, "depth": 24, "heads": 16},
    "h": {"embed_dim": 1280, "depth": 32, "heads": 16},
}


def vit(size: str, patch: int, image: int = 224, **more: Any) -> dict[str, Any]:
    """The architecture of a ViT whose position table covers a square image of `image` pixels a side."""
    return VIT_SIZES[size] | {"patch_size": patch, "position_grid": image // patch} | more
