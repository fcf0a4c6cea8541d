"""The further processes of a worker whose runs take several devices each (``--gpus-per-run``)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from kdbench.errors import TrialFailed
from kdbench.run.events import Setting
from kdbench.run.job import Job
from kdbench.run.lease import new_owner
from kdbench.train.parallel import ALONE, Group

PATIENCE = timedelta(hours=2)
"""How long one process may wait for another, which fills a teacher's cache or measures meanwhile."""


class Ranks:
    """Started by the first run that needs them, kept for the next ones; whichever dies takes the others along."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self._setting, self._device, self.size = setting, device, setting.gpus_per_run
        self._processes: list[tuple[Any, Connection]] = []

    @contextmanager
    def join(self, job: Job) -> Iterator[Group]:
        """The group that trains the job: the other processes have begun it."""
        if self.size == 1:
            yield ALONE
            return
        if not self._processes:
            self._start()
        for _, pipe in self._processes:
            pipe.send(job)
        try:
            yield Group(0, self.size)
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        store = TCPStore("127.0.0.1", 0, self.size, is_master=True, wait_for_workers=False)
        spawn = multiprocessing.get_context("forkserver")
        spawn.set_forkserver_preload(["kdbench.run.worker"])
        for rank in range(1, self.size):
            here, there = spawn.Pipe()
            process = spawn.Process(target=follow, args=(there, self._setting, rank, store.port), daemon=True)
            process.start()
            there.close()
            self._processes.append((process, here))
        started = self._processes
        leave_with([process.sentinel for process, _ in started], lambda: self._processes is started)
        _meet(store, self._device, 0, self.size)

    def stop(self) -> None:
        """End them; the next run starts others."""
        gone, self._processes = self._processes, []
        for process, pipe in gone:
            process.kill()
            process.join()
            pipe.close()
        if dist.is_initialized():
            dist.destroy_process_group()


def _meet(store: Any, device: torch.device, rank: int, size: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)


def leave_with(others: list[Any], wanted: Any = lambda: True) -> None:
    """End this process when one of the others ends: a collective operation would wait for it."""

    def watch() -> None:
        wait(others)
        if wanted():
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def follow(pipe: Connection, setting: Setting, rank: int, port: int) -> None:
    """What such a process does: its part of every job, until the first one is gone."""
    from kdbench.run.worker import Context

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's
    leave_with([multiprocessing.parent_process().sentinel])  # type: ignore[union-attr]
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    context, size = Context(replace(setting, rank=rank), new_owner()), setting.gpus_per_run
    _meet(TCPStore("127.0.0.1", port, size, is_master=False), context.device, rank, size)
    with suppress(EOFError):
        while True:
            job: Job = pipe.recv()
            with suppress(TrialFailed):  # all of them see the same loss; the first one says so
                context.follow(job, Group(rank, size))
