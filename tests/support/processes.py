"""Command lines as real processes that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from kdbench.cli.main import main

PATIENCE = 800
"""Seconds that a command line may take on a busy machine."""
HOME = os.environ.get("HOME", "/")
"""As it is before a test sets one of its own: what the server imports may write there."""
PRELOADED = ["kdbench.run.worker", "kdbench.sweeps.run", "kdbench.papers.paper_plan", "kdbench.report.report", __name__]


def fork(target: Callable[..., object], *arguments: object, environment: Mapping[str, str] = os.environ) -> BaseProcess:
    """A process from a server that has torch and timm imported, as kdbench's own workers are."""
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(PRELOADED)
    process = forked.Process(target=_lead, args=(dict(environment), target, *arguments), daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", HOME)
        process.start()
    return process


def _lead(environment: dict[str, str], target: Callable[..., object], *arguments: object) -> None:
    """Lead a group, so that a kill takes all of it; hear Ctrl-C; have children."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked where kdbench itself began the server
    target(*arguments)


def start(words: Sequence[str], log: Path, **environment: str) -> BaseProcess:
    """The command line as a process of its own, with no W&B account."""
    log.touch()
    kept = {key: value for key, value in os.environ.items() if key not in ("WANDB_API_KEY", "WANDB_MODE")}
    return fork(_command, words, log, environment={**kept, **environment})


def _command(words: Sequence[str], log: Path) -> None:
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.exit(main(words))


def wait_for(what: Callable[[], object], process: BaseProcess, log: Path) -> None:
    """Until ``what`` is true, the process being alive."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert process.is_alive() and time.monotonic() < end, log.read_text(encoding="utf-8")[-3000:]
        time.sleep(0.01)


def ended_with(process: BaseProcess, log: Path, code: int) -> str:
    """Wait for its end; what it printed."""
    process.join(PATIENCE)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
    told = log.read_text(encoding="utf-8")
    assert process.exitcode == code, told[-3000:]
    return told


def finish(words: list[str], log: Path, code: int = 0) -> str:
    """Run to the end in a process of its own; what it printed."""
    return ended_with(start(words, log), log, code)
