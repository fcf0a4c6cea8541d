"""How sure a mean over seeds is, whether distilling differs from not distilling, and several methods by their ranks."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, chdtrc, stdtr, stdtrit

LEVEL = 0.05
"""Chance of one or more false verdicts in a table when no method makes a difference."""
# Differences of fractions carry rounding of about 1e-16; anything this small is not spread.
NO_SPREAD = 1e-12
# Up to this many pairs every sign pattern is tried; beyond, a fixed number of random ones.
_EXACT_PAIRS, _RANDOM_FLIPS = 16, 1 << 16


class Interval(NamedTuple):
    """A mean with its confidence bounds, in the unit of the sample; bounds are NaN when unknown."""

    mean: float
    lo: float
    hi: float


class PairedDifference(NamedTuple):
    """Mean of (distilled - baseline), its confidence bounds, two-sided p, and the number of pairs."""

    mean: float
    lo: float
    hi: float
    p: float
    n: int


def check_confidence(confidence: float) -> None:
    """Refuse a level that is not strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not at {confidence}")


def known(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """``values`` as float64 of shape (n,) without NaN entries; another shape or an infinite entry is refused."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, not shape {array.shape}")
    if np.isinf(array).any():
        raise ValueError(f"{name} holds an infinite value")
    return array[~np.isnan(array)]


def has_spread(sample: NDArray[np.float64]) -> bool:
    """Whether a sample of shape (n,) varies by more than floating-point rounding."""
    return bool(np.ptp(sample) > NO_SPREAD * max(1.0, float(np.abs(sample).max())))


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> PairedDifference:
    """How much accuracy falls from ``before`` to ``after``, whether each of (n,) samples is right, by two classifiers.

    The 95% interval is Agresti and Min's (2005: half a sample more in each cell), p McNemar's, exact: of the samples on
    which they differ, each is as likely right as the other.
    """
    n, lost, won = len(before), int((before & ~after).sum()), int((after & ~before).sum())
    middle = (lost - won) / (n + 2)
    reach = 1.959963984540054 * math.sqrt((lost + won + 1) / (n + 2) - middle**2) / math.sqrt(n + 2)
    p = min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0
    return PairedDifference((lost - won) / n, max(-1.0, middle - reach), min(1.0, middle + reach), p, n)


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean of ``values``, shape (n,); NaN entries are left out.

    Assumes that the values are independent draws (one a seed) from a roughly normal distribution; with
    the 3 to 10 seeds usual here that cannot be checked, only hoped. It speaks of other SEEDS on this
    train and test set, not of other data sets or of other test images.

    With one value, or with values that are all the same (no spread to learn from; it happens on small
    test sets, where accuracies come in coarse steps), the bounds are NaN: an interval of width zero
    would claim a certainty that nobody has. With none, the mean is NaN too.
    """
    check_confidence(confidence)
    sample = known(values, "values")
    n = sample.size
    mean = float(sample.mean()) if n else math.nan
    if n < 2 or not has_spread(sample):
        return Interval(mean, math.nan, math.nan)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def paired_difference(distilled: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> PairedDifference:
    """Compare two arrays of shape (n,) whose entry i comes from the same seed.

    Pairs in which either side is NaN are left out. The bounds are Student's t interval of the
    differences, ``p`` is that of the two-sided paired t-test. It assumes that the differences are
    independent between seeds and roughly normal. The accuracies themselves need not be normal, and what a
    seed does to both sides alike cancels, which is why both are run on common seeds.

    With one pair only the mean is known. When all differences are equal, a t-test would call any
    difference infinitely certain; on a test set of a few hundred images, where accuracies come in coarse
    steps, that is an accident and not evidence. Then the bounds are NaN and ``p`` is ``sign_flip_p``.

    Raises:
        ValueError: when the shapes differ, or the confidence is not between 0 and 1.
    """
    left, right = np.asarray(distilled, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"distilled has shape {left.shape}, baseline {right.shape}; pairs need equal shapes")
    differences = known(left - right, "differences")
    n = differences.size
    mean, lo, hi = t_interval(differences, confidence)
    if n < 2 or not has_spread(differences):
        return PairedDifference(mean, lo, hi, sign_flip_p(differences), n)
    t = mean / (differences.std(ddof=1) / math.sqrt(n))
    return PairedDifference(mean, lo, hi, float(2 * stdtr(n - 1, -abs(t))), n)


def sign_flip_p(differences: ArrayLike, *, seed: int = 0) -> float:
    """Two-sided permutation p of the mean of ``differences``, shape (n,), by flipping their signs.

    Assumes only that under "no difference" each difference is as likely as its negative. Exact (all
    2^n patterns) up to 16 pairs, else 65,536 random patterns with the observed one counted in. The
    smallest p it can give is 2^(1-n): 0.25 at 3 seeds and 0.06 at 5, so below 6 seeds it can never
    call anything different at 5%. NaN for fewer than two differences.
    """
    values = known(differences, "differences")
    n = values.size
    if n < 2:
        return math.nan
    # Sums that should tie differ by rounding in the last digits; they count as ties.
    threshold = abs(values.sum()) - 1e-12 * max(1.0, float(np.abs(values).sum()))
    if n <= _EXACT_PAIRS:
        signs = 1 - 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(signs @ values) >= threshold))
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(_RANDOM_FLIPS, n))
    hits = int(np.sum(np.abs(signs @ values) >= threshold))
    return (hits + 1) / (_RANDOM_FLIPS + 1)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjusted p-values, shape (m,), in the order given.

    Comparing an adjusted value with 0.05 keeps the chance of even one false "different" among all m
    answers at 5%, whatever the dependence between them. NaN entries were not tested: they stay NaN and
    do not count in m. Holm 1979, Scand. J. Statist. 6.

    Raises:
        ValueError: when a value lies outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or (p < 0).any() or (p > 1).any():
        raise ValueError(f"p_values must be one axis of values in [0, 1], not {p.tolist()}")
    adjusted = np.full_like(p, np.nan)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.arange(order.size, 0, -1) * p[order]))
    return adjusted


def ranks(scores: ArrayLike) -> NDArray[np.float64]:
    """Rank of each method within its block: 1 is the highest score, ties share the mean of their ranks.

    Args:
        scores: shape (blocks, methods); a block is one student on one data set.

    Returns:
        The same shape; a block with a NaN is NaN throughout, because its methods cannot be compared.
    """
    from scipy.stats import rankdata  # most of a second, and only this needs it

    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"scores must have shape (blocks, methods), not {table.shape}")
    found: NDArray[np.float64] = rankdata(-table, axis=1, nan_policy="propagate")
    return found


def mean_ranks(scores: ArrayLike) -> NDArray[np.float64]:
    """``ranks`` averaged over whole blocks, shape (methods,); NaN when there is none."""
    table = ranks(scores)
    whole = table[~np.isnan(table).any(axis=1)]
    return whole.mean(axis=0) if len(whole) else np.full(table.shape[1], np.nan)


def nemenyi(methods: int, blocks: int, level: float = LEVEL) -> float:
    """How far mean ranks of ``methods`` over ``blocks`` must be apart to differ, whichever pair is looked at.

    Nemenyi's critical difference; Demsar 2006, section 3.2.2, with the studentised range of infinitely many degrees.
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.isf(level, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


def friedman_p(scores: ArrayLike) -> float:
    """P of "all methods are alike" from their ranks: Friedman's test with its correction for ties.

    Assumes independent blocks. Sizes of one family on one data set are not quite that, so a small p is
    a hint there, no proof. By the chi-square approximation, rough below about ten blocks. NaN with
    fewer than two whole blocks or methods, or when everything ties. Friedman 1937; Demsar 2006.
    """
    table = ranks(scores)
    whole = table[~np.isnan(table).any(axis=1)] - (table.shape[1] + 1) / 2
    blocks, methods = whole.shape
    spread = float(np.sum(whole**2))
    if blocks < 2 or methods < 2 or spread == 0:
        return math.nan
    between = float(np.sum(whole.sum(axis=0) ** 2))
    return float(chdtrc(methods - 1, (methods - 1) * between / spread))
