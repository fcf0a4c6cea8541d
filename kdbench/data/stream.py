"""A split that is decoded as it is used: too large for memory, or augmented over a continuum of views."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdbench.catalog.types import DatasetSpec
from kdbench.data.base import Batch, epoch_batches
from kdbench.data.hashing import key64
from kdbench.data.samples import Fit, Pixels, Samples, as_array
from kdbench.data.views import Augment, normalise, view_ids

_SAMPLE = 5
MAX_WORKERS = 8


class StreamSplit:
    """Labelled images read through a ``DataLoader``; every view is a pure function of (augmentation seed, epoch, row).

    Pad-crops are numbered exactly as a ``ResidentSplit`` numbers them. RandomResizedCrop is timm's training transform,
    run with each sample's random generators seeded by hashing, so neither order nor workers change it.
    """

    def __init__(
        self,
        samples: Samples,
        rows: NDArray[np.int64],
        spec: DatasetSpec,
        fit: Fit,
        augment: Augment,
        device: torch.device,
    ) -> None:
        self.augment = augment
        self.device = device
        self.labels: Tensor = torch.from_numpy(np.ascontiguousarray(samples.labels[rows])).to(device)
        self.digest = _digest(samples, rows, fit, spec)
        self._spec, self._fit, self._samples, self._rows = spec, fit, samples, rows

    @property
    def n_views(self) -> int | None:
        """Views of one sample; None for RandomResizedCrop."""
        return self.augment.n_views

    def __len__(self) -> int:
        return len(self.labels)

    def view_ids(self, augment_seed: int, epoch: int) -> Tensor | None:
        """int64 (N,): the view of every sample in ``epoch``; None when views have no number."""
        if self.n_views is None:
            return None
        return view_ids(torch.arange(len(self), device=self.device), self.n_views, augment_seed, epoch)

    def batches(self, *, batch_size: int, order_seed: int, augment_seed: int, epoch: int) -> Iterator[Batch]:
        """One shuffled, augmented epoch (see ``Split.batches``)."""
        shown = self.view_ids(augment_seed, epoch)
        decode: Decoder
        if shown is None:
            decode = _Continuous(self._fit, self.augment.flip, key64(_SAMPLE, augment_seed, epoch))
        else:
            decode = _Numbered(self._fit, self.augment, shown.cpu().numpy())
        for pixels, rows in self._read(epoch_batches(len(self), batch_size, order_seed, epoch), decode):
            views = None if shown is None else shown[rows]
            yield Batch(normalise(pixels, self._spec.mean, self._spec.std), self.labels[rows], rows, views)

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        """Every sample once, in order, as it is."""
        for pixels, rows in self._read(list(torch.arange(len(self)).split(batch_size)), _Plain(self._fit)):
            yield Batch(normalise(pixels, self._spec.mean, self._spec.std), self.labels[rows], rows, None)

    def _read(self, parts: list[Tensor], decode: Decoder) -> Iterator[tuple[Tensor, Tensor]]:
        """(uint8 (B, S, S, C), int64 (B,) rows) on the device, for each of ``parts``."""
        loader = DataLoader(
            _Images(self._samples, self._rows, decode),
            batch_sampler=[part.tolist() for part in parts],
            num_workers=min(MAX_WORKERS, len(os.sched_getaffinity(0)), len(parts)),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it draws from the trainer's
        )
        for pixels, rows in loader:
            yield pixels.to(self.device, non_blocking=True), rows.to(self.device, non_blocking=True)


Decoder = Callable[[Image.Image | Pixels, int], Pixels]


class _Images(Dataset[tuple[Pixels, int]]):
    """Rows to (uint8 (S, S, C), row)."""

    def __init__(self, samples: Samples, rows: NDArray[np.int64], decode: Decoder) -> None:
        self.samples, self.rows, self.decode = samples, rows, decode

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[Pixels, int]:
        return np.array(self.decode(self.samples.image(int(self.rows[row])), row)), row


class _Plain:
    def __init__(self, fit: Fit) -> None:
        self.fit = fit

    def __call__(self, image: Image.Image | Pixels, row: int) -> Pixels:
        return self.fit(image)


class _Numbered:
    """Pad-crop and flip by the number of the view."""

    def __init__(self, fit: Fit, augment: Augment, views: NDArray[np.int64]) -> None:
        self.fit, self.augment, self.views = fit, augment, views

    def __call__(self, image: Image.Image | Pixels, row: int) -> Pixels:
        pad, size = self.augment.pad, self.fit.size
        flip, dy, dx = (int(part) for part in self.augment.decode(torch.tensor(self.views[row])))
        padded = np.pad(self.fit(image), ((pad, pad), (pad, pad), (0, 0)))
        view = padded[dy : dy + size, dx : dx + size]
        return view[:, ::-1] if flip else view


class _Continuous:
    """timm's RandomResizedCrop and flip, under generators seeded for this epoch and row."""

    def __init__(self, fit: Fit, flip: bool, salt: int) -> None:
        from timm.data import create_transform

        self.fit, self.salt = fit, salt
        self.transform: Callable[[Any], Any] = create_transform(
            (fit.channels, fit.size, fit.size),
            is_training=True,
            hflip=0.5 if flip else 0.0,
            color_jitter=0.0,
            interpolation="bilinear",
            normalize=False,
        )

    def __call__(self, image: Image.Image | Pixels, row: int) -> Pixels:
        channels = self.fit.channels
        array = as_array(image, channels) if isinstance(image, Image.Image) else image
        picture = Image.fromarray(array[..., 0] if channels == 1 else array)
        seed, state = key64(self.salt, row), random.getstate()
        try:
            with torch.random.fork_rng(devices=[]):
                random.seed(seed)
                torch.manual_seed(seed)
                view = self.transform(picture)
        finally:
            random.setstate(state)
        return np.asarray(view, dtype=np.uint8).transpose(1, 2, 0)


def _digest(samples: Samples, rows: NDArray[np.int64], fit: Fit, spec: DatasetSpec) -> str:
    """16 hexadecimal digits of which images (by content, or name and size), labels, size and normalisation."""
    sha = hashlib.sha256(f"{len(rows)}:{fit}:{spec.mean}:{spec.std}".encode())
    for row in rows:
        sha.update(samples.signature(int(row)).encode() + b"\0")
    sha.update(samples.labels[rows].astype("<i8").tobytes())
    return sha.hexdigest()[:16]
