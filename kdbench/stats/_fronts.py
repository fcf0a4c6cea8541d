"""What a whole front is worth, with how sure that is over seeds."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdbench.stats._intervals import Interval, check_confidence
from kdbench.stats._pareto import hypervolume, pareto_front
from kdbench.stats._replicates import central, means_over_seeds, score_table, student_replicates

_RESAMPLES = 4000


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
    between two of the ladder is an interpolation: nobody trained it.

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
    means = means_over_seeds(table)
    drawn = np.concatenate([means[None], student_replicates(table, resamples, seed)])
    needed, at_smallest = _lookup(costs, drawn[:, : costs.size], drawn[:, costs.size :])
    saved = 1 - needed / wanted
    most = np.where(at_smallest, 1.0, saved)  # nobody knows how much smaller it could have been
    runs = np.sum(~np.isnan(table), axis=1)
    sure_front = bool((runs[: costs.size] > 1).all())
    found = []
    for index in range(wanted.size):
        lo = hi = math.nan
        if sure_front and runs[costs.size + index] > 1 and np.ptp(drawn[1:], axis=0).any():
            lo, hi = central(saved[1:, index], confidence)[0], central(most[1:, index], confidence)[1]
        never = math.isinf(needed[0, index])
        reached: Literal["within", "smallest", "never"] = (
            "never" if never else "smallest" if at_smallest[0, index] else "within"
        )
        found.append(SizeSaved(float(needed[0, index]), float(saved[0, index]), lo, hi, reached))
    return found


def hypervolume_interval(
    cost: ArrayLike,
    scores: ArrayLike,
    *,
    reference: tuple[float, float],
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """``hypervolume`` of the mean scores, with bounds over seeds.

    Bounds come from replicates as in ``size_saved``, under the same assumptions; a front is the best of
    noisy points, so the area leans upwards when sizes are closer than their noise. NaN bounds with
    fewer than two runs of some point, or without any spread.

    Args:
        cost: shape (points,).
        scores: shape (points, seeds), NaN where a run is missing.
        reference: (cost, score) of the worst corner.
        confidence: of the bounds.
        resamples: replicates.
        seed: of the replicates.
    """
    check_confidence(confidence)
    costs = np.asarray(cost, dtype=np.float64)
    table = score_table(scores, costs.size)
    area = hypervolume(costs, means_over_seeds(table), reference=reference)
    known = ~np.isnan(costs) & (np.sum(~np.isnan(table), axis=1) > 0)
    drawn = student_replicates(table[known], resamples, seed)
    if not known.any() or (np.sum(~np.isnan(table[known]), axis=1) < 2).any() or not np.ptp(drawn, axis=0).any():
        return Interval(area, math.nan, math.nan)
    return Interval(area, *central(_areas(costs[known], drawn, reference), confidence))


def hypervolume_gain(
    cost: ArrayLike,
    distilled: ArrayLike,
    baseline: ArrayLike,
    *,
    reference: tuple[float, float],
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """``hypervolume`` of ``distilled`` minus that of ``baseline``: the area between two fronts over the same costs.

    Divided by the width, reference cost minus smallest cost, it is by how much the one front lies higher on average.
    Bounds as in ``hypervolume_interval``; where all runs are there, a seed's luck moves both fronts together.

    Args:
        cost: shape (points,), of both.
        distilled: shape (points, seeds), NaN where a run is missing.
        baseline: shape (points, seeds), the same seeds in the same columns.
        reference: (cost, score) of the worst corner.
        confidence: of the bounds.
        resamples: replicates.
        seed: of the replicates.
    """
    check_confidence(confidence)
    costs = np.asarray(cost, dtype=np.float64)
    table = np.concatenate([score_table(distilled, costs.size, "distilled"),
                            score_table(baseline, costs.size, "baseline")])  # fmt: skip
    drawn = np.concatenate([means_over_seeds(table)[None], student_replicates(table, resamples, seed)])
    upper, lower = (_areas(costs, half, reference) for half in (drawn[:, : costs.size], drawn[:, costs.size :]))
    gains = upper - lower
    if (np.sum(~np.isnan(table), axis=1) < 2).any() or not np.ptp(drawn[1:], axis=0).any():
        return Interval(float(gains[0]), math.nan, math.nan)
    return Interval(float(gains[0]), *central(gains[1:], confidence))


def _areas(
    costs: NDArray[np.float64], scores: NDArray[np.float64], reference: tuple[float, float]
) -> NDArray[np.float64]:
    """``hypervolume`` of each replicate, shape (replicates,), from scores of shape (replicates, points)."""
    order = np.argsort(costs, kind="stable")
    steps = np.minimum(costs[order], reference[0])  # a point beyond the reference gets width 0
    best = np.maximum.accumulate(np.maximum(scores[:, order] - reference[1], 0.0), axis=1)
    found: NDArray[np.float64] = best @ np.diff(np.r_[steps, reference[0]])
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
