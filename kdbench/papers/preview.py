"""What ``kdbench reproduce --dry-run`` prints: runs, hours on this machine, and what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kdbench.papers.estimate import estimate
from kdbench.papers.plan import Protocol, missing
from kdbench.papers.table import data_reason
from kdbench.sweep.context import pick_device
from kdbench.sweep.events import View
from kdbench.sweep.machine import limit_threads
from kdbench.sweep.measure import worker_count
from kdbench.sweep.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Line:
    """One kind of run."""

    name: str
    model: str
    method: str
    runs: int
    done: int
    epochs: int
    seconds: float
    """Of the runs still to do, with one process."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The plan of a table."""

    name: str
    folder: str
    lines: tuple[Line, ...]
    processes: int
    hours: float
    """Wall-clock hours of all that is left, with all processes."""
    hardware: str
    notes: tuple[str, ...]
    """What is missing, and what a user can do about it."""

    def as_json(self) -> dict[str, Any]:
        """Everything, for scripts."""
        return asdict(self)


def preview(protocol: Protocol, run: RunOptions, view: View) -> Preview:
    """Measure a few steps of each network that is still to be trained; the data need not be here."""
    device = pick_device(run.device)
    limit_threads()
    folder = run.out / protocol.name
    cost = estimate(protocol, folder, device=device, processes=worker_count(run.workers, device), view=view)
    lines = []
    for spec in protocol.runs:
        jobs = [job for job in protocol.jobs if job.run.name == spec.name]
        if jobs:  # a run that is the same as another's is counted there
            todo = len(missing(jobs, folder))
            lines.append(
                Line(
                    name=spec.name,
                    model=spec.model,
                    method=spec.method,
                    runs=len(jobs),
                    done=len(jobs) - todo,
                    epochs=protocol.recipe(spec).epochs,
                    seconds=cost.seconds.get(spec.name, 0.0),
                )
            )
    return Preview(
        name=protocol.name,
        folder=str(folder),
        lines=tuple(lines),
        processes=cost.processes,
        hours=cost.hours,
        hardware=cost.hardware,
        notes=_notes(protocol),
    )


def _notes(protocol: Protocol) -> tuple[str, ...]:
    notes = []
    lacking = data_reason(protocol.paper.dataset)
    if lacking:
        notes.append(f"Missing: {lacking}. Without KDBENCH_DOWNLOAD=0 the first run tries to download it.")
    never = [cell for cell in protocol.cells if cell.run is None]
    for reason in dict.fromkeys(cell.reason for cell in never):
        some = [cell.id for cell in never if cell.reason == reason]
        named = ", ".join(some) if len(some) < 5 else f"{some[0]} and {len(some) - 1} more rows"
        notes.append(f"Never run here ({named}): {reason}.")
    return tuple(notes)
