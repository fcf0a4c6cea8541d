"""Gains under shift: the Pareto table's comparison again, on each further test set that confirmed runs were read on."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import pandas as pd

from kdbench.catalog.shifts import ALL, CORRUPTIONS
from kdbench.report.numbers import bounds, decimals, percent, signed, spread
from kdbench.report.points import gather, pareto_table
from kdbench.report.render import Cell, Column, Grid
from kdbench.report.verdicts import judge

SHIFTED_COLUMNS = (
    *("test_set", "student", "method", "n_seeds", "test_acc", "test_acc_lo", "test_acc_hi"),
    *("baseline_acc", "gain", "gain_lo", "gain_hi", "p_value"),
)
"""Columns of shifted.csv, in order: accuracies and gains are fractions, p-values raw."""
LEGEND = (
    "Test accuracy in percent on other test sets, mean and 95% interval over seeds; gains are paired by seed. "
    "corruptions: the mean over eight corruptions of the test images, each at five severities (in the manner of "
    "ImageNet-C and CIFAR-10-C). Verdicts: paired t-test, Holm-corrected over the rows of this table. shifted.csv has "
    "each corruption."
)
_COLUMNS = (
    Column("test_set", "Test set", left=True), Column("student", "Student", left=True, names=True),
    Column("method", "Method", left=True), Column("distilled", "Distilled (%)", short="Distilled"),
    Column("hard", "Hard labels (%)", short="Hard\nlabels"), Column("gain", "Gain (points)", folds=True),
    Column("verdict", "Verdict", left=True, folds=True),
)  # fmt: skip


def shifted_table(runs: pd.DataFrame, accuracies: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """One row per test set, student and method; empty where nothing but the test split was read.

    ``accuracies``: of the confirm runs, by trial id, what ``RunResult.shifted`` holds. A corruption's accuracy is
    the mean over its severities, that of ``corruptions`` over all of them.
    """
    held = {run: _means(each) for run, each in accuracies.items() if each}
    kept = runs[(runs["phase"] != "confirm") | runs["trial_id"].isin([*held])]
    tables = []
    for name in dict.fromkeys(name for means in held.values() for name in means):
        accs = kept["trial_id"].map({run: means.get(name) for run, means in held.items()}).astype("float64")
        found = pareto_table(gather(kept.assign(test_acc=accs), chances=False))
        tables.append(found.assign(test_set=name)[[*SHIFTED_COLUMNS]])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*SHIFTED_COLUMNS])


def _means(accs: Mapping[str, float]) -> dict[str, float]:
    """By test set: all corruptions together, each over its severities, then the others."""
    kinds: dict[str, list[float]] = {}
    for name, acc in accs.items():
        if (kind := name.partition(" ")[0]) in CORRUPTIONS:
            kinds.setdefault(kind, []).append(acc)
    every = {ALL: fmean(acc for each in kinds.values() for acc in each)} if kinds else {}
    others = {name: acc for name, acc in accs.items() if name.partition(" ")[0] not in kinds}
    return every | {kind: fmean(each) for kind, each in kinds.items()} | others


def shifted_grid(table: pd.DataFrame) -> Grid:
    """``shifted_table`` in words, without the single corruptions."""
    table = table[~table["test_set"].isin(CORRUPTIONS)]
    digits, rows = decimals(table), list[dict[str, Cell | str]]()
    for row, verdict in zip(table.to_dict("records"), judge(table), strict=True):
        gain = f"{signed(row['gain'], digits)} {bounds(row['gain_lo'], row['gain_hi'], digits)}".strip()
        rows.append({
            "test_set": str(row["test_set"]).partition("@")[0], "student": str(row["student"]), "method": row["method"],
            "distilled": spread(row["test_acc"], row["test_acc_lo"], row["test_acc_hi"], digits),
            "hard": percent(row["baseline_acc"], digits), "gain": Cell(gain, kind=verdict.kind),
            "verdict": Cell(verdict.short, kind=verdict.kind),
        })  # fmt: skip
    return Grid.of(list(_COLUMNS), rows)
