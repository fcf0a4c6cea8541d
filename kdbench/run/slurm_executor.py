"""Workers as jobs of Slurm, through submitit (extra ``slurm``): the coordinator stays where it was started.

Each worker is one Slurm job that connects back to the coordinator and then takes runs one after the other, as a local
process does; results and cache must be on a file system that all see. A job that Slurm preempts and requeues connects
again under the same name, and what it trained goes on from its checkpoint.
"""

from __future__ import annotations

import os
import queue
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge, wait
from pathlib import Path
from typing import Any

from kdbench.errors import BadInput, MachineFault
from kdbench.run.events import Broken, Handle, Note, Setting
from kdbench.run.executors import LocalExecutor, Worker, work
from kdbench.run.lease import new_owner, release

try:
    import submitit
except ImportError as error:
    raise BadInput("--executor slurm needs submitit: pip install 'kdbench[slurm]'") from error

LOOK = 0.2
"""Seconds between looks at who has connected."""
ASK = 10.0
"""Seconds between questions to Slurm whether jobs that are not connected still exist."""
STILLBORN = 5
"""Jobs in a row that may end without connecting."""


class Work:
    """What a Slurm job runs; ``checkpoint`` is submitit's hook for a job that is told to make room."""

    def __init__(self, address: tuple[str, int], key: Path, setting: Setting, owner: str) -> None:
        self.address, self.key, self.setting, self.owner = address, key, setting, owner

    def __call__(self) -> None:
        try:
            with Client(self.address, authkey=self.key.read_bytes()) as pipe:
                pipe.send(self.owner)
                work(pipe, self.setting, self.owner)
        except (OSError, EOFError, AuthenticationError):  # the coordinator is gone, or another one
            return

    def checkpoint(self) -> Any:
        return submitit.helpers.DelayedSubmission(self)


class SlurmExecutor(LocalExecutor):
    """``count`` jobs of Slurm. ``wanted``: ``partition=gpu``, ``time=240``, ... of sbatch; ``cluster=local`` for a try
    with processes of this machine.

    Raises:
        BadInput: no Slurm here, or what it does not know.
    """

    def __init__(self, setting: Setting, handle: Handle, count: int, wanted: Sequence[str] = ()) -> None:
        asked = dict(_pair(each) for each in wanted)
        self._place = setting.folder / ".slurm"
        self._place.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = self._place / "key"
        key.unlink(missing_ok=True)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(32))
        try:
            self._submitter = submitit.AutoExecutor(self._place, cluster=asked.pop("cluster", "slurm"))
            about: dict[str, Any] = {f"slurm_{name}": value for name, value in asked.items()}
            own = {"cpus_per_task": setting.threads, "timeout_min": int(about.pop("slurm_time", 240))}
            self._submitter.update_parameters(name="kdbench", **own, **about)
        except (RuntimeError, NameError, ValueError, TypeError) as error:
            why = str(error).splitlines()[0]
            raise BadInput(f"--executor slurm: {why}; --slurm takes options of sbatch, KEY=VALUE") from error
        self._setting, self._handle, self._owners = setting, handle, set()
        self._listener, self._closed = Listener(("", 0), backlog=count + 1), False
        self._address = (socket.gethostname(), self._listener.address[1])
        self._secret = key.read_bytes()
        self._key, self._stillborn, self._asked, self._said = key, 0, time.monotonic(), False
        self._arrived: queue.Queue[tuple[str, Connection]] = queue.Queue()
        threading.Thread(target=self._accept, daemon=True).start()
        self._workers = [self._start() for _ in range(count)]

    def _start(self, place: int = 0) -> Worker:
        owner = new_owner()
        self._owners.add(owner)
        try:
            job = self._submitter.submit(Work(self._address, self._key, self._setting, owner))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, OSError) as error:
            raise MachineFault(f"Slurm refused a job: {str(error).splitlines()[-1]}") from error
        return Worker(job, None, owner)

    def _accept(self) -> None:
        while not self._closed:
            try:
                pipe = self._listener.accept()
            except OSError:  # closed, or somebody who was gone at once
                time.sleep(LOOK)
                continue
            threading.Thread(target=self._welcome, args=(pipe, self._secret), daemon=True).start()

    def _welcome(self, pipe: Connection, secret: bytes) -> None:
        """Let in who has the key, as ``Listener`` does with one; a stranger, silent or not, holds up nobody."""
        try:
            deliver_challenge(pipe, secret)
            answer_challenge(pipe, secret)
            self._arrived.put((pipe.recv(), pipe))
        except (AuthenticationError, EOFError, OSError, ValueError):
            pipe.close()

    def poll(self, seconds: float) -> None:
        until, heard = time.monotonic() + seconds, False
        while not heard and time.monotonic() < until:
            self._greet()
            pipes = {worker.pipe: worker for worker in self._workers if worker.pipe is not None}
            if not pipes and not self._said:
                self._said = True
                self._handle(Note("waiting for Slurm to start a worker"))
            if not pipes:
                time.sleep(LOOK)
                continue
            for pipe in wait(list(pipes), timeout=LOOK):
                heard = True
                self._read(pipes[pipe])  # type: ignore[index]

    def _greet(self) -> None:
        """Workers that have connected, for the first time or again; jobs that ended without are replaced."""
        while not self._arrived.empty():
            owner, pipe = self._arrived.get()
            worker = next((each for each in self._workers if each.owner == owner), None)
            if worker is None:
                pipe.close()
                continue
            if worker.pipe is not None:
                self._replace(worker)
            worker.pipe, self._stillborn = pipe, 0
        if time.monotonic() - self._asked < ASK or all(worker.pipe for worker in self._workers):
            return
        self._asked = time.monotonic()
        for k, worker in enumerate(self._workers):
            if worker.pipe is None and not alive(worker.process):
                self._stillborn += 1
                if self._stillborn > STILLBORN:
                    raise MachineFault(f"Slurm's jobs end before they connect: see {self._place} for what they say")
                self._workers[k] = self._start()

    def _replace(self, worker: Worker) -> None:
        """A worker's line is dead: Slurm may start its job again, which then connects; else another is started."""
        job, worker.job = worker.job, None
        if worker.pipe is not None:
            worker.pipe.close()
        worker.pipe = None
        if job is not None:
            words = MachineFault(f"the Slurm job of run {job.id} was preempted or died")
            self._handle(Broken(job.id, words, died=True))

    def close(self) -> None:
        self._closed = True
        self._listener.close()
        for worker in self._workers:
            if worker.pipe is not None:
                worker.pipe.close()
            with suppress(OSError, subprocess.CalledProcessError):
                worker.process.cancel(check=False)
        until = time.monotonic() + ASK
        while any(alive(worker.process) for worker in self._workers) and time.monotonic() < until:
            time.sleep(LOOK)
        release(self._setting.folder, self._setting.cache, self._owners)
        self._workers = []
        self._key.unlink(missing_ok=True)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise BadInput(f"slurm: write KEY=VALUE, such as partition=gpu, not '{text}'")
    return name.strip().replace("-", "_"), value.strip()


def alive(job: Any) -> bool:
    """Whether Slurm still has the job, running, waiting or to be requeued; asked without its accounting database."""
    if not isinstance(job, submitit.SlurmJob):
        return job.poll_state() == "RUNNING" if hasattr(job, "poll_state") else not job.done()
    done = subprocess.run(["squeue", "-h", "-j", job.job_id, "-o", "%T"], capture_output=True, text=True, check=False)
    ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"}
    return bool(states := set(done.stdout.split())) and not states <= ended
