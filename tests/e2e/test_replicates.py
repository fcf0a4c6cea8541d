"""A real sweep under two teachers with a search each: foreseen, run, gone on with, mirrored, recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pandas as pd

from tests.support.helpers import Cli
from tests.support.sweeps import SMALL, UNEQUAL, command


def test_teachers_and_their_searches_are_foreseen_and_go_on_where_they_stopped(cli: Cli, tmp_path: Path) -> None:
    words = command(tmp_path / "results", tmp_path / "cache", "--name", "s", "--wandb", "disabled")
    words += ["--trials", "2", "--seeds", "2", "--teacher-seeds", "2", "--repeat-search", "2", "--controls", "self"]
    planned = json.loads(cli(*words, "--json", "--dry-run").out)
    storage = f"sqlite:///{tmp_path / 'mirror.db'}"
    ran = cli(*words, "--quiet", "--storage", storage)
    assert ran.code == 0, ran.err
    folder = tmp_path / "results" / "s"
    trials = pd.read_csv(folder / "trials.csv", index_col="trial_id")
    assert sum(row["runs"] for row in planned["rows"]) == len(trials)
    assert trials[trials["phase"] == "teacher"]["test_acc"].notna().tolist() == [True, True]
    assert trials.groupby(["phase", "method"])["replicate"].nunique().loc["confirm"].to_dict() == {
        "hard": 1, "kd": 2, "self": 1,
    }  # fmt: skip
    assert {study.study_name for study in optuna.get_all_study_summaries(storage)} == {
        f"s/search/{SMALL}/kd", f"s/search/{SMALL}/kd/1",
    }  # fmt: skip
    assert all(told in ran.out.replace("\n", " ") for told in ("Teachers ", "over 2 teacher-search pairs and 2 seeds"))
    status = json.loads(cli("status", "s", "--out", tmp_path / "results", "--json").out)
    assert all(phase["planned"] == phase["complete"] + phase["pruned"] for phase in status["phases"].values())

    for lost in trials.index[trials["replicate"] == 1]:
        shutil.rmtree(folder / "trials" / lost)
    again = cli(*words, "--quiet")
    assert again.code == 0, again.err
    after = pd.read_csv(folder / "trials.csv", index_col="trial_id")
    pd.testing.assert_frame_equal(after.drop(columns=UNEQUAL), trials.drop(columns=UNEQUAL))
    table = (folder / "pareto.csv").read_bytes()
    assert cli("record", "s", "--out", tmp_path / "results").code == 0
    record = tmp_path / "results" / "records" / "s"
    assert cli("report", record).code == 0 and (record / "pareto.csv").read_bytes() == table
    assert cli("leaderboard", record, "--out", tmp_path / "board").code == 0
    beside = ["sweep", "--against", record, "--method", "dkd", *words[words.index("--out") : words.index("--out") + 4]]
    rows = json.loads(cli(*beside, "--workers", "1", "--dry-run", "--json").out)["rows"]
    assert sum(row["runs"] for row in rows if row["method"] == "dkd") == 2 * (2 + 2), "under each teacher"
    assert "consistent" in cli("leaderboard", "check", record).out
    rows = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    assert {*zip(rows["method"], rows["n_seeds"], strict=True)} == {("hard", 2), ("kd", 2)}
