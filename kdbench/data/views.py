"""Deterministic augmentation: which view of a sample an epoch shows, and how a view is cut from its pixels.

A view of a pad-crop(-flip) augmentation is a number v in [0, n_views): with w = 2·pad + 1,
v = (flip · w + dy) · w + dx, where the crop's corner is (dy, dx) in the padded image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from kdbench.catalog.types import DatasetSpec
from kdbench.config import Recipe
from kdbench.data.hashing import key, scatter

_VIEW = 3


@dataclass(frozen=True)
class Augment:
    """What may happen to a training image: a crop from a zero border of ``pad`` pixels, and a mirror image."""

    pad: int
    flip: bool
    kind: Literal["crop", "resized-crop"] = "crop"

    @property
    def n_views(self) -> int | None:
        """Number of distinct views of one sample; None when they are a continuum."""
        return (2 * self.pad + 1) ** 2 * (2 if self.flip else 1) if self.kind == "crop" else None

    @property
    def key(self) -> str:
        """Name for a file of per-view results, e.g. ``crop-p4-flip``."""
        border = f"-p{self.pad}" if self.kind == "crop" else ""
        return f"{self.kind}{border}{'-flip' if self.flip else ''}"

    @property
    def identity(self) -> int:
        """The view that is the image itself."""
        return self.pad * (2 * self.pad + 1) + self.pad

    def decode(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(flip, dy, dx) of int64 ``views``, each of the same shape."""
        width = 2 * self.pad + 1
        rest = torch.div(views, width, rounding_mode="floor")
        return torch.div(rest, width, rounding_mode="floor"), rest % width, views % width


PLAIN = Augment(pad=0, flip=False)
"""No augmentation: one view."""


def augment_for(spec: DatasetSpec, recipe: Recipe) -> Augment:
    """The augmentation that ``recipe`` asks for on ``spec`` (its flip follows the data set unless it says)."""
    flip = spec.flip if recipe.flip is None else recipe.flip
    return Augment(pad=recipe.pad if recipe.views == "crop" else 0, flip=flip, kind=recipe.views)


def view_ids(rows: Tensor, n_views: int, augment_seed: int, epoch: int) -> Tensor:
    """The view of each of int64 ``rows`` in ``epoch``: a pure function, on any device, uniform over the views."""
    return scatter(rows, key(_VIEW, augment_seed, epoch)) % n_views


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """float32 (B, C, S, S), channels_last, of uint8 (B, S, S, C): (pixel / 255 - mean) / std."""
    batch, height, width, channels = pixels.shape
    # Factors are repeated along a whole line of pixels: broadcasting over 3 values only is ten times slower.
    scale, shift = _factors(mean, std, width, pixels.device)
    lines = pixels.reshape(batch, height, width * channels).to(torch.float32)
    return lines.mul_(scale).add_(shift).view(pixels.shape).permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def _factors(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Scale and shift of a line of pixels, made once: a tensor made of Python numbers stalls a GPU."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).repeat(width)
    return scale, torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).repeat(width)


class Renderer:
    """Cuts and normalises views out of padded images by one gather.

    Args:
        padded: uint8 (N, S + 2·pad, S + 2·pad, C), contiguous, images centred in a zero border.
        augment: the pad-crop that the views number.
        mean: per channel, of pixels in [0, 1].
        std: per channel, likewise.
    """

    def __init__(self, padded: Tensor, augment: Augment, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.augment = augment
        _, self.outer, _, self.channels = padded.shape
        self.size = self.outer - 2 * augment.pad
        self._flat = padded.reshape(-1)
        self._mean, self._std = mean, std
        # Offsets of a view's bytes from its corner, as they are and mirrored; half as wide where 32 bits suffice.
        kind = torch.int32 if padded.numel() < 2**31 else torch.int64
        line = torch.arange(self.size, device=padded.device, dtype=kind)
        pixel = line[:, None] * self.outer + line
        channel = torch.arange(self.channels, device=padded.device, dtype=kind)
        both = torch.stack([pixel, pixel.flip(1)])
        self._window = (both[..., None] * self.channels + channel).reshape(2, -1)

    def __call__(self, rows: Tensor, views: Tensor) -> Tensor:
        """float32 (B, C, S, S), channels_last, normalised, of int64 (B,) ``rows`` and ``views``."""
        flip, dy, dx = self.augment.decode(views)
        corner = ((rows * self.outer + dy) * self.outer + dx) * self.channels
        index = self._window[flip] + corner.to(self._window.dtype)[:, None]
        pixels = self._flat.index_select(0, index.reshape(-1))
        return normalise(pixels.view(len(rows), self.size, self.size, self.channels), self._mean, self._std)
