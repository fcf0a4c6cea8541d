"""What the engine sees of a data set: splits in memory, or decoded as they are used, and their batches."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from kdbench.data.samples import Fit, Pixels, Rows, Samples, as_array, as_picture, key64
from kdbench.data.views import Augment, Look, Renderer, normalise, view_ids
from kdbench.errors import BadInput
from kdbench.host import cores

MEMORY_SHARE = 0.25
"""Share of a memory that resident pixels may take."""
MAX_WORKERS = 8
_ORDER, _SAMPLE = 4, 5


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

    def batches(self, *, batch_size: int, order_seed: int, augment_seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch: shuffled and augmented, both pure functions of the seeds and the epoch.

        A last partial batch is dropped when the split is longer than one batch.
        """

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        """Every sample once, in order, un-augmented; ``views`` is None."""


def epoch_batches(n: int, batch_size: int, order_seed: int, epoch: int) -> list[Tensor]:
    """The epoch's rows, int64 on the CPU, in the same order whatever device trains, cut into batches.

    A last partial one is dropped unless it is the only one.
    """
    generator = torch.Generator().manual_seed(key64(_ORDER, order_seed, epoch))
    parts = list(torch.randperm(n, generator=generator).split(batch_size))
    return parts[:-1] if len(parts) > 1 and len(parts[-1]) < batch_size else parts


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

    def view_ids(self, augment_seed: int, epoch: int) -> Tensor:
        """int64 (N,): the view of every sample in ``epoch``, by integer hashing, the same on CPU and GPU."""
        rows = torch.arange(len(self), device=self.device)
        return view_ids(rows, self.augment.n_views or 1, augment_seed, epoch)

    def render(self, rows: Tensor, views: Tensor, look: Look | None = None) -> Tensor:
        """float32 (B, C, S, S), normalised, channels_last: these views of these rows (int64 (B,) each), at ``look``
        (None: ``shown``).
        """
        return (look or self.shown).show(self._render(rows, views), self.look)

    def batches(self, *, batch_size: int, order_seed: int, augment_seed: int, epoch: int) -> Iterator[Batch]:
        shown = self.view_ids(augment_seed, epoch)
        for part in epoch_batches(len(self), batch_size, order_seed, epoch):
            rows = part.to(self.device, non_blocking=True)
            views = shown[rows]
            yield Batch(self.render(rows, views), self.labels[rows], rows, views)

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        for rows in torch.arange(len(self), device=self.device).split(batch_size):
            yield self.plain_batch(rows)

    def plain_batch(self, rows: Tensor) -> Batch:
        """These samples (int64 (B,)), un-augmented."""
        views = torch.full_like(rows, self.augment.identity)
        return Batch(self.render(rows, views), self.labels[rows], rows, None)


Decoder = Callable[[Any, int], Pixels]
"""From an image as stored, and its row, to uint8 (S, S, C)."""


class StreamSplit(_Labelled):
    """Labelled images read through a ``DataLoader``; every view is a pure function of (augmentation seed, epoch, row).

    Pad-crops are numbered exactly as a ``ResidentSplit`` numbers them. RandomResizedCrop is timm's training transform,
    run with each sample's random generators seeded by hashing, so neither order nor workers change it.
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

    def batches(self, *, batch_size: int, order_seed: int, augment_seed: int, epoch: int) -> Iterator[Batch]:
        shown, decode = None, self._continuous(key64(_SAMPLE, augment_seed, epoch))
        if self.n_views is not None:
            shown = view_ids(torch.arange(len(self), device=self.device), self.n_views, augment_seed, epoch)
            decode = _Numbered(self._fit, self.augment, shown.cpu().numpy())
        for x, rows in self._read(epoch_batches(len(self), batch_size, order_seed, epoch), decode):
            yield Batch(x, self.labels[rows], rows, None if shown is None else shown[rows])

    def plain(self, batch_size: int = 512) -> Iterator[Batch]:
        for x, rows in self._read(list(torch.arange(len(self)).split(batch_size)), _Plain(self._fit)):
            yield Batch(x, self.labels[rows], rows, None)

    def _continuous(self, salt: int) -> Decoder:
        return _Continuous(self._fit, self.augment.flip, salt)

    def _read(self, parts: list[Tensor], decode: Decoder) -> Iterator[tuple[Tensor, Tensor]]:
        """(float32 (B, C, S, S), int64 (B,) rows) on the device, for each of ``parts``."""
        loader = DataLoader(
            _Images(self._samples, decode),
            batch_sampler=[part.tolist() for part in parts],
            num_workers=max(1, min(MAX_WORKERS, cores(), len(parts))),
            pin_memory=self.device.type == "cuda",
            collate_fn=_collate,
            multiprocessing_context="fork",  # in a worker the default is another, which imports torch for every epoch
            generator=torch.Generator(),  # else it draws from the trainer's
        )
        for found in loader:
            if isinstance(found, BadInput):
                raise found
            pixels, rows = (part.to(self.device, non_blocking=True) for part in found)
            yield self.shown.show(normalise(pixels, self.look.mean, self.look.std), self.look), rows


class _Images(Dataset[Any]):
    """Rows to (uint8 (S, S, C), row). An error travels as a value: a loader would wrap it into its traceback."""

    def __init__(self, samples: Samples, decode: Decoder) -> None:
        self.samples, self.decode = samples, decode

    def __len__(self) -> int:
        return len(self.samples.labels)

    def __getitem__(self, row: int) -> tuple[Pixels, int] | BadInput:
        try:
            return np.array(self.decode(self.samples.image(row), row)), row
        except BadInput as error:
            return error


def _collate(found: list[Any]) -> Any:
    return next((each for each in found if isinstance(each, BadInput)), None) or default_collate(found)


class _Plain:
    def __init__(self, fit: Fit) -> None:
        self.fit = fit

    def __call__(self, image: Any, row: int) -> Pixels:
        return self.fit(image)


class _Numbered:
    """Pad-crop and flip by the number of the view."""

    def __init__(self, fit: Fit, augment: Augment, views: Rows) -> None:
        self.fit, self.augment, self.views = fit, augment, views

    def __call__(self, image: Any, row: int) -> Pixels:
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

    def __call__(self, image: Any, row: int) -> Pixels:
        picture = as_picture(as_array(image, self.fit.channels))
        seed, states = key64(self.salt, row), (random.getstate(), torch.get_rng_state())
        try:
            random.seed(seed)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack for each other device
            view = self.transform(picture)
        finally:
            random.setstate(states[0])
            torch.set_rng_state(states[1])
        return np.asarray(view, dtype=np.uint8).transpose(1, 2, 0)


def memory_bytes(device: torch.device) -> int:
    """Memory of ``device`` in bytes: a GPU's own, else the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
