"""Where a trial's teacher logits come from: the bank, or the live network. One interface, equal values."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdbench.data import Batch, ResidentSplit, Split
from kdbench.teacher.bank import CHUNK, BankKey, LogitBank, Progress
from kdbench.teacher.topk import truncate

Guide = Callable[[Batch], Tensor]
"""Gives the teacher's logits for a training batch: float32, (B, classes), on the data's device."""


class TeacherSignal(Protocol):
    """What the engine asks of a teacher. Several trials may ask side by side: no answer depends on another's."""

    def epoch(self, split: Split, augment_seed: int, epoch: int, progress: Progress | None = None) -> Guide:
        """The guide through one epoch's views of ``split``; what is best computed ahead is computed now."""

    def plain(self, split: Split) -> Tensor:
        """Logits of every sample of ``split``, un-augmented and in order, (N, classes)."""


class LazyTeacher:
    """Builds the network the first time that logits must really be computed; always in eval mode."""

    def __init__(self, load: Callable[[], nn.Module], device: torch.device) -> None:
        self._load = load
        self._device = device
        self._model: nn.Module | None = None

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits of a batch, rounded to 16 bits as the bank keeps them, float32."""
        if self._model is None:
            model = self._load().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._model = model.eval().requires_grad_(False)
        out: Tensor = self._model(x)
        return out.half().float()


class LiveTeacher:
    """Runs the network on every batch: for views that no finite bank can hold."""

    def __init__(self, network: LazyTeacher) -> None:
        self._network = network
        self._plain: dict[str, Tensor] = {}

    def epoch(self, split: Split, augment_seed: int, epoch: int, progress: Progress | None = None) -> Guide:
        """Computes when it is asked."""
        return lambda batch: self._network(batch.x)

    def plain(self, split: Split) -> Tensor:
        """Computed once per split and process."""
        if split.digest not in self._plain:
            self._plain[split.digest] = torch.cat([self._network(batch.x) for batch in split.plain(CHUNK)])
        return self._plain[split.digest]


class BankedTeacher:
    """Reads the bank, filling what is missing an epoch at a time.

    ``root`` is the folder of the banks (usually ``<cache>/teachers/<id>/bank``). ``top_k`` of an augmented view's
    logits are kept; of un-augmented samples, by which the teacher is measured, all.
    """

    def __init__(
        self, root: Path, teacher_id: str, classes: int, network: LazyTeacher, top_k: int | None = None
    ) -> None:
        self._root = root
        self._teacher_id = teacher_id
        self._classes = classes
        self._network = network
        self._top_k = top_k
        self._banks: dict[str, LogitBank] = {}
        # an epoch's logits live as long as a trial uses them, and trials of one seed share them
        self._epochs: WeakValueDictionary[tuple[str, int, int], Tensor] = WeakValueDictionary()
        self._plain: dict[str, Tensor] = {}

    def key(self, split: Split, *, plain: bool) -> BankKey:
        """The bank of a split: of its augmented views, or of its un-augmented samples."""
        return BankKey(
            teacher_id=self._teacher_id,
            split_digest=split.digest,
            augment="plain" if plain else split.augment.key,
            samples=len(split),
            views=1 if plain else (split.n_views or 0),
            classes=self._classes,
            top_k=None if plain else self._top_k,
        )

    def bank(self, split: Split, *, plain: bool = False) -> LogitBank:
        """The open bank of a split."""
        key = self.key(split, plain=plain)
        if key.id not in self._banks:
            self._banks[key.id] = LogitBank(self._root, key)
        return self._banks[key.id]

    def fill(self, split: ResidentSplit, augment_seed: int, epoch: int, progress: Progress | None = None) -> int:
        """Compute what the bank lacks for one epoch's views; returns the number of new entries."""
        rows = np.arange(len(split), dtype=np.int64)
        views = split.view_ids(augment_seed, epoch).cpu().numpy()
        device = split.labels.device

        def compute(some: NDArray[np.int64], their: NDArray[np.int64]) -> NDArray[np.float32]:
            x = split.render(torch.from_numpy(some).to(device), torch.from_numpy(their).to(device))
            logits = self._network(x)
            logits = logits if self._top_k is None else truncate(logits, self._top_k)
            return np.asarray(logits.cpu().numpy(), dtype=np.float32)

        return self.bank(split, plain=False).ensure(rows, views, compute, progress)

    def epoch(self, split: Split, augment_seed: int, epoch: int, progress: Progress | None = None) -> Guide:
        """One gather a batch from the epoch's logits, float16 (N, classes), on the device."""
        if not isinstance(split, ResidentSplit):
            raise TypeError("a bank needs a resident split with a finite number of views")
        key = (self.key(split, plain=False).id, augment_seed, epoch)
        table = self._epochs.get(key)
        if table is None:
            self.fill(split, augment_seed, epoch, progress)
            table = self._epochs[key] = self._read(split, augment_seed, epoch)
        return lambda batch: table[batch.rows].float()

    def _read(self, split: ResidentSplit, augment_seed: int, epoch: int) -> Tensor:
        rows = np.arange(len(split), dtype=np.int64)
        views = split.view_ids(augment_seed, epoch).cpu().numpy()
        table = torch.from_numpy(self.bank(split, plain=False).read(rows, views)).to(split.labels.device)
        if table.is_cuda:
            torch.cuda.current_stream(table.device).synchronize()  # trials on other streams read it too
        return table

    def plain(self, split: Split) -> Tensor:
        """From a bank with one view a sample."""
        if split.digest in self._plain:
            return self._plain[split.digest]
        bank = self.bank(split, plain=True)
        rows = np.arange(len(split), dtype=np.int64)
        views = np.zeros_like(rows)
        if not bank.filled(rows, views).all():
            self._fill_plain(split, bank)
        self._plain[split.digest] = torch.from_numpy(bank.read(rows, views)).float().to(split.labels.device)
        return self._plain[split.digest]

    def _fill_plain(self, split: Split, bank: LogitBank) -> None:
        """What is missing, chunk by chunk, in an order of this process's own: workers that fill at once meet seldom."""
        if not isinstance(split, ResidentSplit):
            for batch in split.plain(CHUNK):
                self._write(bank, batch)
            return
        chunks = torch.arange(len(split), device=split.labels.device).split(CHUNK)
        for k in np.random.default_rng(os.getpid()).permutation(len(chunks)):
            rows = chunks[k]
            there = rows.cpu().numpy()
            if not bank.filled(there, np.zeros_like(there)).all():
                self._write(bank, split.plain_batch(rows))

    def _write(self, bank: LogitBank, batch: Batch) -> None:
        rows = batch.rows.cpu().numpy()
        bank.write(rows, np.zeros_like(rows), self._network(batch.x).cpu().numpy())
