"""One job from start to end in the process that trains it, with data, teachers and steps kept warm between jobs."""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from kdbench.catalog.teachers import networks_of
from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.data import ResidentSplit, TaskData, load, resolve_dataset
from kdbench.data.task import looks_of, seen_by
from kdbench.errors import BadInput, MachineFault, TrialFailed
from kdbench.files import atomic, drop_halves
from kdbench.host import keep_heap
from kdbench.methods import METHODS
from kdbench.models import Ensemble, build, load_start, members, weights_digest
from kdbench.run.devices import device_of, pick_device
from kdbench.run.events import Ended, Epoch, Handle, Note, Setting, Started
from kdbench.run.job import Job
from kdbench.run.lease import Lease
from kdbench.run.observers import wandb_id
from kdbench.run.ranks import Ranks
from kdbench.run.store import (
    LOGITS,
    WEIGHTS,
    count_start,
    of_last_release,
    read_config,
    read_epochs,
    read_result,
    run_folder,
    write_config,
    write_result,
)
from kdbench.run.weights import import_weights, measured, save_arrays, save_weights, with_weights
from kdbench.run.words import fault_text
from kdbench.teacher import Teacher, make_teacher
from kdbench.train import RunOutcome, Shape, Step, choose_step, run_training, score
from kdbench.train.beside import blank
from kdbench.train.checkpoint import NAME as CHECKPOINT
from kdbench.train.checkpoint import write_metrics
from kdbench.train.fast_conv import optimise
from kdbench.train.loop import follow_training, steps_per_epoch
from kdbench.train.metrics import collect_logits
from kdbench.train.parallel import Group
from kdbench.train.step import repeatable

DATASETS_KEPT = 3
"""Data sets (with their augmentation) that a process keeps in memory."""
ATTEMPTS = 3
"""Starts after which a run that ends in an error of torch (memory, say) is given up as failed."""


class Context:
    """What the jobs of one process share."""

    def __init__(self, setting: Setting, owner: str) -> None:
        self.setting, self.owner = setting, owner
        self.device = device_of(pick_device(setting.device), setting, setting.rank)
        self._ranks = Ranks(setting, self.device)
        repeatable(self.device)
        if self.device.type == "cpu":
            keep_heap()
        torch.set_num_threads(setting.threads)
        self._data: OrderedDict[str, TaskData] = OrderedDict()
        self._teachers: dict[tuple[str, str, int | None], Teacher] = {}

    def data(self, config: RunConfig) -> TaskData:
        """The samples that a run sees, shared by runs of the same data and augmentation."""
        r, key = config.recipe, seen_by(config.data, config.recipe)
        if key not in self._data:
            name, skip = self.setting.data_path or config.data.name, config.data.skip_corrupt
            spec, digest = resolve_dataset(name, skip_corrupt=skip)
            if digest != config.data.digest:
                raise BadInput(f"the data of '{config.data.name}' changed since this sweep began; use another --name")
            self._data[key] = load(spec, config.data, r, self.device, self.setting.cache)
            if len(self._data) > DATASETS_KEPT:
                gone, _ = self._data.popitem(last=False)
                self._teachers = {each: kept for each, kept in self._teachers.items() if each[1] != gone}
        self._data.move_to_end(key)
        return self._data[key]

    def teacher(self, teacher: RunConfig, student: RunConfig, data: TaskData) -> Teacher:
        """The teacher of a run: what it says is kept where that is cheaper than its network."""
        kept = student.recipe.teacher_top_k
        key = (teacher.id, seen_by(student.data, student.recipe), kept)
        if key not in self._teachers:
            place = self.setting.cache / "teachers" / teacher.id
            with suppress(OSError):  # where release 0.1 kept them
                (place / "bank").rename(place / "logits")
            views = data.train.n_views if isinstance(data.train, ResidentSplit) else None
            passes = self.setting.passes or views or student.recipe.epochs
            self._teachers[key] = make_teacher(
                lambda: self.network(teacher), self.device, data.classes, root=place / "logits",
                teacher_id=teacher.id, split=data.train, passes=passes, top_k=kept,
                look=looks_of(data.spec, teacher.data, teacher.recipe)[1],
            )  # fmt: skip
        return self._teachers[key]

    def weights_of(self, config: RunConfig) -> Path:
        """The folder that holds a run's weights: its own, or the cache's where teachers are shared."""
        own = run_folder(self.setting.folder, config.id)
        return own if (own / WEIGHTS).exists() else self.setting.cache / "teachers" / config.id

    def network(self, config: RunConfig) -> nn.Module:
        """A finished run's network.

        Raises:
            MachineFault: when its weights cannot be read, or are not those that the run left.
        """
        model = self._loaded(config)
        return model if self.setting.exact else optimise(model, self.device)

    def _loaded(self, config: RunConfig) -> nn.Module:
        place, data = self.weights_of(config), self.data(config)
        held = read_result(place)
        return with_weights(self._empty(config, data), place, held.weights if held else None, blank(data))

    def _empty(self, config: RunConfig, data: TaskData) -> nn.Module:
        shape = {"classes": data.classes, "channels": data.channels, "input_size": data.input_size}
        equal = len(members(config.teacher_id or "")) if config.given else 1
        several = [
            # it may be built in the middle of an epoch, whose random numbers it must not draw: hence the seed
            build(one.model, **shape, stem=config.recipe.stem, seed=0, options=config.recipe.model_options)
            for one in networks_of(config.model) * equal
        ]
        return several[0] if len(several) == 1 else Ensemble(several, arithmetic=bool(config.averaged))

    def _member(self, run_id: str) -> nn.Module:
        """The network of a teacher in the cache."""
        config = read_config(self.setting.cache / "teachers" / run_id)
        if config is None:
            raise MachineFault(f"the teacher {run_id} is gone from the cache: start the same command again")
        return self._loaded(config)

    def step(self, config: RunConfig, data: TaskData) -> Step:
        """How a student's steps are computed: measured where its network is trained long enough to pay for that."""
        usual = config.phase == "teacher" or self.setting.gpus_per_run > 1
        runs = 0 if usual else (self.setting.runs or {}).get(config.model, 0)
        r = config.recipe
        sharing = max(1, (os.cpu_count() or 1) // torch.get_num_threads()) if self.device.type == "cpu" else 1
        steps = runs * r.epochs * steps_per_epoch(len(data.train), r.batch_size) // sharing
        shape = Shape(config.model, data.classes, data.channels, data.input_size, r.stem, r.batch_size, self.device)
        return choose_step(
            shape, precision=r.precision, steps=steps, cache=self.setting.cache, exact=self.setting.exact,
            options=r.model_options,
        )  # fmt: skip

    def execute(self, job: Job, report: Handle) -> None:
        """Do a job; its result is in its folder before ``Ended`` is reported.

        Raises:
            KdbenchError: what concerns more than this run: data, weights, disk.
        """
        if job.task != "train":
            self._read_test(job, report)
        elif job.config.phase == "teacher":
            with self._all_cores():
                self._prepare_teacher(job, report)
        else:
            self._train(job, run_folder(self.setting.folder, job.id), report)

    @contextmanager
    def _all_cores(self) -> Iterator[None]:
        """A teacher has the machine for itself: nothing else can run before it is there."""
        torch.set_num_threads(self.setting.cores)
        try:
            yield
        finally:
            torch.set_num_threads(self.setting.threads)

    def _made(self, job: Job) -> dict[str, Any]:
        """What a run is trained with."""
        config, data = job.config, self.data(job.config)
        teacher = self.teacher(job.teacher, config, data) if job.teacher is not None else None
        return {"data": data, "teacher": teacher, "device": self.device, "start": self._started(config, data),
                "step": self.step(config, data)}  # fmt: skip

    def follow(self, job: Job, group: Group) -> None:
        """As another process of a group: take part in training a job whose files are the first one's."""
        shared = job.config.phase == "teacher"
        place = self.setting.cache / "teachers" / job.id if shared else run_folder(self.setting.folder, job.id)
        follow_training(job.config, workdir=place, group=group, **self._made(job))

    def _train(self, job: Job, place: Path, report: Handle) -> RunResult:
        config = job.config
        data = self.data(config)
        attempt = count_start(place)
        report(Started(config.id, attempt))
        with Lease(place, self.owner) as lease:
            drop_halves(place)
            write_config(place, config)

            def on_epoch(log: EpochLog, replayed: bool) -> bool:
                if lease.lost:
                    raise MachineFault(f"run {config.id} was taken over by another process while this one slept")
                return report(Epoch(config.id, log, replayed))

            def on_fill(done: int, total: int) -> None:
                report(Note("teacher's logits", done, total))

            try:
                if config.averaged:
                    several = Ensemble(map(self._member, config.averaged), arithmetic=True).to(self.device).eval()
                    outcome = measured(config, data, several)
                elif config.given:
                    source = self._source(str(config.teacher_id), config.model)
                    outcome = import_weights(config, data, source, self.device, report)
                else:
                    with self._ranks.join(job) as group:
                        outcome = run_training(
                            config, workdir=place, on_epoch=on_epoch, on_fill=on_fill, group=group, **self._made(job)
                        )
                kept = self._keep(job, data, outcome, place)
                result = outcome.result.model_copy(update=kept)
            except TrialFailed as error:
                result = RunResult(id=config.id, status="failed", error=str(error))
            except RuntimeError as error:  # torch's faults: out of memory, an operator that is missing here
                if attempt < ATTEMPTS and not isinstance(error, torch.OutOfMemoryError):  # it would not fit again
                    raise
                words = fault_text(error, attempt, config.recipe)
                result = RunResult(id=config.id, status="failed", error=words)
            result = result.model_copy(update={"attempts": attempt, "wandb_run": self._wandb(config.id, attempt)})
            write_result(place, result)
            (place / CHECKPOINT).unlink(missing_ok=True)
        if config.phase != "teacher":
            report(Ended(config.id, result))
        return result

    def _wandb(self, run_id: str, attempt: int) -> str | None:
        return wandb_id(run_id, self.setting.tracked, attempt) if self.setting.tracked else None

    def _keep(self, job: Job, data: TaskData, outcome: RunOutcome, place: Path) -> dict[str, Any]:
        """What others still need of the network, written before the result; the checksum of its weights."""
        if "logits" in job.keep:
            splits = {"val": data.val, "test": data.test()}
            arrays: dict[str, Any] = {}
            for name, split in splits.items():
                logits, labels = collect_logits(outcome.model, split)
                arrays |= {f"{name}_logits": logits.half().cpu().numpy(), f"{name}_labels": labels.cpu().numpy()}
            atomic(place / LOGITS, functools.partial(save_arrays, arrays=arrays))
        held: dict[str, Any] = {"shifted": self._shifted(job.also, data, outcome.model)} if job.also else {}
        return held | ({"weights": save_weights(outcome.model, place / WEIGHTS)} if "weights" in job.keep else {})

    def _shifted(self, names: Iterable[str], data: TaskData, model: nn.Module) -> dict[str, float]:
        """Accuracy on further test sets, each read once."""
        splits = ((name, data.shifted(name, self.setting.sources.get(name, ""))) for name in names)
        return {name: score(*collect_logits(model, split), None).acc for name, split in splits}

    def _prepare_teacher(self, job: Job, report: Handle) -> None:
        """Train or import the teacher in the shared cache, then compute the logits that the plan's students will read.

        A lock lets one process prepare it while those of other sweeps wait.
        """
        place = self.setting.cache / "teachers" / job.id
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):
            result = read_result(place) or of_last_release(place, job.config)
            if result is None or result.status == "failed" or not (place / WEIGHTS).exists():
                result = self._train(job, place, report)
                before: list[EpochLog] = [] if result.epochs else read_epochs(place)
            else:
                report(Started(job.id, 1))
                before = read_epochs(place)
            for log in before:  # prepared before: its epochs are told here
                report(Epoch(job.id, log, True))
        if result.status == "complete":
            result = result.model_copy(update={"agreement": 1.0, "wandb_run": self._wandb(job.id, 1)})
            for example in job.serves:
                self._fill(job.config, example, report)
        own = run_folder(self.setting.folder, job.id)
        write_config(own, job.config)
        write_metrics(own, read_epochs(place))
        write_result(own, result)
        report(Ended(job.id, result))

    def _source(self, named: str, model: str) -> str:
        """Where the weights of ``model`` that ``named`` identifies are."""
        published = all(part.startswith("pretrained") for part in members(named))
        source = self.setting.sources.get(named) or (named if published else None)
        if source is None or weights_digest(source, model) != named:
            raise MachineFault(
                f"the weights of {model} ({named}) are not in this machine's cache: run `kdbench sweep` with "
                "--teacher-weights or --student-weights here first, or share the cache"
            )
        return source

    def _started(self, config: RunConfig, data: TaskData) -> nn.Module | None:
        """The network that training begins with, where it does not begin at random."""
        if config.start is None:
            return None
        shape = {"classes": data.classes, "channels": data.channels, "input_size": data.input_size}
        return load_start(
            config.model, **shape, stem=config.recipe.stem, source=self._source(config.start, config.model),
            seed=config.seed, options=config.recipe.model_options,
        )  # fmt: skip

    def _fill(self, teacher: RunConfig, student: RunConfig, report: Handle) -> None:
        """What the teacher says of one seed's views, where it can be computed ahead."""
        data, fields = self.data(student), METHODS.get(student.method).asks
        kept = self.teacher(teacher, student, data)
        if "logits" in fields and "maps" not in fields and kept.fills(data.train, fields):
            for epoch in range(1, student.recipe.epochs + 1):
                kept.fill(data.train, student.seed, epoch, fields)
                report(Note(f"teacher's logits, seed {student.seed}", epoch, student.recipe.epochs))

    def _read_test(self, job: Job, report: Handle) -> None:
        """The test accuracy of the teacher that was distilled, never of another one; or a student's, elsewhere."""
        data, place = self.data(job.config), run_folder(self.setting.folder, job.id)
        result = read_result(place)
        if result is None:
            raise MachineFault(f"{place / 'result.json'} is gone: start the same command again")
        report(Started(job.id, result.attempts + 1))
        for log in read_epochs(place):
            report(Epoch(job.id, log, True))
        if job.task == "also":
            report(Note(f"{job.config.model} seed {job.config.seed}: reading further test sets"))
            left = [name for name in job.also if name not in result.shifted]
            model = self.network(job.config).to(self.device).eval()
            return self._tell(job, result, {"shifted": result.shifted | self._shifted(left, data, model)}, report)
        report(Note("reading the teacher's test accuracy"))
        split = data.test()
        s = score(self.teacher(job.config, job.config, data).plain(split), split.labels)
        update: dict[str, Any] = {"test_acc": s.acc, "nll": s.nll, "ece": s.ece, "test_top5": s.top5}
        self._tell(job, result, update, report)

    def _tell(self, job: Job, result: RunResult, update: dict[str, Any], report: Handle) -> None:
        update |= {"wandb_run": self._wandb(job.id, result.attempts + 1)}
        result = result.model_copy(update=update)
        write_result(run_folder(self.setting.folder, job.id), result)
        report(Ended(job.id, result))
