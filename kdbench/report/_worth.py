"""What a distilled front is worth against the hard-label one: size saved at equal accuracy, and the area between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdbench.report._cells import millions
from kdbench.report._frames import HARD
from kdbench.report._pareto import points as percent
from kdbench.report._pareto import signed
from kdbench.report._points import Point, Points
from kdbench.stats import Interval, SizeSaved, hypervolume_gain, hypervolume_interval, size_saved

SAVED_HEADS = ["To match", "Method", "Hard labels (%)", "Params", "Params needed", "Saved", "95% interval"]
SAVED_LEGEND = (
    "Parameters at which the distilled front is as accurate as a student on hard labels (its sizes are joined by "
    "straight lines of log parameters, nothing is extrapolated), and the share saved, with the 95% interval over "
    "seeds. At most, at least, from: the smallest distilled size is already better, and nobody knows how much smaller "
    "it could be. Never: no distilled size is as accurate. With few noisy seeds the interval is too narrow."
)


@dataclass(frozen=True)
class Match:
    """What it takes a method to be as accurate as one student on hard labels."""

    student: str
    method: str
    params: float
    accuracy: float
    """Of ``student`` on hard labels, a fraction."""
    found: SizeSaved

    @property
    def cells(self) -> list[str]:
        """What stands under ``SAVED_HEADS`` after the names."""
        return [percent(self.accuracy), millions(self.params), self.needed, self.saved, self.bounds]

    @property
    def needed(self) -> str:
        """``0.58 M``, ``at most 0.58 M`` or ``never``."""
        if self.found.reached == "never":
            return "never"
        return ("at most " if self.found.reached == "smallest" else "") + millions(self.found.needed)

    @property
    def saved(self) -> str:
        """``32%``, ``at least 44%``, ``-12%`` where more is needed; empty when it is never reached."""
        if self.found.reached == "never":
            return ""
        return ("at least " if self.found.reached == "smallest" else "") + _share(self.found.saved)

    @property
    def fewer(self) -> str:
        """``saved`` in a sentence: ``at least 44% fewer``, ``12% more``."""
        share = self.found.saved
        if round(share, 2) == 0:
            return "at least as few" if self.found.reached == "smallest" else "as many"
        return f"{self.saved} fewer" if share > 0 else f"{_share(-share)} more"

    @property
    def bounds(self) -> str:
        """``10% to 45%``, ``from 10%``, ``never to 45%`` or ``undetermined``; empty without an interval."""
        lo, hi = self.found.lo, self.found.hi
        if math.isnan(lo):
            return ""
        if hi >= 1:
            return "undetermined" if lo == -math.inf else f"from {_share(lo)}"
        return f"{_share(lo)} to {_share(hi)}"


@dataclass(frozen=True)
class Front:
    """Areas under the fronts of one method and of hard labels over the same sizes.

    Accuracy (fraction) times decades of parameters, from accuracy 0 and up to twice the largest size. Bounds are cut
    to what accuracies between 0 and 1 allow.
    """

    method: str
    distilled: Interval
    hard: Interval
    higher: Interval
    """By how much the distilled front lies higher, averaged over those decades; a fraction."""


@dataclass(frozen=True)
class Worth:
    """Both answers for every method of a sweep."""

    matches: tuple[Match, ...]
    fronts: tuple[Front, ...]

    @property
    def sentences(self) -> list[str]:
        """One a method on size, one on area: what may be said in a summary."""
        return [text for front in self.fronts for text in (self._on_size(front), _on_area(front))]

    def _on_size(self, front: Front) -> str:
        """Certain only where the fronts as a whole differ: with a few noisy seeds this interval alone is too narrow."""
        method = front.method
        own = [match for match in self.matches if match.method == method]
        best = max(own, key=lambda match: (match.accuracy, -match.params))
        goal = f"the best hard-label student ({best.student}, {percent(best.accuracy)}%, {millions(best.params)})"
        if best.found.reached == "never":
            return f"No student distilled by {method} is as accurate as {goal}; size saved not determined."
        text = f"To match {goal}, {method} needs {best.needed} parameters: {best.fewer}"
        if math.isnan(best.found.lo):
            return f"{text} (no interval)."
        apart = front.higher.lo > 0 or front.higher.hi < 0
        sure = apart and (round(best.found.lo, 2) > 0 or round(best.found.hi, 2) < 0)  # as sure as the text looks
        return f"{text} (95% interval: {best.bounds}){'.' if sure else ', so nothing is certain with these seeds.'}"

    def table(self) -> pd.DataFrame:
        """One row a (student, method): student, method, params, baseline_acc, needed, saved, saved_lo, saved_hi,
        reached. Numbers of parameters and fractions; needed is infinite and saved minus infinity when never reached.
        """
        columns = [
            *("student", "method", "params", "baseline_acc", "needed", "saved", "saved_lo", "saved_hi", "reached")
        ]
        rows = [
            (one.student, one.method, int(one.params), one.accuracy, *one.found[:4], one.found.reached)
            for one in self.matches
        ]
        return pd.DataFrame(rows, columns=columns)


def worth(points: Points) -> Worth:
    """Size saved and areas of every method that shares seeds with hard labels."""
    matches, fronts = list[Match](), list[Front]()
    for method in dict.fromkeys(point.method for point in points.all if point.method != HARD):
        pairs = [(point, points.find(point.student, HARD)) for point in points.all if point.method == method]
        both = [
            (soft, hard)
            for soft, hard in pairs
            if hard is not None and hard.params > 0 and set(soft.scores) & set(hard.scores)
        ]
        if not both:
            continue
        seeds = sorted({seed for pair in both for point in pair for seed in point.scores})
        soft, hard = (_table([pair[side] for pair in both], seeds) for side in (0, 1))
        sizes = np.array([one.params for one, _ in both])
        for (_, plain), found in zip(both, size_saved(sizes, soft, sizes, hard), strict=True):
            matches.append(Match(plain.student, method, plain.params, plain.interval.mean, found))
        fronts.append(_front(method, np.log10(sizes), soft, hard))
    return Worth(tuple(matches), tuple(fronts))


def _front(method: str, cost: NDArray[np.float64], soft: NDArray[np.float64], hard: NDArray[np.float64]) -> Front:
    corner = (float(cost.max()) + math.log10(2), 0.0)
    higher = hypervolume_gain(cost, soft, hard, reference=corner)
    width = corner[0] - float(cost.min())
    upper, lower = (hypervolume_interval(cost, table, reference=corner) for table in (soft, hard))
    share = Interval(*(edge / width for edge in higher))
    return Front(method, _cut(upper, 0.0, width), _cut(lower, 0.0, width), _cut(share, -1.0, 1.0))


def _cut(interval: Interval, least: float, most: float) -> Interval:
    """Bounds no further out than an accuracy between 0 and 1 allows."""
    return Interval(*(edge if math.isnan(edge) else min(max(edge, least), most) for edge in interval))


def _table(points: list[Point], seeds: list[int]) -> NDArray[np.float64]:
    return np.array([[point.scores.get(seed, math.nan) for seed in seeds] for point in points])


def _on_area(front: Front) -> str:
    mean, lo, hi = front.higher
    name = f"Averaged over the sizes, the front of {front.method}"
    text = f"{name} differs from that of hard labels by {signed(mean)} points"
    if math.isnan(lo):
        return f"{text} (no interval)."
    bounds = f"[{percent(lo)}, {percent(hi)}]"
    unsure = "" if lo > 0 or hi < 0 else ", which may be chance"
    return f"{text} {bounds}{unsure}."


def _share(fraction: float) -> str:
    return "never" if fraction == -math.inf else f"{percent(fraction, 0)}%"
