"""The logit cache: what the teacher says of (sample, view), computed once, read by every run.

An entry holds 16-bit words: the view's logits (all, or the K largest, see ``truncate``), then its pooled vector where
a method reads it.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kdbench.config import Frozen, is_default, unset
from kdbench.errors import MachineFault
from kdbench.files import atomic_text, identify

CHUNK = 256
"""Samples a teacher pass takes at once: a part of why refilled logits are equal, bit for bit."""
MOST_CLASSES = 2**16
"""With ``top_k``, a class is kept in 16 bits."""
GRID = 1024
"""Steps to 1 of the logit that the other classes share."""
CHECKED = 4096
"""Entries whose checksums are computed at once: what they take of memory."""
MARK = 4
"""Bytes of an entry's checksum."""

Rows = NDArray[np.int64]
Compute = Callable[[Rows, Rows], NDArray[np.float32]]
Progress = Callable[[int, int], None]


class CacheKey(Frozen):
    """What the entries depend on: another value of any field is another cache."""

    teacher_id: str
    split_digest: str
    augment: str
    samples: int
    views: int
    classes: int
    top_k: int | None = Field(default=None, exclude_if=unset)
    """See ``truncate``; None: all logits are kept."""
    pooled: int = Field(default=0, exclude_if=is_default(0))
    """Length of the pooled vector kept beside the logits."""

    @property
    def id(self) -> str:
        return identify(self)

    @property
    def words(self) -> int:
        """16-bit words of an entry."""
        return (self.classes if self.top_k is None else 2 * self.top_k + 1) + self.pooled

    @property
    def bytes(self) -> int:
        """Size on disk: words, and a 32-bit mark an entry."""
        return self.samples * self.views * (2 * self.words + MARK)


class LogitCache:
    """Memory-mapped 16-bit words, (samples, views, words of an entry), and a uint32 mark an entry.

    The mark is a checksum of the entry that is never 0, written after it: an entry counts as filled only if its mark
    fits, so a torn write or a damaged block reads as missing. Any number of processes may fill at once: what they write
    for an entry agrees to the rounding of 16 bits (to the last bit, with the same chunks and threads; with ``top_k``,
    but for classes that tie for the last place).

    Raises:
        MachineFault: no room on the disk, or a folder that cannot be written.
    """

    def __init__(self, root: Path, key: CacheKey) -> None:
        self.key = key
        self.folder = root / key.id
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lacking, free = key.bytes - taken(self.folder), shutil.disk_usage(self.folder).free
            if lacking > free:
                raise MachineFault(
                    f"the teacher's logits need {lacking / 2**20:,.1f} MiB in {self.folder}, where {free / 2**20:,.1f} "
                    "MiB are free: free some, or set KDBENCH_CACHE to a folder on another disk"
                )
            self._words = self._map("logits.f16", np.dtype("<u2"), (key.samples, key.views, key.words))
            self._marks = self._map("marks.u32", np.dtype("<u4"), (key.samples, key.views))
            self._sure = np.zeros((key.samples, key.views), dtype=bool)
            if not (self.folder / "key.json").exists():
                atomic_text(self.folder / "key.json", key.model_dump_json(indent=1))
        except OSError as error:
            raise MachineFault(f"cannot open the logit cache in {self.folder}: {error}") from error

    def _map(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Map a file of exactly this size, extending a new or short one with zeros (which mean 'missing')."""
        path, size = self.folder / name, math.prod(shape) * dtype.itemsize
        with path.open("ab") as stream:
            if stream.tell() < size:
                if hasattr(os, "posix_fallocate"):  # a disk that fills up under a sparse map would kill the process
                    os.posix_fallocate(stream.fileno(), 0, size)
                os.truncate(path, size)
        return np.memmap(path, dtype=dtype, mode="r+", shape=shape)

    def read(self, rows: Rows, views: Rows) -> NDArray[np.float16]:
        """Entries, float16: logits (n, classes), then the pooled vector; zeros where nothing was filled."""
        kept, k = self._words[rows, views], self.key.words - self.key.pooled
        if self.key.top_k is None:
            return np.asarray(kept.view("<f2"))
        return np.concatenate([unpack(kept[:, :k], self.key.classes), kept[:, k:].view("<f2")], axis=1)

    def filled(self, rows: Rows, views: Rows) -> NDArray[np.bool_]:
        """Which entries are present and undamaged, (n,); each is looked at once, for pooled vectors are long."""
        found = self._sure[rows, views]
        for start in range(0, len(some := np.flatnonzero(~found)), CHECKED):
            part = some[start : start + CHECKED]
            marks = self._marks[rows[part], views[part]]
            found[part] = (marks != 0) & (marks == checksum(self._words[rows[part], views[part]]))
        self._sure[rows[some], views[some]] = found[some]
        return found

    def write(self, rows: Rows, views: Rows, values: NDArray[np.float32]) -> None:
        """Store (n, classes + pooled), logits already truncated where the key has a ``top_k``, then their marks."""
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            largest = np.abs(values).max()
            raise MachineFault(f"the teacher's outputs do not fit 16 bits: largest magnitude {largest:.4g}")
        kept, classes = half.view(np.uint16), self.key.classes
        if self.key.top_k is not None:
            kept = np.concatenate([pack(half[:, :classes], self.key.top_k), kept[:, classes:]], axis=1)
        self._sure[rows, views] = False
        self._words[rows, views] = kept
        self._marks[rows, views] = checksum(kept)

    def ensure(self, rows: Rows, views: Rows, compute: Compute, progress: Progress | None = None) -> int:
        """Fill what is missing among the given entries, a chunk at a time; returns how many were computed.

        Asked the same again after a kill, it goes on with the same chunks: what is read then is the same, bit for bit.
        """
        missing = ~self.filled(rows, views)
        rows, views = rows[missing], views[missing]
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            self.write(rows[part], views[part], compute(rows[part], views[part]))
            if progress is not None:
                progress(min(start + CHUNK, len(rows)), len(rows))
        return len(rows)


def checksum(entries: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """A 32-bit mark a row of (n, words), never 0: a position-weighted sum of the bits, then mixed."""
    bits = entries.astype(np.uint64) + np.uint64(1)
    weights = (np.arange(1, bits.shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    with np.errstate(over="ignore"):
        total = bits @ weights
        total ^= total >> np.uint64(32)
        total *= np.uint64(0xD6E8FEB86659FD93)
    marks: NDArray[np.uint32] = np.maximum((total >> np.uint64(32)).astype(np.uint32), np.uint32(1))
    return marks


def taken(folder: Path) -> int:
    """Bytes of the files in and below a folder, which need not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def truncate(logits: Tensor, k: int) -> Tensor:
    """(B, C) float32 logits of 16-bit precision with all but the ``k`` < C largest of a row made equal.

    softmax gives the ``k`` what it gave them before, to 16 bits; the others share evenly what is left at T = 1, as in
    TinyViT's sparse soft labels (Wu et al. 2022, arXiv:2207.10666). Doing it twice changes nothing more.
    """
    top = logits.topk(k, dim=1)
    others = logits.scatter(1, top.indices, -math.inf)
    even = others.logsumexp(1, keepdim=True) - math.log(logits.shape[1] - k)
    # on a grid wider than the sum's error, even where 16 bits are finest, so that a second time changes nothing
    even = torch.minimum(even.mul(GRID).round().div(GRID).half().float(), top.values[:, -1:])
    return even.expand_as(logits).scatter(1, top.indices, top.values)


def pack(logits: NDArray[np.float16], k: int) -> NDArray[np.uint16]:
    """Truncated logits (n, C) as words (n, 2 k + 1): the classes in ascending order, their logits, all others'."""
    classes = np.sort(np.argpartition(logits, -k, axis=1)[:, -k:], axis=1)
    values = np.take_along_axis(logits, classes, axis=1)
    rest = logits.min(axis=1, keepdims=True)
    return np.concatenate([classes.astype(np.uint16), values.view(np.uint16), rest.view(np.uint16)], axis=1)


def unpack(words: NDArray[np.uint16], classes: int) -> NDArray[np.float16]:
    """(n, 2 k + 1) words as logits (n, ``classes``)."""
    k = words.shape[1] // 2
    logits = np.repeat(words[:, -1:].view(np.float16), classes, axis=1)
    np.put_along_axis(logits, words[:, :k].astype(np.int64), words[:, k : 2 * k].view(np.float16), axis=1)
    return logits
