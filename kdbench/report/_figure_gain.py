"""Gain over hard labels, one line a size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kdbench.report._cells import millions, short_names
from kdbench.report._grid import wrap
from kdbench.report._pareto import judge
from kdbench.report._style import GREY, INK, colour_of, new_figure, style

_INKS = {"helps": "#00695c", "hurts": "#a63c00"}


def gain_figure(pareto: pd.DataFrame, title: str = "") -> Figure | None:
    """Gain (points, paired by seed) with its 95% interval for each row of ``pareto``, sizes from the top down.

    The verdict (Holm-corrected over the rows) stands at the right. None when no row has a gain.
    """
    rows = pareto.assign(verdict=pd.Series(judge(pareto), index=pareto.index, dtype="object"))
    rows = rows[rows["gain"].notna()].reset_index(drop=True)
    if rows.empty:
        return None
    methods = tuple(dict.fromkeys(rows["method"]))
    students = list(dict.fromkeys(rows["student"]))
    names = short_names(students)
    with style():
        figure = new_figure(7.5, 1.5 + (0.5 + 0.2 * (len(methods) - 1)) * len(students))
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linestyle=(0, (5, 3)), linewidth=1.0, zorder=1)
        for method in methods:
            own = rows[rows["method"] == method]
            shift = 0.28 * (methods.index(method) - (len(methods) - 1) / 2)
            heights = [students.index(student) + shift for student in own["student"]]
            gain, lo, hi = 100 * own[["gain", "gain_lo", "gain_hi"]].to_numpy(dtype=float).T
            colour, marker = colour_of(method, methods)
            look: dict[str, Any] = {"color": colour, "markersize": 7.5, "elinewidth": 1.6, "capsize": 3.5, "zorder": 3}
            reach = np.nan_to_num([gain - lo, hi - gain])
            axes.errorbar(gain, heights, xerr=reach, fmt=marker, label=f"distilled ({method})", **look)
            for height, verdict in zip(heights, own["verdict"], strict=True):
                axes.text(1.02, height, verdict.short.removeprefix("distilling "), transform=axes.get_yaxis_transform(),
                          va="center", fontsize=11, color=_INKS.get(verdict.kind, GREY))  # fmt: skip
        sizes = dict(zip(rows["student"], rows["params"], strict=True))
        labels = [f"{wrap(names[one], 24)}  {millions(sizes[one])}".rstrip() for one in students]
        axes.set_yticks(range(len(students)), labels)
        axes.set_ylim(len(students) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if abs(value) > 1e-9 else "0"))
        axes.set_xlabel("Gain over hard labels (percentage points of test accuracy)")
        axes.set_title(title, loc="left")
        axes.grid(visible=False, axis="y")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if len(methods) > 1:
            figure.legend(loc="outside lower center", ncols=min(4, len(methods)), frameon=False)
        return figure
