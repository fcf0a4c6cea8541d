"""A sweep killed or stopped anywhere goes on with the same command to exactly the tables of an uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch

import kdbench
from kdbench.config import EpochLog, RunConfig
from kdbench.data import load, resolve_dataset
from kdbench.run.observers import Observer
from kdbench.run.watch import JsonLines
from kdbench.train import run_training
from kdbench.train.checkpoint import Checkpoint, load_checkpoint
from tests.support.processes import PATIENCE, finish, start, wait_for
from tests.support.sweeps import SMALL, UNEQUAL, command, lines, once, spec, sweep_here
from tests.support.wandb_files import OfflineRun, find_runs, read_offline

# five trials: Sobol points in slots 0-2, TPE's own in 3 and 4; three epochs, so that a kill falls within a run
ASKED: dict[str, Any] = {"trials": 5, "epochs": 3, "limit": 100, "name": "run"}
ROWS = {"teacher": 1, "baseline": 1, "search": 5, "confirm": 4}


class Killed(BaseException):
    """Ends a sweep in this process at once."""


class Stirred(JsonLines):
    """Writes down what happens; calls ``act`` at the ``seen``-th epoch of ``phase``."""

    def __init__(self, log: Path, phase: str, seen: int, act: Callable[[], None]) -> None:
        super().__init__(log.open("a"))
        self._phase, self._seen, self._act, self._epochs = phase, seen, act, 0

    def epoch(self, config: RunConfig, log: EpochLog, again: bool = False) -> None:
        super().epoch(config, log, again)
        if config.phase == self._phase:
            self._epochs += 1
            if self._epochs == self._seen:
                self._act()


def table(place: Path) -> pd.DataFrame:
    return kdbench.load(place / "results/run").runs.drop(columns=UNEQUAL).set_index("trial_id")


def pareto(place: Path) -> pd.DataFrame:
    return kdbench.load(place / "results/run").pareto.drop(columns="latency_ms")


def sweep(place: Path, observer: Observer) -> None:
    sweep_here(place, observer, wandb="offline", **ASKED)


def words(place: Path) -> list[str]:
    """The same in a process of its own."""
    more = [word for name, value in ASKED.items() for word in (f"--{name}", value)]
    return command(place / "results", place / "cache", *more, "--json")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted sweep."""
    place = once(tmp_path_factory, "calm", partial(sweep_here, **ASKED))
    assert table(place)["phase"].value_counts().to_dict() == ROWS
    return place


def events(log: Path) -> list[dict[str, Any]]:
    """Whole lines so far."""
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    whole_lines = text[: text.rfind("\n") + 1].splitlines()
    return [json.loads(line) for line in whole_lines if line.startswith("{")]


def stop_after(place: Path, phase: str, seen: int, delay: float, how: signal.Signals) -> BaseProcess:
    """Start the sweep; ``delay`` seconds after its ``seen``-th event of ``phase`` send a signal to all of it."""
    log = place / f"{phase}.log"
    process = start(words(place), log)
    wait_for(lambda: sum(line.get("phase") == phase for line in events(log)) >= seen, process, log)
    time.sleep(delay)
    os.killpg(process.pid or 0, how)
    process.join(PATIENCE)
    return process


def offline(place: Path) -> list[OfflineRun]:
    return [run for run in map(read_offline, find_runs(place / "results/run")) if not run.dead]


def agree(place: Path, calm: Path) -> None:
    """The tables of two sweeps are equal; every run is there once with every epoch once."""
    pd.testing.assert_frame_equal(table(place), table(calm))
    pd.testing.assert_frame_equal(pareto(place), pareto(calm))
    folder = place / "results/run"
    assert {path.name for path in (folder / "trials").iterdir()} == set(table(calm).index)
    for trial_id, row in table(calm).iterrows():
        logs = lines(folder / "trials" / str(trial_id) / "metrics.jsonl")
        assert [log["epoch"] for log in logs] == list(range(1, row["epochs"] + 1))
    assert list(folder.glob("trials/*/checkpoint.pt")) == []


@pytest.mark.usefixtures("hasty")
def test_kills_change_nothing(calm: Path, tmp_path: Path) -> None:
    """A real one in the search, one within an epoch's end in the other phases, and W&B's client's at last."""
    draw = random.Random(int(os.environ.get("KDBENCH_TEST_SEED", "2")))

    def kill() -> None:
        raise Killed

    def kill_client() -> None:
        for child in psutil.Process().children():
            if "kdbench.tracking.child" in child.cmdline():
                child.kill()

    def killed_in(phase: str, epochs: int) -> None:
        with pytest.raises(Killed):
            sweep(tmp_path, Stirred(tmp_path / f"{phase}.log", phase, draw.randint(1, epochs), kill))

    killed_in("teacher", 2)
    # events of a phase: a start, an epoch each, an end
    process = stop_after(tmp_path, "search", draw.randint(1, 24), draw.uniform(0, 0.5), signal.SIGKILL)
    assert process.exitcode == -signal.SIGKILL
    killed_in("confirm", 9)
    recorded = [run.run_id for run in offline(tmp_path)]
    assert len(set(recorded)) == len(recorded)  # a new attempt is a new run
    sweep(tmp_path, Stirred(tmp_path / "last.log", "confirm", 2, kill_client))
    agree(tmp_path, calm)
    told = [line for log in tmp_path.glob("*.log") for line in events(log)]
    ended = {line["trial_id"] for line in told if line["event"] == "epoch" and line["phase"] != "teacher"}
    assert ended == set(table(calm).query("phase != 'teacher'").index)
    assert "its process ended" in (tmp_path / "last.log").read_text(encoding="utf-8")
    by_id = {run.run_id: run for run in offline(tmp_path)}
    rows = kdbench.load(tmp_path / "results/run").runs.to_dict("records")
    assert all(by_id[row["wandb_run"]].summary["val_acc"] == row["val_acc"] for row in rows)


@pytest.mark.slow
def test_control_c_says_how_to_go_on_and_going_on_works(calm: Path, tmp_path: Path) -> None:
    process = stop_after(tmp_path, "search", 10, 0.1, signal.SIGINT)
    told = (tmp_path / "search.log").read_text(encoding="utf-8")
    assert process.exitcode == 130
    assert told.index("stopping: ") < told.index("the same command goes on where it stopped")
    assert "Traceback" not in told
    finish(words(tmp_path), tmp_path / "on.log")
    agree(tmp_path, calm)
    before = {line["trial_id"] for line in events(tmp_path / "search.log") if line["event"] == "trial_finished"}
    after = {line["trial_id"] for line in events(tmp_path / "on.log") if line["event"] == "epoch"}
    teacher = {line["trial_id"] for line in events(tmp_path / "on.log") if line.get("phase") == "teacher"}
    assert not (before & after) - teacher
    assert len(before) >= 3


def test_a_kill_between_the_last_checkpoint_and_its_line_loses_no_line(tmp_path: Path) -> None:
    sweep_spec = spec(epochs=2, precision="fp32")
    device = torch.device("cpu")
    data = load(resolve_dataset("digits")[0], sweep_spec.data, sweep_spec.recipe, device)
    config = RunConfig(
        data=sweep_spec.data, model=SMALL, recipe=sweep_spec.recipe, seed=0, phase="baseline"
    )  # fmt: skip

    def kill(log: EpochLog, replayed: bool) -> bool:
        if log.epoch == 2 and not replayed:
            raise Killed
        return False

    how = {"data": data, "teacher": None, "workdir": tmp_path, "device": device}
    with pytest.raises(Killed):
        run_training(config, **how, on_epoch=kill)
    saved = load_checkpoint(tmp_path, device)
    assert isinstance(saved, Checkpoint)
    (tmp_path / "metrics.jsonl").unlink()  # the checkpoint was replaced, its line not yet written
    run_training(config, **how)
    assert [log["epoch"] for log in lines(tmp_path / "metrics.jsonl")] == [1, 2]
