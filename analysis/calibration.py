"""Calibration: expected calibration error and negative log-likelihood, distilled against hard labels.

One mark a student, mean over the seeds that both have; below the diagonal distilling is better calibrated. What one
temperature fitted on validation mends (Guo et al. 2017) is no merit of a method: where sweeps have it, it is shown too.
"""

from __future__ import annotations

import pandas as pd
from common import by_seed, confirmed, distilled, legend, look, name, panels, run
from matplotlib.figure import Figure

from kdbench.errors import BadInput
from kdbench.report.drawing import INK
from kdbench.stats import holm, paired_difference

MEASURES = {
    "ece": ("Expected calibration error", "%", 100.0),
    "scaled_ece": ("The same, after temperature scaling", "%", 100.0),
    "nll": ("Negative log-likelihood", "nats", 1.0),
}


def draw(sweeps: list[pd.DataFrame]) -> tuple[Figure, str]:
    rescaled = any(trials["scaled_ece"].notna().any() for trials in sweeps)
    measures = {key: told for key, told in MEASURES.items() if rescaled or key != "scaled_ece"}
    figure, axes_of = panels(len(measures), 4.4, 4.9)
    lines, kinds = list[str](), dict[str, int]()
    for axes, (measure, (label, unit, scale)) in zip(axes_of, measures.items(), strict=True):
        seen: list[float] = []
        for trials in sweeps:
            rows = confirmed(trials).dropna(subset=[measure])
            for method in distilled(rows):
                soft, hard = by_seed(rows, method, measure), by_seed(rows, "hard", measure)
                soft, hard = soft.align(hard, join="inner")
                if soft.empty:
                    continue
                common = soft.notna() & hard.notna()
                x, y = scale * hard.where(common).mean(axis=1), scale * soft.where(common).mean(axis=1)
                found = [paired_difference(a, b) for a, b in zip(soft.to_numpy(), hard.to_numpy(), strict=True)]
                corrected = holm([one.p for one in found])
                lower = sum(one.mean < 0 for one in found)
                who = f"{name(trials)}, {method}"
                lines.append(f"{who}: {measure} lower at {lower} of {len(found)} sizes, "
                             f"different at 5% after Holm at {int((corrected < 0.05).sum())}")  # fmt: skip
                colour, mark = look(who, kinds)
                axes.scatter(x, y, s=70, color=colour, marker=mark, edgecolors=INK, linewidths=0.7, label=who, zorder=3)
                seen += [*x, *y]
        if not seen:
            raise BadInput(f"no sweep here has distilled and hard-label confirm runs with '{measure}' on common seeds")
        room = 0.08 * (max(seen) - min(seen)) or 0.1 * abs(max(seen)) or 0.1
        ends = [min(seen) - room, max(seen) + room]
        axes.plot(ends, ends, color=INK, linestyle=(0, (5, 3)), linewidth=1, zorder=1)
        axes.set(title=label, xlabel=f"hard labels ({unit})", ylabel=f"distilled ({unit})")
        axes.set(xlim=ends, ylim=ends, box_aspect=1)
    legend(figure, axes_of)
    return figure, "\n".join(lines)


if __name__ == "__main__":
    run(__doc__, "calibration.png", draw)
