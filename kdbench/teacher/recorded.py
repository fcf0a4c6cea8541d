"""Logits kept by (seed, epoch, sample): for views that have no number, and for splits too large for memory."""

from __future__ import annotations

import shutil
from collections.abc import Sized
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdbench.data import Batch, ResidentSplit, Split
from kdbench.errors import BadInput
from kdbench.teacher.bank import BankKey, LogitBank, Progress
from kdbench.teacher.signal import BankedTeacher, Guide, LazyTeacher, LiveTeacher, TeacherSignal
from kdbench.teacher.topk import MOST_CLASSES, truncate, words

SHARE_OF_DISK = 0.5
"""The largest part of the free disk that recorded logits may take; beyond it the teacher runs live."""


class RecordedTeacher:
    """The first trial that meets an epoch's views runs the teacher on them; later trials of that seed read.

    A view is a pure function of (augmentation seed, epoch, sample), and all search trials share one seed, so a
    search needs one teacher pass an epoch however many trials it has. Rounding to 16 bits comes before the first
    use, so the trial that computes and those that read train on the same bits.
    """

    def __init__(
        self, root: Path, teacher_id: str, classes: int, network: LazyTeacher, top_k: int | None = None
    ) -> None:
        self._root, self._teacher_id, self._classes, self._network = root, teacher_id, classes, network
        self._top_k = top_k
        self._plain = BankedTeacher(root, teacher_id, classes, network)

    def key(self, split: Split, augment_seed: int, epoch: int) -> BankKey:
        """The bank of one epoch's views."""
        return BankKey(
            teacher_id=self._teacher_id,
            split_digest=split.digest,
            augment=f"{split.augment.key}-seed{augment_seed}-epoch{epoch}",
            samples=len(split),
            views=1,
            classes=self._classes,
            top_k=self._top_k,
        )

    def epoch(self, split: Split, augment_seed: int, epoch: int, progress: Progress | None = None) -> Guide:
        """Reads where every sample of a batch is known, computes and writes otherwise."""
        bank = LogitBank(self._root, self.key(split, augment_seed, epoch))

        def guide(batch: Batch) -> Tensor:
            rows = batch.rows.cpu().numpy()
            views = np.zeros_like(rows)
            if bank.filled(rows, views).all():
                return torch.from_numpy(bank.read(rows, views)).to(batch.x.device).float()
            out = self._network(batch.x)
            out = out if self._top_k is None else truncate(out, self._top_k)
            bank.write(rows, views, out.cpu().numpy())
            return out

        return guide

    def plain(self, split: Split) -> Tensor:
        """From a bank with one view a sample."""
        return self._plain.plain(split)


def recorded_bytes(split: Sized, classes: int, passes: int, top_k: int | None = None) -> int:
    """Disk that ``passes`` recorded epochs take."""
    return passes * len(split) * (2 * words(classes, top_k) + 4)


def room(root: Path) -> float:
    """Bytes of the disk below ``root``, which need not exist yet, that recorded logits may take."""
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    return SHARE_OF_DISK * shutil.disk_usage(place).free


def make_signal(
    root: Path,
    teacher_id: str,
    classes: int,
    network: LazyTeacher,
    split: Split,
    passes: int,
    top_k: int | None = None,
) -> TeacherSignal:
    """The cheapest teacher that the augmentation and the disk allow, for ``passes`` epochs over ``split``.

    A bank by view where views are finitely many and in memory; else a record by (seed, epoch, sample) where the
    disk has room for it; else the live network. ``top_k`` logits of a view are kept (``Recipe.teacher_top_k``).

    Raises:
        BadInput: a ``top_k`` that leaves no class out, or more classes than can be told apart.
    """
    if top_k is not None and classes > MOST_CLASSES:
        raise BadInput(f"recipe.teacher-top-k={top_k}: serves up to {MOST_CLASSES:,} classes, not {classes:,}")
    if top_k is not None and top_k >= classes:
        raise BadInput(f"recipe.teacher-top-k={top_k}: of {classes:,} classes, give 1 to {classes - 1:,}")
    if split.n_views is not None and isinstance(split, ResidentSplit):
        return BankedTeacher(root, teacher_id, classes, network, top_k)
    if recorded_bytes(split, classes, passes, top_k) <= room(root):
        return RecordedTeacher(root, teacher_id, classes, network, top_k)
    return LiveTeacher(network)
