"""Real W&B runs: what is logged is what the files and a server hold, whatever happens to the process."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
import pytest
import wandb

from kdbench.config import DataConfig, EpochLog, Recipe, RunConfig, RunResult
from kdbench.errors import BadInput, MachineFault
from kdbench.tracking import Tracker, find_runs, make_tracker, read_offline, sync
from kdbench.tracking.base import describe, history_row
from kdbench.tracking.service import require_key
from tests.support.interrupt import Interrupted, interrupted
from tests.support.wandb_standin import ENTITY, KEY, StandIn

ROW = {"trial_id": "x", "val_acc": np.float32(0.5), "epochs": 3, "seconds": 7.5, "ece": float("nan"), "test_acc": None}
CHILDREN: list[subprocess.Popen[str]] = []


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def core_processes() -> list[psutil.Process]:
    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if p.status() != psutil.STATUS_ZOMBIE and "wandb-core" in p.name()]


def wandb_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", closed_port())
    before = wandb_variables()
    yield
    for process in CHILDREN:
        process.kill()  # does nothing to one that has ended and was waited for
    CHILDREN.clear()
    assert wandb_variables() == before
    assert core_processes() == []
    assert not (tmp_path / "home").exists()


@pytest.fixture
def key(nothing_left_behind: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_API_KEY", KEY)
        yield


@pytest.fixture
def server(nothing_left_behind: None) -> Iterator[StandIn]:
    with StandIn() as standin, pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_BASE_URL", standin.url)
        environment.setenv("WANDB_API_KEY", KEY)
        yield standin


def trial(seed: int = 1) -> RunConfig:
    hyper = {"temperature": 4.0, "alpha": 0.5}
    data = DataConfig(name="digits")
    about = {"teacher": "resnet50", "teacher_id": "t", "method": "kd", "hyper": hyper, "phase": "search"}
    return RunConfig.model_validate({"data": data, "model": "resnet18", "recipe": Recipe(), "seed": seed, **about})


def log(epoch: int, seed: int = 1) -> EpochLog:
    parts = {"soft": 0.25, "hard": float(seed)}
    return EpochLog(
        epoch=epoch, lr=0.1, train_loss=1 / epoch, train_acc=0.3, val_loss=float("inf"), val_acc=seed / 7, parts=parts
    )


def attempt(tracker: Tracker, *, seed: int = 1, number: int = 1, failed: bool = False) -> str | None:
    run = tracker.start(trial(seed), sweep="s", attempt=number, extra={"hardware": "cpu"})
    for epoch in (1, 2, 3):
        tracker.epoch(log(epoch, seed))
    status = "failed" if failed else "complete"
    tracker.finish(RunResult.model_validate({"id": trial(seed).id, "status": status}), ROW)
    return run


def test_a_run_read_back_is_what_was_logged(tmp_path: Path) -> None:
    said: list[str] = []
    tracker = make_tracker("offline", root=tmp_path, project="p", notify=said.append)
    ids = [attempt(tracker), attempt(tracker, number=2, failed=True)]
    tracker.close()
    tracker.close()
    first, second = (read_offline(path) for path in find_runs(tmp_path))
    assert [first.run_id, second.run_id] == ids
    assert (first.group, first.job_type, first.project) == ("s", "search", "p")
    assert first.tags == ("digits", "resnet50", "resnet18", "kd", "search")
    started = first.config.pop("started")
    assert first.config == describe(trial(), sweep="s", attempt=1, extra={"hardware": "cpu"})
    assert started and second.config["retry_of"] == first.run_id
    rows = [{key: value for key, value in row.items() if key[0] != "_"} for row in first.history]
    assert rows == [history_row(log(epoch)) for epoch in (1, 2, 3)]
    assert {key: first.summary[key] for key in ROW} == ROW | {"ece": None}
    assert (first.exit_code, second.exit_code) == (0, 1)
    assert not first.truncated and said == [] and tracker.failures == 0
    assert {path.name for path in tmp_path.iterdir()} == {"wandb"}


def test_runs_of_one_process_do_not_mix(tmp_path: Path) -> None:
    trackers = [make_tracker("offline", root=tmp_path, project="p") for _ in range(3)]
    for seed, tracker in enumerate(trackers):
        tracker.start(trial(seed), sweep="s", attempt=1, extra={})
    for epoch in (1, 2):
        for seed, tracker in enumerate(trackers):
            tracker.epoch(log(epoch, seed))
    for tracker in trackers:
        tracker.close()
    runs = [read_offline(path) for path in find_runs(tmp_path)]
    assert sorted(run.config["seed"] for run in runs) == [0, 1, 2]
    for run in runs:
        assert [(row["epoch"], row["parts/hard"]) for row in run.history] == [
            (1, run.config["seed"]),
            (2, run.config["seed"]),
        ]
        assert run.exit_code == 255  # never finished


SCRIPT = """
import signal, sys, time
sys.path[:0] = [{tests!r}]
from e2e.test_wandb import *
if {handler}:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
tracker = make_tracker({mode!r}, root=Path({root!r}), project="p")
try:
    tracker.start(trial(), sweep="s", attempt=1, extra={{}})
    for epoch in range(1, {epochs}):
        tracker.epoch(log(epoch))
        print(epoch, flush=True)
        time.sleep(0.1)
finally:
    tracker.close()
"""


def child(
    root: Path, handler: bool, mode: str = "offline", epochs: int = 10**6, **streams: IO[str] | int
) -> subprocess.Popen[str]:
    tests = Path(__file__).parents[1]
    script = SCRIPT.format(tests=str(tests), root=str(root), handler=handler, mode=mode, epochs=epochs)
    CHILDREN.append(subprocess.Popen([sys.executable, "-c", script], text=True, cwd=tests.parent, **streams))
    return CHILDREN[-1]


def test_a_killed_process_leaves_its_history(tmp_path: Path) -> None:
    children: dict[signal.Signals, subprocess.Popen[str]] = {}
    printed = {how: tmp_path / f"{how.name}.txt" for how in (signal.SIGKILL, signal.SIGTERM)}
    for how, file in printed.items():
        with file.open("w") as stream:  # a file: what outlives the child would keep a pipe open
            children[how] = child(tmp_path / how.name, how == signal.SIGTERM, stdout=stream)
    deadline = time.monotonic() + 120
    while not all(file.read_text() for file in printed.values()) and time.monotonic() < deadline:
        time.sleep(0.1)  # until the first epoch is logged
    time.sleep(3.5)
    services = {how: psutil.Process(process.pid).children(recursive=True) for how, process in children.items()}
    assert all(services.values())
    runs = {}
    for how, process in children.items():
        process.send_signal(how)
        process.wait(120)
        left = psutil.wait_procs(services[how], timeout=60)[1]
        assert how == signal.SIGKILL or left == []  # after a kill -9 the client's process is left to itself
        for service in left:
            service.kill()
        runs[how] = read_offline(find_runs(tmp_path / how.name)[0])
        epochs = [row["epoch"] for row in runs[how].history]
        assert epochs == list(range(1, len(epochs) + 1))
        last = int(printed[how].read_text().split()[-1])
        assert how == signal.SIGKILL or len(epochs) - last in (0, 1)  # logged, and not printed any more
    assert (runs[signal.SIGTERM].exit_code, runs[signal.SIGKILL].exit_code) == (255, None)
    assert runs[signal.SIGKILL].history


def test_a_lost_client_costs_one_record_and_no_training(tmp_path: Path) -> None:
    said: list[str] = []
    tracker = make_tracker("offline", root=tmp_path, project="p", notify=said.append)
    tracker.start(trial(), sweep="s", attempt=1, extra={})
    for process in core_processes():
        process.kill()
        psutil.wait_procs([process], timeout=5)
    deadline = time.monotonic() + 5
    while not tracker.failures and time.monotonic() < deadline:
        tracker.epoch(log(1))
        time.sleep(0.05)
    tracker.finish(RunResult(id="x", status="complete"), ROW)
    assert tracker.failures == 1
    assert attempt(tracker, seed=2) is not None
    tracker.close()
    assert len(said) == 2 and "training goes on" in said[0] and "1 of 2" in said[1]
    whole = [run for run in map(read_offline, find_runs(tmp_path)) if run.exit_code == 0]
    assert [run.config["seed"] for run in whole] == [2]


def fail(tracker: Tracker) -> None:
    """Log until recording fails."""
    deadline = time.monotonic() + 10
    while not tracker.failures and time.monotonic() < deadline:
        tracker.epoch(log(1))
        time.sleep(0.05)
    assert tracker.failures == 1


def test_a_lost_client_breaks_no_run_that_another_tracker_began_after_it(tmp_path: Path) -> None:
    one, other = (make_tracker("offline", root=tmp_path, project="p", notify=lambda text: None) for _ in range(2))
    for seed, tracker in enumerate((one, other)):
        tracker.start(trial(seed), sweep="s", attempt=1, extra={})
    for process in core_processes():
        process.kill()
        psutil.wait_procs([process], timeout=5)
    fail(one)
    one.start(trial(3), sweep="s", attempt=1, extra={})
    fail(other)  # of the client before: the one that `one` goes on with is left alone
    assert attempt(other, seed=4) is not None
    one.epoch(log(1))
    one.finish(RunResult(id="x", status="complete"), ROW)
    one.close()
    other.close()
    runs = {run.config["seed"]: run for run in map(read_offline, find_runs(tmp_path)) if not run.dead}
    assert (runs[3].exit_code, len(runs[3].history), runs[3].summary["epochs"]) == (0, 1, 3)
    assert (runs[4].exit_code, len(runs[4].history)) == (0, 3)


def test_a_start_that_fails_makes_no_success_of_a_run_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (make_tracker("offline", root=tmp_path, project="p", notify=lambda text: None) for _ in range(2))
    one.start(trial(1), sweep="s", attempt=1, extra={})
    one.epoch(log(1))

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("kdbench.tracking.lock.hold", full)
        assert other.start(trial(2), sweep="s", attempt=1, extra={}) is None
    fail(one)
    one.close()
    other.close()
    assert {run.config["seed"]: run.exit_code for run in map(read_offline, find_runs(tmp_path))} == {1: 255, 2: 255}


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The first start of a run waits for this."""
    first, init = threading.Event(), wandb.init

    def slow(**about: Any) -> wandb.Run:
        monkeypatch.setattr(wandb, "init", init)
        assert first.wait(60)
        return init(**about)

    monkeypatch.setattr(wandb, "init", slow)
    return first


def test_a_signal_during_a_start_leaves_a_run_that_was_interrupted(tmp_path: Path, held: threading.Event) -> None:
    tracker = make_tracker("offline", root=tmp_path, project="p")
    with interrupted(0.5), pytest.raises(Interrupted):
        tracker.start(trial(), sweep="s", attempt=1, extra={})
    held.set()
    tracker.close()
    assert [read_offline(file).exit_code for file in find_runs(tmp_path)] == [255]


def test_a_start_that_was_given_up_does_not_touch_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: threading.Event
) -> None:
    tracker = make_tracker("offline", root=tmp_path, project="p", notify=lambda text: None)
    with monkeypatch.context() as hurry:
        hurry.setattr("kdbench.tracking.wandb_tracker.CALL_PATIENCE", 0.5)
        assert tracker.start(trial(1), sweep="s", attempt=1, extra={}) is None
    tracker.start(trial(2), sweep="s", attempt=1, extra={})
    held.set()
    for thread in threading.enumerate():
        if thread.name == "kdbench-wandb":
            thread.join(30)
    tracker.epoch(log(1))
    tracker.finish(RunResult(id="x", status="complete"), ROW)
    tracker.close()
    runs = {run.config["seed"]: run for run in map(read_offline, find_runs(tmp_path))}
    assert (runs[2].exit_code, len(runs[2].history)) == (0, 1)
    assert (runs[1].exit_code, len(runs[1].history)) == (255, 0)


def test_a_folder_that_cannot_be_written_stops_no_training(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "wandb").write_text("in the way")
    tracker = make_tracker("offline", root=tmp_path, project="p", notify=said.append)
    assert attempt(tracker) is None and attempt(tracker, seed=2) is None
    assert tracker.failures == 2 and len(said) == 1
    tracker.close()
    assert "2 of 2" in said[-1]


def test_online_without_network_goes_on_offline(tmp_path: Path, key: None) -> None:
    said: list[str] = []
    begin = time.monotonic()
    tracker = make_tracker("online", root=tmp_path, project="p", notify=said.append)
    assert time.monotonic() - begin < 15
    attempt(tracker)
    tracker.close()
    assert len(said) == 1 and "offline" in said[0] and "127.0.0.1" in said[0]
    (run,) = map(read_offline, find_runs(tmp_path))
    assert len(run.history) == 3 and run.exit_code == 0
    with pytest.raises(MachineFault, match="cannot be used now"):
        sync(tmp_path, notify=said.append)


def test_online_without_key_never_asks(tmp_path: Path) -> None:
    primary, terminal = pty.openpty()
    process = child(tmp_path, False, "online", 3, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    assert process.wait(120) == 0
    shown = os.read(primary, 10_000).decode()
    os.close(primary)
    assert shown.count("no W&B key") == 1 and "Enter your choice" not in shown
    (run,) = map(read_offline, find_runs(tmp_path))
    assert len(run.history) == 2


def test_looking_for_a_key_starts_nothing(tmp_path: Path, key: None) -> None:
    require_key()
    assert core_processes() == []
    os.environ["WANDB_API_KEY"] = "too short"
    with pytest.raises(BadInput, match="not usable"):
        require_key()


def test_sync_needs_runs_and_a_key(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no W&B runs"):
        sync(tmp_path)
    tracker = make_tracker("offline", root=tmp_path, project="p")
    attempt(tracker)
    tracker.close()
    with pytest.raises(BadInput, match="no W&B key"):
        sync(tmp_path)


def test_sync_sends_each_run_once_and_believes_only_the_server(tmp_path: Path, server: StandIn) -> None:
    said: list[str] = []
    tracker = make_tracker("offline", root=tmp_path, project="p", notify=said.append)
    ids = [attempt(tracker, seed=seed, failed=seed == 2) for seed in (1, 2)]
    dead = tmp_path / "wandb" / "offline-run-20200101_000000-dead" / "run-dead.wandb"
    dead.parent.mkdir()
    dead.write_bytes(find_runs(tmp_path)[-1].read_bytes()[:7])
    busy = tracker.start(trial(3), sweep="s", attempt=1, extra={})
    report = sync(tmp_path, notify=said.append)
    assert (report.uploaded, report.dead, report.busy, report.failed) == (ids, [dead], [busy], {})
    assert report.ok and str(dead) in " ".join(said)
    tracker.close()
    sent = server.runs[str(ids[0])]
    assert [row["epoch"] for row in sent["history"].values()] == [1, 2, 3]
    assert sent["summary"]["seconds"] == ROW["seconds"] and sent["config"]["recipe_lr"]["value"] == Recipe().lr
    assert [server.runs[str(run)]["exit"] for run in ids] == [0, 1]

    server.drop.add(str(busy))  # accepted by the server, then lost; `wandb sync` itself reports success
    lost = make_tracker("offline", root=tmp_path / "more", project="p", notify=said.append)
    name = attempt(lost, seed=4)
    lost.close()
    server.drop.add(str(name))
    again = sync(tmp_path, notify=said.append, verify_seconds=1)
    assert (again.already, again.uploaded, again.ok) == (ids, [busy], False)
    assert list(again.failed) == [name] and "step -1 of 2" in again.failed[str(name)]


def test_sync_leaves_another_run_of_the_same_id_alone(tmp_path: Path, server: StandIn) -> None:
    for folder in ("one", "two"):
        tracker = make_tracker("offline", root=tmp_path / folder, project="p")
        attempt(tracker)
        tracker.close()
        time.sleep(0.01)
    first, second = (sync(tmp_path / folder, notify=lambda _: None) for folder in ("one", "two"))
    assert first.ok and len(first.uploaded) == 1
    assert not second.ok and "another run" in next(iter(second.failed.values()))
    (sent,) = server.runs.values()
    assert len(sent["history"]) == 3


def test_online_runs_reach_the_server_and_a_taken_id_goes_offline(tmp_path: Path, server: StandIn) -> None:
    said: list[str] = []
    tracker = make_tracker("online", root=tmp_path, project="p", notify=said.append)
    name = attempt(tracker)
    sent = server.runs[str(name)]
    assert (len(sent["history"]), sent["exit"], sent["groupName"]) == (3, 0, "s")
    assert sent["summary"]["seconds"] == ROW["seconds"] and said == []
    attempt(tracker)
    tracker.close()
    assert len(said) == 1 and "offline" in said[0]
    assert len(sent["history"]) == 3
    assert [path.parent.name.startswith("offline") for path in find_runs(tmp_path)].count(True) == 1
    report = sync(tmp_path, entity=ENTITY, notify=said.append)
    assert (report.already, list(report.failed), len(report.dead)) == ([name], [name], 1)


@pytest.mark.slow
def test_a_server_lost_midway_keeps_everything_on_disk(
    tmp_path: Path, key: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdbench.tracking.service.FINISH_TIMEOUT", 2)
    said: list[str] = []
    with StandIn() as first:
        tracker = make_tracker("online", root=tmp_path, project="p", notify=said.append, base_url=first.url)
        names = [tracker.start(trial(), sweep="s", attempt=1, extra={})]
    tracker.epoch(log(1))
    tracker.finish(RunResult(id="x", status="complete"), ROW)
    names.append(attempt(tracker, seed=2))
    tracker.close()
    assert ["recording failed" in said[0], "going on offline" in said[1].lower(), "1 of 2" in said[2]] == [True] * 3
    with StandIn() as second:
        report = sync(tmp_path, base_url=second.url, notify=said.append)
        assert report.uploaded == names and report.ok
        assert [len(second.runs[str(name)]["history"]) for name in names] == [1, 3]
