"""Lists of labelled images as their sources hold them, and how one reaches the size a network sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdbench.data.splits import stratified_cut
from kdbench.errors import BadInput

TEST_FRACTION, TEST_SEED = 0.2, 0
"""The fixed stratified share of a data set without a test split that becomes one."""

Pixels = NDArray[np.uint8]
CROP_FROM = 160
"""From this side length on, an image is resized to size / 0.875 before its centre is cut, as ImageNet models expect."""


class Samples(Protocol):
    """Labelled images of one published split."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) classes."""

    def image(self, row: int) -> Image.Image | Pixels:
        """The image as stored: a PIL image, or uint8 (H, W, C)."""

    def signature(self, row: int) -> str:
        """Text that changes with the image's content or, for files, its name and size."""


@dataclass(frozen=True)
class ArraySamples:
    """Images of one size, already in memory: uint8 (N, H, W, C)."""

    images: Pixels
    labels: NDArray[np.int64]

    def image(self, row: int) -> Pixels:
        """uint8 (H, W, C)."""
        return np.asarray(self.images[row])

    def signature(self, row: int) -> str:
        """Digest of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.images[row]).tobytes()).hexdigest()


@dataclass(frozen=True)
class FileSamples:
    """Images in files under ``root``, decoded when asked for."""

    root: Path
    names: Sequence[str]
    labels: NDArray[np.int64]

    def image(self, row: int) -> Image.Image:
        """The decoded image.

        Raises:
            BadInput: when the file cannot be read or decoded.
        """
        path = self.root / self.names[row]
        try:
            with Image.open(path) as image:
                image.load()
                return image
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise BadInput(f"cannot decode the image {path}: {error}; replace or remove the file") from error

    def signature(self, row: int) -> str:
        """Name (relative to the root) and size in bytes."""
        return f"{self.names[row]}:{(self.root / self.names[row]).stat().st_size}"


@dataclass(frozen=True)
class Subset:
    """Some rows of other samples."""

    of: Samples
    rows: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) classes."""
        return np.asarray(self.of.labels[self.rows])

    def image(self, row: int) -> Image.Image | Pixels:
        """The image as stored."""
        return self.of.image(int(self.rows[row]))

    def signature(self, row: int) -> str:
        """As the whole's."""
        return self.of.signature(int(self.rows[row]))


def cut_test(whole: Samples, part: str) -> Subset:
    """``part`` (train or test) of samples that were published without a test split."""
    return Subset(whole, stratified_cut(whole.labels, TEST_FRACTION, TEST_SEED)[part == "test"])


@dataclass(frozen=True)
class Fit:
    """How an image reaches ``size`` × ``size`` pixels with ``channels`` channels."""

    size: int
    channels: int
    how: Literal["pad", "resize"]

    def __call__(self, image: Image.Image | Pixels) -> Pixels:
        """uint8 (size, size, channels).

        ``pad`` centres the image in a zero border, as long as the border is thinner than the image; ``resize``
        (and ``pad`` otherwise) brings the shorter side to ``size`` (bilinear, antialiased, Pillow's integer
        arithmetic: the same on every machine) and cuts the centre.
        """
        if isinstance(image, Image.Image):
            image = as_array(image, self.channels)
        if image.shape[2] == 1 and self.channels == 3:
            image = np.repeat(image, 3, axis=2)  # grey shown to a network made for colour
        height, width, channels = image.shape
        if channels != self.channels:
            raise BadInput(f"an image has {channels} channels where the data set has {self.channels}")
        if (height, width) == (self.size, self.size):
            return image
        if self.how == "pad" and max(height, width) <= self.size < 2 * min(height, width):
            out = np.zeros((self.size, self.size, channels), np.uint8)
            top, left = (self.size - height) // 2, (self.size - width) // 2
            out[top : top + height, left : left + width] = image
            return out
        return self._resized(image)

    def _resized(self, image: Pixels) -> Pixels:
        height, width, channels = image.shape
        short = round(self.size / 0.875) if self.size >= CROP_FROM else self.size
        scale = short / min(height, width)
        new = max(short, round(width * scale)), max(short, round(height * scale))
        flat = Image.fromarray(image[..., 0] if channels == 1 else image)
        left, top = (new[0] - self.size) // 2, (new[1] - self.size) // 2
        done = flat.resize(new, Image.Resampling.BILINEAR).crop((left, top, left + self.size, top + self.size))
        return np.asarray(done).reshape(self.size, self.size, channels)


def as_array(image: Image.Image, channels: int) -> Pixels:
    """uint8 (H, W, channels): 16-bit grey is scaled, palettes are resolved, transparency is dropped."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels)


def fitted(samples: Samples, rows: NDArray[np.int64], fit: Fit, pad: int) -> Pixels:
    """uint8 (len(rows), size + 2·pad, size + 2·pad, C): the images of ``rows``, fitted, in a zero border of ``pad``."""
    outer = fit.size + 2 * pad
    out = np.zeros((len(rows), outer, outer, fit.channels), np.uint8)
    inner = out[:, pad : pad + fit.size, pad : pad + fit.size]
    if isinstance(samples, ArraySamples) and samples.images.shape[1:] == inner.shape[1:]:
        inner[...] = samples.images[rows]
    else:
        for k, row in enumerate(rows):
            inner[k] = fit(samples.image(int(row)))
    return out
