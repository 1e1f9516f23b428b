"""What is to be encoded with what, and into which shards: decided before the first pixel is read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fewmatch.encoders.features import Encoder
from fewmatch.encoders.frame import RESIZE_RULES, Frame, ResizeRule, crop_frame, resized_frame, with_stride
from fewmatch.encoders.identity import FileState, canonical, encoder_facts, key_digest, plain_json, stride_of
from fewmatch.encoders.images import DECODER_VERSION, REDUCTIONS
from fewmatch.encoders.listing import ListedImage, list_images
from fewmatch.encoders.paths import feature_cache
from fewmatch.encoders.preprocessing import Preprocessing
from fewmatch.encoders.store.store import Keep
from fewmatch.encoders.value_range import ValueRange
from fewmatch.errors import InputError

#: A shard holds at most this many images, and with patches about this many bytes.
SHARD_IMAGES = 1024
SHARD_BYTES = 256 * 2**20

#: How many crops of an image can be averaged: the central one; it and those in the corners; all five and their mirror images
#: (Krizhevsky et al. 2012). Places are shares of the room that is left, across and down.
CROPS = (1, 5, 10)
_CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))

#: With fast decoding a JPEG keeps at least this many pixels for each one that the encoder gets. Less would show (docs/encoders.md);
#: another number makes other features, so `DECODER_VERSION` changes with it.
FAST_PIXELS = 2


@dataclass(frozen=True)
class EncodingPlan:
    """What is to be encoded with what: made once, before the first pixel is read.

    sources: what the user named, as absolute paths. images: those found there, in the order of the store.
    preprocessing: at the size asked for. shard_images: images in a shard. resize: the rule for images whose patches are kept.
    fast_decode: whether large JPEGs are decoded at a part of their size.
    crops: how many crops an image's vector is the mean of; see `CROPS`.
    mirror: whether the encoder sees every picture with left and right exchanged; maps and frames are brought back afterwards.
    value_range: which values of images of more than 8 bits become black and white.
    """

    sources: list[str]
    images: list[ListedImage]
    encoder: Encoder
    preprocessing: Preprocessing
    keep: Keep = "global"
    shard_images: int = SHARD_IMAGES
    resize: ResizeRule = "keep"
    fast_decode: bool = False
    crops: int = 1
    mirror: bool = False
    value_range: ValueRange = "full"

    @cached_property
    def key(self) -> dict[str, Any]:
        """Everything that decides the features; two stores with the same key and images hold the same."""
        return {
            "encoder": encoder_facts(self.encoder),
            "keep": self.keep,
            "layer": getattr(self.encoder, "layer", "last"),
            "preprocessing": self._preparation(),
            "decoder": f"{DECODER_VERSION}, fast" if self.fast_decode else DECODER_VERSION,
        }

    def _preparation(self) -> dict[str, Any]:
        """The part of the preprocessing that is used: a default that is not must not make a store look different."""
        unused = ("dense",) if self.keep == "global" else ("resize", "crop")
        used = {name: value for name, value in self.preprocessing.to_json().items() if name not in unused}
        return (
            used
            | ({} if self.crops == 1 else {"crops": self.crops})
            | ({"mirror": True} if self.mirror else {})
            | ({} if self.value_range == "full" else {"range": plain_json(self.value_range)})
            | {"rule": self.resize if self.keep == "patches" else "squash" if self.preprocessing.squash else "crop"}
        )

    def shards(self) -> list[tuple[str, list[ListedImage], list[FileState]]]:
        """File name, images, and the state of each image's file, shard by shard."""
        states = [FileState.of(image.path) for image in self.images]
        key = key_digest(self.key)
        shards = []
        for number, start in enumerate(range(0, len(self.images), self.shard_images)):
            part, found = self.images[start : start + self.shard_images], states[start : start + self.shard_images]
            made_from = canonical([key, [[image.name, *state] for image, state in zip(part, found, strict=True)]])
            name = f"shard-{number:05d}-{hashlib.blake2b(made_from, digest_size=8).hexdigest()}.safetensors"
            shards.append((name, part, found))
        return shards

    def frame(self, width: int, height: int) -> Frame:
        """How an image of this size goes into the encoder."""
        p, patch = self.preprocessing, self.encoder.patch_size
        if self.keep == "patches":
            frame = resized_frame(width, height, size=p.dense, patch=patch, rule=self.resize)
        else:
            frame = crop_frame(width, height, resize=p.resize, crop=p.crop, patch=patch, squash=p.squash)
        return with_stride(frame, stride_of(self.encoder))

    def other_frames(self, width: int, height: int) -> list[Frame]:
        """The corner crops where several crops are averaged, beside that of `frame`."""
        p, patch = self.preprocessing, self.encoder.patch_size
        if self.crops == 1:
            return []
        return [
            with_stride(
                crop_frame(width, height, resize=p.resize, crop=p.crop, patch=patch, squash=p.squash, place=place),
                stride_of(self.encoder),
            )
            for place in _CORNERS
        ]

    def reduction(self, width: int, height: int) -> int:
        """By how much a JPEG of this size is reduced while it is decoded: 1 unless `fast_decode`.

        The most that leaves `FAST_PIXELS` pixels for each one that the encoder gets, across and down.
        """
        if not self.fast_decode:
            return 1
        spare = 1 / max(self.frame(width, height).scale)
        return next((factor for factor in REDUCTIONS if spare >= FAST_PIXELS * factor), 1)

    @property
    def fill(self) -> tuple[int, int, int]:
        """The colour of padding: what normalisation turns into zero, but for rounding."""
        r, g, b = (round(255 * value) for value in self.preprocessing.mean)
        return r, g, b

    def expected_bytes(self) -> int:
        """Disk space that the features will take, taking photos for 4:3."""
        vector = 4 * self.encoder.embed_dim
        if self.keep == "global":
            return len(self.images) * vector
        return len(self.images) * (
            vector + 2 * self.encoder.embed_dim * _dense_patches(self.preprocessing, self.encoder, self.resize)
        )


def plan_encoding(
    paths: Iterable[str | os.PathLike[str]] | Sequence[ListedImage],
    encoder: Encoder,
    *,
    keep: Keep = "global",
    size: int | None = None,
    resize: str = "keep",
    shard_images: int | None = None,
    fast_decode: bool = False,
    crops: int = 1,
    mirror: bool = False,
    value_range: ValueRange = "full",
) -> EncodingPlan:
    """List the images and fix the preparation.

    Raises:
        InputError: there are no images, `size` does not fit the encoder's patches, the resize rule is unknown or not used, there is
            no such number of crops, or `mirror` without `patches`.
    """
    if crops not in CROPS:
        raise InputError(f"no {crops} crops: expected one of {', '.join(map(str, CROPS))}")
    if crops != 1 and keep == "patches":
        raise InputError(f"{crops} crops are for one vector per image: a feature map is of the whole image")
    if mirror and keep == "global":
        raise InputError(
            "mirrored images are for feature maps (keep patches): --crops 10 averages vectors over mirror images"
        )
    rule = next((rule for rule in RESIZE_RULES if rule == resize), None)
    if rule is None:
        raise InputError(f"no resize rule called {resize}: expected one of {', '.join(RESIZE_RULES)}")
    if keep == "global" and rule != "keep":
        raise InputError(
            f"resize {resize} is for feature maps (--keep patches): the vector of an image comes from its classification crop"
        )
    if shard_images is not None and shard_images < 1:
        raise InputError(f"no shards of {shard_images} images: expected at least 1")
    given = list(paths)
    listed = [item for item in given if isinstance(item, ListedImage)]
    inputs = [item for item in given if not isinstance(item, ListedImage)]
    if not given:
        raise InputError("no images: expected folders, image files, list files or their listing")
    if listed and inputs:
        raise InputError("paths and listed images together: expected one or the other")
    if len({image.name for image in listed}) < len(listed):
        raise InputError("two of the listed images have the same name: names tell them apart in the store")
    sources = [os.path.abspath(item) for item in inputs] or [os.fspath(image.path) for image in listed]
    images = list_images(inputs) if inputs else listed
    preprocessing = encoder.preprocessing.at(size, encoder.patch_size)
    if shard_images is None:
        shard_images = SHARD_IMAGES
        if keep == "patches":
            per_image = 2 * encoder.embed_dim * _dense_patches(preprocessing, encoder, rule)
            shard_images = max(1, min(SHARD_IMAGES, SHARD_BYTES // per_image))
    return EncodingPlan(
        sources, images, encoder, preprocessing, keep, shard_images, rule, fast_decode, crops, mirror, value_range
    )


def cache_folder(plan: EncodingPlan) -> Path:
    """Where the cache keeps the features of such a plan: by key and by what the user named.

    Not by the images found there, so that a folder with one picture more adds to what is kept.
    """
    name = hashlib.blake2b(canonical([plan.key, plan.keep, sorted(plan.sources)]), digest_size=10).hexdigest()
    readable = re.sub(r"[^\w.-]", "_", plan.encoder.name, flags=re.ASCII)[:40]
    return feature_cache() / f"{readable}-{name}"


def _dense_patches(preprocessing: Preprocessing, encoder: Encoder, rule: ResizeRule) -> int:
    """Patches of a 4:3 photo under a resize rule: all but `keep` make squares."""
    patch, stride = encoder.patch_size, stride_of(encoder)
    rows = preprocessing.dense // patch
    columns = round(rows * 4 / 3) if rule == "keep" else rows
    down, across = (((count - 1) * patch) // stride + 1 for count in (rows, columns))
    return down * across
