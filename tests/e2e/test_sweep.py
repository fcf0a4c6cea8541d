"""One real smoke sweep: its files are there and agree with each other, with Optuna's mirror and with W&B's files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy import stats

import kdbench
from kdbench.run.store import read_epochs, read_result
from tests.support.helpers import Cli
from tests.support.sweeps import LARGE, SMALL, WHOLE, command, lines, sweep_here
from tests.support.wandb_files import find_runs, read_offline

FILES = [
    *("trials.parquet", "trials.csv", "pareto.csv", "pareto.md", "pareto.tex", "pareto.png", "pareto.svg"),
    *("temperature_alpha.png", "report.html", "manifest.json", "sweep.json", "search.jsonl"),
]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def place(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the place of the finished sweep, for all tests here."""
    return Path(shutil.copytree(whole, tmp_path_factory.mktemp("sweep") / "copy", symlinks=True))


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    return place / "results" / "whole"


@pytest.fixture(scope="module")
def trials(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "trials.parquet")


def same(one: Any, other: Any) -> bool:
    """Equal, with every kind of missing value alike."""
    missing = [value is None or value is pd.NA or value != value for value in (one, other)]
    return all(missing) if any(missing) else bool(one == other)


def test_every_file_of_the_contract_is_there(folder: Path, trials: pd.DataFrame) -> None:
    assert [name for name in FILES if not (folder / name).stat().st_size] == []
    held = {path.name for path in (folder / "trials").iterdir()}
    assert held == set(trials["trial_id"])
    for name in held:
        inside = {path.name for path in (folder / "trials" / name).iterdir()}
        assert {"config.json", "result.json", "metrics.jsonl"} <= inside <= {
            "config.json", "result.json", "metrics.jsonl", "manifest.json", "model.safetensors", "starts",
        }  # fmt: skip


def test_csv_equals_parquet(folder: Path, trials: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(pd.read_csv(folder / "trials.csv").astype(trials.dtypes.to_dict()), trials)


def test_the_planned_runs_are_the_runs(place: Path, trials: pd.DataFrame) -> None:
    told = (place / "plan.log").read_text(encoding="utf-8")
    planned = json.loads(told[told.index("\n{\n") :] if "\n{\n" in told else told)
    asked = {(row["phase"], row["model"], row["method"]): row["runs"] for row in planned["rows"]}
    assert asked == trials.groupby(["phase", "student", "method"]).size().to_dict()
    params = {row["model"]: row["params"] for row in planned["rows"]}
    assert params == trials.groupby("student")["params"].first().to_dict()
    assert planned["seconds"] > 0


def test_a_row_is_its_run(folder: Path, trials: pd.DataFrame) -> None:
    assert trials["trial_id"].is_unique
    for row in trials.to_dict("records"):
        run = folder / "trials" / row["trial_id"]
        result, config = read_result(run), json.loads((run / "config.json").read_text())
        assert result is not None
        facts = result.model_dump()
        assert [key for key in set(facts) & set(row) if not same(facts[key], row[key])] == []
        asked = {"phase", "method", "seed"}
        assert {key: config[key] for key in asked} == {key: row[key] for key in asked}
        assert same(config["hyper"].get("temperature"), row["temperature"])
        logs = read_epochs(run)
        assert [log.epoch for log in logs] == list(range(1, row["epochs"] + 1))
        assert (logs[-1].val_acc, max(log.val_acc for log in logs)) == (row["val_acc"], row["best_val_acc"])


def test_only_confirm_reads_the_test_split(trials: pd.DataFrame) -> None:
    read = trials[trials["test_acc"].notna()]
    assert set(read["phase"]) == {"teacher", "confirm"}
    assert len(read) == (trials["phase"].isin(["teacher", "confirm"])).sum()


def test_confirm_repeats_the_winner_and_its_baseline_on_the_same_fresh_seeds(trials: pd.DataFrame) -> None:
    search = trials[trials["phase"] == "search"]
    confirm = trials[trials["phase"] == "confirm"]
    seeds = {tuple(sorted(group["seed"])) for _, group in confirm.groupby(["student", "method"])}
    assert len(seeds) == 1
    assert not set(seeds.pop()) & set(trials.loc[trials["phase"].isin(["search", "baseline"]), "seed"])
    for student, group in search.groupby("student"):
        best = group[group["val_acc"] == group["val_acc"].max()]
        again = confirm[(confirm["student"] == student) & (confirm["method"] == "kd")]
        used = set(zip(again["temperature"], again["alpha"], strict=True))
        assert len(used) == 1
        assert used <= set(zip(best["temperature"], best["alpha"], strict=True))


def test_the_pareto_rows_follow_from_the_trials(folder: Path, trials: pd.DataFrame) -> None:
    pareto = pd.read_csv(folder / "pareto.csv")
    assert list(pareto["student"]) == [SMALL, LARGE]
    confirm = trials[trials["phase"] == "confirm"]
    for row in pareto.to_dict("records"):
        mine = confirm[confirm["student"] == row["student"]].set_index("seed")
        kd, hard = (mine.loc[mine["method"] == method, "test_acc"].sort_index() for method in ("kd", "hard"))
        gains = (kd - hard).to_numpy(float)
        assert row["n_seeds"] == len(gains) == 2
        means = [row["test_acc"], row["baseline_acc"], row["gain"]]
        assert means == pytest.approx([kd.mean(), hard.mean(), gains.mean()], abs=1e-12)
        if gains.std() > 0:
            half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / math.sqrt(len(gains))
            wide = np.clip([gains.mean() - half, gains.mean() + half], -1, 1)
            assert [row["gain_lo"], row["gain_hi"]] == pytest.approx(list(wide))
            assert row["p_value"] == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
        assert row["teacher_acc"] == trials.loc[trials["phase"] == "teacher", "test_acc"].item()


def test_the_wandb_files_hold_the_same(folder: Path, trials: pd.DataFrame) -> None:
    runs = [read_offline(path) for path in find_runs(folder)]
    assert len({run.run_id for run in runs}) == len(runs) == len(trials) + 1  # the teacher's test accuracy: one more
    by_id = {run.run_id: run for run in runs}
    for row in trials.to_dict("records"):
        run, place = by_id[row["wandb_run"]], folder / "trials" / row["trial_id"]
        assert (run.group, run.job_type, run.exit_code) == ("whole", row["phase"], 0)
        assert [key for key in row if not same(row[key], run.summary.get(key))] == []
        for key in ("trial_id", "phase", "dataset", "teacher", "method", "seed", "temperature", "alpha"):
            assert same(run.config[key], row[key])
        config = json.loads((place / "config.json").read_text())
        assert {key: run.config[f"recipe_{key}"] for key in config["recipe"]} == config["recipe"]
        history = [{k: v for k, v in step.items() if not k.startswith("_")} for step in run.history]
        assert history == [flat(log) for log in lines(place / "metrics.jsonl")]


def flat(log: Row) -> Row:
    parts = {f"parts/{name}": value for name, value in log.pop("parts").items()}
    return {key: value for key, value in {**log, **parts}.items() if value is not None}


def test_the_mirror_holds_the_searches(place: Path, folder: Path, trials: pd.DataFrame) -> None:
    url = f"sqlite:///{place / 'mirror.db'}"
    search, found = trials[trials["phase"] == "search"].set_index("trial_id"), []
    for name in optuna.get_all_study_names(url):
        for trial in optuna.load_study(study_name=name, storage=url).trials:
            row = search.loc[trial.user_attrs["trial_id"]]
            found.append(row.name)
            assert name == f"whole/search/{row['student']}/{row['method']}"
            assert (trial.state.name.lower(), trial.value) == (row["status"], row["val_acc"])
            assert trial.params == {"temperature": row["temperature"], "alpha": row["alpha"]}
            logs = read_epochs(folder / "trials" / str(row.name))
            assert trial.intermediate_values == {log.epoch: log.val_acc for log in logs}
    assert sorted(found) == sorted(search.index)


def test_another_name_takes_equal_runs_over_and_trains_the_teacher_no_more(place: Path, folder: Path) -> None:
    again = sweep_here(place, pair=WHOLE[1], name="again")
    frames = [kdbench.load(path).runs.drop(columns=["wandb_run", "sweep"]) for path in (folder, again)]
    pd.testing.assert_frame_equal(*frames)  # the very same runs, down to their seconds
    more = kdbench.load(sweep_here(place, pair=WHOLE[1], name="again", seeds=3))
    assert len(more.runs) == len(frames[0]) + 4  # one more seed of two students, hard and distilled


def test_the_json_lines_tell_every_run(place: Path, folder: Path, trials: pd.DataFrame) -> None:
    told = lines(place / "run.log")
    kinds = [line["event"] for line in told]
    ended = {line["trial_id"]: line["val_acc"] for line in told if line["event"] == "trial_finished"}
    assert ended == dict(zip(trials["trial_id"], trials["val_acc"], strict=True))
    assert kinds.count("trial_started") == kinds.count("trial_finished")
    phases = [line["name"] for line in told if line["event"] == "phase"]
    assert phases[:4] == ["teacher", "baseline", "search", "confirm"]
    report = told[-1]
    assert report["event"] == "report"
    assert [row["student"] for row in report["rows"]] == [SMALL, LARGE]


def test_status_counts_what_is_there(folder: Path, cli: Cli) -> None:
    done = cli("status", "whole", "--out", folder.parent, "--json")
    found = json.loads(done.out)
    assert (done.code, found["finished"], found["under_way"]) == (0, True, [])
    assert {phase: (n["planned"], n["complete"]) for phase, n in found["phases"].items()} == {
        "teacher": (1, 1), "baseline": (2, 2), "search": (4, 4), "confirm": (8, 8),
    }  # fmt: skip


def test_the_finished_command_again_trains_nothing_and_makes_the_same_report(
    place: Path, folder: Path, cli: Cli
) -> None:
    names = [name for name in FILES if not name.endswith((".json", ".jsonl", ".html"))]
    before, runs = {name: (folder / name).read_bytes() for name in names}, len(find_runs(folder))
    for name in names:
        (folder / name).unlink()
    again = cli(*command(place / "results", place / "cache", *WHOLE))
    assert again.code == 0
    assert [name for name in names if (folder / name).read_bytes() != before[name]] == []
    kinds = [json.loads(line)["event"] for line in again.out.splitlines()]
    assert "trial_started" not in kinds and kinds[-1] == "report"
    assert len(find_runs(folder)) == runs
    assert len(json.loads((folder / "manifest.json").read_text())["starts"]) >= 2
