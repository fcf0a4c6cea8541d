"""Augmentations beyond crop and mirror image: timm's own, each draw seeded, and mixing as timm does it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdbench.data.samples import MASK, Fit, Pixels, as_array, as_picture, key64
from kdbench.data.views import Augment, Look, More, normalise
from kdbench.errors import BadInput

Decoder = Callable[[Any, int], Pixels]
"""From an image as stored, and its entry in the epoch, to uint8 (S, S, C)."""


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Run with the generators of Python, NumPy and PyTorch (CPU) at ``seed``; put their states back."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed & MASK)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack for each other device
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class Drawn:
    """timm's training transform (RandomResizedCrop, flip, policy), or its policy after ``first``, seeded by entry.

    Raises:
        BadInput: a policy that timm cannot read.
    """

    def __init__(self, fit: Fit, augment: Augment, look: Look, salt: int, first: Decoder | None) -> None:
        from timm.data import create_transform

        self.fit, self.salt, self.first = fit, salt, first
        more = augment.more
        try:
            crop, policy, last = create_transform(
                (fit.channels, fit.size, fit.size),
                is_training=True,
                scale=more.crop_scale,
                ratio=more.crop_ratio,
                hflip=0.5 if augment.flip else 0.0,
                color_jitter=0.0,
                auto_augment=more.policy,
                interpolation=more.interpolation,
                mean=look.mean,
                normalize=False,
                separate=True,
            )
        except (AssertionError, ValueError, LookupError) as error:
            raise BadInput(f"recipe.augment={more.policy}: {error}; write it as timm does: rand-m9-mstd0.5") from error
        for op in _operations(policy):
            if op.name.startswith("Posterize"):
                op.aug_fn = partial(_posterize, op.aug_fn)
        self.steps = [policy, last] if first else [crop, policy, last]

    def __call__(self, image: Any, entry: int) -> Pixels:
        view: Any = as_picture(self.first(image, entry) if self.first else as_array(image, self.fit.channels))
        with drawn_from(key64(self.salt, entry)):
            for step in self.steps:
                view = step(view)
        return np.asarray(view, dtype=np.uint8).transpose(1, 2, 0)


def _operations(policy: Any) -> list[Any]:
    """What timm's RandAugment, AugMix (``ops``) or AutoAugment (``policy``) may do."""
    of = [getattr(step, "ops", None) or [op for row in getattr(step, "policy", ()) for op in row]
          for step in policy.transforms]  # fmt: skip
    return [op for ops in of for op in ops]


def _posterize(posterize: Callable[..., Image.Image], image: Image.Image, bits: int, **more: Any) -> Image.Image:
    """Timm asks for 0 bits at magnitude 10: black, which newer releases of Pillow refuse to make."""
    return posterize(image, bits, **more) if bits > 0 else Image.new(image.mode, image.size)


def erase(x: Tensor, entries: Tensor, probability: float, salt: int) -> None:
    """Random erasing of normalised images (B, C, S, S), in place: timm's, a box of noise, seeded by entry (B,)."""
    from timm.data.random_erasing import RandomErasing

    eraser = RandomErasing(probability, mode="pixel", device="cpu")  # the same noise whatever device trains
    for image, entry in zip(x, entries.tolist(), strict=True):
        with drawn_from(key64(salt, entry)):
            eraser(image)


def strengthened(x: Tensor, entries: Tensor, look: Look, policy: str, salt: int) -> Tensor:
    """Views (B, C, S, S) of normalised images, each after a policy of timm's, seeded by its entry (B,).

    Raises:
        BadInput: a policy that timm cannot read.
    """
    plain = replace(look, mean=(0.0,) * x.shape[1], std=(1.0,) * x.shape[1]).show(x, look)
    shown = (plain.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    whole = Fit(x.shape[-1], x.shape[1], "resize")
    drawn = Drawn(whole, Augment(0, False, more=More(policy=policy)), look, salt, lambda image, _: image)
    views = [drawn(image, entry) for image, entry in zip(shown, entries.tolist(), strict=True)]
    return normalise(torch.from_numpy(np.stack(views)).to(x.device), look.mean, look.std)


def mix(x: Tensor, more: More, salt: int) -> float:
    """Mix images (B, C, S, S), in place, with those of the batch in reverse order; the share that each keeps.

    One draw for all, with timm's formulas in timm's order (``timm.data.Mixup``, mode ``batch``).
    """
    drawn = np.random.RandomState(salt & MASK)
    drawn.rand()  # timm's choice of whether to mix at all: always
    cut = more.cutmix > 0 and (not more.mixup or drawn.rand() < more.mix_switch)
    alpha = more.cutmix if cut else more.mixup
    share = float(drawn.beta(alpha, alpha))
    if not cut:
        other = x.flip(0).mul_(1 - share)
        x.mul_(share).add_(other)
        return share
    sides = x.shape[-2:]
    spans = [int(side * np.sqrt(1 - share)) for side in sides]
    centres = [int(drawn.randint(0, side)) for side in sides]
    (top, bottom), (left, right) = (
        (max(at - span // 2, 0), min(at + (span + 1) // 2, side))
        for at, span, side in zip(centres, spans, sides, strict=True)
    )
    x[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
    return 1 - (bottom - top) * (right - left) / (sides[0] * sides[1])
