"""How a run is named and described in W&B, and the journal of what was told to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdbench.config import EpochLog, RunConfig
from kdbench.run.observers import wandb_id
from kdbench.run.words import counted

TAG_LENGTH = 64
"""W&B refuses longer tags."""
TARGET = ("entity", "project", "id")
"""What leads to a run on the server."""
JOURNAL = Path("wandb", "runs.jsonl")
"""In a plan's folder: a line for each start that W&B was told of."""


def flatten(value: Mapping[str, Any], prefix: str = "", separator: str = "_") -> dict[str, Any]:
    """Nested mappings as one level: ``{"recipe": {"lr": 1}}`` becomes ``{"recipe_lr": 1}`` (W&B nests on dots)."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        flat |= flatten(item, f"{name}{separator}", separator) if isinstance(item, Mapping) else {name: item}
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
        "teacher": config.teacher or (config.model if trains_teacher else extra.get("teacher")),
        "student": None if trains_teacher else config.model,
        "temperature": config.hyper.get("temperature"),
        "alpha": config.hyper.get("alpha"),
    }
    if attempt > 1:
        flat["retry_of"] = wandb_id(config.id, sweep, attempt - 1)
    return flat


def tags(described: Mapping[str, Any]) -> tuple[str, ...]:
    """Data set, teacher, student, method, phase, then the user's WANDB_TAGS; each once, at most 64 characters."""
    named = [described[key] for key in ("dataset", "teacher", "student", "method", "phase")]
    named += (tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(","))
    return tuple(dict.fromkeys(str(name)[:TAG_LENGTH] for name in named if name))


def init_arguments(config: RunConfig, *, sweep: str, attempt: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What ``wandb.init`` is told of an attempt that starts now; ``started`` tells it from others of its id."""
    described = describe(config, sweep=sweep, attempt=attempt, extra=extra)
    return {
        "id": wandb_id(config.id, sweep, attempt),
        "name": f"{config.phase} {config.model} {config.condition} s{config.seed}",
        "group": sweep,
        "job_type": config.phase,
        "tags": tags(described),
        "config": described | {"started": datetime.now(UTC).isoformat(timespec="milliseconds")},
    }


def history_row(log: EpochLog) -> dict[str, float]:
    """One epoch as W&B logs it: the fields of ``EpochLog`` that have a value, parts of the loss as ``parts/<name>``."""
    flat = flatten(log.model_dump(), separator="/")
    return {key: value for key, value in flat.items() if value is not None}


def summary_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the runs table as a run's summary: scalars of numpy as Python's, NaN as None (W&B stores a text)."""
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in row.items()}
    return {key: None if isinstance(value, float) and value != value else value for key, value in plain.items()}


def note(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the journal of a plan's folder."""
    path = folder / JOURNAL
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"\n{json.dumps(line)}\n")  # a line of its own, even behind one that a kill tore


def read_journal(folder: Path, notify: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """The last start of each run, by run id; lines that were cut off or damaged are left out, and counted."""
    starts: dict[str, dict[str, Any]] = {}
    lines, damaged = [], 0
    with suppress(FileNotFoundError):
        lines = (folder / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
    for line in filter(str.strip, lines):
        try:
            start = json.loads(line)
            _ = start["arguments"]["config"]["started"], *map(start["arguments"].__getitem__, TARGET)
            starts[str(start["run"])] = start
        except (ValueError, KeyError, TypeError):
            damaged += 1
    if damaged:
        unread = counted(damaged, "line")
        notify(f"{folder / JOURNAL}: {unread} unreadable; runs that are in no other line are not sent")
    return starts
