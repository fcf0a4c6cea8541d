"""Several workers on one PostgreSQL queue, one of them killed: every run once, the table as one worker makes it."""

from __future__ import annotations

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


def test_a_killed_worker_s_runs_are_finished_by_the_other(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for place in (one, two):
        place.mkdir()
    cache = tmp_path / "cache"  # one teacher for both
    finish(command(one / "results", cache, *ARGUMENTS), one / "log")

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
