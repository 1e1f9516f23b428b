"""An encoder for tests: the descriptor of a patch depends on that patch's pixels and on nothing else."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch

from fewmatch.encoders.features import Features
from fewmatch.encoders.preprocessing import Preprocessing
from fewmatch.encoders.store.encode import encode_images


class PatchLocalEncoder:
    """A fixed random projection of the pixels of each patch; the vector of an image is the mean of its map.

    Sums are taken in float64 and rounded to multiples of 1/4096, so that an image's features are the same bytes in whatever batch
    it comes. Of the optional attributes of the contract it has only the digest, unless others are given. `images_seen` counts forward passes.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 6,
        patch_size: int = 4,
        size: int = 16,
        seed: int = 0,
        delay: float = 0.0,
        **optional: Any,
    ) -> None:
        self.name = "patch-local"
        self.embed_dim = embed_dim
        self.patch_size = patch_size
        self.preprocessing = Preprocessing(resize=size + patch_size, crop=size, dense=size)
        self.images_seen = 0
        self.delay = delay
        self._projection = np.random.default_rng(seed).normal(size=(3 * patch_size**2, embed_dim))
        self.digest = f"random projection {embed_dim} {patch_size} {seed}"
        for name, value in optional.items():
            setattr(self, name, value)

    def __call__(self, images: torch.Tensor) -> Features:
        self.images_seen += len(images)
        time.sleep(self.delay)
        b, _, height, width = images.shape
        p = self.patch_size
        pixels = images.cpu().numpy().astype(np.float64).reshape(b, 3, height // p, p, width // p, p)
        patches = pixels.transpose(0, 2, 4, 1, 3, 5).reshape(b, height // p, width // p, 3 * p**2)
        feature_map = np.round(patches @ self._projection * 4096) / 4096
        global_repr = np.round(feature_map.mean((1, 2)) * 4096) / 4096
        return Features(torch.from_numpy(global_repr).float(), None, torch.from_numpy(feature_map).float())


def encode_with_home(home: str, *arguments: Any, **options: Any) -> None:
    """For processes of their own: `encode_images` with another `$FEWMATCH_HOME`, so with locks that nobody else sees."""
    os.environ["FEWMATCH_HOME"] = home
    encode_images(*arguments, **options)
