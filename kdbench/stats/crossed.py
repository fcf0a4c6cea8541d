"""Gains measured under several teachers or after several searches, on common seeds: tables of replicates by seeds.

Replicates share seeds and hard-label runs: a t interval over their means alone can cover as little as a quarter.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from kdbench.stats.tests import (
    Interval,
    PairedDifference,
    check_confidence,
    has_spread,
    paired_difference,
    sign_flip_p,
    t_interval,
)


class Spread(NamedTuple):
    """What the mean of a table of replicates by seeds may be off by."""

    between: float
    """Variance of the replicates' means; 0 with one."""
    within: float
    """Variance of the seeds' means."""
    replicates: int
    seeds: int

    @property
    def error(self) -> float:
        """Standard error of the mean, a little too large: what neither explains alone counts in both variances."""
        return math.sqrt(self.between / self.replicates + self.within / self.seeds)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of ``error``'s square, a sum of two (Satterthwaite 1946, Welch 1947).

        At most twice those of the fewer, replicates or seeds: where these happened to agree, tests at the levels of
        Holm's correction would find too much (2 teachers, 10 seeds: in 22% of simulated tables without any gain).
        """
        first, second = self.between / self.replicates, self.within / self.seeds
        if self.replicates < 2 or not first + second:
            return self.seeds - 1
        parts = first**2 / (self.replicates - 1) + (second**2 / (self.seeds - 1) if second else 0.0)
        return min((first + second) ** 2 / parts, 2 * min(self.replicates - 1, self.seeds - 1))


class Components(NamedTuple):
    """Where the variance of one run's gain lies, in its unit squared."""

    replicates: float
    seeds: float
    residual: float
    """In neither alone."""


def whole_part(table: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the largest part of ``table``, shape (replicates, seeds), without NaN: the fullest rows."""
    known = ~np.isnan(np.atleast_2d(np.asarray(table, dtype=np.float64)))
    order, best = np.argsort(-known.sum(axis=1), kind="stable"), (np.arange(0), np.arange(0))
    for count in range(1, len(known) + 1):
        columns = np.flatnonzero(known[order[:count]].all(axis=0))
        if columns.size and count * columns.size >= best[0].size * best[1].size:
            best = (np.sort(order[:count]), columns)
    return best


def _whole(table: ArrayLike) -> NDArray[np.float64]:
    array = np.atleast_2d(np.asarray(table, dtype=np.float64))
    return array[np.ix_(*whole_part(array))]


def _variance(means: NDArray[np.float64]) -> float:
    return float(means.var(ddof=1)) if means.size > 1 and has_spread(means) else 0.0


def spread_of(table: ArrayLike) -> Spread:
    """The ``Spread`` of ``table``, shape (replicates, seeds) or (seeds,); rows or columns with a NaN are left out."""
    whole = _whole(table)
    between, within = (_variance(whole.mean(axis=axis)) if whole.size else 0.0 for axis in (1, 0))
    return Spread(between, within, *whole.shape)


def crossed_interval(table: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of ``table``, shape (replicates, seeds), with bounds that cover other replicates and other seeds.

    Replicates and seeds are taken as draws, independent of each other and roughly normal. Simulated coverage:
    results/records/statistics/coverage.md. With one replicate it is ``t_interval`` over the seeds; with one seed or no
    spread there are no bounds.
    """
    whole = _whole(table)
    if len(whole) < 2:
        return t_interval(whole.ravel(), confidence)
    check_confidence(confidence)
    spread, mean, half = spread_of(whole), float(whole.mean()), math.nan
    if spread.seeds > 1 and spread.error:
        half = float(stdtrit(spread.degrees, 0.5 + confidence / 2)) * spread.error
    return Interval(mean, mean - half, mean + half)


def crossed_difference(distilled: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> PairedDifference:
    """``paired_difference`` of ``distilled``, shape (replicates, seeds), and ``baseline``, shape (seeds,).

    Bounds and p of ``crossed_interval``; ``n`` counts seeds. With one replicate it is the paired t-test.
    """
    whole = _whole(np.asarray(distilled, dtype=np.float64) - np.asarray(baseline, dtype=np.float64))
    if len(whole) < 2:
        return paired_difference(whole.ravel(), np.zeros(whole.size), confidence)
    mean, lo, hi = crossed_interval(whole, confidence)
    p, spread = sign_flip_p(whole.mean(axis=0)), spread_of(whole)
    if lo == lo:
        p = float(2 * stdtr(spread.degrees, -abs(mean) / spread.error))
    return PairedDifference(mean, lo, hi, p, spread.seeds)


def components(table: ArrayLike) -> Components:
    """Variance components of ``table``, shape (replicates, seeds): crossed random effects, two or more of each.

    Those of REML, in closed form for a whole table: from the mean squares, of which one that is smaller than the
    residual's is pooled with it, the smallest first (Searle, Casella & McCulloch 1992, chapter 4). NaN for less.
    """
    whole = _whole(table)
    r, n = whole.shape
    if r < 2 or n < 2:
        return Components(math.nan, math.nan, math.nan)
    squares = {0: n * whole.mean(axis=1).var(ddof=1), 1: r * whole.mean(axis=0).var(ddof=1)}
    degrees, rest_degrees = {0: r - 1, 1: n - 1}, (r - 1) * (n - 1)
    total = float(((whole - whole.mean()) ** 2).sum())
    rest = max(total - sum(squares[k] * degrees[k] for k in squares), 0.0) / rest_degrees
    for k in sorted(squares, key=squares.__getitem__):
        if squares[k] < rest:
            rest = (rest * rest_degrees + squares.pop(k) * degrees[k]) / (rest_degrees + degrees[k])
            rest_degrees += degrees[k]
    found = [(squares[k] - rest) / each if k in squares else 0.0 for k, each in ((0, n), (1, r))]
    return Components(float(found[0]), float(found[1]), float(rest))
