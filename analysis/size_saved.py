"""Size saved at equal accuracy: how many fewer parameters a distilled student needs than each hard-label one.

Distilled sizes are joined by straight lines of log parameters over accuracy; bars are 95% intervals over seeds.
An arrow to the right: the smallest distilled size is already as good. "not reached": no distilled size is as good.
A bar that leaves the panel ends below -100%, or in "never reached".
"""

from __future__ import annotations

import math

import pandas as pd
from common import by_seed, confirmed, distilled, look, name, panels, run
from matplotlib.figure import Figure

from kdbench.errors import BadInput
from kdbench.report.drawing import GREY, millions, short_names
from kdbench.stats import size_saved


def draw(sweeps: list[pd.DataFrame]) -> tuple[Figure, str]:
    pairs = [(trials, rows, method) for trials in sweeps for rows in [confirmed(trials)] for method in distilled(rows)]
    pairs = [pair for pair in pairs if set(by_seed(pair[1], pair[2])) & set(by_seed(pair[1], "hard"))]
    if not pairs:
        raise BadInput("no sweep here has distilled and hard-label confirm runs on common seeds yet")
    figure, axes_of = panels(len(pairs), 5.2, 3.8, across=2)
    lines = []
    kinds: dict[str, int] = {}
    for axes, (trials, rows, method) in zip(axes_of, pairs, strict=True):
        colour, mark = look(method, kinds)
        soft, hard = by_seed(rows, method), by_seed(rows, "hard")
        seeds = sorted(set(soft) & set(hard))
        soft, hard = soft[seeds].dropna(how="all"), hard[seeds].dropna(how="all")
        sizes, names = hard.index.get_level_values("params"), list(hard.index.get_level_values("student"))
        found = size_saved(soft.index.get_level_values("params"), soft, sizes, hard)
        lines.append(f"{name(trials)}, {method}, {len(seeds)} seeds")
        for row, (student, size, one) in enumerate(zip(names, sizes, found, strict=True)):
            if one.reached == "never":
                axes.text(0, row, "not reached", ha="center", va="center", color=GREY, fontsize=10)
            else:
                saved, lo, hi = (min(max(100 * x, -400), 100) for x in (one.saved, one.lo, one.hi))
                bar = (
                    None
                    if math.isnan(one.lo)
                    else [[max(saved - lo, 0)], [max(hi - saved, 0) * (one.reached == "within")]]
                )
                shape = ">" if one.reached == "smallest" else mark
                axes.errorbar(saved, row, xerr=bar, fmt=shape, color=colour, markersize=8, capsize=3, elinewidth=1.6)
            sign = ">= " if one.reached == "smallest" else ""
            told = "not reached" if one.reached == "never" else f"{sign}{100 * one.saved:.0f}% saved"
            lines.append(f"  {student}: {millions(size)} -> {told} [{percent(one.lo)}, {percent(one.hi)}]")
        left = min([-20, *(100 * max(one.lo, -1) - 8 for one in found if one.lo == one.lo)])
        axes.axvline(0, color=GREY, linewidth=1, zorder=1)
        axes.set(title=f"{name(trials)}, {method}", xlabel="Parameters saved (%), ► at least")
        axes.set_xlim(max(left, -103), 108)
        axes.set_yticks(range(len(names)), list(short_names(names).values()))
        axes.set_ylim(-0.6, len(names) - 0.4)
    return figure, "\n".join(lines)


def percent(share: float) -> str:
    return "never" if share == -math.inf else f"{100 * share:.0f}"


if __name__ == "__main__":
    run(__doc__, "size_saved.png", draw)
