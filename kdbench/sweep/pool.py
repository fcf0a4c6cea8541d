"""Local workers as processes of their own, each with its share of the cores; this process watches their files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from kdbench.config import Phase, RunConfig
from kdbench.errors import BadInput, MachineFault
from kdbench.sweep.events import View, epoch_event, trial_event
from kdbench.sweep.execute import PARENT_VARIABLE
from kdbench.sweep.machine import THREADS_VARIABLE, threads_each
from kdbench.sweep.options import WandbOptions
from kdbench.sweep.store import read_metrics, read_result
from kdbench.sweep.work import STORAGE_VARIABLE, Worker

LOOK = 1.0
"""Seconds between looks at the trials' folders."""


def run_pool(
    worker: Worker,
    count: int,
    sweep_dir: Path,
    *,
    storage: str,
    cache: Path,
    device: str,
    wandb: WandbOptions,
    view: View,
) -> None:
    """Start ``count`` workers and wait for them, showing what they do; stop them when this process is stopped.

    Raises:
        MachineFault: when every worker ended in an error, with the last one's words.
    """
    words = ["worker", sweep_dir.name, "--out", str(sweep_dir.parent), "--quiet"]
    more = {"KDBENCH_CACHE": str(cache.resolve()), STORAGE_VARIABLE: storage}
    processes = start_workers(count, words, sweep_dir, device=device, wandb=wandb, more=more)
    supervise(processes, worker, sweep_dir, view)


def start_workers(
    count: int, words: Sequence[str], folder: Path, *, device: str, wandb: WandbOptions, more: Mapping[str, str]
) -> list[subprocess.Popen[bytes]]:
    """``kdbench WORDS`` in ``count`` processes, each with its share of the cores and its log in ``folder``.

    ``more`` is added to their environment.
    """
    command = [sys.executable, "-m", "kdbench", *words]
    command += ["--device", device, "--wandb", wandb.mode, "--wandb-project", wandb.project]
    command += ["--wandb-entity", wandb.entity] if wandb.entity else []
    threads = str(threads_each(count))
    share = {THREADS_VARIABLE: threads, "OMP_NUM_THREADS": threads, PARENT_VARIABLE: str(os.getpid()), **more}
    processes = []
    for k in range(count):
        with (folder / f"worker-{k}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **share})
            processes.append(process)
    return processes


def supervise(processes: list[subprocess.Popen[bytes]], announcer: Announcer, folder: Path, view: View) -> None:
    """Wait for workers, showing what they do; stop them when this process is stopped.

    Raises:
        MachineFault: when every worker ended in an error, with the last one's words.
    """
    watch, count = Watch(announcer, folder, view), len(processes)
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


@contextmanager
def alone(folder: Path, instead: str) -> Iterator[None]:
    """Hold a folder: two coordinators would start twice as many workers as there are cores.

    Raises:
        BadInput: when another process holds it, with what to do ``instead``.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"'{folder.name}' is being run by another process; {instead}") from None
    try:
        yield
    finally:
        lock.release()


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask what still runs to end, wait, and kill what does not."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Announcer(Protocol):
    """Tells the view that a phase begins."""

    def announce(self, phase: Phase) -> None:
        """Called with every run's phase as it starts."""


class Watch:
    """Turns what workers write into events for the view."""

    def __init__(self, worker: Announcer, sweep_dir: Path, view: View) -> None:
        self._worker, self._dir, self._view = worker, sweep_dir, view
        self._epochs: dict[str, int] = {}
        self._ended = {path.parent.name for path in sweep_dir.glob("trials/*/result.json")}

    def look(self) -> None:
        """One pass over the trials' folders."""
        for path in sorted(self._dir.glob("trials/*/config.json")):
            folder = path.parent
            if folder.name in self._ended:
                continue
            config = RunConfig.model_validate_json(path.read_text(encoding="utf-8"))
            self._follow(folder, config)

    def _follow(self, folder: Path, config: RunConfig) -> None:
        if folder.name not in self._epochs:
            self._epochs[folder.name] = 0
            self._worker.announce(config.phase)
            self._view.trial_started(trial_event(config))
        logs = read_metrics(folder)
        for log in logs[self._epochs[folder.name] :]:
            self._view.epoch(epoch_event(config, log))
        self._epochs[folder.name] = len(logs)
        result = read_result(folder)
        if result is not None:
            self._ended.add(folder.name)
            self._view.trial_finished(trial_event(config, result.attempts, result))
