"""W&B as an observer in the coordinator: one tracker per run under way, taken up again by the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.run.launch import WandbOptions
from kdbench.run.observers import Progress
from kdbench.tracking.base import Tracker
from kdbench.tracking.make import make_tracker

Row = Callable[[str, RunConfig, RunResult], dict[str, object]]
"""(plan, config, result) -> the run's row of the runs table: its W&B summary."""


class WandbObserver:
    """Records every run of a plan named ``name`` below ``folder``; a failure costs records, never a run."""

    def __init__(
        self,
        folder: Path,
        name: str,
        options: WandbOptions,
        row: Row,
        notify: Callable[[str], None],
        teacher: str | None = None,
    ) -> None:
        self._about: dict[str, object] = {"teacher": teacher} if teacher else {}
        self._name, self._row, self._folder, self._options = name, row, folder, options
        self._told: set[str] = set()
        self._say = notify
        self._all = [self._another()]  # a server is asked before anything is trained
        self._idle = list(self._all)
        self._busy: dict[str, Tracker] = {}

    def _another(self) -> Tracker:
        o = self._options
        return make_tracker(o.mode, root=self._folder, project=o.project, entity=o.entity, notify=self._notify)

    def _notify(self, text: str) -> None:
        """Several trackers may meet the same trouble: it is said once."""
        if text not in self._told:
            self._told.add(text)
            self._say(text)

    def progress(self, state: Progress) -> None:
        return

    def message(self, text: str, done: int = 0, total: int = 0) -> None:
        return

    def start(self, config: RunConfig, attempt: int, label: str) -> None:
        if config.id in self._busy:  # its worker died: that attempt has no end
            self._drop(config.id)
        self._begin(config, attempt, {"run": label} if label else {})

    def _begin(self, config: RunConfig, attempt: int, extra: dict[str, object]) -> Tracker:
        if not self._idle:
            self._idle.append(self._another())
            self._all.append(self._idle[-1])
        tracker = self._busy[config.id] = self._idle.pop()
        tracker.start(config, sweep=self._name, attempt=attempt, extra={**self._about, **extra})
        return tracker

    def _drop(self, run_id: str) -> None:
        tracker = self._busy.pop(run_id)
        self._all.remove(tracker)
        tracker.close()

    def epoch(self, config: RunConfig, log: EpochLog, again: bool = False) -> None:
        if config.id in self._busy:
            self._busy[config.id].epoch(log)

    def end(self, config: RunConfig, result: RunResult) -> None:
        tracker = self._busy.pop(config.id, None)
        if tracker is None:
            return
        tracker.finish(result, {**self._row(self._name, config, result), **self._about})
        self._idle.append(tracker)

    def close(self) -> None:
        """Runs under way end as interrupted."""
        for tracker in self._all:
            tracker.close()
        self._all, self._busy, self._idle = [], {}, []
