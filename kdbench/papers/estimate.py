"""What the missing runs of a table would cost on this machine, measured on a few steps of each network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kdbench.catalog.datasets import DATASETS
from kdbench.catalog.types import DatasetSpec
from kdbench.config import RunConfig
from kdbench.data.views import augment_for
from kdbench.papers.plan import Job, Protocol, missing
from kdbench.sweep.events import View
from kdbench.sweep.machine import threads_each
from kdbench.sweep.measure import threads_set_to
from kdbench.train import Shape, seconds_per_step
from kdbench.train.hardware import describe_hardware

FORWARD_SHARE = 1 / 3
"""A forward pass as a share of a training step."""
PIXELS_AT_ONCE = 64 * 64 * 64
"""Batches are measured with about so many pixels at most: a step's time is nearly linear in its samples."""
PARTS, LONG = 8, 0.1
"""A step on 1/PARTS of a batch is measured first; above LONG seconds it is enough."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of training by run, with one process; and of all of it with all processes."""

    seconds: dict[str, float]
    """By ``RunSpec.name``: the missing runs of that kind, their teacher's passes included."""
    todo: dict[str, int]
    """Missing runs by ``RunSpec.name``."""
    processes: int
    hardware: str

    @property
    def hours(self) -> float:
        """Wall-clock hours of all that is missing."""
        return sum(self.seconds.values()) / 3600 / self.processes


def estimate(protocol: Protocol, folder: Path, *, device: torch.device, processes: int, view: View) -> Estimate:
    """Measure each network that is still to be trained; nothing is read from the data, which need not be here."""
    left = missing(protocol.jobs, folder)
    spec = DATASETS.get(protocol.paper.dataset)
    teachers = {job.teacher.id: job.teacher for job in left if job.teacher is not None}
    speed = _Speed(spec, device, view)
    seconds: dict[str, float] = {}
    todo: dict[str, int] = {}
    with threads_set_to(threads_each(processes) if processes > 1 else torch.get_num_threads()):
        for job in left:
            name = job.run.name
            todo[name] = todo.get(name, 0) + 1
            seconds[name] = seconds.get(name, 0.0) + job.config.recipe.epochs * speed.epoch(job.config)
        for teacher_id, teacher in teachers.items():
            taught = [job for job in left if job.teacher is not None and job.teacher.id == teacher_id]
            name = taught[0].run.name
            seconds[name] += _passes(spec, taught) * speed.epoch(teacher) * FORWARD_SHARE
    return Estimate(seconds, todo, processes, describe_hardware(device))


def _passes(spec: DatasetSpec, taught: Sequence[Job]) -> float:
    """A teacher's passes over the training data that its students' views need: each view once."""
    epochs = sum(job.config.recipe.epochs for job in taught)
    views = augment_for(spec, taught[0].config.recipe).n_views
    return float(epochs if views is None else min(views, epochs))


def samples_of(spec: DatasetSpec, config: RunConfig) -> float:
    """Training samples of a run, as published sizes say."""
    data = config.data
    whole = spec.sizes.get("train", 0) * (1.0 if data.validate_on == "test" else 1 - data.val_fraction)
    whole = min(whole, data.limit or whole)
    return whole * (len(data.train_classes) / spec.classes if data.train_classes else 1.0)


class _Speed:
    """Seconds an epoch of each network, measured once."""

    def __init__(self, spec: DatasetSpec, device: torch.device, view: View) -> None:
        self._spec, self._device, self._view = spec, device, view
        self._sample: dict[tuple[object, ...], float] = {}

    def epoch(self, config: RunConfig) -> float:
        """Training steps, and a forward pass over the samples that are measured every epoch."""
        recipe = config.recipe
        size = recipe.input_size or self._spec.input_size
        key = (config.model, recipe.batch_size, recipe.precision, size)
        if key not in self._sample:
            self._view.progress("measuring a few steps of each network", len(self._sample), 0)
            self._sample[key] = self._measured(config, size)
        measured = self._spec.sizes.get("test" if config.data.validate_on == "test" else "train", 0)
        watched = measured * (1.0 if config.data.validate_on == "test" else config.data.val_fraction)
        return self._sample[key] * (samples_of(self._spec, config) + watched * FORWARD_SHARE)

    def _measured(self, config: RunConfig, size: int) -> float:
        """Seconds a sample: from a part of a batch where that already takes long, else from whole batches."""
        recipe = config.recipe
        whole = max(1, min(recipe.batch_size, PIXELS_AT_ONCE // size**2))
        part = max(2, whole // PARTS)
        channels = config.data.channels or self._spec.shape[0]
        for batch, repeats in ((part, 1), (whole, 3)):
            shape = Shape(config.model, self._spec.classes, channels, size, recipe.stem, batch, self._device)
            step = seconds_per_step(shape, precision=recipe.precision, repeats=repeats)
            if step > LONG:
                break
        return step / batch
