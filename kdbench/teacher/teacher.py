"""The teacher by field: from the logit cache where that holds what is asked, else from the live network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdbench.data import Batch, Look, ResidentSplit, Split
from kdbench.errors import BadInput
from kdbench.methods import LOGITS, Outputs, Taps
from kdbench.teacher.logit_cache import CHUNK, MOST_CLASSES, CacheKey, LogitCache, Progress, Rows, taken, truncate
from kdbench.teacher.offload import place
from kdbench.teacher.outputs import asked, outputs, taps_of

Guide = Callable[[Batch], Outputs]
"""Gives the teacher's outputs for a training batch, on the data's device."""
Keyed = Literal["view", "epoch", "live"]
"""What an entry of the cache is kept by: (sample, view); (seed, epoch, sample); or there is no cache."""
SHARE_OF_DISK = 0.5
"""The largest part of the free disk that one teacher's outputs may take; beyond it the teacher runs live."""


class Teacher:
    """What a run asks of its teacher. Several runs may ask side by side: no answer depends on another's.

    Logits and pooled vectors are rounded to 16 bits before the first use, so cached and live ones are equal; maps
    come from the live network, which ``load`` builds when it must; ``show`` turns what students see into what it sees.
    ``root`` is the cache's folder; ``top_k`` of an augmented view's logits are kept there, of
    un-augmented samples all; ``entries`` a sample will be asked for.
    """

    def __init__(
        self, load: Callable[[], nn.Module], device: torch.device, classes: int, *,
        keyed: Keyed = "live", root: Path | None = None, teacher_id: str = "", top_k: int | None = None,
        entries: int = 1, show: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:  # fmt: skip
        self._show = show
        self.classes, self.keyed, self._load, self._device = classes, keyed, load, device
        self._root, self._teacher_id, self._top_k, self._entries = root, teacher_id, top_k, entries
        self._forwards: dict[frozenset[str], nn.Module] = {}
        self._pooled = 0
        self._roomy: bool | None = None
        # an epoch's logits live as long as a run uses them, and runs of one seed share them
        self._epochs: WeakValueDictionary[tuple[str, int, int], Tensor] = WeakValueDictionary()
        self._plain: dict[str, Tensor] = {}
        self._caches: dict[str, LogitCache] = {}

    @cached_property
    def _network(self) -> nn.Module:
        return place(self._load().eval().requires_grad_(False), self._device)

    def _forward(self, fields: Collection[str]) -> nn.Module:
        if (key := frozenset(fields)) not in self._forwards:
            self._forwards[key] = asked(self._network, key).eval()
        return self._forwards[key]

    @torch.no_grad()
    def ask(self, fields: Collection[str], x: Tensor) -> Outputs:
        """The live network on a batch of images, in eval mode."""
        found = outputs(self._forward(fields)(self._show(x)))
        pooled = None if found.pooled is None else found.pooled.half().float()
        return Outputs(found.logits.half().float(), pooled, found.maps)

    def taps(self, fields: Collection[str], x: Tensor) -> Taps:
        """Sizes of the fields for images like ``x``."""
        return taps_of(self._forward(fields), self._network, self._show(x))

    def epoch(
        self, split: Split, seed: int, epoch: int, fields: Collection[str] = LOGITS, progress: Progress | None = None
    ) -> Guide:
        """The guide through one epoch's views of ``split``; what is best computed ahead is computed now."""
        if self.keyed == "live" or "maps" in fields or not self._holds(split, fields):
            return lambda batch: self.ask(fields, batch.x)
        cache = self.cache(split, seed, epoch, fields)
        if self.fills(split, fields):
            key = (cache.key.id, seed, epoch)
            if (table := self._epochs.get(key)) is None:
                read = cache.read(*self.fill(split, seed, epoch, fields, progress))
                table = self._epochs[key] = torch.from_numpy(read).to(self._device)
            return lambda batch: self._split(table[batch.rows].float())

        def guide(batch: Batch) -> Outputs:
            rows = batch.entries.cpu().numpy()
            if cache.filled(rows, 0 * rows).all():
                return self._split(torch.from_numpy(cache.read(rows, 0 * rows)).to(batch.x.device).float())
            return self._split(self._store(cache, batch))

        return guide

    def plain(self, split: Split) -> Tensor:
        """Logits of every sample of ``split``, un-augmented and in order, (N, classes)."""
        if split.digest in self._plain:
            return self._plain[split.digest]
        if self.keyed == "live":
            found = torch.cat([self.ask(LOGITS, batch.x).logits for batch in split.plain(CHUNK)])
        else:
            cache, rows = self._open(split, "plain", 1), np.arange(len(split), dtype=np.int64)

            def lacks(rows: Rows) -> bool:
                return not cache.filled(rows, 0 * rows).all()

            batches: Iterable[Batch] = ()
            if isinstance(split, ResidentSplit):
                chunks = torch.arange(len(split), device=split.labels.device).split(CHUNK)
                # in an order of this process's own, so that workers that fill at once meet seldom
                order = np.random.default_rng(os.getpid()).permutation(len(chunks))
                batches = (split.plain_batch(chunks[k]) for k in order if lacks(chunks[k].cpu().numpy()))
            elif lacks(rows):
                batches = split.plain(CHUNK)
            for batch in batches:
                self._store(cache, batch)
            found = torch.from_numpy(cache.read(rows, 0 * rows)).float().to(split.labels.device)
        return self._plain.setdefault(split.digest, found)

    def fills(self, split: Split, fields: Collection[str] = LOGITS) -> bool:
        """Whether an epoch is computed ahead: its views have numbers and are in memory, the disk has room."""
        numbered = isinstance(split, ResidentSplit) and split.n_views is not None
        return self.keyed != "live" and numbered and self._holds(split, fields)

    def _holds(self, split: Split, fields: Collection[str]) -> bool:
        """Whether there is room for pooled vectors, which take a hundred times what logits do."""
        if "pooled" not in fields or self._root is None:
            return True
        if self._roomy is None:
            size = cache_bytes(len(split), self.classes, self._entries, self._top_k, self._length(split))
            self._roomy = size <= room(self._root)
        return self._roomy

    def _length(self, split: Split) -> int:
        """Of a pooled vector."""
        if not self._pooled:
            self._pooled = self.taps({"pooled"} | LOGITS, next(iter(split.plain(1))).x).pooled
        return self._pooled

    def fill(
        self, split: Split, seed: int, epoch: int, fields: Collection[str] = LOGITS, progress: Progress | None = None
    ) -> tuple[Rows, Rows]:
        """Compute what the cache lacks for one epoch's views; their (samples, columns) in the cache."""
        assert isinstance(split, ResidentSplit)
        cache, device = self.cache(split, seed, epoch, fields), split.labels.device
        rows, views = np.arange(len(split), dtype=np.int64), split.view_ids(seed, epoch).cpu().numpy()
        columns = views if self.keyed == "view" else 0 * rows

        def compute(some: Rows, _: Rows) -> NDArray[np.float32]:
            x = split.render(torch.from_numpy(some).to(device), torch.from_numpy(views[some]).to(device))
            return np.asarray(self._values(cache.key, x).cpu().numpy(), dtype=np.float32)

        cache.ensure(rows, columns, compute, progress)
        return rows, columns

    def cache(self, split: Split, seed: int, epoch: int, fields: Collection[str] = LOGITS) -> LogitCache:
        """The open cache that holds one epoch's views: by (sample, view), or by (seed, epoch, sample)."""
        pooled = self._length(split) if "pooled" in fields else 0
        if self.keyed == "view":
            return self._open(split, split.augment.key, split.n_views or 0, self._top_k, pooled)
        return self._open(split, f"{split.augment.key}-seed{seed}-epoch{epoch}", 1, self._top_k, pooled)

    def _open(self, split: Split, augment: str, views: int, top_k: int | None = None, pooled: int = 0) -> LogitCache:
        assert self._root is not None
        key = CacheKey(teacher_id=self._teacher_id, split_digest=split.digest, augment=augment, samples=len(split),
                       views=views, classes=self.classes, top_k=top_k, pooled=pooled)  # fmt: skip
        if self.keyed != "view" or views == 1:
            return LogitCache(self._root, key)
        if key.id not in self._caches:  # the same for every epoch: what was looked at stays known
            self._caches[key.id] = LogitCache(self._root, key)
        return self._caches[key.id]

    def _values(self, key: CacheKey, x: Tensor) -> Tensor:
        """What an entry holds, float32 (B, classes + pooled)."""
        found = self.ask(LOGITS | {"pooled"} if key.pooled else LOGITS, x)
        logits = found.logits if key.top_k is None else truncate(found.logits, key.top_k)
        return logits if found.pooled is None else torch.cat([logits, found.pooled], 1)

    def _store(self, cache: LogitCache, batch: Batch) -> Tensor:
        """Compute a batch's entries and keep them in the first column."""
        rows, values = batch.entries.cpu().numpy(), self._values(cache.key, batch.x)
        cache.write(rows, 0 * rows, values.cpu().numpy())
        return values

    def _split(self, values: Tensor) -> Outputs:
        pooled = values[:, self.classes :] if values.shape[1] > self.classes else None
        return Outputs(values[:, : self.classes], pooled)


def keyed_by(views: int | None, passes: int) -> tuple[Keyed, int]:
    """(How ``passes`` epochs are kept, entries a sample): by view where not more views than that can be asked for."""
    return ("view", views) if views is not None and views <= passes else ("epoch", passes)


def cache_bytes(samples: int, classes: int, entries: int, top_k: int | None = None, pooled: int = 0) -> int:
    """Disk that so many entries a sample take, each with ``pooled`` numbers beside the logits."""
    return CacheKey(teacher_id="", split_digest="", augment="", samples=samples, views=entries, classes=classes,
                    top_k=top_k, pooled=pooled).bytes  # fmt: skip


def room(root: Path) -> float:
    """Bytes below ``root``, which need not exist yet, that a teacher's outputs may take, what is there included."""
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    return SHARE_OF_DISK * (shutil.disk_usage(place).free + taken(root))


def make_teacher(
    load: Callable[[], nn.Module], device: torch.device, classes: int, *,
    root: Path, teacher_id: str, split: Split, passes: int, top_k: int | None = None, look: Look | None = None,
) -> Teacher:  # fmt: skip
    """The cheapest teacher that the augmentation and the disk allow, for ``passes`` epochs over ``split``.

    ``top_k`` logits of a view are kept (``Recipe.teacher_top_k``). Without room on the disk it runs live. ``look``: how
    its network sees the views of ``split``.

    Raises:
        BadInput: a ``top_k`` that leaves no class out, or more classes than can be told apart.
    """
    if classes > MOST_CLASSES and top_k is not None:
        raise BadInput(f"recipe.teacher-top-k={top_k}: serves up to {MOST_CLASSES:,} classes, not {classes:,}")
    if top_k is not None and top_k >= classes:
        raise BadInput(f"recipe.teacher-top-k={top_k}: of {classes:,} classes, give 1 to {classes - 1:,}")
    keyed, entries = keyed_by(split.n_views if isinstance(split, ResidentSplit) else None, passes)
    if cache_bytes(len(split), classes, entries, top_k) > room(root):
        keyed = "live"
    show = partial((look or split.shown).show, seen=split.shown)
    return Teacher(load, device, classes, keyed=keyed, root=root, teacher_id=teacher_id, top_k=top_k, entries=entries,
                   show=show)  # fmt: skip
