"""Best temperature against the student's size: do small students like another temperature than large ones?

Small dots: every complete search trial, palest at 3.5 points below that student's best. Large marks: the winner, joined
by a line. Spearman's rank correlation of the winners is printed; with a handful of sizes it is a hint at most.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import legend, log_axis, look, name, panels, run
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from kdbench.errors import BadInput
from kdbench.report.drawing import INK


def draw(sweeps: list[pd.DataFrame]) -> tuple[Figure, str]:
    trials = [rows[(rows["phase"] == "search") & (rows["status"] == "complete")] for rows in sweeps]
    trials = [rows.dropna(subset=["temperature", "val_acc", "params"]) for rows in trials]
    trials = [rows for rows in trials if len(rows)]
    if not trials:
        raise BadInput("no complete search trial with a temperature here")
    datasets = list(dict.fromkeys(rows["dataset"].iloc[0] for rows in trials))
    figure, axes_of = panels(len(datasets), 5.2, 4.2)
    lines, kinds = [], dict[str, int]()
    for axes, dataset in zip(axes_of, datasets, strict=True):
        own = [rows for sweep in trials if sweep["dataset"].iloc[0] == dataset for rows in split(sweep)]
        for index, rows in enumerate(own):
            who = f"{rows['method'].iloc[0]} from {name(rows).removeprefix(f'{dataset}, ')}"
            (colour, mark), shift = look(who, kinds), 1 + 0.05 * (index - (len(own) - 1) / 2)
            behind = 100 * (rows["val_acc"] - rows.groupby("student")["val_acc"].transform("max")).to_numpy(float)
            size, heat = rows["params"].to_numpy(float) * shift, rows["temperature"].to_numpy(float)
            axes.scatter(size, heat, s=34, color=colour, alpha=np.clip(1 + behind / 5, 0.3, 1), linewidths=0, zorder=2)
            best = rows.loc[rows.groupby("student")["val_acc"].idxmax()].sort_values("params")
            size, heat = best["params"].to_numpy(float) * shift, best["temperature"].to_numpy(float)
            axes.plot(size, heat, f"{mark}-", color=colour, markersize=10, mec=INK, label=who)
            known = len(best) > 2 and best["temperature"].nunique() > 1
            rho = f"Spearman {spearmanr(size, heat).statistic:+.2f}" if known else "no correlation to speak of"
            lines.append(
                f"{name(rows)}, {rows['method'].iloc[0]}: {rho} over {len(best)} sizes; "
                + ", ".join(f"{row.student} T = {row.temperature:.3g}" for row in best.itertuples())
            )
        axes.set(title=f"{dataset}: best temperature by size", xscale="log", yscale="log")
        axes.margins(x=0.12, y=0.1)
        log_axis(axes, "Parameters")
        log_axis(axes, "temperature T", lambda value: f"{value:g}", y=True)
    legend(figure, axes_of)
    return figure, "\n".join(lines)


def split(sweep: pd.DataFrame) -> list[pd.DataFrame]:
    return [rows.reset_index(drop=True) for _, rows in sweep.groupby("method", sort=False)]


if __name__ == "__main__":
    run(__doc__, "temperature_vs_width.png", draw)
