"""A paper's protocol as a plan for the scheduler: a fixed list of runs, teachers before their students."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kdbench.catalog.datasets import DATASETS
from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.data import load
from kdbench.errors import BadInput
from kdbench.papers.plan import Protocol
from kdbench.papers.table import data_reason
from kdbench.run.devices import pick_device
from kdbench.run.estimate import DryRun, dry_run
from kdbench.run.job import Finished, Job, Planned
from kdbench.run.launch import RunOptions, run_plan, warm_up, worker_count
from kdbench.run.machine import threads_each
from kdbench.run.observers import Observer
from kdbench.run.store import load_runs
from kdbench.run.words import counted
from kdbench.train.step import describe_hardware


class PaperPlan:
    """Implements ``kdbench.run.job.Plan``."""

    passes = 0

    def __init__(self, protocol: Protocol) -> None:
        self.protocol, self.name = protocol, protocol.name
        self._jobs = []
        for job in protocol.jobs:
            keep = {"weights"} if job.config.id in protocol.teacher_ids else set()
            keep |= {"logits"} if job.keep_logits else set()
            self._jobs.append(Job(job.config, job.teacher, frozenset(keep), label=job.run.name))  # type: ignore[arg-type]

    def jobs(self, finished: Finished) -> Iterator[Job]:
        """Without those whose teacher has no result yet, or failed for good."""
        for job in self._jobs:
            if job.id not in finished:
                taught = finished.get(job.teacher.id) if job.teacher is not None else None
                if job.teacher is None or (taught is not None and taught.status != "failed"):
                    yield job

    def kind(self, config: RunConfig) -> str:
        return config.id

    def planned(self, done: Mapping[Hashable, int]) -> list[Planned]:
        """One line for each kind of run; a run that is the same as another's is counted there."""
        kinds = []
        for name in dict.fromkeys(job.label for job in self._jobs):
            some = [job for job in self._jobs if job.label == name]
            example, ended = some[0], sum(job.id in done for job in some)
            kinds.append(Planned(example.config.phase, name, example.config, example.teacher, len(some), ended))
        return kinds

    def epoch(self, job: Job, log: EpochLog) -> bool:
        return False

    def ended(self, job: Job, result: RunResult) -> None:
        return

    def spec(self) -> dict[str, Any]:
        return {**self.protocol.paper.model_dump(mode="json"), "first_seed": self.protocol.first_seed}


def plan_paper(protocol: Protocol, run: RunOptions, observer: Observer) -> DryRun:
    """What ``run_paper`` would do, and what is missing; the data need not be here."""
    observer.message("planning")
    device = pick_device(run.device)
    workers = worker_count(run.workers, device.type)
    return dry_run(
        PaperPlan(protocol), run.out / protocol.name, DATASETS.get(protocol.paper.dataset), device=device,
        workers=workers, threads=torch.get_num_threads() if workers == 1 else threads_each(workers), cache=run.cache,
        tell=observer.message, notes=_notes(protocol),
    )  # fmt: skip


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


def run_paper(
    protocol: Protocol,
    run: RunOptions,
    observer: Observer,
    *,
    max_hours: float,
    command: str,
    tracking: Callable[[], Observer] | None = None,
) -> Path:
    """Run what the table lacks; returns its folder, ``<out>/<name>``.

    Raises:
        BadInput: another process runs this table, or it would take longer than ``max_hours``.
        MachineFault: the data are not here.
    """
    folder, plan = run.out / protocol.name, PaperPlan(protocol)
    finished = {each.config.id: each.result for each in load_runs(folder)}
    if next(plan.jobs(finished), None) is None:
        return folder
    observer.message("preparing: data, networks, workers")
    warm_up(run)
    device = pick_device(run.device)
    check_data(protocol)
    cost = plan_paper(protocol, run, observer)
    if cost.seconds is not None and cost.seconds > max_hours * 3600:
        raise BadInput(
            f"the missing runs would take about {cost.seconds / 3600:.1f} hours on this machine "
            f"({counted(cost.workers, 'worker')}, {cost.hardware}), more than --max-hours {max_hours:g}: "
            "choose rows (--rows), fewer --seeds, or allow more"
        )
    more: Sequence[Callable[[], Observer]] = [tracking] if tracking else []
    return run_plan(
        plan, run, observer, device=str(device), hardware=describe_hardware(device), command=command, more=more,
        sources=protocol.sources,
    )  # fmt: skip


def check_data(protocol: Protocol) -> None:
    """What is wrong with the data is said before anything is written.

    Raises:
        MachineFault: they are nowhere, and cannot be fetched.
    """
    config = protocol.jobs[0].config
    load(DATASETS.get(config.data.name), config.data, config.recipe, torch.device("cpu"))
