"""How many seeds would show a gain: power of the paired t-test at the spread that these sweeps have.

The spread is that of (distilled - hard) between seeds, pooled over sizes; with few runs it is itself uncertain.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from common import by_seed, confirmed, distilled, log_axis, panels, run
from matplotlib.figure import Figure

from kdbench.errors import BadInput
from kdbench.report.drawing import INK, METHOD_COLOURS
from kdbench.stats import paired_t_power, seeds_needed

GAINS, LEAST = (0.1, 0.3, 0.5, 1.0), 30


def draw(sweeps: list[pd.DataFrame]) -> tuple[Figure, str]:
    squares, free, sizes = 0.0, 0, 1
    for trials in sweeps:
        rows = confirmed(trials)
        for method in distilled(rows):
            differences = (by_seed(rows, method) - by_seed(rows, "hard")).to_numpy(float) * 100
            known = differences[np.sum(~np.isnan(differences), axis=1) > 1]
            squares += float(np.nansum((known - np.nanmean(known, axis=1, keepdims=True)) ** 2)) if len(known) else 0.0
            free += int(np.sum(~np.isnan(known))) - len(known)
            sizes = max(sizes, len(known))
    if not free or not squares:
        raise BadInput("no spread to learn from: no size here has differing paired runs on two seeds or more")
    sd = math.sqrt(squares / free)
    lines = [f"Spread of the paired difference: {sd:.2f} points ({free} degrees of freedom)."]
    figure, (axes,) = panels(1, 6.4, 4.4)
    most = max(LEAST, 2 * seeds_needed(GAINS[1], sd))
    seeds = np.unique(np.geomspace(2, most, 60).round().astype(int))
    for gain, colour in zip(GAINS, METHOD_COLOURS, strict=False):
        power = [100 * paired_t_power(gain, sd, int(n)) for n in seeds]
        axes.plot(seeds, power, color=colour, label=f"{gain:g} point{'s' * (gain != 1)}")
        alone, among = seeds_needed(gain, sd), seeds_needed(gain, sd, comparisons=sizes)
        lines.append(f"A gain of {gain:g} point{'s' * (gain != 1)} shows with 80% power from {alone} seeds on; "
                     f"alone among {sizes} sizes, after Holm: {among}.")  # fmt: skip
    axes.axhline(80, color=INK, linestyle=(0, (5, 3)), linewidth=1)
    axes.set(title=f"Spread {sd:.2f} points, one comparison at 5%", ylabel="Power (%)", ylim=(0, 103), xscale="log")
    log_axis(axes, "Seeds", lambda value: f"{value:g}")
    axes.legend(title="true gain", loc="best", framealpha=0.9)
    return figure, "\n".join(lines)


if __name__ == "__main__":
    run(__doc__, "seeds.png", draw)
