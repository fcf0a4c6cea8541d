"""Confidence intervals for the mean of a few seeds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

# Differences of fractions carry rounding of about 1e-16; anything this small is not spread.
_NO_SPREAD = 1e-12


class Interval(NamedTuple):
    """A mean with its confidence bounds, in the unit of the sample; bounds are NaN when unknown."""

    mean: float
    lo: float
    hi: float


def finite_1d(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """``values`` as float64 of shape (n,) without NaN entries.

    Raises:
        ValueError: when there is more than one axis, or an infinite entry.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, not shape {array.shape}")
    if np.isinf(array).any():
        raise ValueError(f"{name} holds an infinite value")
    return array[~np.isnan(array)]


def check_confidence(confidence: float) -> None:
    """Refuse a level that is not strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not at {confidence}")


def has_spread(sample: NDArray[np.float64]) -> bool:
    """Whether a sample of shape (n,) varies by more than floating-point rounding."""
    return bool(np.ptp(sample) > _NO_SPREAD * max(1.0, float(np.abs(sample).max())))


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
    sample = finite_1d(values, "values")
    n = sample.size
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(sample.mean())
    if n == 1 or not has_spread(sample):
        return Interval(mean, math.nan, math.nan)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval for the mean of ``values``, shape (n,); NaN entries are left out.

    Assumes independent values and nothing about their shape, but needs many of them: with fewer than
    about ten it is too narrow (at n = 3 it can never leave the range of the three), so the tables use
    ``t_interval``. The same ``seed`` gives the same bounds. Efron & Tibshirani 1993, chapter 13.

    Degenerate samples give NaN bounds, as in ``t_interval``.
    """
    check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    sample = finite_1d(values, "values")
    n = sample.size
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(sample.mean())
    if n == 1 or not has_spread(sample):
        return Interval(mean, math.nan, math.nan)
    picks = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    lo, hi = np.quantile(sample[picks].mean(axis=1), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(mean, float(lo), float(hi))
