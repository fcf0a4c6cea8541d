"""What a running sweep shows: a live table on a terminal, a line a run in logs, JSON lines for scripts, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TextIO

from kdbench.sweep.events import EpochEvent, NullView, TrialEvent, View

PROGRESS_SECONDS = 30.0
"""A log gets at most one line of progress in this time, and one at the end."""


def make_view(*, quiet: bool, as_json: bool) -> View:
    """The view for these flags and this terminal. Progress goes to stderr, JSON to stdout."""
    if as_json:
        return JsonView(sys.stdout)
    if quiet:
        return NullView()
    if sys.stderr.isatty():
        from kdbench.cli.live import LiveView

        return LiveView()
    return PlainView(sys.stderr)


def duration(seconds: float) -> str:
    """``"42 s"``, ``"3 min 05 s"``, ``"2 h 10 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def percent(fraction: float | None) -> str:
    """``"91.20%"``, or an empty string."""
    return "" if fraction is None else f"{100 * fraction:.2f}%"


def hyper_text(hyper: Mapping[str, float]) -> str:
    """``"T=4 alpha=0.61"``."""
    short = {"temperature": "T"}
    return " ".join(f"{short.get(name, name)}={value:.3g}" for name, value in hyper.items())


def trial_text(event: TrialEvent) -> str:
    """A run in a few words: network, loss, hyper-parameters, seed."""
    words = [event.student, event.method, hyper_text(event.hyper), f"seed={event.seed}"]
    return " ".join(word for word in words if word)


def outcome_text(event: TrialEvent) -> str:
    """How a run ended: accuracy and time, or why there is none."""
    took = duration(event.seconds)
    if event.status == "failed":
        return f"failed after {took}: {event.error or 'unknown reason'}"
    accuracy = f"{percent(event.test_acc)} test" if event.test_acc is not None else f"{percent(event.val_acc)} val"
    return f"{accuracy}, {took}" + (f", pruned after {event.epochs} epochs" if event.status == "pruned" else "")


class Counter:
    """How far a phase is, and how long it may take from here."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self.name, self.total, self.done, self._here = name, total, done, 0
        self._since = time.monotonic()

    def count(self) -> None:
        """One more run ended."""
        self.done = min(self.done + 1, self.total)  # the teacher's test accuracy is told by an event of its own
        self._here += 1

    @property
    def elapsed(self) -> float:
        """Seconds since the phase began here."""
        return time.monotonic() - self._since

    @property
    def eta(self) -> float | None:
        """Seconds left at the pace so far; None before the first run ended."""
        left = max(self.total - self.done, 0)
        return self.elapsed / self._here * left if self._here else None


class Counters(dict[str, Counter]):
    """A counter a phase: several workers are in several phases at once."""

    def begin(self, name: str, total: int, done: int) -> bool:
        """Whether the phase is new here."""
        new = name not in self
        if new:
            self[name] = Counter(name, total, done)
        return new

    def count(self, name: str) -> Counter:
        """One more run of the phase ended."""
        self.begin(name, 1, 0)
        self[name].count()
        return self[name]


class PlainView:
    """One line for each finished run and each phase, for CI logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._counters = Counters()
        self._progress: dict[str, float] = {}

    def _line(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads the log any more: the sweep goes on all the same
            self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            self._stream.flush()

    def phase(self, name: str, runs_total: int, runs_done: int) -> None:
        """One line."""
        if self._counters.begin(name, runs_total, runs_done):
            self._line(f"{name}: {runs_total} runs" + (f", {runs_done} done before" if runs_done else ""))

    def trial_started(self, event: TrialEvent) -> None:
        """Nothing: the line comes at the end."""

    def epoch(self, event: EpochEvent) -> None:
        """Only a teacher's epochs, which may take minutes each."""
        if event.phase == "teacher":
            done = f"epoch {event.epoch}/{event.epochs}"
            self._line(f"teacher {event.student} {done}: {percent(event.val_acc)} val, {duration(event.seconds)}")

    def trial_finished(self, event: TrialEvent) -> None:
        """One line."""
        counter = self._counters.count(event.phase)
        eta = counter.eta
        left = f" ({duration(eta)} left)" if eta else ""
        place = f"{event.phase} {counter.done}/{counter.total}"
        self._line(f"{place} {trial_text(event)}: {outcome_text(event)}{left}")

    def progress(self, label: str, done: int, total: int) -> None:
        """A line now and then."""
        now, last = time.monotonic(), self._progress.get(label)
        finished = bool(total) and done >= total
        if finished or last is None or now - last >= PROGRESS_SECONDS:
            self._progress[label] = now
            self._line(f"{label}: {done:,}" + (f" of {total:,}" if total else ""))

    def note(self, text: str) -> None:
        """One line."""
        self._line(text)

    def close(self) -> None:
        """Nothing to restore."""


class JsonView:
    """Every event as one JSON object on a line, with ``event`` and ``time`` (seconds since 1970)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _emit(self, event: str, **values: Any) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n")
            self._stream.flush()

    def phase(self, name: str, runs_total: int, runs_done: int) -> None:
        """``{"event": "phase", ...}``."""
        self._emit("phase", name=name, runs_total=runs_total, runs_done=runs_done)

    def trial_started(self, event: TrialEvent) -> None:
        """``{"event": "trial_started", ...}``."""
        self._emit("trial_started", **_plain(event))

    def epoch(self, event: EpochEvent) -> None:
        """``{"event": "epoch", ...}``."""
        self._emit("epoch", **_plain(event))

    def trial_finished(self, event: TrialEvent) -> None:
        """``{"event": "trial_finished", ...}``."""
        self._emit("trial_finished", **_plain(event))

    def progress(self, label: str, done: int, total: int) -> None:
        """``{"event": "progress", ...}``."""
        self._emit("progress", label=label, done=done, total=total)

    def note(self, text: str) -> None:
        """``{"event": "note", ...}``."""
        self._emit("note", text=text)

    def close(self) -> None:
        """Nothing to restore."""


def _plain(event: TrialEvent | EpochEvent) -> dict[str, Any]:
    """The event's fields, without those that are not known."""
    return {name: value for name, value in asdict(event).items() if value is not None}
