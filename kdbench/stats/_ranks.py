"""Several methods over several data sets, compared by their ranks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc


def ranks(scores: ArrayLike) -> NDArray[np.float64]:
    """Rank of each method within its block: 1 is the highest score, ties share the mean of their ranks.

    Args:
        scores: shape (blocks, methods); a block is one student on one data set.

    Returns:
        The same shape; a block with a NaN is NaN throughout, because its methods cannot be compared.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"scores must have shape (blocks, methods), not {table.shape}")
    better = np.sum(table[:, None, :] > table[:, :, None], axis=2)
    tied = np.sum(table[:, None, :] == table[:, :, None], axis=2)
    found: NDArray[np.float64] = better + (tied + 1) / 2
    found[np.isnan(table).any(axis=1)] = np.nan
    return found


def mean_ranks(scores: ArrayLike) -> NDArray[np.float64]:
    """``ranks`` averaged over whole blocks, shape (methods,); NaN when there is none."""
    table = ranks(scores)
    whole = table[~np.isnan(table).any(axis=1)]
    if not len(whole):
        return np.full(table.shape[1], np.nan)
    mean: NDArray[np.float64] = whole.mean(axis=0)
    return mean


def friedman_p(scores: ArrayLike) -> float:
    """P of "all methods are alike" from their ranks: Friedman's test with its correction for ties.

    Assumes independent blocks. Sizes of one ladder on one data set are not quite that, so a small p is
    a hint there, no proof. By the chi-square approximation, rough below about ten blocks. NaN with
    fewer than two whole blocks or methods, or when everything ties. Friedman 1937; Demsar 2006.
    """
    table = ranks(scores)
    whole = table[~np.isnan(table).any(axis=1)]
    blocks, methods = whole.shape
    if blocks < 2 or methods < 2:
        return math.nan
    spread = float(np.sum((whole - (methods + 1) / 2) ** 2))
    if spread == 0:
        return math.nan
    between = float(np.sum((whole.sum(axis=0) - blocks * (methods + 1) / 2) ** 2))
    return float(chdtrc(methods - 1, (methods - 1) * between / spread))
