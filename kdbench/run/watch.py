"""What a running plan shows: a live table on a terminal, one line per run in logs, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from statistics import fmean
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdbench.config import HARD, EpochLog, RunConfig, RunResult
from kdbench.run.observers import Observer, Observers, Progress
from kdbench.run.words import counted, duration, hyper_text, outcome_text, percent, run_text

PROGRESS_SECONDS = 30.0
"""A log gets at most one line of progress in this time, and one at the end."""
FINISHED_SHOWN = 6
"""Finished runs that stay visible above the running ones."""


def make_observer(*, quiet: bool, as_json: bool) -> Observer:
    """The observer for these flags and this terminal. Progress goes to stderr, JSON to stdout."""
    if as_json:
        return JsonLines(sys.stdout)
    if quiet:
        return Observers()
    return LiveTable() if sys.stderr.isatty() else Lines(sys.stderr)


def left_text(state: Progress) -> str:
    """``" (4 min 10 s left)"``: one estimate for the whole."""
    return f" ({duration(state.seconds_left)} left)" if state.seconds_left else ""


class Standing:
    """A sweep's test accuracies so far: a rough table long before the end, from the runs that ended under our eyes."""

    def __init__(self) -> None:
        self._scores: dict[tuple[str, str], dict[int, dict[int, float]]] = {}

    def add(self, config: RunConfig, result: RunResult) -> None:
        """Take note of a run; those that do not count in the table are passed over."""
        if config.phase == "confirm" and result.test_acc is not None:
            own = self._scores.setdefault((config.model, config.condition), {}).setdefault(config.seed, {})
            own[config.replicate] = result.test_acc

    def rows(self) -> Iterator[tuple[str, str, float, float, int]]:
        """(student, method, its mean accuracy, that of hard labels, common seeds) of what can be compared."""
        for (model, method), scores in self._scores.items():
            hard = self._scores.get((model, HARD), {})
            if method != HARD and (seeds := scores.keys() & hard.keys()):
                own, theirs = (fmean(fmean(side[seed].values()) for seed in seeds) for side in (scores, hard))
                yield model, method, own, theirs, len(seeds)


class Lines:
    """One line for each finished run and each phase, for CI logs and notebooks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._state = stream, Progress()
        self._said: set[str] = set()
        self._labels: dict[str, str] = {}
        self._standing = Standing()
        self._last: dict[str, float] = {}

    def _line(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads the log any more: the runs go on all the same
            self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            self._stream.flush()

    def progress(self, state: Progress) -> None:
        self._state = state

    def start(self, config: RunConfig, attempt: int, label: str) -> None:
        self._labels[config.id] = label
        if config.phase not in self._said:
            self._said.add(config.phase)
            done, planned = self._state.phases.get(config.phase, (0, 1))
            before = f", {done} done before" if done else ""
            self._line(f"{config.phase}: {counted(planned, 'run')}{before}{left_text(self._state)}")

    def epoch(self, config: RunConfig, log: EpochLog, again: bool = False) -> None:
        if config.phase == "teacher" and not again:  # a teacher's epochs may take minutes each
            done = f"epoch {log.epoch}/{config.recipe.last_epoch}"
            self._line(f"teacher {config.model} {done}: {percent(log.val_acc)} val, {duration(log.seconds)}")

    def end(self, config: RunConfig, result: RunResult) -> None:
        done, planned = self._state.phases.get(config.phase, (0, 1))
        place = f"{config.phase} {min(done + 1, planned)}/{planned}"
        text = run_text(config, self._labels.get(config.id, ""))
        so_far = "" if self._labels.get(config.id) else self._so_far(config, result)
        self._line(f"{place} {text}: {outcome_text(result)}{so_far}{left_text(self._state)}")

    def _so_far(self, config: RunConfig, result: RunResult) -> str:
        """``"; so far kd 97.4% against 97.0% on hard labels (3 seeds)"``: the row of the table that this run is in."""
        self._standing.add(config, result)
        told = [
            f"{method} {percent(own)} against {percent(hard)} on hard labels ({counted(n, 'seed')})"
            for model, method, own, hard, n in self._standing.rows()
            if model == config.model and config.condition in (HARD, method)
        ]
        return f"; so far {', '.join(told)}" if told and config.phase == "confirm" else ""

    def message(self, text: str, done: int = 0, total: int = 0) -> None:
        if not total:
            self._line(text)
            return
        now, last = time.monotonic(), self._last.get(text)
        if done >= total or last is None or now - last >= PROGRESS_SECONDS:
            self._last[text] = now
            self._line(f"{text}: {done:,} of {total:,}")

    def close(self) -> None:
        return


class JsonLines:
    """Every event as one JSON object on a line, with ``event`` and ``time`` (seconds since 1970)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._state = stream, Progress()
        self._attempts: dict[str, int] = {}

    def _emit(self, event: str, **values: Any) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        with suppress(OSError, ValueError):
            self._stream.write(json.dumps({"event": event, "time": round(time.time(), 3), **known}) + "\n")
            self._stream.flush()

    def progress(self, state: Progress) -> None:
        for name, (done, planned) in state.phases.items():
            if self._state.phases.get(name) != (done, planned):
                self._emit("phase", name=name, runs_total=planned, runs_done=done, seconds_left=state.seconds_left)
        self._state = state

    def start(self, config: RunConfig, attempt: int, label: str) -> None:
        self._attempts[config.id] = attempt
        self._emit("trial_started", **_about(config), attempt=attempt, label=label, epochs=config.recipe.last_epoch)

    def epoch(self, config: RunConfig, log: EpochLog, again: bool = False) -> None:
        about = {"phase": config.phase, "trial_id": config.id, "student": config.model}
        more = log.model_dump(include={"epoch", "val_acc", "train_loss", "seconds"})
        self._emit("epoch", **about, epochs=config.recipe.last_epoch, **more)

    def end(self, config: RunConfig, result: RunResult) -> None:
        more = result.model_dump(include={"status", "val_acc", "test_acc", "seconds", "error", "epochs"})
        self._emit("trial_finished", **_about(config), attempt=self._attempts.get(config.id, 1), **more)

    def message(self, text: str, done: int = 0, total: int = 0) -> None:
        if total:
            self._emit("progress", label=text, done=done, total=total)
        else:
            self._emit("note", text=text)

    def close(self) -> None:
        return


def _about(config: RunConfig) -> dict[str, Any]:
    return {
        "phase": config.phase, "trial_id": config.id, "student": config.model, "method": config.condition,
        "seed": config.seed, "hyper": dict(config.hyper),
    }  # fmt: skip


class LiveTable:
    """Phases and one estimate on top, then the last finished runs and the running ones."""

    def __init__(self, terminal: Console | None = None) -> None:
        self._console = terminal or Console(stderr=True, highlight=False)
        self._lock = threading.RLock()
        self._state, self._since = Progress(), time.monotonic()
        self._running: dict[str, tuple[RunConfig, str, EpochLog | None]] = {}
        self._finished: list[tuple[RunConfig, str, RunResult]] = []
        self._bars: dict[str, tuple[int, int]] = {}
        self._standing = Standing()
        self._said = "starting"
        self._live = Live(
            console=self._console, get_renderable=self.render, refresh_per_second=4, transient=True,
            redirect_stdout=False,
        )  # fmt: skip
        self._live.start()

    def progress(self, state: Progress) -> None:
        with self._lock:
            self._state, self._said = state, ""

    def start(self, config: RunConfig, attempt: int, label: str) -> None:
        with self._lock:
            self._running[config.id] = (config, label or config.model, None)

    def epoch(self, config: RunConfig, log: EpochLog, again: bool = False) -> None:
        with self._lock:
            if config.id in self._running:
                self._running[config.id] = (*self._running[config.id][:2], log)

    def end(self, config: RunConfig, result: RunResult) -> None:
        with self._lock:
            _, label, _ = self._running.pop(config.id, (config, config.model, None))
            self._finished = [*self._finished, (config, label, result)][-FINISHED_SHOWN:]
            if label == config.model:
                self._standing.add(config, result)

    def message(self, text: str, done: int = 0, total: int = 0) -> None:
        with self._lock:
            if not total and self._said and not self._state.phases:
                self._said = text
            elif not total:
                self._console.print(Text(text, style="yellow"))
            elif done >= total:
                self._bars.pop(text, None)
            else:
                self._bars[text] = (done, total)

    def close(self) -> None:
        with self._lock:
            if self._live.is_started:
                self._live.stop()
                phases = ", ".join(f"{name} {done}/{n}" for name, (done, n) in self._state.phases.items())
                self._console.print(f"{phases or self._said}: {duration(time.monotonic() - self._since)}")

    def render(self) -> RenderableType:
        """Everything, as it stands now."""
        with self._lock:
            parts = list[RenderableType]()
            if self._said:
                parts.append(Text(f"{self._said} ..."))
            shown = " · ".join(f"[bold]{name}[/bold] {done}/{n}" for name, (done, n) in self._state.phases.items() if n)
            if shown:
                parts.append(Text.from_markup(shown + left_text(self._state)))
            if self._finished or self._running:
                parts.append(self._table())
            if rows := list(self._standing.rows()):
                parts.append(_standing_table(rows))
            parts.extend(_bar(label, done, total) for label, (done, total) in self._bars.items())
            return Group(*parts)

    def _table(self) -> Table:
        """Finished runs in grey, running ones below."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("phase", "network", "run", "epoch", "accuracy"):
            table.add_column(column, no_wrap=column != "run", justify="right" if column == "epoch" else "left")
        for config, label, result in self._finished:
            style = "red" if result.status == "failed" else "dim"
            row = (config.phase, label, _trial(config), str(result.epochs), outcome_text(result))
            table.add_row(*row, style=style)
        for config, label, log in self._running.values():
            done = f"{log.epoch if log else 0}/{config.recipe.last_epoch}"
            table.add_row(config.phase, label, _trial(config), done, percent(log.val_acc if log else None))
        return table


def _trial(config: RunConfig) -> str:
    """Loss, hyper-parameters and seed."""
    return " ".join(word for word in (config.condition, hyper_text(config.hyper), f"seed={config.seed}") if word)


def _standing_table(rows: list[tuple[str, str, float, float, int]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title="so far (test)", title_justify="left")
    for column in ("student", "method", "distilled", "hard labels", "seeds"):
        table.add_column(column, justify="left" if column in ("student", "method") else "right", no_wrap=True)
    for model, method, own, hard, n in rows:
        table.add_row(model, method, percent(own), percent(hard), str(n))
    return table


def _bar(label: str, done: int, total: int) -> RenderableType:
    """``label`` and how far it is."""
    row = Table.grid(padding=(0, 1))
    row.add_row(label, ProgressBar(total=total, completed=done, width=30), f"{done:,} of {total:,}")
    return row
