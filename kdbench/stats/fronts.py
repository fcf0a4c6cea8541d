"""Fronts of (cost, score), lower cost and higher score being better, and what one saves against another."""

from __future__ import annotations

import math
from functools import cache
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from kdbench.stats.replicates import central, means_over_seeds, runs_of, score_table, student_replicates, tidy
from kdbench.stats.tests import check_confidence

_RESAMPLES = 4000
_ENUMERATED = 10
"""Seeds up to which all 92,378 ways to draw them, or fewer, are gone through."""


def _costs(cost: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(cost, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"cost must have one axis, not shape {array.shape}")
    return array


def pareto_front(cost: ArrayLike, score: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point dominates.

    A point is dominated when another costs no more and scores no less, and is strictly better in one
    of the two. So of two points with equal cost and unequal score the lower is off the front; of two
    with equal score and unequal cost the dearer is off; exact duplicates are both on it. A point with
    a NaN in either is never on the front and dominates nothing.

    Args:
        cost: shape (n,), any unit (parameters, MACs, milliseconds).
        score: shape (n,), or (..., n) to find many fronts over the same costs at once.

    Returns:
        A mask of the shape of ``score``.
    """
    costs, scores = _costs(cost), np.asarray(score, dtype=np.float64)
    if scores.ndim == 0 or scores.shape[-1] != costs.size:
        raise ValueError(f"cost has shape {costs.shape}, score {scores.shape}; the last axes must agree")
    if costs.size == 0:
        return np.zeros(scores.shape, dtype=np.bool_)
    known = ~np.isnan(costs) & ~np.isnan(scores)
    # Unknown points sink to the end of the order and to minus infinity, where they dominate nothing.
    order = np.argsort(costs, kind="stable")
    ordered_cost = costs[order]
    ordered = np.where(known, scores, -np.inf)[..., order]
    starts = np.flatnonzero(np.r_[True, ordered_cost[1:] != ordered_cost[:-1]])
    group = np.repeat(np.arange(starts.size), np.diff(np.r_[starts, costs.size]))
    best = np.maximum.reduceat(ordered, starts, axis=-1)
    cheaper = np.maximum.accumulate(best, axis=-1)
    cheaper = np.concatenate([np.full((*best.shape[:-1], 1), -np.inf), cheaper[..., :-1]], axis=-1)
    mask = np.empty(scores.shape, dtype=np.bool_)
    mask[..., order] = (ordered >= best[..., group]) & (ordered > cheaper[..., group])
    return mask & known


def p_on_front(cost: ArrayLike, scores: ArrayLike, *, draws: int = 100_000, seed: int = 0) -> NDArray[np.float64]:
    """Each point's chance to be on the front of mean scores, by bootstrap over seeds.

    In every replicate the seeds are drawn anew with replacement, each point's score becomes its mean
    over the drawn seeds, and the front is found again. Assumes that seeds are exchangeable. When every
    point has every seed, one draw serves all points, which keeps whatever a seed does to all of them
    alike, and up to 10 seeds all draws are gone through with their weights: the chance is exact. When runs are
    missing, each point draws among its own seeds, ``draws`` times. With few seeds the bootstrap
    understates the spread (by a factor (n-1)/n in variance), so chances near 0 and 1 are too sure.

    Args:
        cost: shape (points,).
        scores: shape (points, seeds); NaN where a run is missing.
        draws: replicates where not all are gone through (a standard error of 0.0016 at a chance of one half).
        seed: of the replicates.

    Returns:
        Shape (points,), in [0, 1]; NaN for a point with fewer than two runs or an unknown cost, whose
        own spread is unknown (it takes part in the others' fronts with its mean).
    """
    costs = _costs(cost)
    table = score_table(scores, costs.size)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    points, seeds = table.shape
    runs = runs_of(table)
    rng = np.random.default_rng(seed)
    weights = np.full(draws, 1 / draws)
    if points and seeds and (runs == seeds).all():
        if seeds <= _ENUMERATED:
            counts, weights = _all_draws(seeds)
        else:
            counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws).astype(np.float64)
        # counts of each seed per replicate; their product with the scores is the sum over draws
        means = tidy(counts @ table.T / seeds)
    else:
        means = np.full((draws, points), np.nan)
        for index, n in enumerate(runs):
            if n:
                own = table[index][~np.isnan(table[index])]
                means[:, index] = tidy(own[rng.integers(0, n, size=(draws, n))].mean(axis=1))
    found: NDArray[np.float64] = weights @ pareto_front(costs, means)
    found[(runs < 2) | np.isnan(costs)] = np.nan
    return found.clip(0, 1)


@cache
def _all_draws(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Every way to draw ``n`` of ``n`` seeds with replacement: counts of shape (ways, n), and their chances."""
    stars = np.array([*combinations(range(2 * n - 1), n - 1)], dtype=np.int64).reshape(math.comb(2 * n - 1, n), n - 1)
    edges = np.column_stack([np.full(len(stars), -1), stars, np.full(len(stars), 2 * n - 1)])
    counts = (np.diff(edges, axis=1) - 1).astype(np.float64)
    weights: NDArray[np.float64] = np.exp(gammaln(n + 1) - gammaln(counts + 1).sum(axis=1) - n * math.log(n))
    return counts, weights


class SizeSaved(NamedTuple):
    """What the distilled front needs to be as accurate as one baseline, against what the baselines' front needs."""

    needed: float
    """Cost at which the distilled front reaches the baseline's accuracy; infinite when it never does."""
    saved: float
    """1 - needed / what the baselines' own front needs (0.3: 30% fewer parameters): negative when more is needed, minus
    infinity when it never gets there."""
    lo: float
    hi: float
    reached: Literal["within", "smallest", "never"]
    """``within``: between two sizes of the front, or at one. ``smallest``: the smallest distilled size is already
    better, so ``saved`` is the least that can be said. ``never``: no distilled size is as good."""


def size_saved(
    distilled_cost: ArrayLike,
    distilled: ArrayLike,
    baseline_cost: ArrayLike,
    baseline: ArrayLike,
    confidence: float = 0.95,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> list[SizeSaved]:
    """Size saved at equal accuracy: one answer a baseline, in their order.

    Both fronts (of mean accuracies) are joined by straight lines of log cost over accuracy, which never turn
    back; each baseline's mean accuracy is looked up on the distilled front and on the baselines' own, so that what a
    smaller baseline reaches as well is not counted as saved. Nothing is extrapolated. A size between two of the
    family is an interpolation: nobody trained it.

    The bounds are the middle ``confidence`` of replicates over seeds (see ``student_replicates``), in
    each of which the front is found anew; where all runs are there, a seed's luck moves the front and
    the baselines together. They assume roughly normal noise between seeds, and lean on straight lines
    between sizes. A replicate in which the smallest distilled size is already better counts with what that
    size saves for ``lo``, and as 1, because it might be anything, for ``hi``. Bounds are NaN with fewer than
    two runs of the baseline or of a distilled point, and where no run differs from another. With noise
    as large as the steps between sizes, 3 seeds are too few: the bounds then cover less than they promise
    (results/records/statistics/coverage.md has figures).

    Args:
        distilled_cost: shape (points,), positive.
        distilled: shape (points, seeds), NaN where a run is missing.
        baseline_cost: shape (baselines,), positive.
        baseline: shape (baselines, seeds), the same seeds in the same columns.
        confidence: of the bounds.
        resamples: replicates.
        seed: of the replicates; the same gives the same bounds.
    """
    check_confidence(confidence)
    costs, wanted = _positive(distilled_cost, "distilled_cost"), _positive(baseline_cost, "baseline_cost")
    front, levels = score_table(distilled, costs.size, "distilled"), score_table(baseline, wanted.size, "baseline")
    if front.shape[1] != levels.shape[1]:
        raise ValueError(f"distilled has {front.shape[1]} seeds, baseline {levels.shape[1]}; columns are common seeds")
    table = np.concatenate([front, levels])
    drawn = np.concatenate([means_over_seeds(table)[None], student_replicates(table, resamples, seed)])
    needed, at_smallest = _lookup(costs, drawn[:, : costs.size], drawn[:, costs.size :])
    saved = 1 - needed / _lookup(wanted, drawn[:, costs.size :], drawn[:, costs.size :])[0]
    most = np.where(at_smallest, 1.0, saved)  # nobody knows how much smaller it could have been
    several = runs_of(table) > 1
    bounded = several[costs.size :] & several[: costs.size].all() & np.ptp(drawn[1:], axis=0).any()
    found = []
    for index in range(wanted.size):
        lo = hi = math.nan
        if bounded[index]:
            lo, hi = central(saved[1:, index], confidence)[0], central(most[1:, index], confidence)[1]
        reached: Literal["within", "smallest", "never"] = "smallest" if at_smallest[0, index] else "within"
        if math.isinf(needed[0, index]):
            reached = "never"
        found.append(SizeSaved(float(needed[0, index]), float(saved[0, index]), lo, hi, reached))
    return found


def _positive(cost: ArrayLike, name: str) -> NDArray[np.float64]:
    costs = np.asarray(cost, dtype=np.float64)
    if costs.ndim != 1 or not (costs > 0).all() or np.isinf(costs).any():
        raise ValueError(f"{name} must be one axis of positive numbers, not {costs.tolist()}")
    return costs


def _lookup(
    costs: NDArray[np.float64], scores: NDArray[np.float64], levels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cost at which each replicate's front reaches each level, and whether its smallest point is already above it.

    Args:
        costs: shape (points,).
        scores: shape (replicates, points).
        levels: shape (replicates, baselines).

    Returns:
        Two arrays of shape (replicates, baselines); the cost is infinite where the front never gets there.
    """
    if not costs.size:
        return np.full(levels.shape, np.inf), np.zeros(levels.shape, dtype=np.bool_)
    order = np.argsort(costs, kind="stable")
    on_front = pareto_front(costs, scores)[:, order]
    heights = np.where(on_front, scores[:, order], -np.inf)
    logs = np.log(costs[order])
    reaches = heights[:, None, :] >= levels[:, :, None]
    after = np.argmax(reaches, axis=2)
    last = np.maximum.accumulate(np.where(on_front, np.arange(costs.size), -1), axis=1)
    before = np.where(after > 0, np.take_along_axis(last, np.maximum(after - 1, 0), axis=1), -1)
    upper = np.take_along_axis(heights, after, axis=1)
    lower = np.take_along_axis(heights, np.maximum(before, 0), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(before >= 0, (levels - lower) / (upper - lower), 1.0)
    start = logs[np.maximum(before, 0)]
    needed = np.exp(start + np.where(before >= 0, share, 0.0) * (logs[after] - start))
    needed = np.where(before >= 0, needed, costs[order][after])
    needed = np.where(reaches.any(axis=2), needed, np.inf)
    smallest = (before < 0) & reaches.any(axis=2) & (levels < upper)
    return needed, smallest
