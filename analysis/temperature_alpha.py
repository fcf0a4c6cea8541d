"""Which temperature and alpha are good in general: mean gain over hard labels in each cell, pooled over sizes.

Validation accuracy of complete search trials minus that of the same student's baseline run, one seed each. The number
of trials stands in each cell; a cell with few says little. For one size at a time see the sweep's own report.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import panels, run
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from kdbench.errors import BadInput

T_EDGES, T_NAMES = [0.0, 1.5, 3, 6, 12, np.inf], ["≤ 1.5", "1.5–3", "3–6", "6–12", "> 12"]
ALPHA_EDGES, ALPHA_NAMES = [-0.001, 0.2, 0.4, 0.6, 0.8, 1], ["0–0.2", "0.2–0.4", "0.4–0.6", "0.6–0.8", "0.8–1"]


def draw(sweeps: list[pd.DataFrame]) -> tuple[Figure, str]:
    found = []
    for trials in sweeps:
        done = trials[trials["status"] == "complete"]
        level = done[done["phase"] == "baseline"].groupby("student")["val_acc"].mean()
        search = done[done["phase"] == "search"].dropna(subset=["temperature", "alpha", "val_acc"])
        gain = 100 * (search["val_acc"] - search["student"].map(level).astype(float))
        found.append(search.assign(gain=gain).dropna(subset="gain"))
    trials = pd.concat(found) if found else pd.DataFrame(columns=["gain"])
    if trials.empty:
        raise BadInput("no complete search trial with temperature, alpha and a baseline run of its student here")
    trials["T"] = pd.cut(trials["temperature"].astype(float), T_EDGES, labels=T_NAMES)
    trials["a"] = pd.cut(trials["alpha"].astype(float), ALPHA_EDGES, labels=ALPHA_NAMES)
    groups = list(trials.groupby(["dataset", "method"], sort=False))
    maps = [rows.pivot_table(index="a", columns="T", values="gain", observed=False).to_numpy() for _, rows in groups]
    counts = [pd.crosstab(rows["a"], rows["T"], dropna=False).to_numpy() for _, rows in groups]
    reach = max(0.2, np.nanquantile(np.abs(np.concatenate(maps)), 0.95))
    norm, lines = TwoSlopeNorm(0, -reach, reach), []
    colours = ScalarMappable(norm, "PuOr_r")
    figure, axes_of = panels(len(groups), 5.0, 4.4)
    for axes, ((dataset, method), rows), means, count in zip(axes_of, groups, maps, counts, strict=True):
        axes.imshow(means, cmap="PuOr_r", norm=norm, origin="lower", aspect="auto")
        axes.grid(visible=False)
        for (y, x), value in np.ndenumerate(means):
            if not np.isnan(value):
                ink = "white" if np.dot(colours.to_rgba(value)[:3], (0.3, 0.59, 0.11)) < 0.52 else "#222222"
                axes.text(
                    x,
                    y,
                    f"{round(value, 1) + 0.0:+.1f}\nn = {count[y, x]}",
                    ha="center",
                    va="center",
                    fontsize=10,
                    color=ink,
                )
        axes.set_xticks(range(len(T_NAMES)), T_NAMES)
        axes.set_yticks(range(len(ALPHA_NAMES)), ALPHA_NAMES)
        axes.set(title=f"{dataset}, {method}", xlabel="temperature T", ylabel="alpha (weight of the soft targets)")
        y, x = np.unravel_index(np.nanargmax(means), means.shape)
        lines.append(f"{dataset}, {method}: {len(rows)} trials, best cell T {T_NAMES[x]}, alpha {ALPHA_NAMES[y]}: "
                     f"{means[y, x]:+.2f} points (n = {count[y, x]})")  # fmt: skip
    bar = figure.colorbar(colours, ax=axes_of, extend="both", shrink=0.85)
    bar.set_label("mean gain over hard labels (points)")
    return figure, "\n".join(lines)


if __name__ == "__main__":
    run(__doc__, "temperature_alpha.png", draw)
