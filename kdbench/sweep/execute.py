"""One claimed run from start to end: its folder, its W&B run, and what the storage is told."""

from __future__ import annotations

import os
import time
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.errors import KdbenchError, MachineFault, TrialFailed
from kdbench.sweep.context import Context, save_weights
from kdbench.sweep.events import View, epoch_event, trial_event
from kdbench.sweep.owner import Heartbeat
from kdbench.sweep.plan import teacher_config, trial_config
from kdbench.sweep.queue import Claim, Queue
from kdbench.sweep.store import read_metrics, read_result, row_of, trial_folder, write_config, write_result
from kdbench.sweep.types import Sweep
from kdbench.teacher import TeacherCard
from kdbench.tracking import Tracker
from kdbench.train import Hooks
from kdbench.train.checkpoint import drop_checkpoint, write_metrics
from kdbench.train.pack import Turns

PARENT_VARIABLE = "KDBENCH_PARENT"
"""Process number of the coordinator that a local worker belongs to."""
LOOK = 0.001
"""Seconds between tries for a run that another process, or another place of this one, is training."""
ATTEMPTS = 3
"""Starts after which a run that ends in an error of torch (memory, say) is given up as failed."""


def check_parent() -> None:
    """End a local worker whose coordinator was killed: the next start makes workers of its own.

    Raises:
        MachineFault: when the parent is another process than it was.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent and os.getppid() != int(parent):
        raise MachineFault("the coordinator of this worker is gone; the same command starts both again")


class Executor:
    """Runs claims of one sweep in this process, one at a time."""

    def __init__(self, queue: Queue, context: Context, sweep_dir: Path, tracker: Tracker, view: View) -> None:
        self.queue, self.context, self.sweep_dir = queue, context, sweep_dir
        self.tracker, self.view = tracker, view
        self.sweep: Sweep = queue.sweep

    def execute(self, claim: Claim) -> Turns[None]:
        """Run one claim to its end and tell the storage; on an interruption give it back. Yields after each step."""
        try:
            with Heartbeat(self.queue.storage, claim.trial._trial_id):
                if claim.lane.phase == "teacher":
                    self._teacher(claim)
                else:
                    yield from self._student(claim)
        except BaseException:
            # failed without an "error": `reclaim` puts the slot back, here or in the next start
            _tell(claim, TrialState.FAIL)
            raise

    def _teacher(self, claim: Claim) -> None:
        """Slot 0 prepares the teacher; slot 1, in the confirm phase, reads its test accuracy."""
        config = teacher_config(self.sweep)
        folder = trial_folder(self.sweep_dir, config.id)
        reading_test = claim.slot == 1
        write_config(folder, config)
        extra = {"reads": "test"} if reading_test else {}
        attempt = claim.attempt + (self.queue.attempts(claim.lane, 0) if reading_test else 0)
        run = self.tracker.start(config, sweep=self.sweep.name, attempt=attempt, extra=extra)
        self.view.trial_started(trial_event(config, claim.attempt))
        try:
            # the teacher that was distilled, never another one, is the one whose test accuracy is read
            card, logs = (
                (self.context.card(), []) if reading_test else self.context.prepare_teacher(self._hooks(config, None))
            )
        except TrialFailed as error:
            failed = RunResult(id=config.id, status="failed", error=str(error), wandb_run=run)
            write_result(folder, failed)
            self.tracker.finish(failed, row_of(self.sweep.name, config, failed))
            raise KdbenchError(
                f"the teacher {config.model} could not be trained: {error}; try a lower --set teacher-recipe.lr "
                "under another --name"
            ) from error
        if not logs:  # prepared before: its epochs are told here
            logs = read_metrics(self.context.teacher_folder)
            for log in logs:
                self.tracker.epoch(log)
        write_metrics(folder, logs)
        result = _teacher_result(config, card, logs, run)
        if reading_test:
            acc, nll, ece, top5 = self.context.test_teacher()
            result = result.model_copy(update={"test_acc": acc, "nll": nll, "ece": ece, "test_top5": top5})
        self._finish(claim, config, result)

    def _student(self, claim: Claim) -> Turns[None]:
        hyper = self.queue.suggest(claim) if claim.lane.method != "hard" else {}
        config = trial_config(self.sweep, claim.lane, claim.slot, hyper)
        folder = trial_folder(self.sweep_dir, config.id)
        locks = self.sweep_dir / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        # two slots may ask for the same point (a list of values): the second waits, and takes the first one's result
        lock = FileLock(locks / config.id, timeout=0)
        yield from _taken(lock)
        try:
            self.view.trial_started(trial_event(config, claim.attempt))
            before = read_result(folder)
            if before is not None and before.status != "failed":
                self._told_before(claim, config, before)
                return
            write_config(folder, config)
            yield from self._train(claim, config, folder)
        finally:
            lock.release()

    def _told_before(self, claim: Claim, config: RunConfig, before: RunResult) -> None:
        """The run is whole: another slot's, or this one's, killed between its result and telling the storage."""
        logs = read_metrics(trial_folder(self.sweep_dir, config.id))
        for log in logs:
            claim.trial.report(log.val_acc, log.epoch)
        if config.id not in self.queue.told_ids(claim.lane):
            run = self.tracker.start(config, sweep=self.sweep.name, attempt=claim.attempt, extra={})
            for log in logs:
                self.tracker.epoch(log)
            before = before.model_copy(update={"wandb_run": run})
            self._finish(claim, config, before)
            return
        self._tell(claim, config, before)

    def _train(self, claim: Claim, config: RunConfig, folder: Path) -> Turns[None]:
        run = self.tracker.start(config, sweep=self.sweep.name, attempt=claim.attempt, extra={})
        try:
            outcome = yield from self.context.training(config, folder, self._hooks(config, claim))
        except TrialFailed as error:
            self._finish(claim, config, RunResult(id=config.id, status="failed", error=str(error), wandb_run=run))
            return
        except RuntimeError as error:  # torch's faults: out of memory, an operator that is missing here
            if claim.attempt < ATTEMPTS:
                raise
            words = f"after {claim.attempt} attempts: {str(error).splitlines()[0]}"
            self._finish(claim, config, RunResult(id=config.id, status="failed", error=words, wandb_run=run))
            return
        if config.phase == "confirm":
            save_weights(outcome.model, folder / "model.safetensors")
        self._finish(claim, config, outcome.result.model_copy(update={"wandb_run": run, "attempts": claim.attempt}))

    def _hooks(self, config: RunConfig, claim: Claim | None) -> Hooks:
        """Report each epoch to the storage, the tracker and the view; prune in the search phase alone."""

        def on_epoch(log: EpochLog, replayed: bool) -> bool:
            check_parent()
            # an offline W&B run cannot be resumed, so the new attempt's run tells the earlier epochs again
            self.tracker.epoch(log)
            self.view.epoch(epoch_event(config, log))
            if claim is None:
                return False
            claim.trial.report(log.val_acc, log.epoch)
            return config.phase == "search" and claim.trial.should_prune()

        return Hooks(on_epoch=on_epoch, on_fill=lambda done, total: self.view.progress("teacher bank", done, total))

    def _finish(self, claim: Claim, config: RunConfig, result: RunResult) -> None:
        """result.json, then W&B, then the storage: a kill in between is mended by the next attempt.

        Nothing is written of a trial that was given up meanwhile (this process slept past its grace): its slot
        belongs to another attempt.
        """
        if not self.queue.holds(claim):
            return
        folder = trial_folder(self.sweep_dir, config.id)
        write_result(folder, result)
        drop_checkpoint(folder)
        self.tracker.finish(result, row_of(self.sweep.name, config, result))
        self._tell(claim, config, result)

    def _tell(self, claim: Claim, config: RunConfig, result: RunResult) -> None:
        if result.status == "failed":
            claim.trial.set_user_attr("error", result.error or "failed")
        claim.trial.set_user_attr("trial_id", config.id)
        claim.trial.set_user_attr("wandb_run", result.wandb_run)
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        _tell(claim, states[result.status], result.val_acc)
        self.view.trial_finished(trial_event(config, claim.attempt, result))


def _taken(lock: FileLock) -> Turns[None]:
    """Take the lock; until it can be had, runs that go on beside this one have their turns."""
    while True:
        try:
            lock.acquire()
        except Timeout:
            time.sleep(LOOK)
            yield 0
        else:
            return


def _teacher_result(config: RunConfig, card: TeacherCard, logs: list[EpochLog], run: str | None) -> RunResult:
    return RunResult(
        id=config.id,
        status="complete",
        val_acc=card.val_acc,
        best_val_acc=max([card.val_acc, *(log.val_acc for log in logs)]),
        nll=card.nll,
        ece=card.ece,
        agreement=1.0,
        params=card.params,
        macs=card.macs,
        epochs=config.recipe.epochs if card.source == "trained" else 0,
        seconds=card.seconds,
        hardware=card.hardware,
        wandb_run=run,
    )


def _tell(claim: Claim, state: TrialState, value: float | None = None) -> None:
    """Tell the study; a trial that others gave up meanwhile (a long pause) is left as they left it."""
    try:
        claim.study.tell(claim.trial, value if state == TrialState.COMPLETE else None, state=state)
    except (UpdateFinishedTrialError, ValueError) as error:
        if claim.study._storage.get_trial(claim.trial._trial_id).state in (TrialState.RUNNING, TrialState.WAITING):
            raise MachineFault(f"the storage refused a result: {error}") from error
