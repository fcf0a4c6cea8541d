"""Test images under common corruptions at five severities, in the manner of ImageNet-C and CIFAR-10-C.

Eight of their fifteen, with their authors' constants (Hendrycks and Dietterich 2019, arXiv:1903.12261; make_cifar_c.py
for images below 64 pixels, make_imagenet_c.py from there on). An image is corrupted at the size it is shown at; what
looks random in it depends on corruption, severity and row alone. Numbers are not those of the published files: shared
constants, other random numbers, and brightness added to the channels instead of to the value of HSV.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdbench.catalog.shifts import CORRUPTIONS
from kdbench.data.samples import Fit, Pixels, Rows, Samples, as_picture, key64

LARGE_FROM = 64
"""Pixels of a side from which on ImageNet-C's constants hold."""
Floats = NDArray[np.float64]


def _noise(x: Floats, c: float, random: np.random.Generator) -> Floats:
    return x + random.normal(scale=c, size=x.shape)


def _shot(x: Floats, c: float, random: np.random.Generator) -> Floats:
    done: Floats = np.divide(random.poisson(x * c), c)
    return done


def _impulse(x: Floats, c: float, random: np.random.Generator) -> Floats:
    hit, white = random.random(x.shape) < c, random.random(x.shape) < 0.5
    return np.where(hit, white, x)


def _blur(x: Floats, c: float, random: np.random.Generator) -> Floats:
    from scipy.ndimage import gaussian_filter  # a quarter of a second, which few need

    done: Floats = gaussian_filter(x, (c, c, 0), mode="nearest")
    return done


def _contrast(x: Floats, c: float, random: np.random.Generator) -> Floats:
    mean = x.mean(axis=(0, 1), keepdims=True)
    changed: Floats = (x - mean) * c + mean
    return changed


def _brightness(x: Floats, c: float, random: np.random.Generator) -> Floats:
    return x + c


def _pixelate(x: Floats, c: float, random: np.random.Generator) -> Floats:
    picture, size = _picture(x), x.shape[0]
    small = picture.resize((int(size * c),) * 2, Image.Resampling.BOX)
    return _floats(small.resize((size, size), Image.Resampling.BOX), x)


def _jpeg(x: Floats, c: float, random: np.random.Generator) -> Floats:
    file = io.BytesIO()
    _picture(x).save(file, "JPEG", quality=int(c))
    return _floats(Image.open(file), x)


def _picture(x: Floats) -> Image.Image:
    return as_picture(np.rint(x * 255).astype(np.uint8))


def _floats(picture: Image.Image, like: Floats) -> Floats:
    return np.asarray(picture, np.float64).reshape(like.shape) / 255


class Corruption(NamedTuple):
    """(S, S, C) in [0, 1], a constant and a generator to values that are cut to [0, 1]."""

    change: Callable[[Floats, float, np.random.Generator], Floats]
    small: tuple[float, ...]
    """A constant for each severity."""
    large: tuple[float, ...]


_ALL = {
    "gaussian-noise": Corruption(_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot-noise": Corruption(_shot, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse-noise": Corruption(_impulse, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian-blur": Corruption(_blur, (0.4, 0.6, 0.7, 0.8, 1), (1, 2, 3, 4, 6)),
    "contrast": Corruption(_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": Corruption(_brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "pixelate": Corruption(_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": Corruption(_jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}


def corrupt(image: Pixels, name: str, severity: int, row: int) -> Pixels:
    """uint8 (S, S, C), corrupted; ``row`` seeds what is random, ``severity`` is 1 to 5."""
    corruption, number = _ALL[name], CORRUPTIONS.index(name)
    constant = (corruption.small if image.shape[0] < LARGE_FROM else corruption.large)[severity - 1]
    changed = corruption.change(image / 255, constant, np.random.default_rng(key64(number, severity, row)))
    return np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Corrupted:
    """The images of ``whole`` as ``fit`` shows them, corrupted as they are asked for."""

    whole: Samples
    fit: Fit
    name: str
    severity: int
    rows: Rows | None = None
    """Which of them, in this order; None: all. What is random follows an image wherever it stands."""

    @property
    def labels(self) -> Rows:
        return self.whole.labels if self.rows is None else self.whole.labels[self.rows]

    def _row(self, row: int) -> int:
        return row if self.rows is None else int(self.rows[row])

    def image(self, row: int) -> Pixels:
        row = self._row(row)
        return corrupt(self.fit(self.whole.image(row)), self.name, self.severity, row)

    def signature(self, row: int) -> str:
        return f"{self.whole.signature(self._row(row))}:{self.name}:{self.severity}"

    def take(self, rows: Rows) -> Corrupted:
        return replace(self, rows=rows if self.rows is None else self.rows[rows])
