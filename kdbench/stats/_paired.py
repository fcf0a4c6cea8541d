"""Distilled against baseline over common seeds, and the correction for asking several times."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

from kdbench.stats._intervals import finite_1d, has_spread, t_interval

# Up to this many pairs every sign pattern is tried; beyond, a fixed number of random ones.
_EXACT_PAIRS = 16
_RANDOM_FLIPS = 1 << 16


class PairedDifference(NamedTuple):
    """Mean of (distilled - baseline), its confidence bounds, two-sided p, and the number of pairs."""

    mean: float
    lo: float
    hi: float
    p: float
    n: int


def paired_difference(
    distilled: ArrayLike,
    baseline: ArrayLike,
    confidence: float = 0.95,
    *,
    test: Literal["t", "sign-flip"] = "t",
) -> PairedDifference:
    """Compare two arrays of shape (n,) whose entry i comes from the same seed.

    Pairs in which either side is NaN are left out. The bounds are Student's t interval of the
    differences. ``p`` is two-sided:

    - ``"t"``: paired t-test. Assumes that the differences are independent between seeds and roughly
      normal. The accuracies themselves need not be normal, and what a seed does to both sides alike
      cancels, which is why both are run on common seeds.
    - ``"sign-flip"``: see ``sign_flip_p``; assumes less, sees less.

    With one pair only the mean is known. When all differences are equal, a t-test would call any
    difference infinitely certain; on a test set of a few hundred images, where accuracies come in coarse
    steps, that is an accident and not evidence. Then the bounds are NaN and ``p`` is the sign-flip one.

    Raises:
        ValueError: when the shapes differ, or the confidence is not between 0 and 1.
    """
    left, right = np.asarray(distilled, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"distilled has shape {left.shape}, baseline {right.shape}; pairs need equal shapes")
    if test not in ("t", "sign-flip"):
        raise ValueError(f"test must be 't' or 'sign-flip', not {test!r}")
    differences = finite_1d(left - right, "differences")
    n = differences.size
    mean, lo, hi = t_interval(differences, confidence)
    if n < 2:
        return PairedDifference(mean, lo, hi, math.nan, n)
    if test == "sign-flip" or not has_spread(differences):
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
    values = finite_1d(differences, "differences")
    n = values.size
    if n < 2:
        return math.nan
    observed = abs(values.sum())
    # Sums that should tie differ by rounding in the last digits; they count as ties.
    threshold = observed - 1e-12 * max(1.0, float(np.abs(values).sum()))
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
    if p.ndim != 1:
        raise ValueError(f"p_values must have one axis, not shape {p.shape}")
    known = ~np.isnan(p)
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError("p_values must lie in [0, 1]")
    adjusted = np.full_like(p, np.nan)
    order = np.flatnonzero(known)[np.argsort(p[known], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted
