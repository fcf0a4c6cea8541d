"""A real sweep with a tuned baseline and controls: foreseen, run, gone on with, mirrored, reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pandas as pd

import kdbench
from tests.support.helpers import Cli
from tests.support.sweeps import SMALL, UNEQUAL, command, sweep_here


def test_a_tuned_sweep_with_controls_is_foreseen_and_goes_on_where_it_stopped(cli: Cli, tmp_path: Path) -> None:
    words = command(tmp_path / "results", tmp_path / "cache", "--limit", 60, "--name", "s")
    words += ["--tune", "lr", "--controls", "self,compute", "--trials", "1", "--seeds", "1", "--wandb", "disabled"]
    planned = json.loads(cli(*words, "--json", "--dry-run").out)
    ran = cli(*words, "--quiet", "--storage", f"sqlite:///{tmp_path / 'mirror.db'}")
    assert ran.code == 0, ran.err
    folder = tmp_path / "results" / "s"
    trials = pd.read_csv(folder / "trials.csv", index_col="trial_id")
    assert {(row["phase"], row["model"], row["method"]): row["runs"] for row in planned["rows"]} == trials.groupby(
        ["phase", "student", "method"]
    ).size().to_dict()
    confirm = trials[trials["phase"] == "confirm"]
    assert set(confirm["method"]) == {"hard", "kd", "self", "compute"}
    epochs = json.loads((folder / "sweep.json").read_text())["sweep"]["compute_epochs"]
    for student, rows in confirm.groupby("student"):
        by_method = rows.groupby("method")[["hyper_lr", "epochs", "temperature", "alpha"]].first().T
        assert by_method["compute"]["epochs"] == epochs[student] > by_method["hard"]["epochs"]
        assert by_method["compute"]["hyper_lr"] == by_method["hard"]["hyper_lr"] != by_method["kd"]["hyper_lr"]
        assert by_method["self"].equals(by_method["kd"])
    own = {path.parents[1].name for path in tmp_path.glob("cache/teachers/*/logits/*")} - {
        trials.index[trials["phase"] == "teacher"][0]
    }
    assert own == set(trials.index[trials["phase"] == "baseline"]), "each student's own network fills a logit cache"
    studies = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'mirror.db'}")
    assert {one.study_name for one in studies} == {f"s/search/{SMALL}/{m}" for m in ("hard", "kd")}
    assert {name for one in studies for name in (one.best_trial.params if one.best_trial else {})} == {
        "lr", "temperature", "alpha",
    }  # fmt: skip

    for lost in (trials.index[trials["phase"] == "search"][0], *confirm.index[confirm["method"] == "self"]):
        shutil.rmtree(folder / "trials" / lost)
    sweep_here(tmp_path, limit=60, name="s", tune="lr", controls="self,compute", trials=1, seeds=1)
    kdbench.load(folder).runs.to_csv(tmp_path / "after.csv")
    after = pd.read_csv(tmp_path / "after.csv", index_col="trial_id")
    pd.testing.assert_frame_equal(after[trials.columns].drop(columns=UNEQUAL), trials.drop(columns=UNEQUAL))
