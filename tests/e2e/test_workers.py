"""Several workers, all of them killed with their coordinator: the table as one worker makes it, every run once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pandas as pd

from kdbench.sweeps.store import read_status
from tests.support.sweeps import PATIENCE, UNEQUAL, command, finish, start
from tests.support.wandb_files import find_runs, read_offline

# random points depend on no other trial, and nothing is pruned: the order of runs cannot matter
ARGUMENTS = ["--trials", 4, "--epochs", 4, "--sampler", "random", "--pruner", "none", "--name", "run"]
ROWS = {"teacher": 1, "baseline": 1, "search": 4, "confirm": 4}


def table(place: Path) -> pd.DataFrame:
    frame = pd.read_parquet(place / "results/run/trials.parquet")
    return frame.drop(columns=UNEQUAL).set_index("trial_id").sort_index()


def test_two_workers_killed_with_their_coordinator_give_the_table_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    finish(command(one / "results", one / "cache", *ARGUMENTS), one / "log")
    words = command(two / "results", one / "cache", *ARGUMENTS, "--workers", 2)
    trials, log, end = two / "results/run/trials", two / "log", time.monotonic() + PATIENCE
    sweep = start(words, log)
    while len([path for path in trials.glob("*/lease") if not path.with_name("result.json").exists()]) < 2:
        assert sweep.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.01)
    assert "training" in {row["now"] for row in read_status(trials.parent)["under_way"]}
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    finish(words, log)
    assert not read_status(trials.parent)["under_way"]
    pd.testing.assert_frame_equal(table(two), table(one))
    assert table(two)["phase"].value_counts().to_dict() == ROWS
    runs = [read_offline(path) for path in find_runs(two / "results/run")]
    whole = [run for run in runs if not run.dead and run.exit_code == 0 and run.job_type != "teacher"]
    assert all([row["epoch"] for row in run.history] == [1, 2, 3, 4] for run in whole)
    students = table(two).query("phase != 'teacher'").index
    assert Counter(run.config["trial_id"] for run in whole) == Counter(students)
