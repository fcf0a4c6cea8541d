"""Statements about several rows, agreement and stopping, against scipy, statsmodels and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdbench.stats.decisions import (
    at_look,
    equivalence_p,
    look_numbers,
    mean_gain,
    prediction_interval,
    rank_intervals,
    ratio_interval,
    smallest_gain,
    spent_levels,
    welch_p,
)
from kdbench.stats.tests import holm, paired_difference

RNG = np.random.default_rng(7)
SAMPLE, OTHER = RNG.normal(3, 1, 8), RNG.normal(2.5, 0.5, 8)


def test_the_mean_gain_is_the_paired_test_of_each_seed_s_mean():
    soft, hard = RNG.normal(0.9, 0.01, (5, 6)), RNG.normal(0.89, 0.01, (5, 6))
    found = mean_gain(soft, hard)
    oracle = stats.ttest_rel(soft.mean(axis=0), hard.mean(axis=0))
    assert (found.p, found.n) == (pytest.approx(oracle.pvalue), 6)
    assert (found.lo, found.hi) == pytest.approx(tuple(oracle.confidence_interval()))
    soft[2, 1] = math.nan
    assert mean_gain(soft, hard).n == 5


def test_one_more_run_falls_into_its_interval_as_often_as_promised():
    draws = RNG.normal(size=(4000, 6))
    held = [lo <= new <= hi for *known, new in draws for _, lo, hi in [prediction_interval(known)]]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
    assert math.isnan(prediction_interval([1.0]).lo)


def test_a_published_mean_is_compared_as_welch_does():
    oracle = stats.ttest_ind_from_stats(SAMPLE.mean(), SAMPLE.std(ddof=1), 8, 2.2, 0.7, 5, equal_var=False)
    assert welch_p(SAMPLE, 2.2, 0.7, 5) == pytest.approx(oracle.pvalue)
    assert math.isnan(welch_p(SAMPLE, 2.2, 0.7, 1))


def test_alike_is_two_one_sided_tests():
    from statsmodels.stats.weightstats import DescrStatsW

    for margin in (0.3, 0.8, 1.5):
        assert equivalence_p(SAMPLE - OTHER, margin) == pytest.approx(
            DescrStatsW(SAMPLE - OTHER).ttost_mean(-margin, margin)[0]
        )
    assert all(math.isnan(equivalence_p(few, 1)) for few in ([0.1], [0.1] * 3))  # two that agree are no evidence
    assert all(math.isnan(prediction_interval([value] * 3).lo) for value in (0.1, 0.3, 0.7))


def test_the_ratio_s_interval_holds_the_ratios_that_a_t_test_does_not_refuse():
    """Fieller: r is inside exactly when top - r · bottom does not differ from 0."""
    ratio, lo, hi = ratio_interval(SAMPLE, OTHER)
    assert ratio == pytest.approx(SAMPLE.mean() / OTHER.mean()) and lo < ratio < hi
    for edge in (lo, hi):
        assert stats.ttest_1samp(SAMPLE - edge * OTHER, 0).pvalue == pytest.approx(0.05)
    assert math.isnan(ratio_interval([1.0, 2.0, 3.0], [-1.0, 1.0, 0.5]).lo)


def test_the_smallest_gain_is_found_as_often_as_promised():
    from statsmodels.stats.power import TTestPower

    for n in (3, 5, 10):
        assert smallest_gain(0.4, n) / 0.4 == pytest.approx(
            TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8), rel=1e-4
        )
    assert (smallest_gain(0.4, 1), smallest_gain(0.0, 5)) == (math.inf, 0.0)


def test_looking_often_is_false_seldom():
    looks, levels = (3, 5, 10, 20), spent_levels((3, 5, 10, 20))
    assert levels.sum() == pytest.approx(0.05)
    draws = RNG.normal(size=(4000, 20))
    ps = np.array([stats.ttest_1samp(draws[:, :n], 0, axis=1).pvalue for n in looks])
    assert (ps < levels[:, None]).any(axis=0).mean() <= 0.05
    assert (ps < 0.05).any(axis=0).mean() > 0.08  # as it is without
    with pytest.raises(ValueError, match="ascend"):
        spent_levels((5, 3))


def test_rows_that_stop_at_different_looks_are_wrong_seldom_together():
    """Five rows without a difference, three with one; seeds are added where Holm has not decided yet."""
    looks, false, rows = look_numbers(3, 20), 0, np.array([0.0] * 5 + [1.0, 2.0, 4.0])
    assert looks == (3, 6, 12, 20)
    for _ in range(250):
        draws, n = RNG.normal(size=(8, 20)) + rows[:, None], np.full(8, looks[0])
        for look in looks:
            ps = [at_look(paired_difference(d[:m], np.zeros(m)).p, m, looks) for d, m in zip(draws, n, strict=True)]
            decided = holm(ps) < 0.05
            n = np.where(~decided & (n == look), looks[min(looks.index(look) + 1, 3)], n)
        false += bool(decided[:5].any())
        assert (decided | (n == 20)).all()
    assert false / 250 <= 0.05
    assert at_look(0.04, 3, ()) == 0.04 and at_look(0.001, 4, looks) == pytest.approx(0.001 * 20 / 3)


def test_rows_that_scipy_cannot_tell_apart_share_ranks():
    table = np.r_[RNG.normal(0.9, 0.01, (6, 4)), RNG.normal(0.93, 0.01, (3, 4)), np.full((1, 4), 0.95)]
    table[0, 1:], table[1, :2], table[2, 2:], table[-1, 1] = math.nan, math.nan, math.nan, 0.951
    lo, hi = rank_intervals(table)
    assert math.isnan(lo[0]) and math.isnan(hi[0])  # one score: no rank
    for one in range(1, len(table)):
        sides = []
        for other in {*range(1, len(table))} - {one}:
            both = ~np.isnan(table[one]) & ~np.isnan(table[other])
            if both.sum() > 1:
                test = stats.ttest_rel(table[one][both], table[other][both])
            else:
                test = stats.ttest_ind(table[one], table[other], equal_var=False, nan_policy="omit")
            sides.append(np.sign(test.statistic) if test.pvalue < 0.05 else 0)
        assert (lo[one], hi[one]) == (1 + sides.count(-1), len(table) - 1 - sides.count(1))
    assert (lo[1:] < hi[1:]).any() and (lo[1:] > 1).any()
    same = rank_intervals([[0.5, 0.5], [0.5, 0.5], [0.4, 0.4]])  # nothing to learn a spread from
    assert [list(side) for side in same] == [[1, 1, 1], [3, 3, 3]]
