"""Runs in W&B by the real client: files and a server hold what was told, whatever happens to a process."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from kdbench.config import DataConfig, EpochLog, Recipe, RunConfig, RunResult
from kdbench.errors import BadInput, MachineFault
from kdbench.run.frame import row_of
from kdbench.run.launch import WandbOptions
from kdbench.run.observers import wandb_id
from kdbench.run.scheduler import alone
from kdbench.run.store import run_folder, write_config, write_result
from kdbench.tracking import SyncReport, WandbObserver, observer, sync
from kdbench.tracking.client import require_key
from kdbench.tracking.record import describe, history_row
from kdbench.train.checkpoint import write_metrics
from tests.support.processes import fork
from tests.support.wandb_files import OfflineRun, find_runs, logged, read_offline
from tests.support.wandb_standin import KEY, StandIn


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
    yield
    left = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    assert [p for p in left if "wandb" in " ".join(p.cmdline())] == []
    assert not (tmp_path / "home").exists()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with StandIn() as standin:
        monkeypatch.setenv("WANDB_BASE_URL", standin.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield standin


def trial(seed: int = 1) -> RunConfig:
    about = {"teacher": "resnet50", "teacher_id": "t", "method": "kd", "hyper": {"temperature": 4.0, "alpha": 0.5}}
    about |= {"data": DataConfig(name="digits"), "model": "resnet18", "recipe": Recipe(), "phase": "search"}
    return RunConfig.model_validate({**about, "seed": seed})


def name(seed: int = 1, attempt: int = 1) -> str:
    return wandb_id(trial(seed).id, "s", attempt)


LOGS = [
    EpochLog(epoch=k, lr=0.1, train_loss=1 / k, train_acc=0.3, val_loss=1, val_acc=0.4, seconds=9, parts={"soft": 0.25})
    for k in (1, 2, 3)
]


def result(seed: int, failed: bool = False) -> RunResult:
    return RunResult(id=trial(seed).id, status="failed" if failed else "complete", seconds=7.5, val_acc=0.5, epochs=3)


def watch(root: Path, mode: str = "offline", notify: Callable[[str], None] = print) -> WandbObserver:
    options = WandbOptions(mode=mode, project="p")  # type: ignore[arg-type]
    return WandbObserver(root, "s", options, notify, "resnet50")


def tell(watcher: WandbObserver, root: Path, *seeds: int, attempt: int = 1, failed: bool = False) -> None:
    """Whole runs, which lie in their folders too."""
    for seed in seeds:
        watcher.start(trial(seed), attempt, "")
        go_on(watcher, root, seed, LOGS, failed)


def go_on(watcher: WandbObserver, root: Path, seed: int, logs: list[EpochLog], failed: bool = False) -> None:
    for log in logs:
        watcher.epoch(trial(seed), log)
    write_config(run_folder(root, trial(seed).id), trial(seed))
    write_metrics(run_folder(root, trial(seed).id), LOGS)
    write_result(run_folder(root, trial(seed).id), result(seed, failed))
    watcher.end(trial(seed), result(seed, failed))


def record(root: Path, *seeds: int, mode: str = "offline") -> list[str]:
    said: list[str] = []
    watcher = watch(root, mode, said.append)
    tell(watcher, root, *seeds)
    watcher.close()
    return said


def files(root: Path) -> dict[tuple[object, object], OfflineRun]:
    """What was recorded, the last file of each attempt."""
    runs = [run for run in map(read_offline, find_runs(root)) if not run.dead]
    return {(run.config["seed"], run.config["attempt"]): run for run in runs}


def test_a_run_read_back_is_what_was_told(tmp_path: Path) -> None:
    said: list[str] = []
    watcher = watch(tmp_path, notify=said.append)
    tell(watcher, tmp_path, 1)
    watcher.start(trial(2), 1, "a row")
    tell(watcher, tmp_path, 1, attempt=2, failed=True)
    watcher.epoch(trial(2), LOGS[0])
    watcher.start(trial(2), 2, "a row")  # its worker died
    watcher.close()
    watcher.close()
    runs = files(tmp_path)
    first = runs[1, 1]
    assert (first.run_id, first.group, first.job_type, first.project) == (name(), "s", "search", "p")
    assert first.tags == ("digits", "resnet50", "resnet18", "kd", "search")
    assert first.config.pop("started") and runs[1, 2].config["retry_of"] == first.run_id
    assert first.config == describe(trial(), sweep="s", attempt=1, extra={"teacher": "resnet50"})
    assert logged(first) == [history_row(log) for log in LOGS]
    row = {**row_of("s", trial(), result(1)), "teacher": "resnet50"}
    assert {key: first.summary[key] for key in row} == row
    codes = {key: (run.exit_code, len(run.history)) for key, run in runs.items()}
    assert codes == {(1, 1): (0, 3), (1, 2): (1, 3), (2, 1): (255, 1), (2, 2): (255, 0)}
    assert runs[2, 1].config["run"] == "a row" and said == []
    assert {path.name for path in tmp_path.iterdir()} == {"wandb", "trials"}


USERS = {
    "WANDB_RUN_ID": "one", "WANDB_NAME": "one", "WANDB_NOTES": "one", "WANDB_SWEEP_ID": "s1", "WANDB_PROJECT": "other",
    "WANDB_SWEEP_PARAM_PATH": "x", "WANDB_RUN_GROUP": "other", "WANDB_JOB_TYPE": "other", "WANDB_RESUME": "must",
    "WANDB_MODE": "disabled", "WANDB_DISABLED": "true", "WANDB_SERVICE": "3-1-tcp-localhost-1",
    "WANDB_TAGS": "mine," + "x" * 99, "WANDB_ENTITY": "team",
}  # fmt: skip


def test_the_users_environment_names_no_run_and_the_users_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {**USERS, "WANDB_DIR": str(tmp_path / "mine")}.items():
        monkeypatch.setenv(key, value)
    assert record(tmp_path / "out", 1, 2) == []
    runs = files(tmp_path / "mine").values()
    assert [(run.run_id, run.group, run.job_type, run.project, run.entity, run.exit_code) for run in runs] == [
        (name(seed), "s", "search", "p", "team", 0) for seed in (1, 2)
    ]
    assert all(run.tags[5:] == ("mine", "x" * 64) for run in runs)
    assert find_runs(tmp_path / "out") == []


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true() and time.monotonic() < end:
        time.sleep(0.1)


def test_a_hanging_client_costs_no_record_and_delays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is killed: test_resume.py."""
    monkeypatch.setattr(observer, "PATIENCE", 8.0)
    said: list[str] = []
    watcher = watch(tmp_path, notify=said.append)
    watcher.start(trial(9), 1, "")
    watcher.epoch(trial(9), LOGS[0])
    until(lambda: (run := files(tmp_path).get((9, 1))) and run.history)
    assert watcher.child is not None
    os.kill(watcher.child.process.pid, signal.SIGSTOP)
    begin = time.monotonic()
    tell(watcher, tmp_path, 1)
    watcher.epoch(trial(9), LOGS[1])
    assert time.monotonic() - begin < 1
    time.sleep(8.1)
    watcher.end(trial(9), result(9))
    tell(watcher, tmp_path, 2)
    watcher.close()
    assert len(said) == 1 and "training goes on" in said[0]
    runs = files(tmp_path)
    assert {key: (run.exit_code, len(run.history)) for key, run in runs.items()} == {
        (1, 1): (0, 3), (2, 1): (0, 3), (9, 1): (0, 2),
    }  # fmt: skip


def test_a_client_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in {"PATIENCE": 0.05, "CLOSING": 8.0, "CHILDREN": 2}.items():
        monkeypatch.setattr(observer, constant, value)  # no client starts so soon
    said: list[str] = []
    begin = time.monotonic()
    watcher = watch(tmp_path, notify=said.append)
    tell(watcher, tmp_path, 1, 2)
    watcher.close()
    assert time.monotonic() - begin < 10
    assert "nothing more is recorded" in said[-2] and said[-1].startswith("W&B: 2 of 2 runs")


def test_a_folder_that_cannot_be_written_stops_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "CHILDREN", 2)
    (tmp_path / "wandb").write_text("in the way")
    said = record(tmp_path, 1, 2)
    assert "nothing more is recorded" in said[-2] and said[-1].startswith("W&B: 2 of 2 runs") and len(said) < 5


def coordinate(root: Path) -> None:
    """Records three epochs of a run, and goes on until it is stopped."""
    watcher = watch(root)
    watcher.start(trial(), 1, "")
    for log in LOGS:
        watcher.epoch(trial(), log)
    try:
        time.sleep(600)
    finally:
        watcher.close()


def test_a_killed_coordinator_leaves_its_history(tmp_path: Path) -> None:
    killed = {how: fork(coordinate, tmp_path / how.name) for how in (signal.SIGKILL, signal.SIGINT)}
    for how, process in killed.items():
        root = tmp_path / how.name
        until(lambda root=root: (run := files(root).get((1, 1))) and len(run.history) == 3)  # type: ignore[misc]
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid or 0, how)  # as Ctrl-C in a terminal: every process of the group
        process.join(60)
        assert psutil.wait_procs(family, timeout=60)[1] == []
        (run,) = files(root).values()
        assert (run.exit_code, [row["epoch"] for row in run.history]) == (255, [1, 2, 3])


def test_without_network_or_key_it_goes_on_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = record(tmp_path, 1, mode="online")
    assert len(said) == 1 and "no W&B key" in said[0] and "offline" in said[0]
    with pytest.raises(BadInput, match="no W&B key"):
        sync(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    said = record(tmp_path, 2, mode="online")
    assert len(said) == 1 and "127.0.0.1" in said[0] and "offline" in said[0]
    with pytest.raises(MachineFault, match="cannot be used now"):
        sync(tmp_path)
    assert [run.exit_code for run in files(tmp_path).values()] == [0, 0]
    require_key()
    monkeypatch.setenv("WANDB_API_KEY", "too short")
    with pytest.raises(BadInput, match="not usable"):
        require_key()
    with pytest.raises(BadInput, match="no W&B runs"):
        sync(tmp_path / "nothing")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def send(root: Path, **more: float) -> SyncReport:
    return sync(root, notify=lambda _: None, **more)  # type: ignore[arg-type]


def test_sync_sends_each_run_once_and_believes_only_the_server(tmp_path: Path, server: StandIn) -> None:
    watcher = watch(tmp_path)
    tell(watcher, tmp_path, 1, 2)
    watcher.start(trial(3), 1, "")
    watcher.close()
    report = send(tmp_path)
    assert (report.uploaded, report.busy, report.failed) == ([name(1), name(2)], [name(3)], {})
    sent = server.runs[name(1)]
    rows = [{key: value for key, value in row.items() if key[0] != "_"} for row in sent["history"].values()]
    assert rows == [history_row(log) for log in LOGS]
    assert sent["history"][2]["_timestamp"] - sent["history"][0]["_timestamp"] == pytest.approx(2 * 9)
    assert sent["summary"]["seconds"] == 7.5 and sent["config"]["recipe_lr"]["value"] == Recipe().lr
    assert (sent["exit"], sent["groupName"], sent["project"]) == (0, "s", "p")

    server.drop |= {name(3), name(4)}  # accepted by the server, then lost
    record(tmp_path, 3, 4)
    server.drop.remove(name(3))
    again = send(tmp_path, verify_seconds=1)
    assert (again.already, again.uploaded, again.ok) == ([name(1), name(2)], [name(3)], False)
    assert list(again.failed) == [name(4)] and "0 of 3 epochs" in again.failed[name(4)]
    server.drop.clear()
    assert send(tmp_path).uploaded == [name(4)] and len(server.runs[name(4)]["history"]) == 3
    asked = server.asked["UpsertBucket"]
    assert send(tmp_path).already == [name(k) for k in (1, 2, 3, 4)] and server.asked["UpsertBucket"] == asked


def test_what_an_online_client_lost_is_sent_and_nothing_twice(tmp_path: Path, server: StandIn) -> None:
    assert record(tmp_path, 1, 2, mode="online") == []
    sent = [server.runs[name(k)] for k in (1, 2)]
    assert [(len(run["history"]), run["exit"], run["groupName"]) for run in sent] == [(3, 0, "s")] * 2
    sent[1]["history"] = {0: sent[1]["history"][0]}  # its connection was lost after the first epoch
    sent[1]["summary"] = {}
    with alone(tmp_path):
        assert send(tmp_path).busy == [name(2)]
    report = send(tmp_path)
    assert (report.already, report.uploaded) == ([name(1)], [name(2)])
    assert [row["epoch"] for row in sent[1]["history"].values()] == [1, 2, 3] and sent[1]["summary"]["seconds"] == 7.5

    said = record(tmp_path / "two", 1, mode="online")  # another run of the same id: it is left alone
    assert len(said) == 1 and "already exists" in said[0]
    report = send(tmp_path / "two")
    assert not report.ok and "another run" in report.failed[name()]
    assert [run.exit_code for run in files(tmp_path / "two").values()] == [0]
    assert len(sent[0]["history"]) == 3
