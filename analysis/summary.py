"""All data sets at once: accuracy of every method, gain over hard labels averaged over sizes, and mean ranks.

A block is one student under one teacher on one data set; ranks compare the methods that all blocks have. Bars are 95%
intervals over seeds of the gain averaged over sizes: they speak of other seeds, not of other data sets.
"""

from __future__ import annotations

import math

import pandas as pd
from common import by_seed, confirmed, distilled, look, name, panels, run
from matplotlib.figure import Figure

from kdbench.errors import BadInput
from kdbench.report.drawing import INK
from kdbench.stats import friedman_p, mean_ranks, paired_difference


def draw(sweeps: list[pd.DataFrame]) -> tuple[Figure, str]:
    scores: dict[tuple[str, str], dict[str, float]] = {}
    gains, kinds = [], dict[str, int]()
    for trials in sweeps:
        rows = confirmed(trials)
        for method in [*distilled(rows), "hard"] if len(rows) else []:
            for (_, student), score in by_seed(rows, method).mean(axis=1).items():
                scores.setdefault((name(trials), student), {})[method] = score
            soft, hard = by_seed(rows, method).align(by_seed(rows, "hard"), join="inner")
            if method != "hard" and soft.size:
                found = paired_difference(soft.mean(axis=0, skipna=False), hard.mean(axis=0, skipna=False))
                gains.append((name(trials), method, *(100 * part for part in found[:3])))
    if not gains:
        raise BadInput("no sweep here has distilled and hard-label confirm runs on common seeds yet")
    table = pd.DataFrame.from_dict(scores, orient="index")
    table = table[["hard", *sorted(set(table) - {"hard"})]]
    ranks, whole = mean_ranks(table), len(table.dropna())
    lines = [f"| data set, teacher | student | {' | '.join(table)} |", "|---|---|" + "--:|" * table.shape[1]]
    for (what, student), row in table.iterrows():
        cells = ["" if math.isnan(v) else f"**{100 * v:.2f}**" if v == row.max() else f"{100 * v:.2f}" for v in row]
        lines.append(f"| {what} | {student} | {' | '.join(cells)} |")
    lines.append(f"| mean rank, {whole} of {len(table)} blocks | | {' | '.join(f'{rank:.2f}' for rank in ranks)} |")
    lines.append(f"\nTest accuracy (%), mean over seeds. All methods alike: p = {friedman_p(table):.3g} (Friedman).")
    figure, (left, right) = panels(2, 5.4, 1.8 + 0.4 * len(gains))
    for row, (_, method, gain, lo, hi) in enumerate(gains):
        colour, mark = look(method, kinds)
        bar = None if math.isnan(lo) else [[gain - lo], [hi - gain]]
        left.errorbar(gain, row, xerr=bar, fmt=mark, color=colour, markersize=8, capsize=3, elinewidth=1.6)
    left.axvline(0, color=INK, linestyle=(0, (5, 3)), linewidth=1)
    left.set_yticks(range(len(gains)), [f"{what},\n{method}" for what, method, *_ in gains])
    left.set(title="Mean over sizes", xlabel="Gain over hard labels (points)", ylim=(len(gains) - 0.5, -0.5))
    right.barh(list(table), ranks, color="#9ecae1", edgecolor=INK, linewidth=0.7, height=0.5)
    right.set(title=f"Mean rank over {whole} blocks", xlabel="mean rank (1 is best)", xlim=(0, table.shape[1] + 0.2))
    right.invert_yaxis()
    return figure, "\n".join(lines)


if __name__ == "__main__":
    run(__doc__, "summary.png", draw)
