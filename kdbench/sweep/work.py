"""A worker: claim a run, train it, tell; until nothing is left. The coordinator is a worker too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from kdbench.engine import Hooks
from kdbench.engine.checkpoint import drop_checkpoint, write_metrics
from kdbench.errors import MachineFault, TrialFailed
from kdbench.schema import EpochLog, Hyper, Phase, Sweep, TrialConfig, TrialResult
from kdbench.sweep.context import Context, pick_device, save_weights
from kdbench.sweep.events import EpochEvent, TrialEvent, View
from kdbench.sweep.options import WandbOptions, default_cache
from kdbench.sweep.plan import Lane, lanes, slots, teacher_config, trial_config
from kdbench.sweep.queue import Claim, Heartbeat, Queue, open_storage
from kdbench.sweep.store import (
    read_metrics,
    read_result,
    read_spec,
    row_of,
    trial_folder,
    write_config,
    write_result,
)
from kdbench.track import Tracker, make_tracker

PATIENCE = 1.0
"""Seconds between looks at a queue in which others hold the rest."""


class Worker:
    """Runs claims of one sweep in this process, with its data, teacher and tracker kept open."""

    def __init__(self, queue: Queue, context: Context, sweep_dir: Path, tracker: Tracker, view: View) -> None:
        self.queue, self.context, self.sweep_dir = queue, context, sweep_dir
        self.tracker, self.view = tracker, view
        self.sweep: Sweep = queue.sweep
        self._announced: set[Phase] = set()

    def expected(self, lane: Lane) -> int | None:
        """Runs that the lane will hold in the end; None while that is not known yet."""
        if lane.phase != "confirm" or lane.method == "hard":
            return slots(self.sweep, lane)
        search = Lane("search", lane.model, lane.method)
        if not self.queue.finished(search, slots(self.sweep, search)):
            return None
        return slots(self.sweep, lane) if self.queue.winner(search) else 0

    def plan(self) -> None:
        """Put into the queue whatever can be known by now; repeating it changes nothing."""
        teacher, *rest = lanes(self.sweep)
        self.queue.enqueue(teacher, [(0, {})])
        for lane in rest:
            if lane.phase == "search":
                self.queue.enqueue_search(lane)
            elif lane.phase == "baseline":
                self.queue.enqueue(lane, [(0, {})])
            else:
                self._plan_confirm(lane)
        if all(self.expected(lane) is not None for lane in rest):
            self.queue.enqueue(teacher, [(1, {})])

    def _plan_confirm(self, lane: Lane) -> None:
        """Fresh seeds for the winner of a finished search, and as many for its baseline."""
        point: Hyper = {}
        if lane.method != "hard":
            if not self.expected(lane):
                return
            found = self.queue.winner(Lane("search", lane.model, lane.method))
            assert found is not None
            point = found[1]
        elif not self.queue.finished(Lane("baseline", lane.model, "hard"), 1):
            return
        self.queue.enqueue(lane, [(k, point) for k in range(slots(self.sweep, lane))])

    def next_claim(self, only: tuple[Phase, ...] | None = None) -> Claim | None:
        """The first run that can be taken now, in the order of phases."""
        for lane in self._open_lanes(only):
            claim = self.queue.claim(lane)
            if claim is not None:
                return claim
        return None

    def _open_lanes(self, only: tuple[Phase, ...] | None) -> Iterator[Lane]:
        teacher, *rest = lanes(self.sweep)
        wanted = [lane for lane in rest if only is None or lane.phase in only]
        # the teacher comes first, and once more, last, for the reading of its test accuracy
        yield from [*wanted, teacher] if self.queue.finished(teacher, 1) else [teacher]

    def all_done(self) -> bool:
        """Whether every planned run has ended."""
        for lane in lanes(self.sweep):
            count = self.expected(lane)
            if count is None or not self.queue.finished(lane, count):
                return False
        return True

    def loop(self) -> None:
        """Work until the sweep is finished; wait where other workers hold what is left."""
        while True:
            for lane in lanes(self.sweep):
                self.queue.reclaim(lane)
            self.plan()
            claim = self.next_claim()
            if claim is not None:
                self.execute(claim)
            elif self.all_done():
                return
            else:
                time.sleep(PATIENCE)

    def execute(self, claim: Claim) -> None:
        """Run one claim to its end and tell the storage; on an interruption give it back."""
        self.announce(claim.lane.phase)
        try:
            with Heartbeat(self.queue.storage, claim.trial._trial_id):
                if claim.lane.phase == "teacher":
                    self._teacher(claim)
                else:
                    self._student(claim)
        except BaseException:
            # failed without an "error": `reclaim` puts the slot back, here or in the next start
            _tell(claim, TrialState.FAIL)
            raise

    def announce(self, phase: Phase) -> None:
        """Tell the view that a phase begins, once."""
        if phase in self._announced:
            return
        self._announced.add(phase)
        here = [lane for lane in lanes(self.sweep) if lane.phase == phase]
        total = 1 if phase == "teacher" else sum(slots(self.sweep, lane) for lane in here)
        done = sum(self.queue.ended(lane) for lane in here)
        self.view.phase(phase, total, min(done, total))

    def _teacher(self, claim: Claim) -> None:
        config = teacher_config(self.sweep)
        folder = trial_folder(self.sweep_dir, config.id)
        reading_test = claim.slot == 1
        write_config(folder, config)
        extra = {"reads": "test"} if reading_test else {}
        attempt = claim.attempt + (self.queue.attempts(claim.lane, 0) if reading_test else 0)
        run = self.tracker.start(config, sweep=self.sweep.name, attempt=attempt, extra=extra)
        self.view.trial_started(_event(config, claim))
        card, logs = self.context.prepare_teacher(self._hooks(config, None))
        if not logs:  # prepared before: its epochs are told here
            logs = read_metrics(self.context.teacher_folder)
            for log in logs:
                self.tracker.epoch(log)
        write_metrics(folder, logs)
        result = TrialResult(
            id=config.id,
            status="complete",
            val_acc=card.val_acc,
            best_val_acc=card.val_acc,
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
        if reading_test:
            acc, nll, ece, top5 = self.context.test_teacher()
            result = result.model_copy(update={"test_acc": acc, "nll": nll, "ece": ece, "test_top5": top5})
        self._finish(claim, config, result)

    def _student(self, claim: Claim) -> None:
        hyper = self.queue.suggest(claim) if claim.lane.method != "hard" else {}
        config = trial_config(self.sweep, claim.lane, claim.slot, hyper)
        folder = trial_folder(self.sweep_dir, config.id)
        self.view.trial_started(_event(config, claim))
        before = read_result(folder)
        if before is not None and before.status != "failed":  # killed between the result and telling it
            run = self.tracker.start(config, sweep=self.sweep.name, attempt=claim.attempt, extra={})
            for log in read_metrics(folder):
                self.tracker.epoch(log)
                claim.trial.report(log.val_acc, log.epoch)
            self._finish(claim, config, before.model_copy(update={"wandb_run": run}))
            return
        write_config(folder, config)
        run = self.tracker.start(config, sweep=self.sweep.name, attempt=claim.attempt, extra={})
        try:
            outcome = self.context.run(config, folder, self._hooks(config, claim))
        except TrialFailed as error:
            failed = TrialResult(id=config.id, status="failed", error=str(error), wandb_run=run)
            self._finish(claim, config, failed)
            return
        if config.phase == "confirm":
            save_weights(outcome.model, folder / "model.safetensors")
        self._finish(claim, config, outcome.result.model_copy(update={"wandb_run": run, "attempts": claim.attempt}))

    def _hooks(self, config: TrialConfig, claim: Claim | None) -> Hooks:
        """Report each epoch to the storage, the tracker and the view; prune in the search phase alone."""

        def on_epoch(log: EpochLog, replayed: bool) -> bool:
            # an offline W&B run cannot be resumed, so the new attempt's run tells the earlier epochs again
            self.tracker.epoch(log)
            self.view.epoch(
                EpochEvent(
                    phase=config.phase,
                    trial_id=config.id,
                    student=config.model,
                    epoch=log.epoch,
                    epochs=config.recipe.epochs,
                    val_acc=log.val_acc,
                    train_loss=log.train_loss,
                    seconds=log.seconds,
                )
            )
            if claim is None:
                return False
            claim.trial.report(log.val_acc, log.epoch)
            return config.phase == "search" and claim.trial.should_prune()

        return Hooks(on_epoch=on_epoch, on_fill=lambda done, total: self.view.progress("teacher bank", done, total))

    def _finish(self, claim: Claim, config: TrialConfig, result: TrialResult) -> None:
        """result.json, then W&B, then the storage: a kill in between is mended by the next attempt."""
        folder = trial_folder(self.sweep_dir, config.id)
        write_result(folder, result)
        drop_checkpoint(folder)
        self.tracker.finish(result, row_of(self.sweep.name, config, result))
        if result.status == "failed":
            claim.trial.set_user_attr("error", result.error or "failed")
        claim.trial.set_user_attr("trial_id", config.id)
        claim.trial.set_user_attr("wandb_run", result.wandb_run)
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        _tell(claim, states[result.status], result.val_acc)
        self.view.trial_finished(_event(config, claim, result))


def _tell(claim: Claim, state: TrialState, value: float | None = None) -> None:
    """Tell the study; a trial that others gave up meanwhile (a long pause) is left as they left it."""
    try:
        claim.study.tell(claim.trial, value if state == TrialState.COMPLETE else None, state=state)
    except (UpdateFinishedTrialError, ValueError) as error:
        if claim.study._storage.get_trial(claim.trial._trial_id).state in (TrialState.RUNNING, TrialState.WAITING):
            raise MachineFault(f"the storage refused a result: {error}") from error


def _event(config: TrialConfig, claim: Claim, result: TrialResult | None = None) -> TrialEvent:
    return TrialEvent(
        phase=config.phase,
        trial_id=config.id,
        student=config.model,
        method=config.method,
        seed=config.seed,
        hyper=config.hyper,
        epochs=result.epochs if result else config.recipe.epochs,
        attempt=claim.attempt,
        status=result.status if result else None,
        val_acc=result.val_acc if result else None,
        test_acc=result.test_acc if result else None,
        seconds=result.seconds if result else 0.0,
        error=result.error if result else None,
    )


def storage_url(sweep_dir: Path, storage: str | None) -> str:
    """The URL asked for, or the SQLite file in the sweep's folder."""
    return storage or f"sqlite:///{sweep_dir.resolve() / 'optuna.db'}"


def work(
    sweep_dir: Path, *, storage: str | None, device: str, wandb: WandbOptions, view: View, cache: Path | None = None
) -> None:
    """Join a sweep that ``kdbench sweep`` started: take its runs until none is left.

    Raises:
        BadInput: a folder without a sweep, an unknown device.
        MachineFault: a storage that cannot be reached.
    """
    sweep, recorded = read_spec(sweep_dir)
    queue = Queue(open_storage(storage_url(sweep_dir, storage or recorded)), sweep)
    context = Context(sweep, cache=cache or default_cache(), device=pick_device(device))
    limit_threads()
    tracker = make_tracker(wandb.mode, root=sweep_dir, project=wandb.project, entity=wandb.entity, notify=view.note)
    with closing(tracker):
        Worker(queue, context, sweep_dir, tracker, view).loop()


def limit_threads() -> None:
    """Give torch the threads that the coordinator set aside (``KDBENCH_THREADS``)."""
    import torch

    asked = os.environ.get("KDBENCH_THREADS")
    if asked:
        torch.set_num_threads(max(1, int(asked)))
