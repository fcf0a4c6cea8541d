"""Run what a table lacks: any number of processes take the missing trials one by one, each under a lock file."""

from __future__ import annotations

import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import nn

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.data import TaskData, load, resolve_dataset
from kdbench.errors import MachineFault, TrialFailed
from kdbench.files import atomic, atomic_text
from kdbench.models import build
from kdbench.papers.measures import LOGITS, Outputs, save_outputs
from kdbench.papers.plan import Job, Protocol
from kdbench.sweep.context import save_weights
from kdbench.sweep.events import View, epoch_event, trial_event
from kdbench.sweep.execute import check_parent
from kdbench.sweep.store import read_result, row_of, trial_folder, write_config, write_result
from kdbench.teacher import TeacherSignal, make_signal
from kdbench.teacher.signal import LazyTeacher
from kdbench.tracking import Tracker, Trackers
from kdbench.train import Hooks, Pack, RunOutcome, share_batches, training
from kdbench.train.checkpoint import drop_checkpoint
from kdbench.train.metrics import collect_logits
from kdbench.train.pack import Turns
from kdbench.train.step import answering, usual_step

PATIENCE = 1.0
"""Seconds between looks at trials that other processes hold."""
DATASETS_KEPT = 3
"""Data sets (with their augmentation) that a process keeps in memory."""
WEIGHTS = "model.safetensors"


class Bench:
    """What the trials of one process share: data in memory, where teachers and their logits are."""

    def __init__(self, folder: Path, cache: Path, device: torch.device) -> None:
        self.folder, self.cache, self.device = folder, cache, device
        self._data: OrderedDict[str, TaskData] = OrderedDict()

    def data(self, config: RunConfig) -> TaskData:
        """The samples that a run sees, shared by runs of the same data and augmentation."""
        recipe = config.recipe
        key = f"{config.data.model_dump_json()}{recipe.input_size}{recipe.pad}{recipe.flip}{recipe.views}"
        if key not in self._data:
            spec, _ = resolve_dataset(config.data.name)
            self._data[key] = load(spec, config.data, recipe, self.device)
            share_batches(self._data[key].train)
            if len(self._data) > DATASETS_KEPT:
                self._data.popitem(last=False)
        self._data.move_to_end(key)
        return self._data[key]

    def teacher(self, job: Job, data: TaskData) -> TeacherSignal | None:
        """The trained teacher of a run, its logits kept where that is cheaper than its network."""
        if job.teacher is None:
            return None
        teacher = job.teacher
        network = LazyTeacher(lambda: self.network(teacher, data), self.device)
        root = self.cache / "teachers" / teacher.id / "bank"
        r = job.config.recipe
        return make_signal(root, teacher.id, data.classes, network, data.train, r.epochs, r.teacher_top_k)

    def network(self, config: RunConfig, data: TaskData) -> nn.Module:
        """A finished run's network.

        Raises:
            MachineFault: when its weights cannot be read.
        """
        shape = {"classes": data.classes, "channels": data.channels, "input_size": data.input_size}
        # a teacher may be built in the middle of an epoch, whose random numbers it must not draw: hence the seed
        model = build(config.model, **shape, stem=config.recipe.stem, seed=0, options=config.recipe.model_options)
        place = trial_folder(self.folder, config.id)
        try:
            model.load_state_dict(load_file(place / WEIGHTS))
        except (OSError, RuntimeError) as error:
            raise MachineFault(
                f"the weights of {config.model} in {place} cannot be read ({str(error).splitlines()[0]}); "
                "delete that folder to train it again"
            ) from error
        return answering(model, self.device)


class PaperWorker:
    """Takes missing trials of a table until none is left, or until others hold the rest and finish it."""

    def __init__(self, protocol: Protocol, bench: Bench, trackers: Trackers, view: View) -> None:
        self.protocol, self.bench, self.trackers, self.view = protocol, bench, trackers, view

    def loop(self) -> None:
        """Work through the jobs in their order; a student waits for its teacher."""
        with closing(Pack(self.bench.device)) as pack:
            while True:
                check_parent()
                todo = [job for job in self.protocol.jobs if self._result(job.config) is None and not self._doomed(job)]
                if not todo and not pack:
                    return
                for job in todo:
                    if pack.full:
                        break
                    if self._ready(job) and (lock := self._lock(job)) is not None:
                        pack.add(self._work(job, lock))
                if pack:
                    pack.advance()
                else:
                    time.sleep(PATIENCE)

    def _result(self, config: RunConfig) -> RunResult | None:
        return read_result(trial_folder(self.bench.folder, config.id))

    def _ready(self, job: Job) -> bool:
        return job.teacher is None or self._result(job.teacher) is not None

    def _doomed(self, job: Job) -> bool:
        """Whether the run's teacher failed for good."""
        held = self._result(job.teacher) if job.teacher is not None else None
        return held is not None and held.status == "failed"

    def _lock(self, job: Job) -> FileLock | None:
        """The job's lock, held; None where another has it, or has just finished the job."""
        locks = self.bench.folder / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / job.config.id, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return None
        if self._result(job.config) is None:
            return lock
        lock.release()
        return None

    def _work(self, job: Job, lock: FileLock) -> Turns[None]:
        """Run the job, or take it from another table; yields after each step."""
        try:
            if self._adopt(job):
                return
            with self.trackers.lend() as tracker:
                yield from self._run(job, tracker)
        finally:
            lock.release()

    def _adopt(self, job: Job) -> bool:
        """Copy the run from another table's folder beside this one: equal ids are the same run."""
        needed = [WEIGHTS] * (job.config.id in self.protocol.teacher_ids) + [LOGITS] * job.keep_logits
        for result in sorted(self.bench.folder.parent.glob(f"*/trials/{job.config.id}/result.json")):
            held = read_result(result.parent)
            if held is None or held.status == "failed" or not all((result.parent / name).exists() for name in needed):
                continue
            target = trial_folder(self.bench.folder, job.config.id)
            for name in ("config.json", "metrics.jsonl", *needed):
                atomic(target / name, partial(shutil.copyfile, result.parent / name))
            write_result(target, held)
            self.view.note(f"{job.run.name} seed {job.config.seed}: taken from {result.parent.parent.parent.name}")
            return True
        return False

    def _run(self, job: Job, tracker: Tracker) -> Turns[None]:
        config, folder = job.config, trial_folder(self.bench.folder, job.config.id)
        data = self.bench.data(config)
        write_config(folder, config)
        attempt = _count_start(folder)
        run = tracker.start(config, sweep=self.protocol.name, attempt=attempt, extra={"run": job.run.name})
        self.view.trial_started(trial_event(config, attempt))
        try:
            outcome = yield from training(
                config, data=data, teacher=self.bench.teacher(job, data), workdir=folder, device=self.bench.device,
                hooks=Hooks(on_epoch=self._on_epoch(config, tracker), on_fill=self._on_fill),
                step=usual_step(self.bench.device),
            )  # fmt: skip
        except TrialFailed as error:
            result = RunResult(id=config.id, status="failed", error=str(error))
        else:
            self._keep(job, data, outcome, folder)
            result = outcome.result
        result = result.model_copy(update={"wandb_run": run, "attempts": attempt})
        write_result(folder, result)
        drop_checkpoint(folder)
        tracker.finish(result, row_of(self.protocol.name, config, result))
        self.view.trial_finished(trial_event(config, attempt, result))

    def _keep(self, job: Job, data: TaskData, outcome: RunOutcome, folder: Path) -> None:
        """What the table or a student still needs of the network, written before the result."""
        if job.config.id in self.protocol.teacher_ids:
            save_weights(outcome.model, folder / WEIGHTS)
        if job.keep_logits:
            splits = {"val": data.val, "test": data.test()}
            held = {name: collect_logits(outcome.model, split) for name, split in splits.items()}
            numbers = {name: Outputs(z.cpu().numpy(), y.cpu().numpy()) for name, (z, y) in held.items()}
            save_outputs(folder / LOGITS, **numbers)

    def _on_epoch(self, config: RunConfig, tracker: Tracker) -> Callable[[EpochLog, bool], bool]:
        def on_epoch(log: EpochLog, replayed: bool) -> bool:
            check_parent()
            tracker.epoch(log)
            self.view.epoch(epoch_event(config, log))
            return False

        return on_epoch

    def _on_fill(self, done: int, total: int) -> None:
        self.view.progress("teacher bank", done, total)


def _count_start(folder: Path) -> int:
    """The number of this start of a run, 1-based, kept in its folder."""
    path = folder / "starts"
    try:
        before = int(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = 0
    atomic_text(path, f"{before + 1}\n")
    return before + 1
