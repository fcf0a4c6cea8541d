"""How many seeds it takes to see a gain of a given size."""

from __future__ import annotations

import math
from bisect import bisect_left

from scipy.special import nctdtr, stdtrit

_MOST = 1 << 20


def paired_t_power(gain: float, sd: float, n: float, level: float = 0.05) -> float:
    """Chance that the two-sided paired t-test over ``n`` seeds finds a true mean difference of ``gain``.

    Args:
        gain: the true mean of (distilled - baseline), in the unit of ``sd``.
        sd: standard deviation of that difference between seeds (of the differences, not of the accuracies).
        n: seeds, at least 2.
        level: p below which the test says "different".

    Assumes normal differences. From the noncentral t distribution with n - 1 degrees of freedom and
    noncentrality gain / (sd / sqrt(n)). Cohen 1988, chapter 2.
    """
    if not (sd > 0 and math.isfinite(sd)):
        raise ValueError(f"sd must be positive, not {sd}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not at {level}")
    if n < 2:
        raise ValueError(f"a paired t-test needs at least 2 seeds, not {n}")
    edge = float(stdtrit(n - 1, 1 - level / 2))
    shift = abs(gain) / sd * math.sqrt(n)
    wrong_side = float(nctdtr(n - 1, shift, -edge))  # NaN where it underflows
    return float(1 - nctdtr(n - 1, shift, edge)) + (0.0 if math.isnan(wrong_side) else wrong_side)


def seeds_needed(gain: float, sd: float, *, power: float = 0.8, level: float = 0.05, comparisons: int = 1) -> int:
    """The fewest seeds with which ``paired_t_power`` is at least ``power``, e.g. for a gain of 0.003 (0.3 points).

    With ``comparisons`` sizes in one table the level is shared out evenly, as Holm's correction does for the
    first of them: the answer then holds for a lone gain among sizes without any, the hardest case. ``sd``
    estimated from 3 seeds may be wrong by a factor of two and more either way, and the answer by the square
    of it: take it from all sizes of a sweep together.

    Raises:
        ValueError: for a gain of zero, or when more than a million seeds would be needed.
    """
    if comparisons < 1 or not 0 < power < 1:
        raise ValueError(f"comparisons must be at least 1 and power between 0 and 1, not {comparisons} and {power}")
    if not gain:
        raise ValueError("no number of seeds shows a gain of zero")

    def reached(n: int) -> float:
        return paired_t_power(gain, sd, n, level / comparisons)

    high = 2
    while reached(high) < power:
        high *= 2
        if high > _MOST:
            raise ValueError(f"a gain of {gain:g} at a spread of {sd:g} needs more than {_MOST:,} seeds")
    low = max(2, high // 2)
    return low + bisect_left(range(low, high), power, key=reached)
