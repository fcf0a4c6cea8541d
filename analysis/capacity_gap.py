"""Capacity gap: gain over hard labels against how many times larger the teacher is than the student.

Bars are 95% intervals of the paired difference over seeds. Spearman's rank correlation is printed for each method:
the sizes of one family share a teacher and a data set, so it describes them and proves nothing beyond.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import legend, log_axis, look, name, panels, run
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from kdbench.errors import BadInput
from kdbench.report.drawing import INK
from kdbench.report.points import pareto_table


def draw(sweeps: list[pd.DataFrame]) -> tuple[Figure, str]:
    figure, (axes,) = panels(1, 7.0, 4.6)
    lines, kinds = list[str](), dict[str, int]()
    for trials in sweeps:
        teacher = trials[(trials["phase"] == "teacher") & (trials["params"] > 0)]["params"]
        table = pareto_table(trials).dropna(subset=["gain", "params"])
        if teacher.empty or table.empty:
            continue
        for method, rows in table.groupby("method", sort=False):
            ratio = float(teacher.max()) / rows["params"].to_numpy(float)
            gain, lo, hi = 100 * rows[["gain", "gain_lo", "gain_hi"]].to_numpy(float).T
            who = f"{name(trials)}, {method}"
            colour, mark = look(who, kinds)
            axes.errorbar(
                ratio * 1.04 ** len(lines),  # so that bars of several sweeps stand side by side
                gain,
                np.nan_to_num([gain - lo, hi - gain]),
                fmt=f"{mark}-",
                color=colour,
                linewidth=1.1,
                markersize=8,
                capsize=3,
                label=who,
            )
            known = len(rows) > 2 and np.ptp(gain) > 0
            rho = f"Spearman {spearmanr(ratio, gain).statistic:+.2f}" if known else "no correlation to speak of"
            at = int(np.argmax(gain))
            lines.append(f"{who}: {rho}; largest gain {gain[at]:+.2f} points at {ratio[at]:.1f} times smaller")
    if not lines:
        raise BadInput("no sweep here has paired confirm runs and a teacher of known size yet")
    axes.axhline(0, color=INK, linestyle=(0, (5, 3)), linewidth=1)
    axes.set(ylabel="Gain over hard labels (points)", xscale="log")
    axes.margins(x=0.1, y=0.12)
    log_axis(axes, "Teacher's parameters / student's parameters", lambda value: f"{value:g}×")
    legend(figure, [axes])
    return figure, "\n".join(lines)


if __name__ == "__main__":
    run(__doc__, "capacity_gap.png", draw)
