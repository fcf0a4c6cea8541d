"""The coordinator: asks the plan for jobs, hands them to an executor, hears events, tells the observers.

It trains nothing and imports no torch. The folders are the truth: after any interruption the same command reads them
and goes on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kdbench.config import Phase, RunResult
from kdbench.errors import BadInput, KdbenchError, MachineFault
from kdbench.run.events import Broken, Ended, Epoch, Event, Handle, Note, Setting, Started
from kdbench.run.executors import Executor
from kdbench.run.job import Job, Plan
from kdbench.run.lease import Watch, held, owner_of
from kdbench.run.observers import Observer, Progress, wandb_id
from kdbench.run.speeds import Speeds
from kdbench.run.store import LOGITS, WEIGHTS, adopt, load_runs, read_epochs, read_result, run_folder, write_result
from kdbench.run.words import counted

DEATHS = 3
"""Workers that one run may cost before it counts as failed."""
LOOK = 1.0
"""Seconds between looks at what others do."""


class Scheduler:
    """One plan in one folder."""

    def __init__(self, plan: Plan, setting: Setting, observer: Observer, *, speeds: Speeds, workers: int = 1) -> None:
        self.plan, self.setting, self.observer = plan, setting, observer
        self._speeds, self._workers = speeds, workers
        found = [
            run for run in load_runs(setting.folder, epochs=True) if run.config.id == run.result.id
            and (len(run.epochs) >= run.result.epochs or run.config.phase == "teacher")  # else damaged: run again
        ]  # fmt: skip
        self.finished: dict[str, RunResult] = {run.config.id: run.result for run in found}
        self._done = Counter(plan.kind(run.config) for run in found)
        self._running: dict[str, Job] = {}
        self._waiting: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._watch = Watch()
        for place in held(setting.folder, setting.cache):  # the grace of all that were left behind begins now
            self._watch.alive(place)
        self._fault: Exception | None = None

    @property
    def pending(self) -> bool:
        """Whether the plan knows of a job that has no result."""
        return next(iter(self.plan.jobs(self.finished)), None) is not None

    def run(self, make: Callable[[Handle], Executor]) -> None:
        """Go on until the plan knows no more jobs.

        Raises:
            KdbenchError: what a worker met that concerns more than one run, once the others have been stopped.
        """
        self._progress()
        if not self._next(1):
            return
        executor = make(self.handle)
        try:
            while True:
                for job in self._next(executor.free()):
                    self._submit(job, executor)
                if self._running or not executor.free():
                    executor.poll(LOOK)
                elif self._waiting:
                    time.sleep(LOOK)
                elif not self._next(1):
                    return self._check()
                if self._fault is not None:
                    raise self._fault
        finally:
            executor.close()
            self._speeds.save()

    def _check(self) -> None:
        """Refuse to call a plan finished whose results are not there any more.

        Raises:
            MachineFault: somebody removed runs meanwhile.
        """
        gone = [job for job in self.finished if not (run_folder(self.setting.folder, job) / "result.json").exists()]
        if gone:
            where = run_folder(self.setting.folder, gone[0])
            lost = counted(len(gone), "finished run")
            raise MachineFault(f"{lost} gone, {where} for one: give the same command again")

    def _next(self, count: int) -> list[Job]:
        """The first ``count`` jobs of the plan that nobody works on; runs of other plans are taken over at once."""
        found: list[Job] = []
        while len(found) < count:
            again = False
            for job in self.plan.jobs(self.finished):
                if job.id in self._running or job.id in {each.id for each in found}:  # told again after an adoption
                    continue
                if self._adopted(job):
                    again = True  # the plan may know more by now
                    break
                found.append(job)
                if len(found) >= count:
                    break
            if not again:
                break
        return found

    def _submit(self, job: Job, executor: Executor) -> None:
        place = self._place(job)
        if not executor.owns(owner_of(place)) and self._watch.alive(place):
            if job.id not in self._waiting:
                self._waiting.add(job.id)
                self.observer.message(f"run {job.id} seems to be trained by another process: waiting for it")
            return
        self._waiting.discard(job.id)
        self._running[job.id] = job
        executor.submit(job)

    def _place(self, job: Job) -> Path:
        if job.config.phase == "teacher":
            return self.setting.cache / "teachers" / job.id
        return run_folder(self.setting.folder, job.id)

    def _adopted(self, job: Job) -> bool:
        """Whether another plan beside this one has the run already."""
        if job.task != "train" or job.config.phase == "teacher":
            return False
        needed = [name for kind, name in (("weights", WEIGHTS), ("logits", LOGITS)) if kind in job.keep]
        place = run_folder(self.setting.folder, job.id)
        others = [f for f in self.setting.folder.parent.glob("*") if f != self.setting.folder and f.is_dir()]
        found = adopt(job.id, needed, others, place)
        if found is None:
            return False
        result, name = found
        if self.setting.tracked:
            known_as = wandb_id(job.id, self.setting.tracked, result.attempts)
            result = result.model_copy(update={"wandb_run": known_as})
            write_result(place, result)
        self.observer.message(f"{job.label or job.config.model} seed {job.config.seed}: taken from {name}")
        self.observer.start(job.config, result.attempts, job.label)
        for log in read_epochs(place):
            self.observer.epoch(job.config, log, True)
        self._note(job, result)
        return True

    def handle(self, event: Event) -> bool:
        """What an executor's event means; the answer to an epoch ends the run there."""
        if isinstance(event, Note):
            self.observer.message(event.text, event.done, event.total)
            return False
        job = self._running.get(event.id)
        if job is None:
            return False
        if isinstance(event, Started):
            self.observer.start(job.config, event.attempt, job.label)
        elif isinstance(event, Epoch):
            self.observer.epoch(job.config, event.log, event.again)
            if not event.again:
                self._speeds.learn(job.config, event.log)
            return self.plan.epoch(job, event.log)
        elif isinstance(event, Ended):
            self._ended(job, event.result)
        elif isinstance(event, Broken):
            self._broken(job, event)
        return False

    def _ended(self, job: Job, result: RunResult) -> None:
        self._running.pop(job.id, None)
        try:
            self.plan.ended(job, result)
        except KdbenchError as error:  # a teacher that nothing can be learnt from
            self._fault = error
        self._note(job, result)

    def _note(self, job: Job, result: RunResult) -> None:
        if job.id not in self.finished:
            self._done[self.plan.kind(job.config)] += 1
        self.finished[job.id] = result
        self.observer.end(job.config, result)
        self._progress()

    def _broken(self, job: Job, event: Broken) -> None:
        """A dead worker's run is tried again, an error of torch likewise; what else is wrong ends the plan."""
        self._running.pop(job.id, None)
        done = read_result(run_folder(self.setting.folder, job.id)) if event.died and job.task == "train" else None
        if done is not None:  # it died between its result and the word of it
            return self._ended(job, done)
        if not event.died and not (isinstance(event.error, RuntimeError) and not isinstance(event.error, KdbenchError)):
            self._fault = event.error
            return None
        self._deaths[job.id] += 1
        if self._deaths[job.id] < DEATHS:
            self.observer.message(f"{event.error}; the run goes on from its checkpoint")
        elif job.task != "train" or job.config.phase == "teacher":  # what a finished run has is kept
            what = "the teacher cannot be trained" if job.task == "train" else "test sets cannot be read"
            self._fault = MachineFault(f"{event.error}, {DEATHS} times: {what} here")
        else:
            place = run_folder(self.setting.folder, job.id)
            words = f"{event.error}, {DEATHS} times"
            result = RunResult(id=job.id, status="failed", error=words, epochs=len(read_epochs(place)))
            write_result(place, result)
            self._ended(job, result)

    def _progress(self) -> None:
        phases: dict[Phase, tuple[int, int]] = {}
        kinds = self.plan.planned(self._done)
        for kind in kinds:
            done, runs = phases.get(kind.phase, (0, 0))
            phases[kind.phase] = (done + kind.done, runs + kind.runs)
        self.observer.progress(Progress(phases=phases, seconds_left=self._speeds.left(kinds, self._workers)))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder: two coordinators would start twice as many workers as there are cores.

    Raises:
        BadInput: when another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"'{folder.name}' is being run by another process: wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()
