"""Mean scores of several points as they might have come out with other seeds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def score_table(scores: ArrayLike, rows: int, name: str = "scores") -> NDArray[np.float64]:
    """``scores`` as float64 of shape (rows, seeds).

    Raises:
        ValueError: when the shape is another, or an entry infinite.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != rows:
        raise ValueError(f"{name} must have shape ({rows}, seeds), not {table.shape}")
    if np.isinf(table).any():
        raise ValueError(f"{name} holds an infinite value")
    return table


def runs_of(table: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many runs each row of (rows, seeds) has."""
    found: NDArray[np.int64] = np.sum(~np.isnan(table), axis=1)
    return found


def means_over_seeds(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row means of shape (rows,) that leave NaN out; NaN for a row without any score."""
    runs = runs_of(table)
    sums = np.nansum(table, axis=1)
    return tidy(np.divide(sums, runs, out=np.full(runs.shape, np.nan), where=runs > 0))


def student_replicates(table: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Replicates of the row means of ``table``, shape (resamples, rows): a wild bootstrap over seeds.

    Each replicate adds to the means the seeds' deviations, weighted by independent normal numbers and
    scaled by one draw of sqrt((n - 1) / chi-square(n - 1)). The quantiles of a single mean are then
    Student's t interval, and so are, to first order, those of any smooth function of the means, because
    what a seed does to all rows alike stays together. The usual bootstrap (drawing seeds with
    replacement) has too little spread by a factor of (n - 1) / n, and at 3 seeds can never leave the
    range of the three. Where runs are missing, each row draws for itself; a row with one run has no
    spread to draw from and stays at its mean.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    rng = np.random.default_rng(seed)
    means = means_over_seeds(table)
    spread = np.where(np.isnan(table), 0.0, table - means[:, None])
    runs = runs_of(table)
    if table.size and (runs == table.shape[1]).all() and table.shape[1] > 1:
        return tidy(means + _draws(spread, table.shape[1], resamples, rng))
    noise = np.zeros((resamples, len(table)))
    for index, n in enumerate(runs):
        if n > 1:
            noise[:, index] = _draws(spread[index : index + 1], int(n), resamples, rng)[:, 0]
    return tidy(means + noise)


def _draws(spread: NDArray[np.float64], n: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    weights = rng.normal(size=(resamples, spread.shape[1]))
    scale = np.sqrt((n - 1) / rng.chisquare(n - 1, size=(resamples, 1)))
    drawn: NDArray[np.float64] = scale * (weights @ spread.T) / math.sqrt(n * (n - 1))
    return drawn


def tidy(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round away the last digits, so that equal scores added in another order still tie."""
    rounded: NDArray[np.float64] = np.round(means, 12)
    return rounded


def central(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Bounds of the middle ``confidence`` of ``values``, shape (resamples,); infinite values may be among them."""
    # Observed values only: halfway between minus infinity and a number there is nothing to say.
    lo, hi = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2], method="inverted_cdf")
    return float(lo), float(hi)
