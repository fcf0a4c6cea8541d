"""Accuracy against parameters: hard labels, every distilling method and the teacher, one panel a data set.

Bars are 95% t intervals over seeds; a sweep without confirm runs is left out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import legend, log_axis, look, name, panels, run
from matplotlib.figure import Figure

from kdbench.errors import BadInput
from kdbench.report.drawing import GREY, INK
from kdbench.report.points import pareto_table


def draw(sweeps: list[pd.DataFrame]) -> tuple[Figure, str]:
    tables = [(trials, pareto_table(trials)) for trials in sweeps]
    tables = [(trials, table) for trials, table in tables if len(table)]
    if not tables:
        raise BadInput("no sweep here has confirm runs yet: let one finish first")
    datasets = list(dict.fromkeys(trials["dataset"].iloc[0] for trials, _ in tables))
    figure, axes_of = panels(len(datasets), 5.4, 4.4)
    kinds: dict[str, int] = {}
    lines = []
    for axes, dataset in zip(axes_of, datasets, strict=True):
        for trials, table in tables:
            if trials["dataset"].iloc[0] != dataset:
                continue
            who = name(trials).removeprefix(f"{dataset}, ")
            plain = pareto_table(trials[trials["method"] == "hard"])
            dot = {"markersize": 7, "capsize": 3, "elinewidth": 1.5, "linewidth": 1.2, "zorder": 3}
            bars(axes, plain, "hard labels", 0, color=GREY, fmt="s--", markerfacecolor="white", **dot)
            methods = table[table["method"] != "hard"].groupby("method", sort=False)
            for slot, (method, rows) in enumerate(methods, start=1):
                kind = f"{method} from {who}"
                colour, mark = look(kind, kinds)
                bars(axes, rows, kind, slot, color=colour, fmt=f"{mark}-", **dot)
            teacher = 100 * table["teacher_acc"].iloc[0]
            if teacher == teacher:
                axes.axhline(teacher, color=INK, linestyle=(0, (5, 3)), linewidth=1.2, label=f"teacher {who}")
            front = ", ".join(f"{row.student} ({row.method})" for row in table[table["on_front"]].itertuples())
            lines.append(f"{name(trials)}: on the front: {front or 'hard labels only'}")
        axes.set(title=str(dataset), ylabel="Test accuracy (%)", xscale="log")
        axes.margins(x=0.12, y=0.12)
        log_axis(axes, "Parameters")
    legend(figure, axes_of)
    return figure, "\n".join(lines)


def bars(axes: object, rows: pd.DataFrame, label: str, slot: int, **look: object) -> None:
    """Points with their intervals; those of one size stand side by side, in the order of ``slot``."""
    x, mean, lo, hi = rows[["params", "test_acc", "test_acc_lo", "test_acc_hi"]].to_numpy(float, na_value=np.nan).T
    axes.errorbar(1.035**slot * x, 100 * mean, 100 * np.nan_to_num([mean - lo, hi - mean]), label=label, **look)


if __name__ == "__main__":
    run(__doc__, "pareto.png", draw)
