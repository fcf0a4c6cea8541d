"""What a distilled front is worth against the hard-label one: size saved at equal accuracy, and how much higher."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdbench.report.numbers import bounds, millions, percent, signed
from kdbench.report.points import Points
from kdbench.report.render import Cell, Column, Grid
from kdbench.run.frame import HARD
from kdbench.stats import Interval, hypervolume_gain, size_saved

SAVED_LEGEND = (
    "Parameters at which the distilled front is as accurate as a student on hard labels (its sizes are joined by "
    "straight lines of log parameters, nothing is extrapolated), and the share saved, with the 95% interval over "
    "seeds. At most, at least, from: the smallest distilled size is already better, and nobody knows how much smaller "
    "it could be. Never: no distilled size is as accurate. With few noisy seeds the interval is too narrow."
)
SAVED_COLUMNS = (
    *("student", "method", "params", "baseline_acc", "needed", "saved", "saved_lo", "saved_hi", "reached"),
)
"""Columns of size_saved.csv, in order."""


@dataclass(frozen=True)
class Worth:
    """Both answers for every method of a sweep."""

    saved: pd.DataFrame
    """One row per (student, method), columns ``SAVED_COLUMNS``: numbers of parameters and fractions; ``needed`` is
    infinite and ``saved`` minus infinity when the method never gets as accurate as that student's hard labels."""
    higher: dict[str, Interval]
    """By method: by how much its front lies higher than that of hard labels (fraction), averaged over the decades of
    parameters up to twice the largest size; bounds cut to what accuracies allow."""

    @property
    def sentences(self) -> list[str]:
        """Two per method, on size and on area: what may be said in a summary."""
        return [text for method in self.higher for text in (self._on_size(method), self._on_area(method))]

    def _on_size(self, method: str) -> str:
        """Certain only where the fronts as a whole differ: with a few noisy seeds this interval alone is too narrow."""
        own = self.saved[self.saved["method"] == method]
        best = own.sort_values(["baseline_acc", "params"], ascending=[False, True], kind="stable").iloc[0]
        words = _words(best)
        goal = f"{best['student']}, {percent(best['baseline_acc'])}%, {millions(best['params'])}"
        goal = f"the best hard-label student ({goal})"
        if best["reached"] == "never":
            return f"No student distilled by {method} is as accurate as {goal}; size saved not determined."
        text = f"To match {goal}, {method} needs {words['needed']} parameters: {_fewer(best)}"
        if math.isnan(best["saved_lo"]):
            return f"{text} (no interval)."
        higher = self.higher[method]
        apart = higher.lo > 0 or higher.hi < 0
        sure = apart and (round(best["saved_lo"], 2) > 0 or round(best["saved_hi"], 2) < 0)  # as sure as it looks
        return f"{text} (95% interval: {words['bounds']}){'.' if sure else ', so nothing is certain with these seeds.'}"

    def _on_area(self, method: str) -> str:
        mean, lo, hi = self.higher[method]
        text = (
            f"Averaged over the sizes, the front of {method} differs from that of hard labels by {signed(mean)} points"
        )
        if math.isnan(lo):
            return f"{text} (no interval)."
        return f"{text} {bounds(lo, hi)}{'' if lo > 0 or hi < 0 else ', which may be chance'}."


def worth(points: Points) -> Worth:
    """Size saved and area of every method that shares seeds with hard labels."""
    rows, higher = list[tuple[object, ...]](), dict[str, Interval]()
    hard = {point.student: point for point in points if point.method == HARD and point.params > 0}
    for method in dict.fromkeys(point.method for point in points if point.method != HARD):
        both = [
            (point, hard[point.student])
            for point in points
            if point.method == method and point.student in hard and {*point.scores} & {*hard[point.student].scores}
        ]
        if not both:
            continue
        seeds = sorted({seed for pair in both for point in pair for seed in point.scores})
        soft, plain = (
            np.array([[pair[side].scores.get(seed, math.nan) for seed in seeds] for pair in both]) for side in (0, 1)
        )
        sizes = np.array([one.params for one, _ in both])
        for (_, base), found in zip(both, size_saved(sizes, soft, sizes, plain), strict=True):
            rows.append((base.student, method, int(base.params), base.test_acc, *found[:4], found.reached))
        cost = np.log10(sizes)
        corner = (float(cost.max()) + math.log10(2), 0.0)
        width = corner[0] - float(cost.min())
        area = hypervolume_gain(cost, soft, plain, reference=corner)
        higher[method] = Interval(*(edge if math.isnan(edge) else min(max(edge / width, -1.0), 1.0) for edge in area))
    return Worth(pd.DataFrame(rows, columns=list(SAVED_COLUMNS)), higher)


def saved_grid(saved: pd.DataFrame) -> Grid:
    """``Worth.saved`` in words."""
    columns = [
        Column("student", "To match", left=True),
        Column("method", "Method", left=True),
        Column("acc", "Hard labels (%)"),
        Column("params", "Params"),
        Column("needed", "Params needed"),
        Column("saved", "Saved"),
        Column("bounds", "95% interval", optional=False),
    ]
    return Grid.of(columns, [_cells(row) for _, row in saved.iterrows()])


def _cells(row: pd.Series) -> dict[str, Cell | str]:
    accuracy, params = percent(row["baseline_acc"]), millions(row["params"])
    return {"student": row["student"], "method": row["method"], "acc": accuracy, "params": params, **_words(row)}


def _words(row: pd.Series) -> dict[str, str]:
    """``at most 0.58 M``, ``at least 44%``, ``10% to 45%`` (``from 10%``, ``undetermined``, empty)."""
    if row["reached"] == "never":
        return {"needed": "never", "saved": "", "bounds": _bounds(row)}
    smallest = row["reached"] == "smallest"
    needed, saved = millions(row["needed"]), _share(row["saved"])
    return {
        "needed": f"at most {needed}" if smallest else needed,
        "saved": f"at least {saved}" if smallest else saved,
        "bounds": _bounds(row),
    }


def _bounds(row: pd.Series) -> str:
    lo, hi = row["saved_lo"], row["saved_hi"]
    if math.isnan(lo):
        return ""
    if hi >= 1:
        return "undetermined" if lo == -math.inf else f"from {_share(lo)}"
    return f"{_share(lo)} to {_share(hi)}"


def _fewer(row: pd.Series) -> str:
    """The share saved in a sentence: ``at least 44% fewer``, ``12% more``."""
    if round(row["saved"], 2) == 0:
        return "at least as few" if row["reached"] == "smallest" else "as many"
    return f"{_words(row)['saved']} fewer" if row["saved"] > 0 else f"{_share(-row['saved'])} more"


def _share(fraction: float) -> str:
    return "never" if fraction == -math.inf else f"{percent(fraction, 0)}%"
