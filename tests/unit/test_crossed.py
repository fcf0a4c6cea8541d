"""Means over teachers (or searches) and seeds, against simulation, statsmodels and the plain t-test."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdbench.stats import (
    components,
    crossed_difference,
    crossed_interval,
    mean_gain,
    paired_difference,
    smallest_crossed_gain,
    smallest_gain,
    spread_of,
    whole_part,
)

RNG = np.random.default_rng(5)


def gains(rng: np.random.Generator, replicates: int, seeds: int, *sds: float) -> np.ndarray:
    """(replicates, seeds) of mean 1 from what teachers, seeds and neither alone add."""
    teachers, luck, rest = (rng.normal(size=shape) for shape in ((replicates, 1), (1, seeds), (replicates, seeds)))
    return 1 + sds[0] * teachers + sds[1] * luck + sds[2] * rest


@pytest.mark.parametrize(("replicates", "least", "most"), [(2, 0.96, 1), (3, 0.94, 0.985), (5, 0.93, 0.97)])
@pytest.mark.parametrize("sds", [(1, 1, 1), (0, 2, 1)])
def test_the_interval_holds_the_truth_as_often_as_promised(
    replicates: int, least: float, most: float, sds: tuple[float, ...]
) -> None:
    rng, crossed, naive = np.random.default_rng([replicates, *(int(10 * sd) for sd in sds)]), 0, 0
    for _ in range(600):
        table = gains(rng, replicates, 5, *sds)
        _, lo, hi = crossed_interval(table)
        crossed += lo <= 1 <= hi
        naive += stats.ttest_1samp(table.mean(axis=1), 1).pvalue > 0.05
    assert least <= crossed / 600 <= most
    if not sds[0]:
        assert naive / 600 < 0.9, "replicates share their seeds: their own t interval is too narrow"


def test_a_table_worked_out_by_hand() -> None:
    # means of rows 2 and 4, of columns 2 and 4: variances 2 and 2, each over two; (1 + 1)² / (1 + 1) = 2 degrees
    spread = spread_of([[1.0, 3.0], [3.0, 5.0]])
    assert spread == (2.0, 2.0, 2, 2) and (spread.error, spread.degrees) == pytest.approx((math.sqrt(2), 2))
    found = crossed_difference([[1.5, 3.5], [3.5, 5.5]], [0.5, 0.5])
    half = stats.t.ppf(0.975, 2) * math.sqrt(2)
    assert found[:3] == pytest.approx((3, 3 - half, 3 + half)) and found.n == 2
    assert found.p == pytest.approx(2 * stats.t.sf(3 / math.sqrt(2), 2))
    assert smallest_crossed_gain(spread) == pytest.approx(smallest_gain(math.sqrt(6), 3))


def test_one_replicate_is_the_paired_t_test() -> None:
    soft, hard = RNG.normal(0.9, 0.01, 6), RNG.normal(0.89, 0.01, 6)
    soft[2] = math.nan
    assert crossed_difference(soft[None], hard) == crossed_difference(soft, hard) == paired_difference(soft, hard)
    table, other = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 6))
    assert mean_gain(table[None], other) == mean_gain(table, other)
    spread = spread_of(table[0])
    assert (spread.error, spread.degrees) == (pytest.approx(stats.sem(table[0])), 5)
    assert smallest_crossed_gain(spread) == pytest.approx(smallest_gain(table[0].std(ddof=1), 6))


def test_where_runs_are_missing_the_largest_whole_part_counts() -> None:
    table = RNG.normal(size=(3, 5))
    table[0, 1] = table[2, 2:] = math.nan
    assert [list(side) for side in whole_part(table)] == [[0, 1], [0, 2, 3, 4]]
    assert crossed_interval(table) == crossed_interval(table[:2, [0, 2, 3, 4]])
    assert math.isnan(crossed_difference([[math.nan] * 3] * 2, [0.5] * 3).p)
    same = crossed_difference([[0.6] * 5] * 3, [0.5] * 5)  # no spread at all: an accident, as with one replicate
    assert math.isnan(same.lo) and same.p == paired_difference([0.6] * 5, [0.5] * 5).p
    one_seed = crossed_difference([[0.6], [0.7]], [0.5])
    assert math.isnan(one_seed.lo) and math.isnan(one_seed.p)


def reml(table: np.ndarray, *parts: str) -> list[float]:
    """Variances of ``parts`` (teacher, seed) and of the residual by statsmodels."""
    import statsmodels.formula.api as smf

    long = pd.DataFrame(table).stack().rename_axis(["teacher", "seed"]).rename("gain").reset_index()
    formulas = {name: f"0 + C({name})" for name in parts}
    fit = smf.mixedlm("gain ~ 1", long, groups=np.ones(len(long)), vc_formula=formulas).fit(reml=True)
    found = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True))
    return [*(float(found[name]) for name in parts), float(fit.scale)]


@pytest.mark.parametrize("sds", [(2, 1, 1), (1, 2, 0.5), (1, 1, 2)])
def test_variance_components_are_those_of_reml(sds: tuple[float, ...]) -> None:
    table = gains(np.random.default_rng(3), 5, 8, *sds)
    assert components(table) == pytest.approx(reml(table, "teacher", "seed"), rel=1e-2)


def test_a_component_that_would_be_negative_is_none() -> None:
    table = gains(np.random.default_rng(0), 3, 4, 0, 3, 1)
    table += 1 - table.mean(axis=1, keepdims=True)  # teachers alike to the last digit
    found = components(table)
    assert found.replicates == 0 and found[1:] == pytest.approx(reml(table, "seed"), rel=1e-2)
    assert components(table.T) == pytest.approx((found.seeds, 0, found.residual))
    assert all(math.isnan(part) for part in components(table[:1]))
