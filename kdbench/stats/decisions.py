"""What several rows say together, whether two results agree, and when to stop adding seeds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from kdbench.stats.crossed import Spread, crossed_difference
from kdbench.stats.planning import paired_t_power
from kdbench.stats.tests import (
    LEVEL,
    NO_SPREAD,
    Interval,
    PairedDifference,
    check_confidence,
    has_spread,
    known,
)

SURE_OF_ONE = 0.98
"""Prediction interval outside of which one published run counts as another result. At 95%, of exact replications whose
noise has heavy tails or collapsing seeds up to 8.5% would be called so; at 98% less than 7% (coverage.md)."""


def mean_gain(distilled: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> PairedDifference:
    """The gain averaged over the sizes: one test for a whole table, to be stated before its rows are looked at.

    The mean over sizes of (distilled - baseline) is taken within each seed, and those means are compared by the
    paired t-test over seeds. Whatever a seed does to several sizes at once (the cut, the order, the teacher's view of
    it) stays within its mean, so sizes need not be independent. Only seeds with every size on both sides count.

    Args:
        distilled: shape (sizes, seeds), NaN where a run is missing; or (replicates, sizes, seeds), whose means are then
            compared by ``crossed_difference``.
        baseline: shape (sizes, seeds), the same seeds in the same columns.
        confidence: of the bounds.
    """
    left, right = (np.atleast_2d(np.asarray(table, dtype=np.float64)) for table in (distilled, baseline))
    if left.shape[-2:] != right.shape:
        raise ValueError(f"distilled has shape {left.shape}, baseline {right.shape}; pairs need equal shapes")
    return crossed_difference(left.mean(axis=-2), right.mean(axis=0), confidence)  # a NaN leaves its seed out


def smallest_gain(sd: float, n: float, *, power: float = 0.8, level: float = 0.05) -> float:
    """The minimum detectable effect: the true gain that ``n`` paired seeds show with chance ``power``.

    In the unit of ``sd``, the standard deviation of the differences between seeds; infinite below two seeds.
    The inverse of ``paired_t_power`` (Cohen 1988, chapter 2).
    """
    if n < 2:
        return math.inf
    if not sd:
        return 0.0
    low, high = 0.0, sd
    while paired_t_power(high, sd, n, level) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if paired_t_power(middle, sd, n, level) < power else (low, middle)
    return high


def smallest_crossed_gain(spread: Spread, *, level: float = 0.05) -> float:
    """``smallest_gain`` of a mean over replicates and seeds: of as many seeds as its degrees of freedom are worth."""
    n = spread.degrees + 1
    return smallest_gain(spread.error * math.sqrt(n), n, level=level)


def prediction_interval(values: ArrayLike, runs: int = 1, confidence: float = 0.95) -> Interval:
    """Where the mean of ``runs`` further runs of the same experiment falls: mean ± t · sd · sqrt(1/runs + 1/n).

    A published number is such a mean if the experiment is the same; an interval for the MEAN of ``values``,
    shape (n,), shrinks with n and would exclude an exact replication ever more often. Bounds are NaN without spread.
    """
    check_confidence(confidence)
    sample = known(values, "values")
    mean, half = _mean(sample), math.nan
    if sample.size > 1 and has_spread(sample):
        half = float(stdtrit(sample.size - 1, 0.5 + confidence / 2)) * math.sqrt(1 / runs + 1 / sample.size)
        half *= float(sample.std(ddof=1))
    return Interval(mean, mean - half, mean + half)


def welch_p(values: ArrayLike, mean: float, sd: float, n: int) -> float:
    """Two-sided p of "the same mean" for ``values``, shape (m,), against a published mean, sd and number of runs.

    Welch 1947; NaN with fewer than two runs on either side or without spread on both.
    """
    sample = known(values, "values")
    if sample.size < 2 or n < 2:
        return math.nan
    ours, theirs = float(sample.var(ddof=1)) / sample.size, sd**2 / n
    if not ours + theirs:
        return math.nan
    degrees = (ours + theirs) ** 2 / (ours**2 / (sample.size - 1) + theirs**2 / (n - 1))
    return float(2 * stdtr(degrees, -abs(_mean(sample) - mean) / math.sqrt(ours + theirs)))


def rank_intervals(scores: ArrayLike, confidence: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Which ranks each row may have, best and worst: rows that cannot be told apart share theirs.

    One plus the rows that are surely better, and their number less the rows that are surely worse. Two rows are told
    apart by the paired t-test over the seeds they share, where they share two or more, else by Welch's; pair by pair,
    so among many equal rows some will be. NaN for a row with fewer than two scores: it says nothing of others' ranks.

    Args:
        scores: shape (rows, seeds), higher is better, NaN where a run is missing.
        confidence: of each pair's difference.
    """
    check_confidence(confidence)
    table = np.asarray(scores, dtype=np.float64)
    best, worst = np.full(len(table), np.nan), np.full(len(table), np.nan)
    some = np.flatnonzero(np.sum(~np.isnan(table), axis=1) > 1)
    n, means, errors = _moments(table[some])
    for k, place in enumerate(some):
        common, gap, error = _moments(table[some] - table[place])
        paired, both = common > 1, errors + errors[k]
        with np.errstate(invalid="ignore", divide="ignore"):  # a row and itself, or rows without spread
            welch = both**2 / (errors**2 / (n - 1) + errors[k] ** 2 / (n[k] - 1))
        gap, error = np.where(paired, gap, means - means[k]), np.sqrt(np.where(paired, error, both))
        half = error * stdtrit(np.where(paired, common - 1, welch), 0.5 + confidence / 2)
        sure = (error > NO_SPREAD) & (np.abs(gap) > half)
        best[place], worst[place] = 1 + np.sum(sure & (gap > 0)), len(some) - np.sum(sure & (gap < 0))
    return best, worst


def _moments(table: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each row of (rows, seeds), NaN left out: how many, their mean, its squared standard error."""
    n = np.asarray(np.sum(~np.isnan(table), axis=1), dtype=np.int64)
    means: NDArray[np.float64] = np.nansum(table, axis=1) / np.maximum(n, 1)
    squares = np.nansum((table - means[:, None]) ** 2, axis=1)
    return n, means, squares / np.maximum(n - 1, 1) / np.maximum(n, 1)


def equivalence_p(differences: ArrayLike, margin: float) -> float:
    """P of "the true mean of ``differences``, shape (n,), is ``margin`` or more away from 0": below 0.05 says "alike".

    Two one-sided t-tests (Schuirmann 1987): the larger p of the two. "Not significantly different" is no such
    evidence: it is what too few seeds give as well. NaN for fewer than two differences, and where all are
    equal, which is an accident.
    """
    if not margin > 0:
        raise ValueError(f"margin must be positive, not {margin}")
    sample = known(differences, "differences")
    if sample.size < 2 or not has_spread(sample):
        return math.nan
    error = float(sample.std(ddof=1)) / math.sqrt(sample.size)
    return float(stdtr(sample.size - 1, (abs(_mean(sample)) - margin) / error))


def ratio_interval(top: ArrayLike, bottom: ArrayLike, confidence: float = 0.95) -> Interval:
    """The ratio of two means over common seeds, both shape (n,), by Fieller's theorem (1954).

    For "share of the gap closed": ``top`` is hard minus soft, ``bottom`` hard minus teacher. Bounds are NaN where the
    denominator is not clearly away from 0, since then every ratio, or all but a middle stretch, is possible.
    """
    check_confidence(confidence)
    pairs = np.stack([np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)])
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    n = pairs.shape[1]
    a, b = (_mean(side) for side in pairs)
    if n < 2 or not b or not (has_spread(pairs[0]) or has_spread(pairs[1])):
        return Interval(a / b if b else math.nan, math.nan, math.nan)
    (va, vab), (_, vb) = np.cov(pairs) / n
    t2 = float(stdtrit(n - 1, 0.5 + confidence / 2)) ** 2
    lead = b**2 - t2 * vb
    inner = (a * b - t2 * vab) ** 2 - lead * (a**2 - t2 * va)
    if lead <= 0 or inner < 0:
        return Interval(a / b, math.nan, math.nan)
    middle, half = (a * b - t2 * vab) / lead, math.sqrt(inner) / lead
    return Interval(a / b, middle - half, middle + half)


def spent_levels(looks: Sequence[int], level: float = LEVEL) -> NDArray[np.float64]:
    """The level of the test at each look, so that looking several times is false at most ``level`` times in all.

    ``looks`` are numbers of seeds, ascending; a look gets the share of ``level`` that its new seeds are of the last
    look's (Bonferroni over looks, with alpha spent linearly in the seeds: valid for any dependence between them, and
    with Holm at each look over any number of rows). Lan & DeMets 1983 for the idea of spending.
    """
    counts = np.asarray(looks, dtype=np.float64)
    if not counts.size or (np.diff(counts, prepend=0) <= 0).any():
        raise ValueError(f"looks must ascend from 1 or more, not {list(looks)}")
    shares: NDArray[np.float64] = level * np.diff(counts, prepend=0) / counts[-1]
    return shares


def look_numbers(first: int, most: int) -> tuple[int, ...]:
    """Numbers of seeds at which an open-ended comparison looks: ``first``, twice as many each time, then ``most``."""
    found = [first]
    while 2 * found[-1] < most:
        found.append(2 * found[-1])
    return (*found, most) if most > first else (first,)


def at_look(p: float, n: int, looks: Sequence[int]) -> float:
    """The p of a row's test at ``n`` seeds (of the next look, where runs are missing) on the scale of one look.

    Holm's correction of such values over all rows, compared with ``LEVEL``, decides what looking again and again does
    that adds seeds only where nothing is decided yet: a row decided at an earlier look stays decided, and the others
    are corrected for those that were open with them. Without ``looks`` it is ``p``.
    """
    return min(1.0, p * LEVEL / look_level(n, looks)) if looks and p == p else p


def look_level(n: int, looks: Sequence[int]) -> float:
    """The level of one row's test at ``n`` seeds."""
    return float(spent_levels(looks)[min(bisect_left(looks, n), len(looks) - 1)]) if looks else LEVEL


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else math.nan
