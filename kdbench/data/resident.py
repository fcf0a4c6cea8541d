"""A split held as one uint8 tensor on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdbench.catalog.types import DatasetSpec
from kdbench.data.base import Batch, epoch_batches
from kdbench.data.samples import Fit, Samples, fitted
from kdbench.data.views import Augment, Renderer, view_ids


class ResidentSplit:
    """Labelled images in memory; a view is one gather from them."""

    def __init__(
        self,
        samples: Samples,
        rows: NDArray[np.int64],
        spec: DatasetSpec,
        fit: Fit,
        augment: Augment,
        device: torch.device,
    ) -> None:
        pixels = fitted(samples, rows, fit, augment.pad)
        labels = np.ascontiguousarray(samples.labels[rows])
        self.augment = augment
        self.digest = _digest(pixels, labels, augment.pad, spec)
        self.device = device
        self.labels: Tensor = torch.from_numpy(labels).to(device)
        self._render = Renderer(torch.from_numpy(pixels).to(device), augment, spec.mean, spec.std)

    @property
    def n_views(self) -> int | None:
        """Views of one sample."""
        return self.augment.n_views

    def __len__(self) -> int:
        return len(self.labels)

    def view_ids(self, augment_seed: int, epoch: int) -> Tensor:
        """int64 (N,): the view of every sample in ``epoch``, by integer hashing, the same on CPU and GPU."""
        rows = torch.arange(len(self), device=self.device)
        return view_ids(rows, self.augment.n_views or 1, augment_seed, epoch)

    def render(self, rows: Tensor, views: Tensor) -> Tensor:
        """float32 (B, C, S, S), normalised, channels_last: these views of these rows (int64 (B,) each)."""
        return self._render(rows, views)

    def batches(self, *, batch_size: int, order_seed: int, augment_seed: int, epoch: int) -> Iterator[Batch]:
        """One shuffled, augmented epoch (see ``Split.batches``)."""
        shown = self.view_ids(augment_seed, epoch)
        for part in epoch_batches(len(self), batch_size, order_seed, epoch):
            rows = part.to(self.device, non_blocking=True)
            views = shown[rows]
            yield Batch(self.render(rows, views), self.labels[rows], rows, views)

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        """Every sample once, in order, as it is."""
        for rows in torch.arange(len(self), device=self.device).split(batch_size):
            yield self.plain_batch(rows)

    def plain_batch(self, rows: Tensor) -> Batch:
        """These samples (int64 (B,)), un-augmented."""
        views = torch.full_like(rows, self.augment.identity)
        return Batch(self.render(rows, views), self.labels[rows], rows, None)


def _digest(pixels: NDArray[np.uint8], labels: NDArray[np.int64], pad: int, spec: DatasetSpec) -> str:
    """16 hexadecimal digits of pixels (without their border), labels and normalisation."""
    size = pixels.shape[1] - 2 * pad
    sha = hashlib.sha256(f"{len(pixels)}:{size}:{spec.mean}:{spec.std}".encode())
    for start in range(0, len(pixels), 4096):
        sha.update(np.ascontiguousarray(pixels[start : start + 4096, pad : pad + size, pad : pad + size]).data)
    sha.update(labels.astype("<i8").data)
    return sha.hexdigest()[:16]
