"""A worker: claim a run, train it, tell; until nothing is left. The coordinator is a worker too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from kdbench.config import Hyper, Phase
from kdbench.sweep.context import Context, pick_device
from kdbench.sweep.events import View
from kdbench.sweep.execute import Executor, check_parent
from kdbench.sweep.machine import limit_threads
from kdbench.sweep.options import WandbOptions, default_cache
from kdbench.sweep.plan import Lane, lanes, slots
from kdbench.sweep.queue import Claim, Queue, open_storage
from kdbench.sweep.store import read_spec
from kdbench.sweep.types import Sweep
from kdbench.tracking import Trackers, open_trackers
from kdbench.train import Pack
from kdbench.train.pack import Turns

STORAGE_VARIABLE = "KDBENCH_STORAGE"
"""How a local worker is told a storage whose URL may hold a password."""
PATIENCE = 1.0
"""Seconds between looks at a queue in which others hold the rest."""


class Worker:
    """Runs claims of one sweep in this process, with its data, teacher and trackers kept open."""

    def __init__(self, queue: Queue, context: Context, sweep_dir: Path, trackers: Trackers, view: View) -> None:
        self.queue, self.context, self.sweep_dir = queue, context, sweep_dir
        self.trackers, self.view = trackers, view
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
        with closing(Pack(self.context.device)) as pack:
            while True:
                check_parent()
                for lane in lanes(self.sweep):
                    self.queue.reclaim(lane)
                self.plan()
                while not pack.full and (claim := self.next_claim()) is not None:
                    pack.add(self.execute(claim))
                if pack:
                    pack.advance()
                elif self.all_done():
                    return
                else:
                    time.sleep(PATIENCE)

    def execute(self, claim: Claim) -> Turns[None]:
        """Run one claim to its end and tell the storage; on an interruption give it back. Yields after each step."""
        self.announce(claim.lane.phase)
        with self.trackers.lend() as tracker:
            yield from Executor(self.queue, self.context, self.sweep_dir, tracker, self.view).execute(claim)

    def announce(self, phase: Phase) -> None:
        """Tell the view that a phase begins, once."""
        if phase in self._announced:
            return
        self._announced.add(phase)
        here = [lane for lane in lanes(self.sweep) if lane.phase == phase]
        total = 1 if phase == "teacher" else sum(slots(self.sweep, lane) for lane in here)
        done = sum(self.queue.ended(lane) for lane in here)
        self.view.phase(phase, total, min(done, total))


def storage_url(sweep_dir: Path, storage: str | None) -> str:
    """The URL asked for, or the SQLite file in the sweep's folder."""
    return storage or f"sqlite:///{sweep_dir.resolve() / 'optuna.db'}"


def work(sweep_dir: Path, *, storage: str | None, device: str, wandb: WandbOptions, view: View) -> None:
    """Join a sweep that ``kdbench sweep`` started: take its runs until none is left.

    Raises:
        BadInput: a folder without a sweep, an unknown device.
        MachineFault: a storage that cannot be reached, or the coordinator that started this worker is gone.
    """
    sweep, recorded = read_spec(sweep_dir)
    limit_threads()
    url = storage_url(sweep_dir, storage or os.environ.get(STORAGE_VARIABLE) or recorded)
    context = Context(sweep, cache=default_cache(), device=pick_device(device))
    # not the view's note: what W&B says must reach a worker's log even where it is quiet
    with open_trackers(wandb.mode, root=sweep_dir, project=wandb.project, entity=wandb.entity) as trackers:
        Worker(Queue(open_storage(url), sweep), context, sweep_dir, trackers, view).loop()
