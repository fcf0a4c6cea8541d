"""The same points over another cost than parameters: MACs, file size, or latency where they will run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kdbench.config import HARD
from kdbench.files import atomic_text
from kdbench.methods import ships_more
from kdbench.report.figures import pareto_figure
from kdbench.report.numbers import spread, unknown
from kdbench.report.points import Points, with_front
from kdbench.report.render import Cell, Column, Grid, csv
from kdbench.report.saved import share
from kdbench.report.style import label, save
from kdbench.report.worth import worth


def by_cost(points: Points, costs: Mapping[str, float] | pd.Series) -> Points:
    """``points`` with costs where their parameters stand, by ascending cost, on a front of their own.

    ``costs``: by student, which is not known of what ships more than that; or row by row. What is of unknown cost is
    left out. Everything that reads parameters, such as the size saved, then speaks of it.
    """
    if not isinstance(costs, pd.Series):
        costs = points.frame["student"].map(dict(costs)).mask(points.frame["method"].map(ships_more))
    frame = points.frame.assign(params=costs)
    return replace(points, frame=with_front(frame[frame["params"].notna()], chances=False))


def front_table(points: Points) -> pd.DataFrame:
    """One row per point of ``by_cost``: student, method, cost, accuracy with its interval, whether on the front.

    Hard-label points on their own front also have the cost at which distilling is as accurate (as size_saved.csv).
    """
    columns = ["student", "method", "params", "n_seeds", "test_acc", "test_acc_lo", "test_acc_hi", "gain", "on_front"]
    table = points.frame[columns].rename(columns={"params": "cost"})
    best = worth(points).saved.groupby("student")[["needed", "saved"]].max()
    for name in best.columns:
        table[name] = table["student"].map(best[name]).where(table["method"] == HARD)
    return table.reset_index(drop=True)


def front_grid(table: pd.DataFrame, axis: str) -> Grid:
    """``front_table`` in words."""
    columns = (
        Column("student", "Student", left=True, names=True), Column("method", "Method", left=True),
        Column("cost", axis, short="Cost"), Column("acc", "Test accuracy (%)"), Column("gain", "Gain (points)"),
        Column("saved", "Saved at equal accuracy"),
    )  # fmt: skip
    rows: list[dict[str, Cell | str]] = [
        {
            "student": row["student"], "method": label(row["method"]), "cost": f"{row['cost']:.4g}",
            "acc": Cell(spread(row["test_acc"], row["test_acc_lo"], row["test_acc_hi"], 2), star=row["on_front"]),
            "gain": "" if unknown(row["gain"]) else f"{100 * row['gain']:+.2f}",
            "saved": "" if unknown(row["saved"]) else share(row["saved"]),
        }
        for row in table.to_dict("records")
    ]  # fmt: skip
    return Grid.of(columns, rows, title=f"Over {axis}")


def write_front(out: Path, points: Points, name: str, axis: str) -> tuple[Grid, dict[str, Path]]:
    """``pareto-NAME`` as .csv, .png, .svg and .pdf in ``out``; ``points`` are those of ``by_cost``."""
    table = front_table(points)
    paths = {f"pareto-{name}.csv": out / f"pareto-{name}.csv"}
    atomic_text(paths[f"pareto-{name}.csv"], csv(table))
    return front_grid(table, axis), paths | save(pareto_figure(points, axis), out, f"pareto-{name}")
