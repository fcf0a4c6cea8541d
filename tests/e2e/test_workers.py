"""Several workers on one PostgreSQL queue, or several runs in one worker, killed: the table as one run at a time
makes it, every run once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from optuna.trial import TrialState
from postgres import database
from sweeps import PATIENCE, UNEQUAL, command, finish, start

from kdbench.sweep.queue import open_storage
from kdbench.sweep.store import read_status
from kdbench.tracking import find_runs, read_offline

# random points depend on no other trial, and nothing is pruned: the order of runs cannot matter
ARGUMENTS = ["--trials", 4, "--epochs", 4, "--sampler", "random", "--pruner", "none", "--name", "run"]
ROWS = {"teacher": 1, "baseline": 1, "search": 4, "confirm": 4}


def table(place: Path) -> pd.DataFrame:
    frame = pd.read_parquet(place / "results/run/trials.parquet")
    return frame.drop(columns=UNEQUAL).set_index("trial_id").sort_index()


def holds(url: str, pid: int) -> bool:
    """Whether that process is at work on a search or confirm run."""
    storage = open_storage(url)
    return any(
        trial.user_attrs.get("owner", {}).get("pid") == pid
        for study in storage.get_all_studies()
        if "search" in study.study_name or "confirm" in study.study_name
        for trial in storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.RUNNING,))
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One worker, one run at a time; its teacher is in its cache."""
    place = tmp_path_factory.mktemp("one")
    finish(command(place / "results", place / "cache", *ARGUMENTS), place / "log")
    return place


def test_three_runs_at_once_give_the_table_of_one_at_a_time(one: Path, tmp_path: Path) -> None:
    words = command(tmp_path / "results", one / "cache", *ARGUMENTS, "--pack", 3)
    trials, log, end = tmp_path / "results/run/trials", tmp_path / "log", time.monotonic() + PATIENCE
    sweep = start(words, log)
    while len([path for path in trials.glob("*/manifest.json") if not path.with_name("result.json").exists()]) < 3:
        assert sweep.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.01)
    assert "training" in {row["now"] for row in read_status(trials.parent)["under_way"]}
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    assert all(row["now"].startswith("stopped") for row in read_status(trials.parent)["under_way"])
    finish(words, log)
    assert not read_status(trials.parent)["under_way"]
    pd.testing.assert_frame_equal(table(tmp_path), table(one))
    assert all(json.loads(path.read_text())["pack"] == 3 for path in trials.glob("*/manifest.json"))
    runs = [read_offline(path) for path in find_runs(tmp_path / "results/run")]
    whole = [run for run in runs if not run.dead and run.exit_code == 0 and run.job_type != "teacher"]
    assert all([row["epoch"] for row in run.history] == [1, 2, 3, 4] for run in whole)
    students = table(tmp_path).query("phase != 'teacher'").index
    assert Counter(run.config["trial_id"] for run in whole) == Counter(students)


def test_a_killed_worker_s_runs_are_finished_by_the_other(
    one: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, cache = tmp_path, one / "cache"  # one teacher for both
    url = database(server, "two_workers")
    words = command(two / "results", cache, *ARGUMENTS, "--storage", url)
    sweep = start(words, two / "sweep.log")
    end = time.monotonic() + PATIENCE
    while not (two / "results/run/sweep.json").exists():
        assert sweep.poll() is None and time.monotonic() < end, (two / "sweep.log").read_text()[-2000:]
        time.sleep(0.05)
    monkeypatch.setenv("KDBENCH_CACHE", str(cache))
    joined = [sys.executable, "-m", "kdbench", "worker", "run", "--out", str(two / "results"), "--storage", url]
    worker = start(joined, two / "worker.log")
    while not holds(url, worker.pid):
        assert worker.poll() is None and time.monotonic() < end, (two / "worker.log").read_text()[-2000:]
        time.sleep(0.02)
    os.killpg(worker.pid, signal.SIGKILL)
    assert sweep.wait(timeout=PATIENCE) == 0, (two / "sweep.log").read_text()[-2000:]

    pd.testing.assert_frame_equal(table(two), table(one))
    assert table(two)["phase"].value_counts().to_dict() == ROWS
    told = Counter(
        trial.user_attrs["trial_id"]
        for study in open_storage(url).get_all_studies()
        for trial in open_storage(url).get_all_trials(study._study_id, states=(TrialState.COMPLETE,))
    )
    del told[table(two).query("phase == 'teacher'").index[0]]  # trained, and later read on the test split
    assert set(told.values()) == {1} and set(told) == set(table(two).query("phase != 'teacher'").index)
    results = list(two.glob("results/run/trials/*/result.json"))
    assert len(results) == sum(ROWS.values())
