"""Where jobs run: in this process, or in persistent workers beside it. One contract, one test for all of them.

A worker that dies is told as ``Broken(died=True)`` and replaced; its job goes on from the checkpoint elsewhere.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Protocol

from kdbench.errors import MachineFault
from kdbench.run.events import Broken, Ended, Epoch, Event, Handle, Setting
from kdbench.run.job import Job
from kdbench.run.lease import new_owner, release

if TYPE_CHECKING:
    from kdbench.run.worker import Context

STOP_SECONDS = 10.0
"""How long a worker may take to end when it is asked to."""


class Executor(Protocol):
    """Runs jobs; events reach the ``handle`` that it was made with, in this process, during ``poll``."""

    def free(self) -> int:
        """How many more jobs may be submitted now."""

    def submit(self, job: Job) -> None:
        """Begin a job; never blocks for long."""

    def poll(self, seconds: float) -> None:
        """Wait up to ``seconds`` for events and hand them on."""

    def owns(self, owner: str | None) -> bool:
        """Whether a lease's owner is (or was) a worker of this executor."""

    def close(self) -> None:
        """Stop all workers, whatever they do."""


class InlineExecutor:
    """One job at a time, in this very process: for one worker, notebooks and tests."""

    def __init__(self, setting: Setting, handle: Handle) -> None:
        self._setting, self._handle, self._owner = setting, handle, new_owner()
        self._jobs: list[Job] = []
        self._context: Context | None = None

    def free(self) -> int:
        return 1 - len(self._jobs)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def poll(self, seconds: float) -> None:
        if not self._jobs:
            return
        job = self._jobs[0]
        try:
            if self._context is None:
                from kdbench.run.worker import Context

                self._context = Context(self._setting, self._owner)
            self._context.execute(job, self._tell)
        except Exception as error:  # noqa: BLE001  the scheduler decides what becomes of it
            self._jobs.remove(job)
            self._handle(Broken(job.id, error))

    def _tell(self, event: Event) -> bool:
        if isinstance(event, Ended):
            self._jobs.clear()
        return self._handle(event)

    def owns(self, owner: str | None) -> bool:
        return owner == self._owner

    def close(self) -> None:
        self._jobs.clear()
        self._context = None
        release(self._setting.folder, self._setting.cache, {self._owner})


@dataclass(eq=False)
class Worker:
    """One worker: what runs it, the line to it, what its leases say, and what it does."""

    process: Any
    """Of this machine, or a job of a cluster."""
    pipe: Connection | None
    """None while it is not connected."""
    owner: str
    job: Job | None = field(default=None)


class LocalExecutor:
    """``count`` processes of this machine, forked from a server that has torch and timm imported already."""

    def __init__(self, setting: Setting, handle: Handle, count: int) -> None:
        self._setting, self._handle = setting, handle
        self._spawn = multiprocessing.get_context("forkserver")
        self._spawn.set_forkserver_preload(["kdbench.run.preload"])
        self._owners: set[str] = set()
        self._workers = [self._start(k) for k in range(count)]

    def _start(self, place: int = 0) -> Worker:
        here, there = self._spawn.Pipe()
        owner = new_owner()
        setting = replace(self._setting, worker=place)
        process = self._spawn.Process(target=work, args=(there, setting, owner), daemon=True)
        with unheard(), _bare_main():
            process.start()
        there.close()
        self._owners.add(owner)
        return Worker(process, here, owner)

    def free(self) -> int:
        return sum(worker.job is None and worker.pipe is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self._workers if worker.job is None and worker.pipe is not None)
        worker.job = job
        with suppress(OSError):  # it is gone: `poll` will notice
            assert worker.pipe is not None
            worker.pipe.send(job)

    def poll(self, seconds: float) -> None:
        pipes = {worker.pipe: worker for worker in self._workers if worker.pipe is not None}
        for pipe in wait(list(pipes), timeout=seconds):
            self._read(pipes[pipe])  # type: ignore[index]

    def _read(self, worker: Worker) -> None:
        assert worker.pipe is not None
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        if isinstance(event, Ended | Broken):
            worker.job = None
        answer = self._handle(event)
        if isinstance(event, Epoch):
            with suppress(OSError):
                worker.pipe.send(answer)

    def _replace(self, worker: Worker) -> None:
        """A worker died: start another, then tell whose job it was."""
        assert worker.pipe is not None
        worker.process.join(timeout=STOP_SECONDS)
        code, job = worker.process.exitcode, worker.job
        worker.pipe.close()
        place = self._workers.index(worker)
        self._workers[place] = self._start(place)
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        if job is not None:
            self._handle(Broken(job.id, MachineFault(f"the worker of run {job.id} died ({how})"), died=True))
        elif code is None or code >= 0:
            raise MachineFault(f"a worker ended before it could be given anything ({how}); see its message above")

    def owns(self, owner: str | None) -> bool:
        return owner in self._owners

    def close(self) -> None:
        try:
            for worker in self._workers:
                assert worker.pipe is not None
                worker.pipe.close()
                if worker.process.is_alive():
                    worker.process.terminate()
            for worker in self._workers:
                worker.process.join(timeout=STOP_SECONDS)
        finally:  # a second Ctrl-C may come meanwhile
            for worker in self._workers:
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()
            release(self._setting.folder, self._setting.cache, self._owners)
            self._workers = []


def work(pipe: Connection, setting: Setting, owner: str) -> None:
    """What a worker process does: jobs in, events out, until the pipe closes (the coordinator is gone)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A daemon, so that no exit waits for it, may have no children: but a data loader's processes are its children.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    from kdbench.run.worker import Context

    def tell(event: Event) -> bool:
        pipe.send(event)
        return bool(pipe.recv()) if isinstance(event, Epoch) else False

    context: Context | None = None
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job: Job = pipe.recv()
            try:
                context = context or Context(setting, owner)
                context.execute(job, tell)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:  # noqa: BLE001  the scheduler decides what becomes of it
                pipe.send(Broken(job.id, portable(error)))


def portable(error: Exception) -> Exception:
    """The error as something that can be sent: its own kind where that can be pickled, else its words."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own object, in this process
    except Exception:  # noqa: BLE001
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def unheard() -> Iterator[None]:
    """Processes that begin here never hear Ctrl-C, which reaches the whole group: the coordinator decides."""
    resource_tracker.ensure_running()  # its own start would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _bare_main() -> Iterator[None]:
    """Start processes that do not run the user's script again: it needs no ``if __name__ == "__main__"``."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def make_executor(kind: str, workers: int, setting: Setting, handle: Handle, wanted: Sequence[str] = ()) -> Executor:
    """``local`` (in this process for one worker), ``ray`` or ``slurm``, which is asked for what is ``wanted``."""
    if kind == "slurm":
        from kdbench.run.slurm_executor import SlurmExecutor

        return SlurmExecutor(setting, handle, workers, wanted)
    if kind == "ray":
        from kdbench.run.ray_executor import RayExecutor

        return RayExecutor(setting, handle, workers)
    inline = workers == 1 and setting.gpus_per_run == 1
    return InlineExecutor(setting, handle) if inline else LocalExecutor(setting, handle, workers)
