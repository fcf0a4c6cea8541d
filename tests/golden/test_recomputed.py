"""Every committed record's numbers once more, from its runs alone by scipy and statsmodels: none of our own statistics.

Where the seeds have no spread ours keep silent, and so does this.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kdbench.catalog.datasets import DATASETS
from tests.support.helpers import ROOT

RECORDS = sorted(path.parent for path in (ROOT / "results" / "records").rglob("runs.jsonl"))
SWEEPS = [record for record in RECORDS if (record / "sweep.json").exists()]
PAPERS = [record for record in RECORDS if (record / "values.csv").exists()]
LEVEL = 0.05


def test_every_record_is_looked_at() -> None:
    assert sorted(SWEEPS + PAPERS) == RECORDS and SWEEPS and PAPERS


def runs_of(record: Path) -> pd.DataFrame:
    lines = [json.loads(line) for line in (record / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    runs = pd.DataFrame([{**line["config"], **line["config"]["data"], **line["result"]} for line in lines])
    return runs[(runs["status"] == "complete") & (runs["phase"] == "confirm")].set_index("id")


def interval(values: Any, further: float = math.inf, sure: float = 1 - LEVEL) -> tuple[float, float, float]:
    """Mean and bounds of the true mean, or of that of so many ``further`` runs; no bounds without spread."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or np.ptp(values) < 1e-12:
        return mean, math.nan, math.nan
    return (mean, *stats.t.interval(sure, n - 1, mean, np.std(values, ddof=1) * math.sqrt(1 / n + 1 / further)))


def near(*numbers: float) -> Any:
    return pytest.approx(numbers, rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("record", SWEEPS, ids=lambda path: path.name)
def test_a_sweep_s_table(record: Path) -> None:
    runs, table = runs_of(record), pd.read_csv(record / "pareto.csv")
    acc = runs.pivot_table(index="seed", columns=["model", "method"], values="test_acc")
    size, classes = runs.groupby("model")["params"].max(), DATASETS.get(runs["name"].iloc[0]).classes
    points = {}  # accuracies by seed, of the seeds that hard labels and some method share
    for student, method in acc:
        own = acc[student]
        partner = own["hard"] if method != "hard" else own.drop(columns="hard").mean(axis=1)
        points[student, method] = own[method][partner.notna()].dropna()
    mean = {key: round(scores.mean(), 12) for key, scores in points.items()}
    assert {*zip(table["student"], table["method"], strict=True)} == {key for key in points if key[1] != "hard"}
    for row in table.itertuples():
        key = (row.student, row.method)
        own, least = points[key], size[row.student]
        hard = points[row.student, "hard"][own.index]
        middle, lo, hi = interval(own)
        assert (row.test_acc, row.test_acc_lo, row.test_acc_hi) == near(middle, np.maximum(lo, 0), np.minimum(hi, 1))
        assert (row.n_seeds, row.baseline_acc, row.gain) == near(len(own), hard.mean(), middle - hard.mean())
        if np.ptp(own - hard) > 1e-12:
            test = stats.ttest_rel(own, hard)
            assert (row.p_value, row.gain_lo, row.gain_hi) == near(test.pvalue, *test.confidence_interval())
        better = [k for k in points if size[k[0]] <= least and mean[k] >= mean[key]
                  and (size[k[0]] < least or mean[k] > mean[key])]  # fmt: skip
        assert row.on_front == (not better and mean[key] >= 1.1 / classes)


@pytest.mark.parametrize("record", SWEEPS, ids=lambda path: path.name)
def test_a_sweep_s_verdicts(record: Path) -> None:
    table, told = pd.read_csv(record / "pareto.csv"), (record / "pareto.md").read_text().replace("\\", "")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("|")]
    column = lines[0].index("Method")
    said = {(line[0], line[column]): line[-1] for line in lines if len(line) == len(lines[0])}
    tested = table.dropna(subset=["p_value"])
    for row, p in zip(tested.itertuples(), multipletests(tested["p_value"], method="holm")[1], strict=True):
        word = "no difference" if p >= LEVEL else "helps" if row.gain > 0 else "hurts"
        assert said[row.student, row.method].startswith(word)
    acc, gains = runs_of(record).pivot_table(index="seed", columns=["method", "model"], values="test_acc"), {}
    for method in table["method"].unique():  # the mean over the sizes within each seed that has all of them
        gains[method] = (acc[method] - acc["hard"][acc[method].columns]).mean(axis=1, skipna=False).dropna()
    p_values = multipletests([stats.ttest_1samp(gain, 0).pvalue for gain in gains.values()], method="holm")[1]
    for (method, gain), p in zip(gains.items(), p_values, strict=True):
        if len(gains) > 3:  # one sentence for all: which differ for sure, with their intervals
            _, better, worse, rest = re.split("better: |worse: |no difference .*?: ", told.splitlines()[0])
            middle, lo, hi = (100 * bound for bound in interval(gain))
            where = rest if p >= LEVEL else better if middle > 0 else worse
            assert f"{method} {middle:+.2f} [{lo:.2f}, {hi:.2f}]" in where if p < LEVEL else method in where
            continue
        (sentence,) = re.findall(rf"Over .* sizes?, {method} .*", told)
        middle, lo, hi = (100 * bound for bound in interval(gain))
        lo, hi = (0.0 if abs(end) < 0.005 else end for end in (lo, hi))  # nobody writes -0.00
        forms = [f"{middle:+.{digits}f} points [{lo:.{digits}f}, {hi:.{digits}f}]" for digits in (1, 2)]
        forms += [form.replace("[-0.0,", "[0.0,") for form in forms]
        assert any(form in sentence for form in forms) and f"{len(gain)} seeds, p = {p:.2g}" in sentence


def from_logits(held: Any, cell: dict[str, Any]) -> tuple[float, float]:
    """A cell's number with the bias that has the fewest errors on validation, and with that of test."""
    of, moved = cell.get("of_classes"), (cell.get("bias") or {"classes": []})["classes"]
    grid = np.arange(-200, 201) / 10 if moved else np.zeros(1)

    def missed(part: str, bias: float) -> Any:
        return (held[f"{part}_logits"] + bias * np.isin(range(10), moved)).argmax(1) != held[f"{part}_labels"]

    def number(part: str) -> float:
        errors = np.array([missed(part, bias - 1e-9).sum() for bias in grid])  # no tie is won by the order of classes
        best = np.flatnonzero(errors == errors.min())
        bias = float(grid[best[(len(best) - 1) // 2]])
        wrong = missed("test", bias)[np.isin(held["test_labels"], range(10) if of is None else of)]
        return {"bias": bias, "errors": float(wrong.sum()), "error_rate": 100 * float(wrong.mean())}[cell["measure"]]

    return number("val"), number("test") if moved else math.nan


@pytest.mark.parametrize("record", PAPERS, ids=lambda path: path.name)
def test_a_paper_s_table(record: Path) -> None:
    runs, values = runs_of(record), pd.read_csv(record / "values.csv", dtype={"trial_id": str})
    cells = {cell["id"]: cell for cell in json.loads((record / "manifest.json").read_text())["spec"]["cells"]}
    table = pd.read_csv(record / "table.csv", keep_default_na=False, na_values=[""]).set_index("cell")
    assert {*table.index[table["runs"] > 0]} == {*values["cell"]} <= {*cells}
    for name, held in values.groupby("cell"):
        cell, row, run = cells[name], table.loc[name], runs.loc[held["trial_id"]]
        if cell.get("of_classes") or cell.get("bias"):  # these take logits, which the oldest record lacks
            for one in held.itertuples():
                if (logits := record / "logits" / f"{one.trial_id}.npz").exists():
                    with np.load(logits) as kept:
                        arrays = {part: kept[part].astype(float) for part in kept}
                    assert (one.last, one.on_test) == near(*from_logits(arrays, cell))
        else:
            wrong, images = 1 - run["test_acc"].to_numpy(), DATASETS.get(run["name"].iloc[0]).sizes["test"]
            unit = {"errors": wrong * images, "error_rate": 100 * wrong, "accuracy": 100 - 100 * wrong}
            assert held["last"].tolist() == near(*unit[cell["measure"]])
        assert (row["ours"], row["lo"], row["hi"]) == near(*interval(held["last"]))
        assert (row["runs"], row["best_epoch"], row["chosen_on_test"]) == near(
            len(held), held["best"].mean(), held["on_test"].mean()
        )
        if cell["published"] is None:
            assert row["verdict"] == "ours only"
            continue
        kind = {"chosen on test": "on_test", "best epoch": "best"}
        like = held[next((column for words, column in kind.items() if words in cell["reported"]), "last")]
        like = like if like.notna().all() else held["last"]
        told = re.search(r"mean of (\d+) runs", cell["reported"])
        published_runs = int(told[1]) if told else 1
        ours, lo, hi = interval(like, published_runs)
        _, least, most = interval(like, published_runs, 0.98 if published_runs == 1 else 0.95)
        assert row["difference"] == pytest.approx(ours - cell["published"])
        side = "higher" if ours > cell["published"] else "lower"
        side = "cannot tell" if least <= cell["published"] <= most else side
        side = "consistent" if lo <= cell["published"] <= hi else side
        assert row["verdict"] == (side if lo == lo else "one run" if len(like) < 2 else "no spread")
