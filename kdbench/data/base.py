"""What every split of a data set offers to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kdbench.data.hashing import key64
from kdbench.data.views import Augment

_ORDER = 4


class Batch(NamedTuple):
    """Some samples of a split, ready for a network."""

    x: Tensor
    """float32 (B, C, S, S), normalised, channels_last."""
    y: Tensor
    """int64 (B,) classes."""
    rows: Tensor
    """int64 (B,) positions in the split."""
    views: Tensor | None
    """int64 (B,) numbers of the views shown, None where the views are a continuum or not augmented."""


class Split(Protocol):
    """A fixed list of labelled images, in memory or streamed."""

    labels: Tensor
    """int64 (N,), on the device."""
    augment: Augment
    """What ``batches`` does to an image."""
    digest: str
    """Short hash of the samples and their preprocessing: the same in every run that sees the same pixels."""

    @property
    def n_views(self) -> int | None:
        """Views of one sample; None when they are a continuum (then the cache is by epoch)."""

    def __len__(self) -> int: ...

    def batches(self, *, batch_size: int, order_seed: int, augment_seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch: shuffled and augmented, both pure functions of the seeds and the epoch.

        A last partial batch is dropped when the split is longer than one batch.
        """

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        """Every sample once, in order, un-augmented; ``views`` is None."""


def epoch_order(n: int, order_seed: int, epoch: int) -> Tensor:
    """int64 (N,) on the CPU: the order of an epoch, the same whatever device trains."""
    generator = torch.Generator().manual_seed(key64(_ORDER, order_seed, epoch))
    return torch.randperm(n, generator=generator)


def epoch_batches(n: int, batch_size: int, order_seed: int, epoch: int) -> list[Tensor]:
    """The epoch's rows cut into batches; a last partial one is dropped unless it is the only one."""
    parts = list(epoch_order(n, order_seed, epoch).split(batch_size))
    return parts[:-1] if len(parts) > 1 and len(parts[-1]) < batch_size else parts
