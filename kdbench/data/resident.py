"""A split held as one uint8 tensor on the device."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
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
        self.share = 0
        """Training batches kept for other trials that ask for the same; 0 where trials run one at a time."""
        self._shared: OrderedDict[tuple[int, int, int, int, int], tuple[Batch, torch.cuda.Event | None]] = OrderedDict()
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
        for k, part in enumerate(epoch_batches(len(self), batch_size, order_seed, epoch)):
            yield self._batch((batch_size, order_seed, augment_seed, epoch, k), part, shown)

    def _batch(self, key: tuple[int, int, int, int, int], part: Tensor, shown: Tensor) -> Batch:
        """Render a batch, or take the one that another trial has just used."""
        if key in self._shared:
            return _handed_over(*self._shared[key], self.device)
        rows = part.to(self.device, non_blocking=True)
        views = shown[rows]
        batch = Batch(self.render(rows, views), self.labels[rows], rows, views)
        if self.share:
            self._shared[key] = batch, _ready(self.device)
        while len(self._shared) > self.share:
            self._shared.popitem(last=False)
        return batch

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        """Every sample once, in order, as it is."""
        for rows in torch.arange(len(self), device=self.device).split(batch_size):
            yield self.plain_batch(rows)

    def plain_batch(self, rows: Tensor) -> Batch:
        """These samples (int64 (B,)), un-augmented."""
        views = torch.full_like(rows, self.augment.identity)
        return Batch(self.render(rows, views), self.labels[rows], rows, None)


def _ready(device: torch.device) -> torch.cuda.Event | None:
    """Marks, on a GPU, where the stream of one trial has rendered a batch that others may take."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def _handed_over(batch: Batch, ready: torch.cuda.Event | None, device: torch.device) -> Batch:
    """A batch rendered on another trial's stream, safe on this one's."""
    if ready is not None:
        stream = torch.cuda.current_stream(device)
        stream.wait_event(ready)
        for tensor in batch:
            if tensor is not None:
                tensor.record_stream(stream)
    return batch


def _digest(pixels: NDArray[np.uint8], labels: NDArray[np.int64], pad: int, spec: DatasetSpec) -> str:
    """16 hexadecimal digits of pixels (without their border), labels and normalisation."""
    size = pixels.shape[1] - 2 * pad
    sha = hashlib.sha256(f"{len(pixels)}:{size}:{spec.mean}:{spec.std}".encode())
    for start in range(0, len(pixels), 4096):
        sha.update(np.ascontiguousarray(pixels[start : start + 4096, pad : pad + size, pad : pad + size]).data)
    sha.update(labels.astype("<i8").data)
    return sha.hexdigest()[:16]
