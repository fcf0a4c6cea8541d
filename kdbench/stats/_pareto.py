"""Fronts of (cost, score): lower cost and higher score are better."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdbench.stats._replicates import tidy


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
    on_front = (ordered >= best[..., group]) & (ordered > cheaper[..., group])
    mask = np.empty(scores.shape, dtype=np.bool_)
    mask[..., order] = on_front
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
    costs, table = _costs(cost), np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != costs.size:
        raise ValueError(f"scores must have shape ({costs.size}, seeds), not {table.shape}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    points, seeds = table.shape
    runs = np.sum(~np.isnan(table), axis=1)
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


def hypervolume(cost: ArrayLike, score: ArrayLike, *, reference: tuple[float, float]) -> float:
    """Area dominated by the points within the reference (highest cost, lowest score) that counts.

    The unit is that of cost times score; pass ``log10(params)`` as cost for an area on a logarithmic
    axis. Only areas with the same reference can be compared. Points at or beyond the reference, and
    points with a NaN, add nothing. Zitzler & Thiele 1999.

    Args:
        cost: shape (n,).
        score: shape (n,).
        reference: (cost, score) of the worst corner.
    """
    costs, scores = _costs(cost), np.asarray(score, dtype=np.float64)
    if scores.shape != costs.shape:
        raise ValueError(f"cost has shape {costs.shape}, score {scores.shape}; they must agree")
    worst_cost, worst_score = reference
    inside = (costs < worst_cost) & (scores > worst_score)
    front = inside & pareto_front(np.where(inside, costs, np.nan), scores)
    order = np.argsort(costs[front], kind="stable")
    steps, heights = costs[front][order], scores[front][order] - worst_score
    # The front rises with cost: each point's height holds until the next, dearer point takes over.
    widths = np.diff(np.r_[steps, worst_cost])
    return float(np.sum(widths * heights))
