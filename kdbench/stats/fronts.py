"""Fronts of (cost, score), lower cost and higher score being better, and what they are worth."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdbench.stats.replicates import central, means_over_seeds, runs_of, score_table, student_replicates, tidy
from kdbench.stats.tests import Interval, check_confidence

_RESAMPLES = 4000
Corner = tuple[float, float]
"""(cost, score) of the worst corner of an area."""


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


def p_on_front(cost: ArrayLike, scores: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> NDArray[np.float64]:
    """Each point's chance to be on the front of mean scores, by bootstrap over seeds.

    In every replicate the seeds are drawn anew with replacement, each point's score becomes its mean
    over the drawn seeds, and the front is found again. Assumes that seeds are exchangeable. When every
    point has every seed, one draw serves all points, which keeps whatever a seed does to all of them
    alike; when runs are missing, each point draws among its own seeds. With few seeds the bootstrap
    understates the spread (by a factor (n-1)/n in variance), so chances near 0 and 1 are too sure.

    Args:
        cost: shape (points,).
        scores: shape (points, seeds); NaN where a run is missing.

    Returns:
        Shape (points,), in [0, 1]; NaN for a point with fewer than two runs or an unknown cost, whose
        own spread is unknown (it takes part in the others' fronts with its mean).
    """
    costs = _costs(cost)
    table = score_table(scores, costs.size)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    points, seeds = table.shape
    runs = runs_of(table)
    means = np.full((resamples, points), np.nan)
    rng = np.random.default_rng(seed)
    if points and seeds and (runs == seeds).all():
        # counts of each seed per replicate; their product with the scores is the sum over draws
        counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
        means = tidy(counts @ table.T / seeds)
    else:
        for index, n in enumerate(runs):
            if n:
                own = table[index][~np.isnan(table[index])]
                means[:, index] = tidy(own[rng.integers(0, n, size=(resamples, n))].mean(axis=1))
    chance: NDArray[np.float64] = pareto_front(costs, means).mean(axis=0)
    chance[(runs < 2) | np.isnan(costs)] = np.nan
    return chance


def _areas(costs: NDArray[np.float64], scores: NDArray[np.float64], reference: Corner) -> NDArray[np.float64]:
    """``hypervolume`` of each replicate, shape (replicates,), from scores of shape (replicates, points)."""
    order = np.argsort(costs, kind="stable")
    steps = np.minimum(costs[order], reference[0])  # a point beyond the reference gets width 0
    # The front rises with cost: each point's height holds until the next, dearer point takes over.
    best = np.maximum.accumulate(np.maximum(scores[:, order] - reference[1], 0.0), axis=1)
    found: NDArray[np.float64] = best @ np.diff(np.r_[steps, reference[0]])
    return found


def hypervolume(cost: ArrayLike, score: ArrayLike, *, reference: Corner) -> float:
    """Area dominated by the points, both of shape (n,), within the reference (highest cost, lowest score).

    The unit is that of cost times score; pass ``log10(params)`` as cost for an area on a logarithmic
    axis. Only areas with the same reference can be compared. Points at or beyond the reference, and
    points with a NaN, add nothing. Zitzler & Thiele 1999.
    """
    costs, scores = _costs(cost), np.asarray(score, dtype=np.float64)
    if scores.shape != costs.shape:
        raise ValueError(f"cost has shape {costs.shape}, score {scores.shape}; they must agree")
    known = ~np.isnan(costs) & ~np.isnan(scores)
    return float(_areas(costs[known], scores[None, known], reference)[0])


def hypervolume_interval(
    cost: ArrayLike,
    scores: ArrayLike,
    *,
    reference: Corner,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """``hypervolume`` of the mean scores, with bounds over seeds.

    Bounds come from replicates as in ``size_saved``, under the same assumptions; a front is the best of
    noisy points, so the area leans upwards when sizes are closer than their noise. NaN bounds with
    fewer than two runs of some point, or without any spread. Points without a cost or a score add nothing.

    Args:
        cost: shape (points,).
        scores: shape (points, seeds), NaN where a run is missing.
        reference: (cost, score) of the worst corner.
        confidence: of the bounds.
        resamples: replicates.
        seed: of the replicates.
    """
    costs = _costs(cost)
    table = score_table(scores, costs.size)
    known = ~np.isnan(costs) & (runs_of(table) > 0)
    return _area_interval(costs[known], [table[known]], reference, confidence, resamples, seed)


def hypervolume_gain(
    cost: ArrayLike,
    distilled: ArrayLike,
    baseline: ArrayLike,
    *,
    reference: Corner,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """``hypervolume`` of ``distilled`` minus that of ``baseline``: the area between two fronts over the same costs.

    Divided by the width, reference cost minus smallest cost, it is by how much the one front lies higher on average.
    Bounds and arguments as in ``hypervolume_interval``, the seeds of both in the same columns; where all runs are
    there, a seed's luck moves both fronts together.
    """
    costs = _costs(cost)
    tables = [score_table(distilled, costs.size, "distilled"), score_table(baseline, costs.size, "baseline")]
    return _area_interval(costs, tables, reference, confidence, resamples, seed)


def _area_interval(
    costs: NDArray[np.float64],
    tables: list[NDArray[np.float64]],
    reference: Corner,
    confidence: float,
    resamples: int,
    seed: int,
) -> Interval:
    """The area under the first of ``tables``, less that of the second if there is one, with bounds over seeds."""
    check_confidence(confidence)
    table = np.concatenate(tables)
    drawn = np.concatenate([means_over_seeds(table)[None], student_replicates(table, resamples, seed)])
    areas = [_areas(costs, part, reference) for part in np.split(drawn, len(tables), axis=1)]
    values = areas[0] - areas[1] if len(areas) > 1 else areas[0]
    if not table.size or (runs_of(table) < 2).any() or not np.ptp(drawn[1:], axis=0).any():
        return Interval(float(values[0]), math.nan, math.nan)
    return Interval(float(values[0]), *central(values[1:], confidence))


class SizeSaved(NamedTuple):
    """What the distilled front needs to be as accurate as one baseline; a fraction 0.3 is 30% fewer parameters."""

    needed: float
    """Cost at which the distilled front reaches the baseline's accuracy; infinite when it never does."""
    saved: float
    """1 - needed / cost of the baseline: negative when more is needed, minus infinity when it never gets there."""
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

    The distilled front (of mean accuracies) is joined by straight lines of log cost over accuracy, which
    never turn back; each baseline's mean accuracy is looked up on it. Nothing is extrapolated. A size
    between two of the family is an interpolation: nobody trained it.

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
    saved = 1 - needed / wanted
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
