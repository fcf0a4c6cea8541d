"""Deterministic views: which one of a sample an epoch shows, how it is cut from pixels, and how a network sees it.

A view of a pad-crop(-flip) augmentation is a number v in [0, n_views): with w = 2·pad + 1,
v = (flip · w + dy) · w + dx, where the crop's corner is (dy, dx) in the padded image.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kdbench.catalog.types import DatasetSpec
from kdbench.config import RATIO, SCALE, Recipe
from kdbench.data.samples import key, scatter
from kdbench.files import identify

_VIEW = 3


@dataclass(frozen=True)
class More:
    """What follows, or shapes, a crop: fields of ``Recipe``, by their names there."""

    crop_scale: tuple[float, float] = SCALE
    crop_ratio: tuple[float, float] = RATIO
    interpolation: str = "bilinear"
    policy: str | None = None
    """``Recipe.augment``."""
    erase: float = 0.0
    repeats: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_switch: float = 0.5
    batch: int = 0
    """Samples that are mixed among themselves; 0: none are."""


@dataclass(frozen=True)
class Augment:
    """What may happen to a training image: a crop from a zero border of ``pad`` pixels, a mirror image, and more."""

    pad: int
    flip: bool
    kind: Literal["crop", "resized-crop"] = "crop"
    more: More = More()
    """What happens to the crop."""

    @property
    def crops(self) -> int:
        """Number of pad-crops of one sample."""
        return (2 * self.pad + 1) ** 2 * (2 if self.flip else 1)

    @property
    def gathered(self) -> bool:
        """Whether views, before what is erased and mixed, are cut from pixels in memory."""
        return self.kind == "crop" and self.more.policy is None

    @property
    def n_views(self) -> int | None:
        """Number of distinct views of one sample; None when they are a continuum."""
        return self.crops if self.kind == "crop" and self.more == More() else None

    @property
    def key(self) -> str:
        """Name for a file of per-view results, e.g. ``crop-p4-flip``."""
        border = f"-p{self.pad}" if self.kind == "crop" else ""
        more = f"-{identify(astuple(self.more))}" if self.more != More() else ""
        return f"{self.kind}{border}{'-flip' if self.flip else ''}{more}"

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
    return augment_of(recipe, spec.flip if recipe.flip is None else recipe.flip)


def augment_of(recipe: Recipe, flip: bool) -> Augment:
    """The augmentation of a recipe, whatever it says of ``flip``."""
    same = {name: getattr(recipe, name) for name in ("erase", "repeats", "mixup", "cutmix", "mix_switch")}
    if recipe.views != "crop":
        same |= {name: getattr(recipe, name) for name in ("crop_scale", "crop_ratio")}
    if recipe.views != "crop" or recipe.augment is not None:
        same["interpolation"] = recipe.interpolation
    batch = recipe.batch_size if recipe.mixup or recipe.cutmix else 0
    more = More(policy=recipe.augment, batch=batch, **same)
    return Augment(pad=recipe.pad if recipe.views == "crop" else 0, flip=flip, kind=recipe.views, more=more)


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


@dataclass(frozen=True)
class Look:
    """How a network sees a view: side length in pixels, normalisation, and how its pixels are resampled."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def show(self, x: Tensor, seen: Look) -> Tensor:
        """The views ``x`` (float32 (B, C, S, S), as ``seen`` shows them) as this look shows them: same crop, same flip.

        ``x`` itself where nothing differs; else resampled (antialiased), and grey repeated where this look has colours.
        """
        if (self.size, self.mean, self.std) == (seen.size, seen.mean, seen.std):
            return x
        (scale, shift), (own_scale, own_shift) = (_factors(look.mean, look.std, 1, x.device) for look in (seen, self))
        pixels = (x - shift.view(1, -1, 1, 1)) / scale.view(1, -1, 1, 1)
        pixels = pixels[:, : len(self.mean)]  # of grey in colours one channel
        if self.size != seen.size:
            low, high = pixels.amin().clamp(max=0), pixels.amax().clamp(min=255)  # erased boxes hold any noise
            pixels = functional.interpolate(pixels, (self.size, self.size), mode=self.interpolation, antialias=True)
            pixels = pixels.clamp(low, high)
        shown = pixels * own_scale.view(1, -1, 1, 1) + own_shift.view(1, -1, 1, 1)
        return shown.contiguous(memory_format=torch.channels_last)


class Renderer:
    """Cuts and normalises views out of padded images by one gather.

    Args:
        padded: uint8 (N, S + 2·pad, S + 2·pad, C), contiguous, images centred in a zero border; on ``device``, or in
            main memory where that of ``device`` is too small.
        augment: the pad-crop that the views number.
        look: size and normalisation.
        device: where views are wanted.
    """

    def __init__(self, padded: Tensor, augment: Augment, look: Look, device: torch.device) -> None:
        self.augment, self.look, self._padded, self._device = augment, look, padded, device
        _, self._outer, _, self._channels = padded.shape
        # Offsets of a view's bytes from its corner, as they are and mirrored; half as wide where 32 bits suffice.
        kind = torch.int32 if padded.numel() < 2**31 else torch.int64
        line = torch.arange(look.size, device=padded.device, dtype=kind)
        pixel = line[:, None] * self._outer + line
        channel = torch.arange(self._channels, device=padded.device, dtype=kind)
        both = torch.stack([pixel, pixel.flip(1)])
        self._window = (both[..., None] * self._channels + channel).reshape(2, -1)

    def __call__(self, rows: Tensor, views: Tensor) -> Tensor:
        """float32 (B, C, S, S), channels_last, normalised, of int64 (B,) ``rows`` and ``views``."""
        rows, views = rows.to(self._padded.device), views.to(self._padded.device)
        if self.augment.crops == 1:
            pixels = self._padded[rows]
        else:
            flip, dy, dx = self.augment.decode(views)
            corner = ((rows * self._outer + dy) * self._outer + dx) * self._channels
            index = self._window[flip] + corner.to(self._window.dtype)[:, None]
            pixels = self._padded.reshape(-1).index_select(0, index.reshape(-1))
            pixels = pixels.view(len(rows), self.look.size, self.look.size, self._channels)
        return normalise(pixels.to(self._device, non_blocking=True), self.look.mean, self.look.std)
