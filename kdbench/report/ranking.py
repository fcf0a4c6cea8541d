"""Several methods side by side: mean ranks over the sizes, gains over hard labels and over plain distillation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kdbench.config import CONTROLS, HARD
from kdbench.report.numbers import percent, signed, unknown
from kdbench.report.points import Points
from kdbench.report.render import Cell, Column, Grid
from kdbench.report.style import DASHES, INK, look, new_figure, style
from kdbench.report.worth import Worth
from kdbench.run.words import counted
from kdbench.stats import LEVEL, PairedDifference, friedman_p, mean_ranks, nemenyi, ranks, t_interval

METHOD_COLUMNS = (
    *(
        "method",
        "sizes",
        "n_seeds",
        "test_acc",
        "mean_rank",
        "rank_lo",
        "rank_hi",
        "gain",
        "gain_lo",
        "gain_hi",
        "p_value",
    ),
    *("over_kd", "over_kd_lo", "over_kd_hi", "over_kd_p"),
)
"""Columns of methods.csv, in order. Accuracies and gains are fractions, averaged over the sizes that all methods have;
p-values are Holm-corrected over the methods, of hard labels' gains and of kd's apart."""
LEGEND = (
    "Ranks: 1 is the most accurate of the methods of one size and seed; mean over sizes and seeds, with the 95% "
    "interval over seeds. Gains: mean over the sizes, paired by seed, 95% intervals; in bold colour where Holm's "
    "correction over the methods leaves them sure."
)


def method_table(points: Points, worth: Worth) -> pd.DataFrame:
    """One row per method, control and hard labels, best mean rank first; empty where fewer than two methods distil."""
    if len(worth.gains) < 2:
        return pd.DataFrame(columns=list(METHOD_COLUMNS))
    scores, methods = _scores(points)
    if not scores.size:  # no size or no seed that all have
        return pd.DataFrame(columns=list(METHOD_COLUMNS))
    each = ranks(scores.reshape(-1, len(methods))).reshape(scores.shape).mean(axis=1)
    rows = []
    for k, method in enumerate(methods):
        mean, lo, hi = t_interval(each[:, k]) if len(each) > 1 else (float(each.mean(axis=0)[k]), math.nan, math.nan)
        row = {
            "method": method, "sizes": scores.shape[1], "n_seeds": len(each), "test_acc": float(scores[..., k].mean()),
            "mean_rank": mean, "rank_lo": float(np.clip(lo, 1, None)),
            "rank_hi": float(np.clip(hi, None, len(methods))),
        }  # fmt: skip
        for name, p, held in (
            ("gain", "p_value", worth.gains.get(method)),
            ("over_kd", "over_kd_p", worth.over_kd.get(method)),
        ):
            row |= _columns(name, p, held)
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(METHOD_COLUMNS))
    return table.sort_values("mean_rank", kind="stable").reset_index(drop=True)


def _columns(name: str, p: str, held: PairedDifference | None) -> dict[str, float]:
    values = (math.nan,) * 4 if held is None else held[:4]
    return dict(zip((name, f"{name}_lo", f"{name}_hi", p), values, strict=True))


def _scores(points: Points) -> tuple[Any, list[str]]:
    """Accuracies (seeds, sizes, methods) of the sizes and seeds that all methods have."""
    methods = list(dict.fromkeys(points.frame["method"]))
    methods.sort(key=lambda method: (method in CONTROLS, method == HARD))
    held = {(point.student, point.method): point.scores for point in points}
    students = [student for student in points.students if all((student, method) in held for method in methods)]
    common = [{*held[student, method]} for student in students for method in methods]
    seeds = sorted(set.intersection(*common)) if common else []
    table = [[[held[student, method][seed] for method in methods] for student in students] for seed in seeds]
    return np.array(table, dtype=float).reshape(len(seeds), len(students), len(methods)), methods


def ranking_words(points: Points) -> str:
    """What ranks over so few sizes can and cannot tell: Friedman's test, and how far apart Nemenyi's lets them be."""
    scores, methods = _scores(points)
    sizes = scores.shape[1]
    if sizes < 2:
        return "Ranks at one size, or none that all methods have: no test of them."
    means = np.round(scores.mean(axis=0), 12)
    apart, spread = nemenyi(len(methods), sizes), np.ptp(mean_ranks(means))
    found = f"Friedman's test over {counted(sizes, 'size')}: p = {friedman_p(means):.2g}"
    told = "no two mean ranks are" if spread < apart else f"the best and the worst are {spread:.1f}"
    return (
        f"{found}; ranks must be {apart:.1f} apart to differ for sure (Nemenyi), {told}. Sizes of one family on one "
        "data set are not independent: a hint, no proof."
    )  # fmt: skip


def method_grid(table: pd.DataFrame) -> Grid:
    """``method_table`` in words."""
    columns = (
        Column("method", "Method", left=True, names=True), Column("rank", "Mean rank", least=True),
        Column("acc", "Accuracy (%)"), Column("gain", "Gain over hard labels"), Column("over", "Over kd"),
    )  # fmt: skip
    rows: list[dict[str, Cell | str]] = []
    for row in table.to_dict("records"):
        lo, hi = row["rank_lo"], row["rank_hi"]
        rank = f"{row['mean_rank']:.1f}" + ("" if unknown(lo) else f" [{lo:.1f}, {hi:.1f}]")
        rows.append({
            "method": "hard labels" if row["method"] == HARD else CONTROLS.get(row["method"], row["method"]),
            "rank": Cell(rank, order=row["mean_rank"]), "acc": percent(row["test_acc"], 2),
            "gain": _gain(row, "gain", "p_value"), "over": _gain(row, "over_kd", "over_kd_p"),
        })  # fmt: skip
    return Grid.of(columns, rows)


def _gain(row: dict[Any, Any], name: str, p: str) -> Cell | str:
    value = row[name]
    if unknown(value):
        return ""
    bounds = "" if unknown(row[f"{name}_lo"]) else f" [{100 * row[f'{name}_lo']:.2f}, {100 * row[f'{name}_hi']:.2f}]"
    sure = row[p] < LEVEL
    return Cell(
        f"{signed(value, 2)}{bounds}", kind="helps" if sure and value > 0 else "hurts" if sure else "", order=value
    )


def ranking_figure(table: pd.DataFrame, title: str = "") -> Figure | None:
    """Mean ranks with intervals over seeds, best on top; beside them the gains over kd, without kd over hard labels."""
    if table.empty:
        return None
    over = "over_kd" if table["over_kd"].notna().any() else "gain"
    names = ["hard labels" if m == HARD else CONTROLS.get(m, m) for m in table["method"]]
    places = np.arange(len(table))
    with style():
        figure = new_figure(8.6, 1.6 + 0.34 * len(table))
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, mean, lo, hi, factor in (
            (left, "mean_rank", "rank_lo", "rank_hi", 1),
            (right, over, f"{over}_lo", f"{over}_hi", 100),
        ):
            for at, row in zip(places, table.to_dict("records"), strict=True):
                if row[mean] != row[mean]:
                    continue
                reach = np.nan_to_num([[row[mean] - row[lo]], [row[hi] - row[mean]]]) * factor
                marker = look(HARD if row["method"] == HARD else "x", ["x"])
                axes.errorbar(
                    factor * row[mean], at, xerr=reach, markersize=6.5, elinewidth=1.5, capsize=3, zorder=3, **marker
                )
        right.axvline(0, color=INK, linestyle=DASHES, linewidth=1.0, zorder=1)
        right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if abs(value) > 1e-9 else "0"))
        left.set_yticks(places, names)
        left.set_ylim(len(table) - 0.5, -0.5)
        sizes = counted(int(table["sizes"].iloc[0]), "size")
        left.set_xlabel(f"Mean rank over {sizes} (1 is best)")
        right.set_xlabel(f"Gain over {'kd' if over == 'over_kd' else 'hard labels'} (points), mean over sizes")
        left.set_title(title, loc="left")
        for axes in (left, right):
            axes.tick_params(axis="y", length=0)
        return figure
