"""Random images with feature maps under different frames, and their page, for the tests of what a page of matches holds and does."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewmatch.encoders.frame import crop_frame, dense_frame, padded_frame, with_stride
from fewmatch.figures.page.correspondence import MatchPageImage, match_page
from fewmatch.matching import Matches, match


@dataclass
class Album:
    """Images, the matches of some pairs, and what NumPy says of them in float64."""

    images: list[MatchPageImage]
    pairs: dict[tuple[int, int], Matches] = field(default_factory=dict)

    @property
    def page(self) -> str:
        return match_page(self.images, self.pairs, title="A title", note="A note")

    def write(self, path: Path) -> Path:
        path.write_bytes(self.page.encode())
        return path

    def units(self, i: int) -> np.ndarray:
        x = self.images[i].feature_map.reshape(-1, self.images[i].feature_map.shape[2]).astype(np.float64)
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        return np.asarray(x / np.where(norm > 0, norm, 1))

    def usable(self, i: int) -> np.ndarray:
        image = self.images[i]
        real = image.frame.real & (np.abs(image.feature_map).sum(axis=2) > 0)
        return np.asarray(real if image.valid is None else real & image.valid).reshape(-1)

    def cosines(self, a: int, b: int) -> np.ndarray:
        """Of the patches of A with those of B; −∞ where a patch of B takes no part."""
        return np.where(self.usable(b), self.units(a) @ self.units(b).T, -np.inf)

    def pixel(self, i: int, patch: int) -> tuple[float, float]:
        frame = self.images[i].frame
        x, y = frame.to_pixels(*divmod(patch, frame.grid[1]))
        return float(x), float(y)

    def best(self, a: int, patch: int, b: int) -> tuple[float, float, float]:
        """Pixels of the nearest patch of B, and its cosine."""
        cosines = self.cosines(a, b)[patch]
        return *self.pixel(b, int(cosines.argmax())), float(cosines.max())

    def match(self, *pairs: tuple[int, int]) -> Album:
        for a, b in pairs:
            one, other = self.images[a], self.images[b]
            self.pairs[a, b] = match(
                one.feature_map, one.frame, other.feature_map, other.frame, valid_a=one.valid, valid_b=other.valid
            )
        return self


def make(seed: int = 0, dims: int = 24, pictures: bool = True, names: list[str] | None = None) -> Album:
    """Four images: whole, cropped, padded with some patches left out and one of zeros, and with patches that overlap."""
    rng = np.random.default_rng(seed)
    frames = [
        dense_frame(160, 120, size=60, patch=10),
        crop_frame(150, 90, resize=60, crop=60, patch=10),
        padded_frame(120, 80, size=80, patch=10),
        with_stride(dense_frame(90, 120, size=60, patch=20), 10),
    ]
    images = []
    for i, frame in enumerate(frames):
        features = (rng.normal(size=(*frame.grid, dims)) + 0.7 * rng.normal(size=dims)).astype(np.float32)
        valid = None
        if i == 2:
            valid = rng.random(frame.grid) > 0.2
            features[4, 4], valid[4, 4] = 0, True
        picture = rng.integers(0, 256, (frame.height, frame.width, 3)).astype(np.uint8) if pictures else None
        images.append(MatchPageImage(names[i] if names else f"image-{i}.png", picture, features, frame, valid))
    return Album(images)


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)
