"""Pictures of a paper's claims, drawn from the table alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdbench.papers.claims import curves
from kdbench.papers.schema import Claim
from kdbench.papers.table import PaperTable
from kdbench.report.numbers import unknown
from kdbench.report.style import GREY, INK, METHOD_COLOURS, METHOD_MARKERS, new_figure, save, style


def draw_claims(table: PaperTable, folder: Path) -> dict[str, Path]:
    """Every figure that the finished runs allow; paths by file name."""
    paths: dict[str, Path] = {}
    kinds = {claim.kind: claim for claim in table.protocol.paper.claims}
    if any(kind.startswith("temperatures") for kind in kinds):
        paths |= _temperatures(table, folder)
    if "unseen-class" in kinds:
        paths |= _unseen(table, kinds["unseen-class"], folder)
    return paths


def _temperatures(table: PaperTable, folder: Path) -> dict[str, Path]:
    """Test errors against temperature, a panel a width: the scales differ too much for one."""
    held = {width: points for width, points in curves(table).items() if len(points) > 1}
    if not held:
        return {}
    with style():
        figure = new_figure(4.2 * len(held), 4.0)
        for k, (width, points) in enumerate(sorted(held.items(), reverse=True)):
            axes = figure.add_subplot(1, len(held), k + 1)
            x = [point.temperature for point in points]
            means = np.array([point.mean for point in points])
            bounds = np.array([(p.row.lo, p.row.hi) for p in points], dtype=float)  # one seed has none: nan
            reach = np.abs(bounds.T - means)
            colour, marker = METHOD_COLOURS[k % len(METHOD_COLOURS)], METHOD_MARKERS[k % len(METHOD_MARKERS)]
            axes.errorbar(x, means, yerr=reach, color=colour, marker=marker, capsize=3)
            axes.set_xscale("log")
            axes.set_xticks(x, [f"{t:g}" for t in x])
            axes.set_xticks([], minor=True)
            axes.set_xlabel("Temperature")
            axes.set_title(f"{width} units a layer")
            if k == 0:
                axes.set_ylabel("Test errors out of 10,000")
    return save(figure, folder, "temperature_width")


def _unseen(table: PaperTable, claim: Claim, folder: Path) -> dict[str, Path]:
    """Errors on the class that was never shown, before and after the correction of its bias; the paper's beside."""
    held = (
        (label, table.row(claim.options[key]))
        for key, label in (("plain", "as trained"), ("corrected", "bias corrected"))
    )
    shown = [(label, row) for label, row in held if row is not None and not unknown(row.ours)]
    if len(shown) < 2:
        return {}
    with style():
        figure = new_figure(5.2, 4.0)
        axes = figure.add_subplot()
        for k, (_, row) in enumerate(shown):
            ours = row.ours
            reach = None if unknown(row.lo) else [[ours - row.lo], [row.hi - ours]]
            axes.bar(k, ours, 0.5, yerr=reach, color=METHOD_COLOURS[0], ecolor=INK, capsize=4)
            axes.annotate(f"{ours:.0f}", (k - 0.23, ours), xytext=(0, 3), textcoords="offset points")
            if not unknown(row.published):
                axes.plot([k - 0.32, k + 0.32], [row.published] * 2, color=METHOD_COLOURS[1], linewidth=2)
        axes.plot([], [], color=METHOD_COLOURS[1], linewidth=2, label="published")
        axes.bar([0], [0], 0, color=METHOD_COLOURS[0], label="ours, 95% interval")
        axes.set_xticks(range(len(shown)), [label for label, _ in shown])
        axes.set_ylabel(f"Errors on {claim.options['total']:,} threes")
        axes.set_title("A student that never saw a three", color=GREY)
        axes.legend(frameon=False, loc="upper right")
    return save(figure, folder, "unseen_digit")
