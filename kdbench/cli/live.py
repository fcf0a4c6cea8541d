"""The live table of a sweep on a terminal (rich)."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdbench.cli.view import Counters, duration, hyper_text, outcome_text, percent
from kdbench.sweep.events import EpochEvent, TrialEvent

FINISHED_SHOWN = 6
"""Finished runs that stay visible above the running ones."""


@dataclass
class _Running:
    """A run that has started and not ended."""

    event: TrialEvent
    since: float = field(default_factory=time.monotonic)
    epoch: int = 0
    epochs: int = 0
    accuracy: float | None = None

    @property
    def eta(self) -> float | None:
        """Seconds left at this run's own pace."""
        if not self.epoch:
            return None
        return (time.monotonic() - self.since) / self.epoch * (self.epochs - self.epoch)


class LiveView:
    """Phase and progress on top, then the last finished runs and the running ones. Leaves one line a phase behind."""

    def __init__(self, terminal: Console | None = None) -> None:
        self._console = terminal or Console(stderr=True, highlight=False)
        self._lock = threading.RLock()
        self._counters = Counters()
        self._running: dict[str, _Running] = {}
        self._finished: list[TrialEvent] = []
        self._progress: dict[str, tuple[int, int]] = {}
        self._left: set[str] = set()
        self._live = Live(
            console=self._console,
            get_renderable=self.render,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start()

    def phase(self, name: str, runs_total: int, runs_done: int) -> None:
        """A line for the phase appears, phases that are over leave theirs behind."""
        with self._lock:
            self._leave_lines()
            self._counters.begin(name, runs_total, runs_done)

    def trial_started(self, event: TrialEvent) -> None:
        """A row appears."""
        with self._lock:
            self._running[event.trial_id] = _Running(event, epochs=event.epochs)

    def epoch(self, event: EpochEvent) -> None:
        """The row moves on."""
        with self._lock:
            if run := self._running.get(event.trial_id):
                run.epoch, run.epochs, run.accuracy = event.epoch, event.epochs, event.val_acc

    def trial_finished(self, event: TrialEvent) -> None:
        """The row joins the finished ones."""
        with self._lock:
            self._running.pop(event.trial_id, None)
            self._counters.count(event.phase)
            self._finished = [*self._finished, event][-FINISHED_SHOWN:]

    def progress(self, label: str, done: int, total: int) -> None:
        """A bar, gone when it is full."""
        with self._lock:
            self._progress[label] = (done, total)
            if total and done >= total:
                del self._progress[label]

    def note(self, text: str) -> None:
        """A line above the table, there to stay."""
        self._console.print(Text(text, style="yellow"))

    def close(self) -> None:
        """Give the terminal back."""
        with self._lock:
            self._leave_lines(unfinished=True)
        self._live.stop()

    def _leave_lines(self, unfinished: bool = False) -> None:
        """What stays of a phase once it is over, or once the view is closed."""
        for counter in self._counters.values():
            if counter.name not in self._left and (unfinished or counter.done >= counter.total):
                self._left.add(counter.name)
                took = duration(counter.elapsed)
                self._console.print(f"[bold]{counter.name}[/bold] {counter.done}/{counter.total} runs, {took}")

    def render(self) -> RenderableType:
        """Everything, as it stands now."""
        with self._lock:
            parts = list[RenderableType]()
            for counter in self._counters.values():
                if counter.name not in self._left:
                    eta = f" · {duration(counter.eta)} left" if counter.eta else ""
                    done = f"{counter.done}/{counter.total} runs{eta}"
                    parts.append(Text.from_markup(f"[bold]{counter.name}[/bold] {done}"))
            if self._finished or self._running:
                parts.append(self._table())
            parts.extend(_bar(label, done, total) for label, (done, total) in self._progress.items())
            return Group(*parts)

    def _table(self) -> Table:
        """Finished runs in grey, running ones below."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("phase", "size", "trial", "epoch", "accuracy", "ETA"):
            table.add_column(column, no_wrap=column != "trial", justify="right" if column == "epoch" else "left")
        for event in self._finished:
            style = "red" if event.status == "failed" else "dim"
            table.add_row(
                event.phase, event.student, _trial(event), str(event.epochs), outcome_text(event), "", style=style
            )
        for run in self._running.values():
            event, eta = run.event, run.eta
            done = f"{run.epoch}/{run.epochs}"
            left = "" if eta is None else duration(eta)
            table.add_row(event.phase, event.student, _trial(event), done, percent(run.accuracy), left)
        return table


def _trial(event: TrialEvent) -> str:
    """Loss, hyper-parameters and seed."""
    return " ".join(word for word in (event.method, hyper_text(event.hyper), f"seed={event.seed}") if word)


def _bar(label: str, done: int, total: int) -> RenderableType:
    """``label`` and how far it is."""
    row = Table.grid(padding=(0, 1))
    count = f"{done:,} of {total:,}" if total else f"{done:,}"
    row.add_row(label, ProgressBar(total=total or None, completed=done, width=30), count)
    return row
