"""What a tracker is, and how a trial is named and described to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.files import identify

TAG_LENGTH = 64
"""W&B refuses longer tags."""


class Tracker(Protocol):
    """Told what happens in one worker's trials, one trial at a time.

    No method raises because recording failed: training goes on, the failure is reported through the tracker's
    ``notify`` and counted in ``failures``.
    """

    failures: int
    """Trial attempts whose record is missing or incomplete."""

    def start(self, config: RunConfig, *, sweep: str, attempt: int, extra: Mapping[str, Any]) -> str | None:
        """Begin one attempt (1-based) at a trial; the run's id, or None where nothing is recorded."""
        ...

    def epoch(self, log: EpochLog) -> None:
        """Record one finished epoch."""
        ...

    def finish(self, result: RunResult, row: Mapping[str, Any]) -> None:
        """End the attempt; ``row`` is the trial's row of the trials table, one summary key a column."""
        ...

    def close(self) -> None:
        """Write out everything and free the machine's resources; an unfinished attempt is marked interrupted."""
        ...


class NullTracker:
    """Records nothing."""

    failures = 0

    def start(self, config: RunConfig, *, sweep: str, attempt: int, extra: Mapping[str, Any]) -> str | None:
        """Nothing to start."""
        return None

    def epoch(self, log: EpochLog) -> None:
        """Nothing to record."""

    def finish(self, result: RunResult, row: Mapping[str, Any]) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to free."""


def run_id(trial_id: str, sweep: str, attempt: int) -> str:
    """``<trial id>-<attempt>-<4 digits of the sweep's name>``.

    The sweep is in it because two sweeps may hold the same trial, and within a W&B project ids are unique for ever.
    """
    return f"{trial_id}-{attempt}-{identify(sweep)[:4]}"


def flatten(value: Mapping[str, Any], prefix: str = "", separator: str = "_") -> dict[str, Any]:
    """Nested mappings as one level: ``{"recipe": {"lr": 1}}`` becomes ``{"recipe_lr": 1}`` (W&B nests on dots)."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{name}{separator}", separator)
        else:
            flat[name] = item
    return flat


def describe(config: RunConfig, *, sweep: str, attempt: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """A run's whole W&B config, flat.

    All of ``RunConfig`` (``data_name``, ``recipe_lr``, ``hyper_temperature``, ...), ``extra``, and the names that
    the trials table uses (sweep, trial_id, dataset, teacher, student, temperature, alpha), so that W&B can filter and
    group by the same words. ``retry_of`` names the run of the attempt before, an offline run cannot be resumed.
    """
    trains_teacher = config.phase == "teacher"
    flat = flatten(extra) | flatten(config.model_dump(mode="json"))
    flat |= {
        "sweep": sweep,
        "trial_id": config.id,
        "attempt": attempt,
        "dataset": config.data.name,
        "teacher": config.model if trains_teacher else config.teacher or extra.get("teacher"),
        "student": None if trains_teacher else config.model,
        "temperature": config.hyper.get("temperature"),
        "alpha": config.hyper.get("alpha"),
    }
    if attempt > 1:
        flat["retry_of"] = run_id(config.id, sweep, attempt - 1)
    return flat


def tags(described: Mapping[str, Any]) -> tuple[str, ...]:
    """Tags of a run: data set, teacher, student, method, phase; each once, at most 64 characters."""
    named = (described[key] for key in ("dataset", "teacher", "student", "method", "phase"))
    return tuple(dict.fromkeys(str(name)[:TAG_LENGTH] for name in named if name))


def history_row(log: EpochLog) -> dict[str, float]:
    """One epoch as W&B logs it: the fields of ``EpochLog`` that have a value, parts of the loss as ``parts/<name>``."""
    flat = flatten(log.model_dump(), separator="/")
    return {key: value for key, value in flat.items() if value is not None}
