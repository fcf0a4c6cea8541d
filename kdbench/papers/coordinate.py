"""The coordinator of a table: check, refuse what would take too long, let workers run, leave the runs on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from kdbench.engine.hardware import describe_hardware
from kdbench.errors import BadInput, MachineFault
from kdbench.papers.estimate import Estimate, estimate
from kdbench.papers.plan import Protocol, missing
from kdbench.papers.run import Bench, PaperWorker
from kdbench.schema import Phase
from kdbench.sweep import manifest
from kdbench.sweep.context import pick_device
from kdbench.sweep.events import View
from kdbench.sweep.execute import PARENT_VARIABLE
from kdbench.sweep.machine import THREADS_VARIABLE, limit_threads, threads_each
from kdbench.sweep.measure import worker_count
from kdbench.sweep.options import RunOptions, WandbOptions
from kdbench.sweep.pool import LOOK, Watch, stop
from kdbench.track import make_tracker


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
    with _alone(folder):
        threads = torch.get_num_threads() if processes == 1 else threads_each(processes)
        hardware = describe_hardware(device)
        manifest.begin(folder, protocol.paper, command=command, device=hardware, threads=threads, workers=processes)
        announcer = _Announcer(protocol, folder, view)
        if processes > 1:
            _pool(protocol, arguments, run, folder, processes, announcer, view)
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
    tracker = make_tracker(wandb.mode, root=bench.folder, project=wandb.project, entity=wandb.entity, notify=view.note)
    with closing(tracker):
        PaperWorker(protocol, bench, tracker, view).loop()


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


def _pool(
    protocol: Protocol,
    arguments: Sequence[str],
    run: RunOptions,
    folder: Path,
    count: int,
    announcer: _Announcer,
    view: View,
) -> None:
    """Start ``count`` worker processes and wait for them; stop them when this process is stopped.

    Raises:
        MachineFault: when every one ended in an error, with the last one's words.
    """
    announcer.announce("confirm")
    processes = [_spawn(k, arguments, run, folder, threads_each(count)) for k in range(count)]
    watch = Watch(announcer, folder, view)
    try:
        while any(process.poll() is None for process in processes):
            watch.look()
            time.sleep(LOOK)
        watch.look()
    finally:
        stop(processes)
    failed = [k for k, process in enumerate(processes) if process.returncode != 0]
    if len(failed) == count:
        log = folder / f"worker-{failed[-1]}.log"
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        raise MachineFault(f"all {count} workers ended in an error; the last said: {words[-1]} (see {log})")
    if failed:
        view.note(f"{len(failed)} of {count} workers ended in an error; their runs go on here")


def _spawn(k: int, arguments: Sequence[str], run: RunOptions, folder: Path, threads: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "kdbench", "reproduce", *arguments, "--as-worker", "--quiet"]
    command += ["--out", str(run.out), "--cache", str(run.cache.resolve()), "--device", run.device]
    command += ["--wandb", run.wandb.mode, "--wandb-project", run.wandb.project]
    command += ["--wandb-entity", run.wandb.entity] if run.wandb.entity else []
    share = {
        THREADS_VARIABLE: str(threads),
        "OMP_NUM_THREADS": str(threads),
        PARENT_VARIABLE: str(os.getpid()),
    }
    with (folder / f"worker-{k}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **share})


def _check_length(cost: Estimate, max_hours: float) -> None:
    if cost.hours > max_hours:
        raise BadInput(
            f"the missing runs would take about {cost.hours:.1f} hours on this machine ({cost.processes} processes, "
            f"{cost.hardware}), more than --max-hours {max_hours:g}: choose rows (--rows), fewer --seeds, or allow more"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the table's folder.

    Raises:
        BadInput: when another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"'{folder.name}' is being run by another process; wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()
