"""The coordinator of a table: check, refuse what would take too long, let workers run, leave the runs on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from kdbench.config import Phase
from kdbench.errors import BadInput
from kdbench.papers.estimate import Estimate, estimate
from kdbench.papers.plan import Protocol, missing
from kdbench.papers.run import Bench, PaperWorker
from kdbench.sweep import manifest
from kdbench.sweep.context import pick_device
from kdbench.sweep.events import View
from kdbench.sweep.machine import limit_threads, threads_each
from kdbench.sweep.measure import worker_count
from kdbench.sweep.options import RunOptions, WandbOptions
from kdbench.sweep.pool import alone, start_workers, supervise
from kdbench.tracking import open_trackers
from kdbench.train.hardware import describe_hardware


def run_paper(
    protocol: Protocol, arguments: Sequence[str], run: RunOptions, *, max_hours: float, view: View, command: str
) -> Path:
    """Run what the table lacks; returns its folder, ``<out>/<name>``.

    ``arguments`` are the command line words that ask for the same protocol: what a worker process is started with.

    Raises:
        BadInput: another process runs this table, or it would take longer than ``max_hours``.
        MachineFault: the data are not here, or every worker ended in an error.
    """
    device = pick_device(run.device)
    limit_threads()
    folder = run.out / protocol.name
    if not missing(protocol.jobs, folder):
        return folder
    processes = worker_count(run.workers, device)
    bench = Bench(folder, run.cache, device)
    bench.data(protocol.jobs[0].config)  # what is wrong with the data is said before anything is written
    _check_length(estimate(protocol, folder, device=device, processes=processes, view=view), max_hours)
    folder.mkdir(parents=True, exist_ok=True)
    run.cache.mkdir(parents=True, exist_ok=True)
    with alone(folder, "wait for it, or stop it"):
        threads = torch.get_num_threads() if processes == 1 else threads_each(processes)
        hardware = describe_hardware(device)
        manifest.begin(folder, protocol.paper, command=command, device=hardware, threads=threads, workers=processes)
        announcer = _Announcer(protocol, folder, view)
        if processes > 1:
            announcer.announce("confirm")
            words = ["reproduce", *arguments, "--as-worker", "--quiet"]
            words += ["--out", str(run.out), "--cache", str(run.cache.resolve())]
            workers = start_workers(processes, words, folder, device=run.device, wandb=run.wandb, more={})
            supervise(workers, announcer, folder, view)
        _finish_here(protocol, bench, run.wandb, view, announcer)
    return folder


def work_on(protocol: Protocol, run: RunOptions, view: View) -> None:
    """What a worker process does: take runs until none is left."""
    limit_threads()
    bench = Bench(run.out / protocol.name, run.cache, pick_device(run.device))
    _finish_here(protocol, bench, run.wandb, view, None)


def _finish_here(
    protocol: Protocol, bench: Bench, wandb: WandbOptions, view: View, announcer: _Announcer | None
) -> None:
    if not missing(protocol.jobs, bench.folder):
        return
    if announcer is not None:
        announcer.announce("confirm")
    place, project, entity = bench.folder, wandb.project, wandb.entity
    with open_trackers(wandb.mode, root=place, project=project, entity=entity, notify=view.note) as trackers:
        PaperWorker(protocol, bench, trackers, view).loop()


class _Announcer:
    """Tells the view once how many runs there are."""

    def __init__(self, protocol: Protocol, folder: Path, view: View) -> None:
        self._protocol, self._folder, self._view = protocol, folder, view
        self._seen: set[Phase] = set()

    def announce(self, phase: Phase) -> None:
        """``phase``'s runs, and how many of them were there before."""
        if phase not in self._seen:
            self._seen.add(phase)
            jobs = [job for job in self._protocol.jobs if job.config.phase == phase]
            self._view.phase(phase, len(jobs), len(jobs) - len(missing(jobs, self._folder)))


def _check_length(cost: Estimate, max_hours: float) -> None:
    if cost.hours > max_hours:
        raise BadInput(
            f"the missing runs would take about {cost.hours:.1f} hours on this machine ({cost.processes} processes, "
            f"{cost.hardware}), more than --max-hours {max_hours:g}: choose rows (--rows), fewer --seeds, or allow more"
        )
