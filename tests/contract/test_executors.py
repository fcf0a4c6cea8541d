"""Every executor keeps one contract: jobs end once, answers reach their epochs, a dead worker costs no run."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path

import psutil
import pytest

from kdbench.config import RunResult
from kdbench.errors import BadInput
from kdbench.run import lease
from kdbench.run.events import Broken, Ended, Epoch, Event, Setting
from kdbench.run.executors import Executor, InlineExecutor, LocalExecutor, make_executor
from kdbench.run.job import Finished, Job
from kdbench.run.observers import Observers
from kdbench.run.scheduler import Scheduler
from kdbench.run.speeds import Speeds
from kdbench.run.store import load_runs, run_folder, write_config, write_result
from kdbench.sweeps.groups import Group
from kdbench.sweeps.plan import SweepPlan
from tests.support.helpers import ROOT
from tests.support.sweeps import LARGE, SMALL, spec

KINDS = [
    ("inline", 1),
    ("local", 2),
    pytest.param(("ray", 1), marks=pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")),
    pytest.param(
        ("slurm", 1), marks=pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit")
    ),
]


class Heard:
    """Remembers what an executor tells; ends runs of the networks in ``prune`` after their first epoch."""

    def __init__(self, *prune: str) -> None:
        self.events: list[Event] = []
        self._prune, self.of = prune, dict[str, Job]()

    def __call__(self, event: Event) -> bool:
        self.events.append(event)
        return isinstance(event, Epoch) and self.of[event.id].config.model in self._prune

    def ended(self) -> dict[str, RunResult]:
        return {event.id: event.result for event in self.events if isinstance(event, Ended)}


def setting(folder: Path) -> Setting:
    return Setting(folder=folder / "plan", cache=folder / "cache", device="cpu")


def jobs(count: int, epochs: int = 3) -> list[Job]:
    plan = SweepPlan(spec(epochs=epochs, precision="fp32"))
    groups = [Group("baseline", SMALL, "hard"), Group("baseline", LARGE, "hard")]
    return [Job(plan.config(groups[k % 2], {}, k // 2)) for k in range(count)]


@pytest.fixture(scope="module")
def no_cluster_left() -> Iterator[None]:
    """Ray's cluster serves all tests."""
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.fixture(params=KINDS, ids=["inline", "local", "ray", "slurm"])
def executor(request: pytest.FixtureRequest, tmp_path: Path, no_cluster_left: None) -> Iterator[tuple[Executor, Heard]]:
    kind, workers = request.param
    heard = Heard(LARGE)
    wanted = ["cluster=local"]  # submitit's own: the same jobs as processes; tests/e2e/test_slurm.py has Slurm itself
    made = make_executor("local" if kind == "inline" else kind, workers, setting(tmp_path), heard, wanted)
    yield made, heard
    made.close()


def drive(made: Executor, heard: Heard, todo: list[Job]) -> None:
    left = list(todo)
    heard.of.update({job.id: job for job in todo})
    until = time.monotonic() + 300
    while len(heard.ended()) < len(todo):
        assert time.monotonic() < until
        while left and made.free():
            made.submit(left.pop(0))
        made.poll(0.5)


def test_every_job_ends_once_and_answers_are_heard(executor: tuple[Executor, Heard], tmp_path: Path) -> None:
    """And what concerns more than one run comes back as it was raised."""
    made, heard = executor
    todo = jobs(4)
    drive(made, heard, todo)
    ended = heard.ended()
    assert Counter(event.id for event in heard.events if isinstance(event, Ended)) == Counter(job.id for job in todo)
    for job in todo:
        pruned = job.config.model == LARGE
        assert (ended[job.id].status, ended[job.id].epochs) == (("pruned", 1) if pruned else ("complete", 3))
        epochs = [event.log.epoch for event in heard.events if isinstance(event, Epoch) and event.id == job.id]
        assert epochs == list(range(1, ended[job.id].epochs + 1))
    stored = {run.config.id: run.result for run in load_runs(tmp_path / "plan")}
    assert stored == ended
    assert not list(tmp_path.glob("plan/trials/*/lease"))
    config, until = todo[0].config, time.monotonic() + 120
    while not made.free():
        made.poll(0.5)
    made.submit(Job(config.model_copy(update={"data": config.data.model_copy(update={"name": "no-such"})})))
    while not (broken := [event for event in heard.events if isinstance(event, Broken)]) and time.monotonic() < until:
        made.poll(0.5)
    assert [isinstance(each.error, BadInput) and "no-such" in str(each.error) for each in broken] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("executor", KINDS[2:3], ids=["ray"], indirect=True)
def test_a_second_plan_on_this_machine_has_a_ray_cluster_of_its_own(executor: tuple[Executor, Heard]) -> None:
    """One in the first one's would lose its workers when the first plan ends."""
    import ray

    script = "import kdbench.run.ray_executor as r; from kdbench.run.events import Setting; from pathlib import Path\n"
    script += "r.RayExecutor(Setting(folder=Path('x'), cache=Path('x')), print, 1)\n"
    script += "print(r.cluster.get_runtime_context().gcs_address)"
    other = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.split()[-1] not in ("", ray.get_runtime_context().gcs_address)


def test_a_killed_worker_is_replaced_and_its_run_goes_on(tmp_path: Path) -> None:
    """The scheduler's part too: the run is complete, once, and equal to an undisturbed one."""
    about = {"epochs": 3, "trials": 1, "seeds": 1, "sampler": "random", "pruner": "none", "precision": "fp32"}
    sweep = spec(pair="test_resnet:test_efficientnet", **about)
    told: list[str] = []

    class Watch(Observers):
        def message(self, text: str, done: int = 0, total: int = 0) -> None:
            told.append(text)

    def run(place: Path, kill: bool) -> dict[str, RunResult]:
        where, left, done = setting(place), [kill], list[LocalExecutor]()
        where.folder.mkdir(parents=True)
        scheduler = Scheduler(
            SweepPlan(sweep, where.folder), where, Watch(), speeds=Speeds(where.cache, "cpu", 1), workers=1 + kill
        )  # fmt: skip

        def handle(event: Event) -> bool:
            if left[0] and isinstance(event, Epoch) and event.log.epoch == 2 and len(done[0]._workers) == 2:
                victim = next(w for w in done[0]._workers if w.job and w.job.id == event.id)
                if victim.job and victim.job.config.phase != "teacher":
                    left[0] = False
                    os.kill(victim.process.pid or 0, signal.SIGKILL)
            return scheduler.handle(event)

        def make(_: object) -> Executor:
            if not kill:
                return InlineExecutor(where, handle)
            done.append(LocalExecutor(where, handle, 2))
            return done[0]

        scheduler.run(make)
        return scheduler.finished

    calm, disturbed = run(tmp_path / "calm", False), run(tmp_path / "disturbed", True)
    assert any("signal 9" in text and "checkpoint" in text for text in told)

    def numbers(results: dict[str, RunResult]) -> dict[str, object]:
        unlike = {"seconds", "attempts", "hardware"}
        return {name: result.model_dump(exclude=unlike) for name, result in results.items()}

    assert numbers(calm) == numbers(disturbed)
    assert sorted(result.attempts for result in disturbed.values())[-1] == 2


def test_a_run_is_handed_out_once_where_the_next_is_taken_over(tmp_path: Path) -> None:
    """Whoever takes over a run asks the plan again, which tells once more of the one before it."""
    where, todo = setting(tmp_path), jobs(3)
    for place in (where.folder, tmp_path / "other"):
        place.mkdir()
    there = run_folder(tmp_path / "other", todo[1].id)
    write_config(there, todo[1].config)
    (there / "metrics.jsonl").touch()
    write_result(there, RunResult(id=todo[1].id, status="complete"))

    class Listed(SweepPlan):
        def jobs(self, finished: Finished) -> Iterator[Job]:
            yield from (job for job in todo if job.id not in finished)

    plan = Listed(spec(precision="fp32"))
    scheduler = Scheduler(plan, where, Observers(), speeds=Speeds(where.cache, "cpu", 1), workers=2)
    assert [job.id for job in scheduler._next(2)] == [todo[0].id, todo[2].id]


@pytest.mark.parametrize("end", ["closed", "gone"])
def test_no_worker_and_no_lease_outlives_its_coordinator(tmp_path: Path, end: str) -> None:
    heard = Heard()
    made = LocalExecutor(setting(tmp_path), heard, 2)
    (job,) = jobs(1, epochs=5000)
    heard.of[job.id] = job
    made.submit(job)
    while not any(isinstance(event, Epoch) for event in heard.events):
        made.poll(0.5)
    place = run_folder(tmp_path / "plan", job.id)
    assert made.owns(lease.owner_of(place))
    processes = [psutil.Process(worker.process.pid) for worker in made._workers]
    if end == "gone":  # a killed one's pipes are closed, no more
        for worker in made._workers:
            worker.pipe.close()
        assert psutil.wait_procs(processes, timeout=60)[1] == []
    made.close()
    assert not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert lease.owner_of(place) is None  # the next start waits for nobody


@pytest.mark.parametrize("executor", KINDS[3:], ids=["slurm"], indirect=True)
def test_strangers_at_the_coordinator_s_door_hold_up_no_worker(executor: tuple[Executor, Heard]) -> None:
    """One that says nothing, one that speaks HTTP, one without the key."""
    made, heard = executor
    door = ("127.0.0.1", made._address[1])  # type: ignore[attr-defined]
    silent, loud = socket.create_connection(door), socket.create_connection(door)
    loud.sendall(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        Client(door, authkey=b"guess")
    todo = jobs(1)
    drive(made, heard, todo)
    assert heard.ended()[todo[0].id].status == "complete"
    silent.close(), loud.close()


def test_a_lease_that_cannot_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, encoding: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"), lease.Lease(tmp_path, "me"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lease_lives_by_its_heartbeat_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "GRACE", 0.5)
    watch, place = lease.Watch(), tmp_path / "run"
    assert not watch.alive(place)
    with lease.Lease(place, "me") as held:
        time.sleep(0.8)
        assert watch.alive(place) and not held.lost
        os.utime(place / lease.NAME, (0, 0))  # a clock that jumps says nothing
        time.sleep(0.2)
        assert watch.alive(place)
        (place / lease.NAME).write_text("another")
        assert held.lost
    assert lease.owner_of(place) == "another"  # whoever lost it leaves it alone
    assert watch.alive(place)
    time.sleep(0.6)
    assert not watch.alive(place)  # nobody beats: left behind


def test_a_run_that_kills_every_worker_fails_and_the_others_go_on(tmp_path: Path) -> None:
    first, second = jobs(2)

    class Deadly:
        """Says that the worker of the first job died, every time; ends the others at once."""

        def __init__(self, handle: object) -> None:
            self.handle, self.jobs, self.starts = handle, list[Job](), 0

        def free(self) -> int:
            return 1 - len(self.jobs)

        def submit(self, job: Job) -> None:
            self.jobs.append(job)

        def poll(self, seconds: float) -> None:
            job = self.jobs.pop()
            if job.id == first.id:
                self.starts += 1
                self.handle(Broken(job.id, RuntimeError("the worker died (signal 9)"), died=True))  # type: ignore[operator]
            else:
                result = RunResult(id=job.id, status="complete", val_acc=0.5)
                write_result(run_folder(where.folder, job.id), result)
                self.handle(Ended(job.id, result))  # type: ignore[operator]

        def owns(self, owner: str | None) -> bool:
            return True

        def close(self) -> None:
            return

    class Two(SweepPlan):
        def jobs(self, finished):  # type: ignore[no-untyped-def]
            yield from (job for job in (first, second) if job.id not in finished)

        def ended(self, job: Job, result: RunResult) -> None:
            return

    where = setting(tmp_path)
    where.folder.mkdir()
    scheduler = Scheduler(Two(spec()), where, Observers(), speeds=Speeds(where.cache, "cpu", 1))
    scheduler.run(Deadly)  # type: ignore[arg-type]
    assert {name: result.status for name, result in scheduler.finished.items()} == {
        first.id: "failed", second.id: "complete",
    }  # fmt: skip
    assert "3 times" in (scheduler.finished[first.id].error or "")
