"""Lists of labelled images, how they are cut, and how one image reaches the size that a network sees. Imports no torch.

All that looks random in this package comes from one integer hash: the same number in Python, NumPy and PyTorch, on CPU
and GPU. Its finaliser is of the xorshift-multiply form (public-domain constants found by C. Wellons' hash-prospector
search). Both multipliers are below 2^31 and every operand below 2^32, so no product leaves a signed 64-bit integer:
nothing depends on how a device overflows.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kdbench.errors import BadInput

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]
Ints = TypeVar("Ints")
MASK = 0xFFFFFFFF
TEST_FRACTION, TEST_SEED = 0.2, 0
"""The fixed stratified share of a data set without a test split that becomes one."""
CROP_FROM = 160
"""From this side length on, an image is resized to size / 0.875 before its centre is cut, as ImageNet models expect."""
BROKEN = (
    OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for damaged files."""
_CUT, _LIMIT = 1, 2
_SHOWN = 5
_MAX_SAMPLE_VALUE = 281  # a TIFF tag


def mix(x: Ints) -> Ints:
    """A bijection of [0, 2^32): ``x`` is a Python integer, or an int64 array or tensor (element by element)."""
    y: Any = x
    y = y ^ (y >> 16)
    y = (y * 0x21F0AAAD) & MASK
    y = y ^ (y >> 15)
    y = (y * 0x735A2D97) & MASK
    return cast(Ints, y ^ (y >> 15))


def key(*numbers: int) -> int:
    """A 32-bit key of a few integers (of any size and sign); their order matters."""
    state = len(numbers)
    for number in numbers:
        for word in (number & MASK, (number >> 32) & MASK):
            state = mix((state + 0x3C6EF372) & MASK ^ word)
    return state


def key64(*numbers: int) -> int:
    """Two independent keys side by side, in [0, 2^63): a seed for a generator."""
    return (key(1, *numbers) << 31) ^ key(2, *numbers)


def scatter(rows: Ints, salt: int) -> Ints:
    """A 32-bit number for each of ``rows`` (values in [0, 2^32)): distinct rows give distinct numbers."""
    inner: Any = mix(rows)
    return cast(Ints, mix(inner ^ salt))


def shuffled(n: int, salt: int) -> Rows:
    """0 … n-1 in an order that depends on ``salt`` alone, in every version of NumPy."""
    return np.argsort(scatter(np.arange(n, dtype=np.int64), salt), kind="stable")


def stratified_cut(labels: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Splits positions into (kept, held out), each ascending; of every class about ``fraction`` is held out.

    The number held out is ``fraction`` of all, rounded, where classes allow: a class of two or more samples has
    at least one on either side, a single sample is kept.
    """
    _, counts = np.unique(labels, return_counts=True)
    shares = _shares(counts, round(fraction * len(labels)), np.minimum(1, counts - 1), counts - 1)
    held = _choose(labels, shares, _CUT, seed)
    return np.setdiff1d(np.arange(len(labels), dtype=np.int64), held), held


def stratified_limit(labels: Rows, limit: int, seed: int) -> Rows:
    """``limit`` positions (ascending; all of them when there are fewer), each class in its share, at least one a class.

    Raises:
        BadInput: when ``limit`` is smaller than the number of classes.
    """
    _, counts = np.unique(labels, return_counts=True)
    if limit < len(counts):
        raise BadInput(f"limit {limit} is below the {len(counts)} classes of the training split: raise it")
    return _choose(labels, _shares(counts, limit, np.ones_like(counts), counts), _LIMIT, seed)


def _shares(counts: Rows, total: int, low: Rows, high: Rows) -> Rows:
    """How many of each class: proportional to ``counts`` (largest remainders), within [low, high], and their sum.

    That is ``total``, or as near to it as the bounds allow.
    """
    ideal = counts * (total / counts.sum())
    take: Rows = np.clip(np.floor(ideal).astype(np.int64), low, high)
    while (gap := total - int(take.sum())) != 0:
        step = 1 if gap > 0 else -1
        free = np.flatnonzero(take < high if step > 0 else take > low)
        if len(free) == 0:
            break
        neediest = free[np.argsort(-step * (ideal - take)[free], kind="stable")]
        take[neediest[: abs(gap)]] += step
    return take


def _choose(labels: Rows, shares: Rows, purpose: int, seed: int) -> Rows:
    """Ascending positions: ``shares[k]`` of the k-th class, picked by hashing."""
    picked = []
    for label, share in zip(np.unique(labels), shares, strict=True):
        members = np.flatnonzero(labels == label)
        picked.append(members[shuffled(len(members), key(purpose, seed, int(label)))[:share]])
    return np.sort(np.concatenate(picked)).astype(np.int64)


class BadImages(BadInput):
    """Images that cannot be decoded: (which, why) of each."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__(faults)
        self.faults = tuple(dict.fromkeys(faults))

    def __str__(self) -> str:
        which = [f"{shown(place)} ({why})" for place, why in self.faults[:_SHOWN]]
        more = f" and {len(self.faults) - _SHOWN} more" if len(self.faults) > _SHOWN else ""
        what = "the image" if len(which) == 1 else f"{len(self.faults)} images:"
        return f"cannot decode {what} {', '.join(which)}{more}; replace or remove, or leave out with --skip-corrupt"


def shown(name: str | Path) -> str:
    """A file's name for a person, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def why_broken(error: BaseException) -> str:
    """What an error of Pillow says, in a few words."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


class Samples(Protocol):
    """Labelled images of one split."""

    @property
    def labels(self) -> Rows:
        """(N,) classes."""

    def image(self, row: int) -> Image.Image | Pixels:
        """The image as stored: a PIL image, or uint8 (H, W, C).

        Raises:
            BadImages: when it cannot be read or decoded.
        """

    def signature(self, row: int) -> str:
        """Text that changes with the image's content (a published file's: with its name and size)."""

    def take(self, rows: Rows) -> Self:
        """Only these, in this order."""


@dataclass(frozen=True)
class ArraySamples:
    """Images of one size, already in memory: uint8 (N, H, W, C)."""

    images: Pixels
    labels: Rows

    def image(self, row: int) -> Pixels:
        return np.asarray(self.images[row])

    def signature(self, row: int) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.images[row]).tobytes()).hexdigest()

    def take(self, rows: Rows) -> ArraySamples:
        return ArraySamples(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class FileSamples:
    """Images in files under ``root``, decoded when asked for."""

    root: Path
    names: Sequence[str]
    labels: Rows
    marks: Sequence[str]
    """A digest of each file's content, or (published files) its name and size."""
    sides: Sequence[tuple[int, int]] = ()
    """(height, width) of each, where the files were looked into."""
    faults: tuple[tuple[str, str], ...] = ()
    """(path, why) of those that cannot be decoded."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was left out, for a person."""

    def image(self, row: int) -> Image.Image:
        path = self.root / self.names[row]
        try:
            with Image.open(path) as image:
                image.load()
                return image
        except BROKEN as error:
            raise BadImages([(str(path), why_broken(error))]) from error

    def signature(self, row: int) -> str:
        return self.marks[row]

    def take(self, rows: Rows) -> Self:
        names, marks = ([column[row] for row in rows] for column in (self.names, self.marks))
        sides = [self.sides[row] for row in rows] if self.sides else ()
        return replace(self, names=names, labels=self.labels[rows], marks=marks, sides=sides)


def cut_test(whole: Samples, part: str) -> Samples:
    """``part`` (train or test) of samples that were published without a test split."""
    return whole.take(stratified_cut(whole.labels, TEST_FRACTION, TEST_SEED)[part == "test"])


@dataclass(frozen=True)
class Fit:
    """How an image reaches ``size`` × ``size`` pixels with ``channels`` channels."""

    size: int
    channels: int
    how: Literal["pad", "resize"]
    crop: float | None = None
    """Share of a side that is cut out where images are resized, see ``Recipe.test_crop``."""

    def __repr__(self) -> str:  # it names files of decoded images: those of before stay valid
        crop = "" if self.crop is None else f", crop={self.crop}"
        return f"Fit(size={self.size}, channels={self.channels}, how={self.how!r}{crop})"

    def __call__(self, image: Image.Image | Pixels) -> Pixels:
        """uint8 (size, size, channels).

        ``pad`` centres the image in a zero border, as long as the border is thinner than the image; ``resize``
        (and ``pad`` otherwise) brings the shorter side to ``size`` (bilinear, antialiased, Pillow's integer
        arithmetic: the same on every machine) and cuts the centre.
        """
        image = as_array(image, self.channels)
        height, width, channels = image.shape
        if (height, width) == (self.size, self.size):
            return image
        if self.how == "pad" and max(height, width) <= self.size < 2 * min(height, width):
            out = np.zeros((self.size, self.size, channels), np.uint8)
            top, left = (self.size - height) // 2, (self.size - width) // 2
            out[top : top + height, left : left + width] = image
            return out
        share = self.crop or (0.875 if self.size >= CROP_FROM else 1)
        short = round(self.size / share)
        scale = short / min(height, width)
        new = max(short, round(width * scale)), max(short, round(height * scale))
        left, top = (new[0] - self.size) // 2, (new[1] - self.size) // 2
        done = as_picture(image).resize(new, Image.Resampling.BILINEAR)
        return np.asarray(done.crop((left, top, left + self.size, top + self.size))).reshape(self.size, self.size, -1)


def as_picture(array: Pixels) -> Image.Image:
    """A PIL image of uint8 (H, W, 1 or 3)."""
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def as_array(image: Image.Image | Pixels, channels: int) -> Pixels:
    """uint8 (H, W, channels).

    Depths above 8 bits are scaled, palettes are resolved, transparency is laid on white, grey is repeated where colour
    is asked for. A camera's note of orientation (EXIF) is ignored, as timm does.
    """
    if isinstance(image, Image.Image):
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = Image.fromarray(_eight_bits(image))
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        image = array.reshape(*array.shape[:2], channels)
    if image.shape[2] == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if image.shape[2] != channels:
        raise BadInput(f"an image has {image.shape[2]} channels where the data set has {channels}")
    return image


def _eight_bits(image: Image.Image) -> Pixels:
    """Grey of more than 8 bits: scaled by what the file says is white, else by 16 bits; floats by 1, 255 or 16 bits."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    most = float(np.abs(values).max())
    stated = getattr(image, "tag_v2", {}).get(_MAX_SAMPLE_VALUE)
    steps = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0, 2.0**31)
    white = float(stated[0] if isinstance(stated, tuple) else stated) if stated else 0.0
    white = white if white >= most else next((step for step in steps if step >= most), most)
    black = -white if values.min() < 0 else 0.0
    return np.rint((values - black) * (255 / (white - black))).astype(np.uint8)
