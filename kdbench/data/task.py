"""The data of a run: training and validation split now, the test split only when asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kdbench.catalog.types import DatasetSpec
from kdbench.config import DataConfig, Recipe
from kdbench.data.base import Split
from kdbench.data.resident import ResidentSplit
from kdbench.data.resolve import resolve_dataset
from kdbench.data.samples import Fit, Samples
from kdbench.data.sources import read_part
from kdbench.data.splits import stratified_cut, stratified_limit
from kdbench.data.stream import StreamSplit
from kdbench.data.views import PLAIN, Augment, augment_for
from kdbench.errors import BadInput

Rows = NDArray[np.int64]
MEMORY_SHARE = 0.25
"""Share of the device's memory that resident pixels may take."""


@dataclass(frozen=True)
class TaskData:
    """What a run trains on and is selected by."""

    spec: DatasetSpec
    classes: int
    channels: int
    input_size: int
    train: Split
    val: Split
    device: torch.device

    def test(self) -> Split:
        """The test split, read now and not before: only the confirm phase may ask."""
        samples = _require(self.spec, "test")
        return _split(self.spec, samples, np.arange(len(samples.labels)), self._fit, PLAIN, self.device)

    @property
    def _fit(self) -> Fit:
        return Fit(self.input_size, self.channels, self.spec.fit)


def load(spec: DatasetSpec, cfg: DataConfig, recipe: Recipe, device: torch.device) -> TaskData:
    """Reads the training data of ``spec`` and cuts the validation split from it.

    Raises:
        BadInput: damaged data, labels out of range, a limit below the number of classes.
        MachineFault: the data set is nowhere, or does not fit.
    """
    spec = _in_colour(spec, cfg)
    size = recipe.input_size or spec.input_size
    fit = Fit(size, spec.shape[0], spec.fit)
    augment = augment_for(spec, recipe)
    _check_digest(spec, cfg)
    samples = _require(spec, "train")
    own_val = _require(spec, "test") if cfg.validate_on == "test" else read_part(spec, "val")
    if own_val is None:
        kept, held = stratified_cut(samples.labels, cfg.val_fraction, cfg.split_seed)
    else:
        _check_labels(spec, own_val, "val")
        kept, held = np.arange(len(samples.labels)), np.arange(len(own_val.labels))
    if cfg.limit is not None:
        kept = kept[stratified_limit(samples.labels[kept], cfg.limit, cfg.split_seed)]
    if cfg.train_classes is not None:
        kept = _of_classes(spec, samples.labels, kept, cfg.train_classes)
    train = _split(spec, samples, kept, fit, augment, device)
    val = _split(spec, own_val or samples, held, fit, PLAIN, device)
    return TaskData(spec, spec.classes, spec.shape[0], size, train, val, device)


def _in_colour(spec: DatasetSpec, cfg: DataConfig) -> DatasetSpec:
    """``spec`` with its one channel repeated where ``cfg`` asks for that."""
    if cfg.channels is None or spec.shape[0] == cfg.channels:
        return spec
    if spec.shape[0] != 1:
        raise BadInput(f"'{spec.name}' has {spec.shape[0]} channels: only grey images can be shown as {cfg.channels}")
    shape = (cfg.channels, *spec.shape[1:])
    return spec.model_copy(update={"shape": shape, "mean": spec.mean * cfg.channels, "std": spec.std * cfg.channels})


def _of_classes(spec: DatasetSpec, labels: Rows, kept: Rows, classes: tuple[int, ...]) -> Rows:
    """Those of ``kept`` whose class is in the transfer set."""
    strange = sorted(set(classes) - set(range(spec.classes)))
    if strange or not classes:
        what = f"class {strange[0]}" if strange else "no class at all"
        raise BadInput(f"the transfer set asks for {what}, but '{spec.name}' has classes 0 to {spec.classes - 1}")
    return kept[np.isin(labels[kept], classes)]


def _check_digest(spec: DatasetSpec, cfg: DataConfig) -> None:
    """A user's own data must still be those that the sweep was planned for."""
    if cfg.digest is None:
        return
    _, found = resolve_dataset(spec.name)
    if found != cfg.digest:
        raise BadInput(
            f"the data of '{spec.name}' have changed since this sweep was made: digest {found}, not {cfg.digest}; "
            "put the old files back, or start a sweep under another --name"
        )


def check_parts(spec: DatasetSpec) -> None:
    """Read what is known of every split before anything is trained: files that are not there, damaged or mislabelled.

    Raises:
        BadInput: damaged data, labels out of range. MachineFault: the data set is nowhere.
    """
    for part in ("train", "test"):
        _require(spec, part)


def _require(spec: DatasetSpec, part: str) -> Samples:
    samples = read_part(spec, part)
    if samples is None:
        raise BadInput(f"the data set '{spec.name}' has no {part} split")
    _check_labels(spec, samples, part)
    return samples


def _check_labels(spec: DatasetSpec, samples: Samples, part: str) -> None:
    labels = samples.labels
    if len(labels) == 0:
        raise BadInput(f"the {part} split of '{spec.name}' is empty")
    if labels.min() < 0 or labels.max() >= spec.classes:
        raise BadInput(
            f"the {part} split of '{spec.name}' has labels {labels.min()} to {labels.max()}, "
            f"but the data set has {spec.classes} classes"
        )
    absent = np.flatnonzero(np.bincount(labels, minlength=spec.classes) == 0)
    if part == "train" and len(absent):
        raise BadInput(
            f"the training split of '{spec.name}' has no image of class {absent[0]} (of {spec.classes}): "
            "the data are incomplete; fetch them again"
        )


def _split(spec: DatasetSpec, samples: Samples, rows: Rows, fit: Fit, augment: Augment, device: torch.device) -> Split:
    """In memory where the pixels fit and the views can be numbered; else streamed."""
    pixels = len(rows) * (fit.size + 2 * augment.pad) ** 2 * fit.channels
    room = MEMORY_SHARE * min(memory_bytes(device), memory_bytes(torch.device("cpu")))
    kind = ResidentSplit if augment.n_views is not None and pixels <= room else StreamSplit
    return kind(samples, rows, spec, fit, augment, device)


def memory_bytes(device: torch.device) -> int:
    """Memory of ``device`` in bytes: a GPU's own, else the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
