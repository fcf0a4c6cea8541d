"""Workers as actors of a Ray cluster (extra ``ray``): how a plan leaves one machine.

``ray start --head`` here and ``ray start --address=...`` elsewhere, then ``--executor ray``; results and cache must be
on a file system that all of them see. When a node goes, another actor takes its run from the checkpoint.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kdbench.errors import BadInput, MachineFault
from kdbench.run.events import Broken, Ended, Epoch, Event, Handle, Note, Setting
from kdbench.run.job import Job
from kdbench.run.lease import new_owner, release

try:
    import ray as _ray
    from ray.exceptions import RayError
except ImportError as error:
    raise BadInput("--executor ray needs Ray: pip install 'kdbench[ray]'") from error

cluster: Any = _ray  # its overloads know no actors made at run time
POLL = 0.05
"""Seconds between looks at the actors' events."""
STILLBORN = 5
"""Actors in a row that may end before they can be given anything."""
ENDING = 10.0
"""Seconds that an actor may take to be gone."""


class _Actor:
    """One worker; lives in a process of the cluster."""

    def __init__(self, setting: Setting, owner: str) -> None:
        self._setting, self._owner = setting, owner
        self._events: queue.Queue[Event] = queue.Queue()
        self._answers: queue.Queue[bool] = queue.Queue()
        self._context: Any = None

    def submit(self, job: Job) -> None:
        threading.Thread(target=self._run, args=(job,), daemon=True).start()

    def _tell(self, event: Event) -> bool:
        self._events.put(event)
        return self._answers.get() if isinstance(event, Epoch) else False

    def _run(self, job: Job) -> None:
        from kdbench.run.executors import portable
        from kdbench.run.worker import Context

        try:
            self._context = self._context or Context(self._setting, self._owner)
            self._context.execute(job, self._tell)
        except Exception as error:  # noqa: BLE001  the scheduler decides what becomes of it
            self._events.put(Broken(job.id, portable(error)))

    def events(self) -> list[Event]:
        found = []
        while not self._events.empty():
            found.append(self._events.get())
        return found

    def answer(self, value: bool) -> None:
        self._answers.put(value)


@dataclass(eq=False)
class _Worker:
    actor: Any
    owner: str
    told: Any
    """Its answer to the latest look at its events, which may not be there yet."""
    up: bool = False
    """Whether the cluster had room for it: before that it gets no job, which another could do."""
    job: Job | None = None


class RayExecutor:
    """``count`` actors, wherever the cluster has room for them."""

    def __init__(self, setting: Setting, handle: Handle, count: int) -> None:
        if not cluster.is_initialized():  # RAY_ADDRESS, what `ray start` began here, or a cluster of its own
            handler = signal.getsignal(signal.SIGTERM)
            cluster.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
            if threading.current_thread() is threading.main_thread():  # Ray puts one of its own there
                signal.signal(signal.SIGTERM, handler)
        self._setting, self._handle = setting, handle
        self._owners: set[str] = set()
        self._said, self._stillborn = False, 0
        self._workers = [self._start() for _ in range(count)]

    def _start(self) -> _Worker:
        gpus = 1 if cluster.cluster_resources().get("GPU") and self._setting.device != "cpu" else 0
        options = {"num_cpus": self._setting.threads, "num_gpus": gpus, "max_restarts": 0}
        owner = new_owner()
        self._owners.add(owner)
        actor = cluster.remote(**options)(_Actor).remote(self._setting, owner)
        return _Worker(actor, owner, actor.events.remote())

    def free(self) -> int:
        return sum(worker.up and worker.job is None for worker in self._workers)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self._workers if worker.up and worker.job is None)
        worker.job = job
        worker.actor.submit.remote(job)

    def poll(self, seconds: float) -> None:
        if not self._said and not any(worker.up for worker in self._workers):
            self._said = True
            self._handle(Note("waiting for room in the Ray cluster"))
        until, told = time.monotonic() + seconds, False
        while not told and time.monotonic() < until:
            asked = {worker.told: worker for worker in self._workers if worker.job is not None or not worker.up}
            answered = cluster.wait([*asked], num_returns=len(asked), timeout=POLL)[0] if asked else []
            for each in answered:
                told |= self._read(asked[each])
            time.sleep(POLL)

    def _read(self, worker: _Worker) -> bool:
        """Hand on what an actor has to tell; whether that was anything."""
        try:
            events, before = cluster.get(worker.told), worker.up
            worker.told, worker.up, self._stillborn = worker.actor.events.remote(), True, 0
            for event in events:
                if isinstance(event, Ended | Broken):
                    worker.job = None
                answer = self._handle(event)
                if isinstance(event, Epoch):
                    cluster.get(worker.actor.answer.remote(answer))
        except RayError as error:
            job = worker.job
            self._stillborn += not worker.up
            if self._stillborn > STILLBORN:
                raise MachineFault(f"workers end before they can be given anything ({error})") from error
            self._workers[self._workers.index(worker)] = self._start()
            if job is not None:
                words = RuntimeError(f"the worker of run {job.id} died ({str(error).splitlines()[0]})")
                self._handle(Broken(job.id, words, died=True))
            return True
        return bool(events) or not before

    def owns(self, owner: str | None) -> bool:
        return owner in self._owners

    def close(self) -> None:
        for worker in self._workers:
            cluster.kill(worker.actor)
        for worker in self._workers:
            if worker.job is not None:  # it was not asked to tidy up
                with suppress(RayError):
                    cluster.get(worker.actor.events.remote(), timeout=ENDING)
        release(self._setting.folder, self._setting.cache, self._owners)
        self._workers = []
