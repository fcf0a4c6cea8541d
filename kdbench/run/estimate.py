"""What a plan would run and about how long that takes here: from what earlier runs showed, else from a few steps."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kdbench.catalog.teachers import networks_of
from kdbench.catalog.types import DatasetSpec
from kdbench.config import HARD, Phase, RunConfig
from kdbench.data.task import network_shape
from kdbench.data.views import augment_for
from kdbench.methods import METHODS
from kdbench.models import count_params
from kdbench.models.build import planned
from kdbench.run.job import Plan
from kdbench.run.machine import THREADS_VARIABLE
from kdbench.run.speeds import Speeds, reads_maps
from kdbench.run.store import load_runs
from kdbench.run.words import counted
from kdbench.teacher import MOST_CLASSES, cache_bytes, keyed_by, room
from kdbench.train import Shape, Step, seconds_per_step
from kdbench.train.loop import steps_per_epoch
from kdbench.train.step import describe_hardware

FORWARD_SHARE = 1 / 3
"""A forward pass as a share of a training step, which has a forward and two backward ones."""
FEW_UPDATES = 100
"""Updates below which a run can hardly have learnt anything."""
PIXELS_AT_ONCE = 16 * 64 * 64
"""Batches are measured with about so many pixels at most: a step's time is nearly linear in its samples."""
FEW_LOGITS = 50
"""What the plan proposes to keep of many classes' logits, where all of them need too much disk."""
GROWTH = 0.75
"""Time grows with about this power of the parameters (on a CPU from MobileNetV3-small to ResNet-50 with 0.84, within
MobileNetV3-small with 0.4)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Runs of one kind."""

    phase: Phase
    label: str
    """The network's name, or what a paper calls the run."""
    model: str
    method: str
    runs: int
    done: int
    """How many of them are there already."""
    epochs: int
    params: int
    """Trainable parameters."""
    seconds: float | None
    """Of the runs still to do, one after another; None: unknown."""
    id: str = ""
    """Of one of them: equal ones of two plans are the same runs."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What ``--dry-run`` prints."""

    name: str
    folder: str
    hardware: str
    rows: tuple[Row, ...]
    workers: int
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Wall-clock seconds of all that is left, None where any part is unknown."""
        if any(row.seconds is None for row in self.rows if row.runs > row.done):
            return None
        # the teacher has the machine to itself
        return sum((row.seconds or 0.0) / (1 if row.phase == "teacher" else self.workers) for row in self.rows)


def without(plan: DryRun, others: Sequence[DryRun]) -> DryRun:
    """``plan`` where the runs of ``others`` are done: equal ones are taken over."""
    there = {row.id for other in others for row in other.rows}
    rows = (replace(row, done=row.runs, seconds=0.0) if row.id in there else row for row in plan.rows)
    return replace(plan, rows=tuple(rows))


def samples_of(spec: DatasetSpec, config: RunConfig) -> float:
    """Training samples of a run, as published sizes say."""
    data = config.data
    own_val = "val" in spec.sizes or data.validate_on == "test"
    whole = spec.sizes.get("train", 0) * (1.0 if own_val else 1 - data.val_fraction)
    whole = min(whole, data.limit or whole)
    return whole * (len(data.train_classes) / spec.classes if data.train_classes else 1.0)


class _Costs:
    """Parameters and seconds an epoch of each network; the smallest alone is timed, where nothing is known."""

    def __init__(self, spec: DatasetSpec, device: torch.device, speeds: Speeds, tell: Callable[[str], None]) -> None:
        self._spec, self._device, self._speeds, self._tell = spec, device, speeds, tell

    def _shape(self, config: RunConfig, batch: int) -> Shape:
        r, spec = config.recipe, self._spec
        return Shape(config.model, **network_shape(spec, config.data, r), stem=r.stem, batch_size=batch,
                     device=self._device)  # fmt: skip

    def params(self, config: RunConfig) -> int:
        s = self._shape(config, 1)
        options = tuple(sorted(config.recipe.model_options.items()))
        shape = {"classes": s.classes, "channels": s.channels, "input_size": s.input_size, "stem": s.stem}
        several = [planned(one.model, **shape, options=options) for one in networks_of(config.model)]
        return sum(map(count_params, several)) * (1 + (str(config.teacher_id) * config.given).count(","))

    def pooled(self, teacher: RunConfig) -> int:
        """Length of what its classifier is given."""
        s = self._shape(teacher, 1)
        shape = {"classes": s.classes, "channels": s.channels, "input_size": s.input_size, "stem": s.stem}
        network = planned(teacher.model, **shape, options=tuple(sorted(teacher.recipe.model_options.items())))
        size: Any = getattr(network, "head_hidden_size", 0) or getattr(network, "num_features", 0)
        return int(size)

    def known(self, config: RunConfig) -> float | None:
        """Seconds an epoch, as earlier runs showed."""
        return self._speeds.epoch(config)

    def timed(self, config: RunConfig) -> float:
        """Seconds an epoch: training steps, and a forward pass over the samples that are measured every epoch."""
        size = self._shape(config, 1).input_size
        batch = max(2, min(config.recipe.batch_size, PIXELS_AT_ONCE // size**2))
        self._tell(f"measuring a step of {config.model}")
        shape = self._shape(config, batch)
        (seconds,) = seconds_per_step(shape, Step(), precision=config.recipe.precision, repeats=1)
        held = config.data.validate_on == "test"
        watched = self._spec.sizes.get("test" if held else "train", 0) * (1.0 if held else config.data.val_fraction)
        return seconds / batch * (samples_of(self._spec, config) + watched * FORWARD_SHARE)


def dry_run(
    plan: Plan,
    folder: Path,
    spec: DatasetSpec,
    *,
    device: torch.device,
    workers: int,
    threads: int,
    cache: Path,
    tell: Callable[[str], None],
    notes: Sequence[str] = (),
) -> DryRun:
    """The plan of ``plan``; nothing is written, and of the data only what is published is read."""
    torch.set_num_threads(threads)
    hardware = describe_hardware(device)
    costs = _Costs(spec, device, Speeds(cache, hardware, threads), tell)
    kinds = plan.planned(Counter(plan.kind(run.config) for run in load_runs(folder)))
    sizes = [costs.params(kind.example) for kind in kinds]
    plain = [kind.example.model_copy(update={"method": HARD, "tune": "full"}) for kind in kinds]
    epochs_of = [costs.known(config) for config in plain]
    if None in epochs_of:
        least = min(range(len(kinds)), key=sizes.__getitem__)
        if epochs_of[least] is None:
            epochs_of[least] = costs.timed(plain[least])
    samples = [max(samples_of(spec, config), 1) for config in plain]
    known_of = zip(sizes, epochs_of, samples, strict=True)
    by_params = [(size, known / n) for size, known, n in known_of if known is not None]
    rows: list[Row] = []
    forward: dict[str, float] = {}  # seconds of one a sample, by run id
    for kind, params, n, epoch in zip(kinds, sizes, samples, epochs_of, strict=True):
        config = kind.example
        if epoch is None:  # like the network nearest in size
            near, its = min(by_params, key=lambda pair: abs(pair[0] - params))
            epoch = its * n * (params / max(near, 1)) ** GROWTH
        forward[config.id] = epoch * FORWARD_SHARE / n
        if config.tune == "head":
            epoch *= FORWARD_SHARE
        if kind.teacher is not None and reads_maps(config):
            epoch += forward.get(kind.teacher.id, 0.0) * n
        epoch = costs.known(config) or epoch
        epochs = 0 if config.given else config.recipe.last_epoch
        seconds = max(kind.runs - kind.done, 0) * epochs * epoch
        if kind.phase == "teacher" and kind.done == 0 and (cache / "teachers" / config.id / "result.json").exists():
            seconds, epochs = 0.0, 0
        taught = [other for other in kinds if other.teacher == config and other.done < other.runs]
        taught = [other for other in taught if not reads_maps(other.example)]  # these ask while they train
        if taught:
            views = augment_for(spec, taught[0].example.recipe).n_views
            passes = plan.passes if views is None else min(plan.passes, views)
            seconds += passes * forward[config.id] * n
        rows.append(
            Row(
                phase=kind.phase, label=kind.label, model=config.model, method=config.condition, runs=kind.runs,
                done=kind.done, epochs=epochs, params=params, seconds=seconds, id=config.id,
            )
        )  # fmt: skip
    more = [*(_data_note(spec, kind.example) for kind in kinds[-1:]), *notes]
    students = [kind.example for kind in kinds if kind.teacher is not None and kind.phase != "teacher"]
    if students:
        reads = [kind for kind in kinds if kind.teacher and "pooled" in METHODS.get(kind.example.method).needs]
        pooled = costs.pooled(reads[0].teacher) if reads and reads[0].teacher else 0
        more.append(_logits_note(spec, students[0], plan.passes, cache, pooled))
    if os.environ.get(THREADS_VARIABLE):
        more.append(f"threads limited to {os.environ[THREADS_VARIABLE]} by {THREADS_VARIABLE}")
    return DryRun(
        name=plan.name, folder=str(folder), hardware=hardware, rows=tuple(rows), workers=workers, notes=tuple(more)
    )


def _logits_note(spec: DatasetSpec, config: RunConfig, passes: int, cache: Path, pooled: int = 0) -> str:
    """Where students will get the teacher's logits, how many passes and how much disk that takes."""
    samples, kept = int(samples_of(spec, config)), config.recipe.teacher_top_k
    views = augment_for(spec, config.recipe).n_views
    keyed, entries = keyed_by(views, passes or views or config.recipe.epochs)
    size = cache_bytes(samples, spec.classes, entries, kept)
    more = cache_bytes(samples, spec.classes, entries, kept, pooled) if pooled else 0
    free = room(cache / "teachers" / (config.teacher_id or "") / "logits")
    text = f"at most {counted(entries, 'pass')} of the teacher over {samples:,} samples"
    text = f"the augmentation is continuous: {text}" if views is None else f"teacher's logits: {text}"
    if size <= free:
        by = f"({counted(views or 0, 'view')} a sample)" if keyed == "view" else "by (seed, epoch, sample)"
        told = f"{text} serve every run; up to {max(size / 2**20, 0.1):,.1f} MiB on disk {by}"
        if not pooled:
            return told
        where = (
            "on disk too" if more + size <= free else "there is no room for: the teacher runs live where they are read"
        )
        return f"{told}; pooled vectors take {more / 2**20:,.1f} MiB, {where}"
    less = cache_bytes(samples, spec.classes, entries, FEW_LOGITS)
    fits = FEW_LOGITS < spec.classes <= MOST_CLASSES and less <= free
    way_out = f"; --set recipe.teacher-top-k={FEW_LOGITS} would take {less / 2**20:,.0f} MiB" if fits else ""
    return f"{text} would take {size / 2**20:,.0f} MiB: the teacher runs live in every step{way_out}"


def _data_note(spec: DatasetSpec, config: RunConfig) -> str:
    """Images, their size, and updates a run: what tells a data set too small for its recipe."""
    samples, recipe = int(samples_of(spec, config)), config.recipe
    updates = recipe.epochs * -(-steps_per_epoch(samples, recipe.batch_size) // recipe.accumulate)
    sizes = ", ".join(f"{part} {size:,}" for part, size in spec.sizes.items())
    text = f"data: {spec.classes} classes, images {sizes}; about {samples:,} to train on at "
    text += f"{recipe.input_size or spec.input_size} px, {counted(updates, 'update')} a run"
    return text + ("; few: more --epochs or a smaller --batch-size would help" if updates < FEW_UPDATES else "")
