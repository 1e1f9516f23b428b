"""Random episodes with pictures, and their pages, for the tests of what a page holds and of what it does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewmatch.fewshot import EpisodePlane, Episodes, episode_plane, sample_episodes
from fewmatch.fewshot.centering import CENTERS
from fewmatch.fewshot.plane import episode_planes
from fewmatch.figures.page.plane import EpisodeImage, plane_page

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!-- <script> &amp; \"'`",
    "\u2028\u2029 line ends",
    "not UTF-8 \udc80\udcff",
    "\u202egnp.txt",
    "🦊 \U0001f468‍👩‍👧 é ß",
    "{{ 7 * 7 }} {% raw %}",
    "<img src=x onerror=alert(2)>",
]
#: The same as any encoding takes it.
CLEAN = [text.encode("utf-8", "replace").decode() for text in HOSTILE]


@dataclass
class Episode:
    """Random features, an episode of them, and its page."""

    x: np.ndarray
    labels: np.ndarray
    drawn: Episodes
    names: list[str]
    supports: list[list[EpisodeImage]]
    queries: list[list[EpisodeImage]]
    planes: Mapping[tuple[int, str], EpisodePlane | Exception]
    start: tuple[int, str]

    @property
    def page(self) -> str:
        return plane_page(
            self.planes, self.names, self.supports, self.queries, start=self.start, title="A title", note="A note"
        )

    def plane(self, shots: int, center: str) -> EpisodePlane:
        """By the function for one plane, on the episode with fewer supports."""
        part = Episodes(self.drawn.classes, self.drawn.support[:, :, :shots], self.drawn.query)
        return episode_plane(self.x, self.labels, part, center=center)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.page.encode())
        return path


def make(
    seed: int = 0, ways: int = 4, shots: int = 5, queries: int = 6, dims: int = 12, pictures: bool = True
) -> Episode:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(ways), shots + queries)
    x = rng.normal(size=(ways, dims))[labels] + 1.3 * rng.normal(size=(len(labels), dims)) + 3
    drawn = sample_episodes(labels, ways=ways, shots=shots, queries=queries, episodes=1, seed=seed)

    def image(row: int) -> EpisodeImage:
        shape = (*rng.integers(1, 40, 2), 3)
        return EpisodeImage(f"image-{row}.png", rng.integers(0, 256, shape).astype(np.uint8) if pictures else None)

    supports, chosen = ([[image(row) for row in rows] for rows in part[0]] for part in (drawn.support, drawn.query))
    steps = sorted({k for k in (1, 2, 3) if k < shots} | {shots})
    centers = [center for center in CENTERS if center != "base"]
    planes = episode_planes(x, labels, drawn, shots=steps, centers=centers)
    return Episode(
        x, labels, drawn, [f"class {w}" for w in range(ways)], supports, chosen, planes, (steps[-1], "support")
    )


def hostile() -> Episode:
    made = make(ways=len(HOSTILE), shots=1, queries=2)
    made.names = HOSTILE
    made.supports = [[EpisodeImage(text, image.picture)] for text, (image,) in zip(HOSTILE, made.supports, strict=True)]
    return made


def embedded(page: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(found)


def digits(values: np.ndarray) -> list[str]:
    return [f"{value:.3f}" for value in values]
