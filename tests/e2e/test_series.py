"""A real series of two teachers: what they share is trained once, and one table and figure show both."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import kdbench
from kdbench.run.store import load_runs
from tests.support.helpers import Cli
from tests.support.sweeps import SMALL, TEACHER, command


def test_two_teachers_side_by_side(cli: Cli, tmp_path: Path) -> None:
    pairs = [f"{TEACHER}:{SMALL}", f"{TEACHER}@1:{SMALL}"]
    out, cache = tmp_path / "results", tmp_path / "cache"
    about = {"trials": 1, "seeds": 2, "workers": 1, "precision": "fp32", "wandb": "disabled"}
    more = [part for key, value in about.items() for part in (f"--{key}", value)]
    words = command(out, cache, *more, "--pair", pairs[0], "--pair", pairs[1], "--name", "gap")
    planned = cli(*words, "--dry-run")
    assert planned.code == 0 and "2 sweeps, about" in planned.out and not out.exists(), planned.err
    series = kdbench.sweep(
        pairs, name="gap", budget="smoke", out=out, cache=tmp_path / "cache", progress=False, **about
    )
    assert list(series.results) == [f"gap-{TEACHER}", f"gap-{TEACHER}-1"] and series.folder == out / "gap"
    sweeps = [load_runs(result.folder) for result in series.results.values()]
    hard = [{run.config.id: run.result.seconds for run in runs if run.config.method == "hard"} for runs in sweeps]
    students = [{run.config.id: run.result.seconds for run in runs if run.config.phase != "teacher"} for runs in sweeps]
    shared = students[0].keys() & students[1].keys()
    assert shared == hard[0].keys() & hard[1].keys() and len(shared) == 3
    assert all(hard[0][run] == hard[1][run] for run in shared), "taken over, not trained again"

    table = series.table
    assert table["teacher"].tolist() == [TEACHER, f"{TEACHER}@1"] and table["n_seeds"].eq(2).all()
    assert (
        table["hard_acc"].nunique() == 1 and (table["test_acc"] - table["hard_acc"] - table["gain"]).abs().max() < 1e-9
    )
    for (name, result), (_, row) in zip(series.results.items(), table.iterrows(), strict=True):
        own = result.runs[result.runs["phase"] == "teacher"].iloc[0]
        assert (row["sweep"], row["teacher_acc"], row["teacher_ece"]) == (name, own["test_acc"], own["ece"])
        assert row["gain"] == result.pareto["gain"].iloc[0] and (result.folder / "report.html").exists()
    told = cli("report", "gap", "--out", out)
    assert told.code == 0 and f"{TEACHER}@1" in told.out, told.err
    assert (
        pd.read_csv(out / "gap" / "series.csv", float_precision="round_trip")["gain"].tolist() == table["gain"].tolist()
    )
    assert (out / "gap" / "capacity_gap.png").exists() and not (out / "gap" / "budget_curve.png").exists()
    assert cli("record", "gap", "--out", out).code == 0
    assert (out / "records" / "gap" / "series.csv").read_bytes() == (out / "gap" / "series.csv").read_bytes()
    other = cli(*words, "--lr", "0.5", "--dry-run")
    assert other.code == 2 and f"add `--name gap-2`, or ask for the same: gap-{TEACHER}: recipe.lr" in other.err
    taught = [run for runs in sweeps for run in runs if run.config.phase == "teacher"]
    reached = {run.config.written: run.result.val_acc or 0 for run in taught}
    low, high = sorted(reached, key=reached.__getitem__)
    both = ("--pair", f"{low}:{SMALL}", "--pair", f"{high}:{SMALL}", "--name", "floor")
    ended = cli(*command(out, cache, *more, *both, "--teacher-floor", sum(reached.values()) / 2))
    assert ended.code == 1 and f"1 of 2 sweeps failed; floor-{low.replace('@', '-')}: the teacher {low}" in ended.err
    assert (out / "floor" / f"floor-{high.replace('@', '-')}" / "report.html").exists() and "Teacher:" in ended.out
    taken = cli(*words[:-2], "--name", f"gap-{TEACHER}", "--out", out / "gap")
    assert taken.code == 2 and "is one sweep" in taken.err
