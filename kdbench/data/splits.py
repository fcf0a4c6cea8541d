"""What the engine sees of a data set: splits in memory, or decoded as they are used, and their batches."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from kdbench.data.augment import Decoder, Drawn, erase, mix
from kdbench.data.samples import Fit, Pixels, Rows, Samples, key64
from kdbench.data.views import Augment, Look, Renderer, normalise, view_ids
from kdbench.errors import BadInput
from kdbench.host import cores

MEMORY_SHARE = 0.25
"""Share of a memory that resident pixels may take."""
MAX_WORKERS = 8
_ORDER, _SAMPLE, _ERASE, _MIX = 4, 5, 6, 7


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
    places: Tensor | None = None
    """int64 (B,) places in the epoch, where that shows a sample several times; else None."""
    share: float = 1.0
    """What each image and label keeps of its own; the rest is the batch's in reverse order, mixed in."""

    @property
    def entries(self) -> Tensor:
        """int64 (B,): what tells apart the images of an epoch, in [0, samples of the split)."""
        return self.rows if self.places is None else self.places


class Split(Protocol):
    """A fixed list of labelled images, in memory or streamed."""

    labels: Tensor
    """int64 (N,), on the device."""
    augment: Augment
    """What ``batches`` does to an image."""
    look: Look
    """How views are cut from images."""
    shown: Look
    """How batches show them; ``Look.show`` gives the same views as another network sees them."""

    @property
    def digest(self) -> str:
        """Short hash of the samples and their preprocessing: the same in every run that sees the same pixels."""

    @property
    def n_views(self) -> int | None:
        """Views of one sample; None when they are a continuum (then the cache is by epoch)."""

    def __len__(self) -> int: ...

    def batches(
        self, *, batch_size: int, order_seed: int, augment_seed: int, epoch: int, portion: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """One epoch: shuffled and augmented, both pure functions of the seeds and the epoch.

        A last partial batch is dropped when the split is longer than one batch. ``portion``: of each batch the
        k-th (from 0) of so many equal parts; not where images are repeated or mixed.
        """

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        """Every sample once, in order, un-augmented; ``views`` is None."""


def epoch_batches(
    n: int, batch_size: int, order_seed: int, epoch: int, repeats: int = 1, portion: tuple[int, int] = (0, 1)
) -> list[Tensor]:
    """The epoch's rows, int64 on the CPU, in the same order whatever device trains, cut into batches.

    A last partial one is dropped unless it is the only one. With ``repeats``, each row so many times one after the
    other, until there are ``n`` (as ``timm.data.RepeatAugSampler``).
    """
    generator = torch.Generator().manual_seed(key64(_ORDER, order_seed, epoch))
    order = torch.randperm(n, generator=generator)
    parts = list((order if repeats == 1 else order.repeat_interleave(repeats)[:n]).split(batch_size))
    parts = parts[:-1] if len(parts) > 1 and len(parts[-1]) < batch_size else parts
    return parts if portion[1] == 1 else [part.tensor_split(portion[1])[portion[0]] for part in parts]


class _Labelled:
    """What both kinds of split have."""

    def __init__(
        self, labels: Rows, look: Look, augment: Augment, device: torch.device, shown: Look | None = None
    ) -> None:
        self.look, self.augment, self.device, self.shown = look, augment, device, shown or look
        self._numbers = np.ascontiguousarray(labels)
        self.labels: Tensor = torch.from_numpy(self._numbers).to(device)

    @property
    def n_views(self) -> int | None:
        """Views of one sample; None for RandomResizedCrop."""
        return self.augment.n_views

    def __len__(self) -> int:
        return len(self.labels)

    def view_ids(self, augment_seed: int, epoch: int) -> Tensor:
        """int64 (N,): the pad-crop of every entry in ``epoch``, by integer hashing, the same on CPU and GPU."""
        return view_ids(torch.arange(len(self), device=self.device), self.augment.crops, augment_seed, epoch)

    def _finish(self, x: Tensor, batch: Batch, augment_seed: int, epoch: int, number: int) -> Batch:
        """The epoch's ``number``-th batch with views ``x``, erased and mixed."""
        more, share = self.augment.more, 1.0
        if more.erase:
            erase(x, batch.entries, more.erase, key64(_ERASE, augment_seed, epoch))
        if more.batch:
            share = mix(x, more, key64(_MIX, augment_seed, epoch, number))
        return batch._replace(x=x, share=share)

    @property
    def _preprocessing(self) -> str:
        other = f":{self.shown.size}:{self.shown.interpolation}" if self.shown.size != self.look.size else ""
        return f"{self.look.mean}:{self.look.std}{other}"


class ResidentSplit(_Labelled):
    """Labelled images in memory, uint8 (N, S, S, C); a view is one gather from them."""

    def __init__(
        self, pixels: Pixels, labels: Rows, look: Look, augment: Augment, device: torch.device,
        shown: Look | None = None,
    ) -> None:  # fmt: skip
        super().__init__(labels, look, augment, device, shown)
        self._pixels: Pixels | None = pixels
        n, size, _, channels = pixels.shape
        if pad := augment.pad:
            _ = self.digest  # the images without their border are needed for it, and for nothing else
            self._pixels = None
            padded = np.zeros((n, size + 2 * pad, size + 2 * pad, channels), np.uint8)
            padded[:, pad : pad + size, pad : pad + size] = pixels
            pixels = padded
        held = torch.from_numpy(np.asarray(pixels if pixels.flags.writeable else pixels.copy()))
        if held.nbytes <= MEMORY_SHARE * memory_bytes(device):
            held = held.to(device)
        self._render = Renderer(held, augment, look, device)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of pixels (without their border), labels and normalisation."""
        assert self._pixels is not None
        sha = hashlib.sha256(f"{len(self)}:{self.look.size}:{self._preprocessing}".encode())
        for start in range(0, len(self), 4096):
            sha.update(np.ascontiguousarray(self._pixels[start : start + 4096]).data)
        sha.update(self._numbers.astype("<i8").data)
        return sha.hexdigest()[:16]

    def render(self, rows: Tensor, views: Tensor, look: Look | None = None) -> Tensor:
        """float32 (B, C, S, S), normalised, channels_last: these views of these rows (int64 (B,) each), at ``look``
        (None: ``shown``).
        """
        return (look or self.shown).show(self._render(rows, views), self.look)

    def batches(
        self, *, batch_size: int, order_seed: int, augment_seed: int, epoch: int, portion: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        shown, repeats = self.view_ids(augment_seed, epoch), self.augment.more.repeats
        parts = epoch_batches(len(self), batch_size, order_seed, epoch, repeats, portion)
        for number, part in enumerate(parts):
            rows = part.to(self.device, non_blocking=True)
            places = None if repeats == 1 else number * batch_size + torch.arange(len(rows), device=self.device)
            views = shown[rows if places is None else places]
            x = self.render(rows, views)
            yield self._finish(x, Batch(x, self.labels[rows], rows, views, places), augment_seed, epoch, number)

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        for rows in torch.arange(len(self), device=self.device).split(batch_size):
            yield self.plain_batch(rows)

    def plain_batch(self, rows: Tensor) -> Batch:
        """These samples (int64 (B,)), un-augmented."""
        views = torch.full_like(rows, self.augment.identity)
        return Batch(self.render(rows, views), self.labels[rows], rows, None)


class StreamSplit(_Labelled):
    """Labelled images read through a ``DataLoader``; every view is a pure function of (augmentation seed, epoch, row).

    Pad-crops are numbered exactly as a ``ResidentSplit`` numbers them. RandomResizedCrop and policies are timm's, run
    with each sample's random generators seeded by hashing, so neither order nor workers change them.
    """

    def __init__(
        self, samples: Samples, fit: Fit, look: Look, augment: Augment, device: torch.device, shown: Look | None = None
    ) -> None:
        super().__init__(samples.labels, look, augment, device, shown)
        self._fit, self._samples = fit, samples

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of which images (``Samples.signature``), labels, size and normalisation."""
        sha = hashlib.sha256(f"{len(self)}:{self._fit}:{self._preprocessing}".encode())
        for row in range(len(self)):
            sha.update(os.fsencode(self._samples.signature(row)) + b"\0")
        sha.update(self._numbers.astype("<i8").tobytes())
        return sha.hexdigest()[:16]

    def batches(
        self, *, batch_size: int, order_seed: int, augment_seed: int, epoch: int, portion: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        augment, shown = self.augment, self.view_ids(augment_seed, epoch)
        crop = _Numbered(self._fit, augment, shown.cpu().numpy()) if augment.kind == "crop" else None
        decode: Decoder = crop or _Plain(self._fit)
        if not augment.gathered:
            decode = Drawn(self._fit, augment, self.look, key64(_SAMPLE, augment_seed, epoch), crop)
        parts = epoch_batches(len(self), batch_size, order_seed, epoch, augment.more.repeats, portion)
        places = torch.arange(len(self)).split(batch_size) if augment.more.repeats > 1 else parts
        for number, (x, rows, place) in enumerate(self._read(parts, decode, places)):
            views = shown[place] if self.n_views is not None else None
            batch = Batch(x, self.labels[rows], rows, views, place if augment.more.repeats > 1 else None)
            yield self._finish(x, batch, augment_seed, epoch, number)

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        parts = torch.arange(len(self)).split(batch_size)
        for x, rows, _ in self._read(parts, _Plain(self._fit), parts):
            yield Batch(x, self.labels[rows], rows, None)

    def _read(
        self, parts: Sequence[Tensor], decode: Decoder, places: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(float32 (B, C, S, S), int64 (B,) rows, entries) on the device, for each of ``parts``."""
        loader = DataLoader(
            _Images(self._samples, decode),
            batch_sampler=[list(zip(r.tolist(), e.tolist(), strict=True)) for r, e in zip(parts, places, strict=False)],
            num_workers=max(1, min(MAX_WORKERS, cores(), len(parts))),
            pin_memory=self.device.type == "cuda",
            collate_fn=_collate,
            multiprocessing_context="fork",  # in a worker the default is another, which imports torch for every epoch
            generator=torch.Generator(),  # else it draws from the trainer's
        )
        for found in loader:
            if isinstance(found, BadInput):
                raise found
            pixels, rows, entries = (part.to(self.device, non_blocking=True) for part in found)
            yield self.shown.show(normalise(pixels, self.look.mean, self.look.std), self.look), rows, entries


class _Images(Dataset[Any]):
    """(Row, entry) to (uint8 (S, S, C), both). An error travels as a value: a loader wraps it into its traceback."""

    def __init__(self, samples: Samples, decode: Decoder) -> None:
        self.samples, self.decode = samples, decode

    def __len__(self) -> int:
        return len(self.samples.labels)

    def __getitem__(self, which: tuple[int, int]) -> tuple[Pixels, int, int] | BadInput:
        row, entry = which
        try:
            return np.array(self.decode(self.samples.image(row), entry)), row, entry
        except BadInput as error:
            return error


def _collate(found: list[Any]) -> Any:
    return next((each for each in found if isinstance(each, BadInput)), None) or default_collate(found)


class _Plain:
    def __init__(self, fit: Fit) -> None:
        self.fit = fit

    def __call__(self, image: Any, entry: int) -> Pixels:
        return self.fit(image)


class _Numbered:
    """Pad-crop and flip by the number of the view."""

    def __init__(self, fit: Fit, augment: Augment, views: Rows) -> None:
        self.fit, self.augment, self.views = fit, augment, views

    def __call__(self, image: Any, entry: int) -> Pixels:
        pad, size = self.augment.pad, self.fit.size
        flip, dy, dx = (int(part) for part in self.augment.decode(torch.tensor(self.views[entry])))
        padded = np.pad(self.fit(image), ((pad, pad), (pad, pad), (0, 0)))
        view = padded[dy : dy + size, dx : dx + size]
        return view[:, ::-1] if flip else view


def memory_bytes(device: torch.device) -> int:
    """Memory of ``device`` in bytes: a GPU's own, else the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
