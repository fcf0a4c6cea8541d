"""The logit bank: what the teacher says of (sample, view), computed once, read by every trial.

A sample's augmented view is a pure function of (augmentation seed, epoch, sample), and pad-crop + flip has
only 2·(2p+1)² views, so the bank is a finite table that serves every seed, order and epoch.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from kdbench.errors import MachineFault
from kdbench.files import atomic, atomic_text, identify
from kdbench.teacher.topk import pack, unpack, words

CHUNK = 256
"""Samples a teacher pass takes at once; part of what makes refilled logits equal, bit for bit."""

Compute = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
Progress = Callable[[int, int], None]


class BankKey(BaseModel):
    """What the logits depend on: another value of any field is another bank."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    teacher_id: str
    split_digest: str
    augment: str
    samples: int
    views: int
    classes: int
    top_k: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """So many logits of an entry are kept, see ``teacher.topk``; None: all."""

    @property
    def id(self) -> str:
        """12 hexadecimal digits naming the bank's folder."""
        return identify(self)

    @property
    def bytes(self) -> int:
        """Size on disk when full: 16-bit words and a 32-bit mark an entry."""
        return self.samples * self.views * (2 * self.words + 4)

    @property
    def words(self) -> int:
        """16-bit words an entry: its logits, or the packed largest of them."""
        return words(self.classes, self.top_k)


class LogitBank:
    """Memory-mapped 16-bit words, (samples, views, ``key.words``), and a uint32 mark an entry.

    The mark is a checksum of the entry that is never 0, written after it: an entry counts as filled only if
    its mark fits, so a torn write or a damaged block reads as missing and is computed again. Fillers of the
    same entry write values that agree to the rounding of 16 bits (to the last bit, where they use the same
    chunks and threads; with ``top_k``, they may keep one or the other of two classes that tie for the last place),
    so any number of processes may fill at once.
    """

    def __init__(self, root: Path, key: BankKey) -> None:
        self.key = key
        self.folder = root / key.id
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._words = self._map("logits.f16", np.dtype("<u2"), (key.samples, key.views, key.words))
            self._marks = self._map("marks.u32", np.dtype("<u4"), (key.samples, key.views))
            if not (self.folder / "key.json").exists():
                atomic_text(self.folder / "key.json", key.model_dump_json(indent=1))
        except OSError as error:
            raise MachineFault(f"cannot open the teacher bank in {self.folder}: {error}") from error

    def _map(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Map a file of exactly this size, extending a new or short one with zeros (which mean 'missing').

        Its blocks are reserved now: a disk that fills up under a sparse map would kill the process.
        """
        path = self.folder / name
        size = int(np.prod(shape)) * dtype.itemsize
        with path.open("ab") as stream:
            if stream.tell() < size:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(stream.fileno(), 0, size)
                os.truncate(path, size)
        return np.memmap(path, dtype=dtype, mode="r+", shape=shape)

    def read(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.float16]:
        """Logits of the given entries, float16, (n, classes); zeros where nothing was filled."""
        kept = self._words[rows, views]
        return np.asarray(kept.view("<f2") if self.key.top_k is None else unpack(kept, self.key.classes))

    def filled(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which entries are present and undamaged, (n,)."""
        marks = np.asarray(self._marks[rows, views])
        return np.asarray((marks != 0) & (marks == checksum(self._words[rows, views])))

    def write(self, rows: NDArray[np.int64], views: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        """Store logits (n, classes), already truncated where the key has a ``top_k``, then their marks."""
        with np.errstate(over="ignore"):
            half = logits.astype(np.float16)
        if not np.isfinite(half).all():
            raise MachineFault("the teacher's logits do not fit 16 bits: largest magnitude "
                               f"{np.abs(logits).max():.4g}")  # fmt: skip
        kept = half.view(np.uint16) if self.key.top_k is None else pack(half, self.key.top_k)
        self._words[rows, views] = kept
        self._marks[rows, views] = checksum(kept)

    def ensure(
        self,
        rows: NDArray[np.int64],
        views: NDArray[np.int64],
        compute: Compute,
        progress: Progress | None = None,
    ) -> int:
        """Fill what is missing among the given entries; returns how many were computed.

        What is to be filled is noted on disk first, and a note left by a killed process is carried out
        before anything else: the same chunks are formed again, so a sweep that was killed reads, bit for
        bit, the logits that it would have read.
        """
        computed = 0
        for note in self._left_over():
            left: NDArray[np.int64] | None = None
            with contextlib.suppress(OSError, ValueError, EOFError):  # taken by another meanwhile, or damaged
                left = np.load(note, allow_pickle=False)
            if left is not None:
                computed += self._fill(left[0], left[1], compute, progress)
            note.unlink(missing_ok=True)
        missing = ~self.filled(rows, views)
        if missing.any():
            computed += self._fill(rows[missing], views[missing], compute, progress)
        return computed

    def _fill(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], compute: Compute, progress: Progress | None
    ) -> int:
        note = self.folder / f"pending-{platform.node()}-{os.getpid()}.npy"
        atomic(note, lambda aside: _save(aside, np.stack([rows, views])))
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            self.write(rows[part], views[part], compute(rows[part], views[part]))
            if progress is not None:
                progress(min(start + CHUNK, len(rows)), len(rows))
        note.unlink(missing_ok=True)
        return len(rows)

    def _left_over(self) -> list[Path]:
        """Notes of this machine's processes that no longer live."""
        mine = f"pending-{platform.node()}-"
        found = sorted(self.folder.glob(f"{mine}*.npy"))
        owners = [(path, path.stem.removeprefix(mine)) for path in found]
        # a machine called "<ours>-2" begins its notes as we do
        return [path for path, pid in owners if pid.isdecimal() and not _alive(int(pid))]

    def coverage(self) -> float:
        """Share of entries with a mark (not verified)."""
        return float(np.count_nonzero(self._marks) / self._marks.size)


def checksum(entries: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """A 32-bit mark a row of (n, words), never 0: a position-weighted sum of the bits, then mixed."""
    bits = entries.astype(np.uint64) + np.uint64(1)
    weights = (np.arange(1, bits.shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    with np.errstate(over="ignore"):
        total = (bits * weights).sum(axis=1, dtype=np.uint64)
        total ^= total >> np.uint64(32)
        total *= np.uint64(0xD6E8FEB86659FD93)
    marks: NDArray[np.uint32] = np.maximum((total >> np.uint64(32)).astype(np.uint32), np.uint32(1))
    return marks


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _alive(pid: int) -> bool:
    """Whether a process of this machine has that number (our own counts as gone: it is not filling now)."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
