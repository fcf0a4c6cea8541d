"""Statistics against scipy, brute force and simulated samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from kdbench.stats import (
    holm,
    hypervolume,
    p_on_front,
    paired_difference,
    pareto_front,
    sign_flip_p,
    t_interval,
)

cells = st.tuples(st.integers(0, 6), st.integers(0, 6))
grid_points = st.lists(cells, max_size=9)
samples = st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=8)


def dominated(point: tuple[int, int], others: list[tuple[int, int]]) -> bool:
    """The definition, read aloud."""
    return any(c <= point[0] and s >= point[1] and (c, s) != point for c, s in others)


@settings(deadline=None)
@given(grid_points)
def test_front_is_what_nothing_dominates(found: list[tuple[int, int]]) -> None:
    cost, score = [c for c, _ in found], [s for _, s in found]
    assert pareto_front(cost, score).tolist() == [not dominated(point, found) for point in found]


@settings(deadline=None)
@given(grid_points, st.integers(0, 9))
def test_unknown_points_change_nothing(found: list[tuple[int, int]], at: int) -> None:
    cost, score = np.array(found, dtype=float).reshape(-1, 2).T
    for extra in ((math.nan, 99.0), (0.0, math.nan)):
        mask = pareto_front(
            np.insert(cost, min(at, len(cost)), extra[0]), np.insert(score, min(at, len(cost)), extra[1])
        )
        assert not mask[min(at, len(cost))]
        assert np.delete(mask, min(at, len(cost))).tolist() == pareto_front(cost, score).tolist()


def test_many_fronts_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(3)
    cost, scores = rng.integers(0, 4, 7), rng.integers(0, 4, (50, 7))
    np.testing.assert_array_equal(pareto_front(cost, scores), [pareto_front(cost, row) for row in scores])


@settings(deadline=None)
@given(grid_points)
def test_hypervolume_counts_unit_cells(found: list[tuple[int, int]]) -> None:
    area = sum(any(c <= x and s >= y + 1 for c, s in found) for x, y in itertools.product(range(5), range(1, 6)))
    assert hypervolume([c for c, _ in found], [s for _, s in found], reference=(5, 1)) == area


@settings(deadline=None)
@given(samples, st.sampled_from([0.8, 0.95, 0.99]))
def test_t_interval_is_scipys(values: list[float], level: float) -> None:
    found = t_interval(values, level)
    if np.ptp(values) < 1e-9:
        assert np.ptp(values) > 0 or math.isnan(found.lo)
        return
    wanted = oracle.t.interval(level, len(values) - 1, loc=np.mean(values), scale=oracle.sem(values))
    assert found[1:] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    assert found == t_interval([*values, math.nan], level)


def test_one_value_or_none_has_no_interval() -> None:
    assert t_interval([0.5]).mean == 0.5 and math.isnan(t_interval([0.5]).lo)
    assert all(math.isnan(part) for part in t_interval([math.nan]))


@settings(deadline=None)
@given(samples, st.randoms(use_true_random=False))
def test_paired_t_is_scipys(left: list[float], random: object) -> None:
    right = [random.uniform(-1, 1) for _ in left]  # type: ignore[attr-defined]
    if np.ptp(np.subtract(left, right)) < 1e-9:
        return
    wanted = oracle.ttest_rel(left, right)
    found = paired_difference(left, right)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-7, abs=1e-12)
    assert found[1:3] == pytest.approx(tuple(wanted.confidence_interval()), rel=1e-7, abs=1e-10)
    swapped = paired_difference(right, left)
    assert (swapped.mean, swapped.lo, swapped.p) == pytest.approx((-found.mean, -found.hi, found.p))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-40, 40).map(lambda k: k / 40), min_size=2, max_size=8))  # what ties, ties beyond doubt
def test_sign_flip_is_scipys(values: list[float]) -> None:
    wanted = oracle.permutation_test(
        (values,), lambda x, axis: np.sum(x, axis=axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(min(1.0, wanted.pvalue), abs=1e-9)


def test_random_sign_flips_come_near_the_normal_answer() -> None:
    values = np.random.default_rng(1).normal(0.25, 1, size=60)
    assert sign_flip_p(values) == pytest.approx(oracle.ttest_1samp(values, 0).pvalue, abs=0.01)


def test_equal_differences_are_not_infinitely_certain() -> None:
    found = paired_difference([0.9, 0.8, 0.7], [0.89, 0.79, 0.69])
    assert found.mean == pytest.approx(0.01) and math.isnan(found.lo) and found.p == 0.25
    assert paired_difference([0.9, 0.8], [0.9, 0.8]).p == 1.0


def test_pairs_with_a_gap_are_left_out() -> None:
    found = paired_difference([0.9, math.nan, 0.7, 0.5], [0.8, 0.8, 0.65, math.nan])
    assert found == paired_difference([0.9, 0.7], [0.8, 0.65]) and found.n == 2
    assert math.isnan(paired_difference([0.9], [0.8]).p)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_bonferroni(p: list[float]) -> None:
    """Holm equals the closed test: hypothesis i falls when every group holding it falls by Bonferroni."""
    groups = [g for size in range(1, len(p) + 1) for g in itertools.combinations(range(len(p)), size)]
    wanted = [max(min(1.0, len(g) * min(p[j] for j in g)) for g in groups if i in g) for i in range(len(p))]
    assert holm(p) == pytest.approx(wanted)
    with_gap = holm([math.nan, *p])
    assert math.isnan(with_gap[0]) and with_gap[1:] == pytest.approx(wanted)


def test_chance_of_the_front_matches_enumeration() -> None:
    cost = [1.0, 2.0, 3.0]
    scores = np.array([[0.50, 0.60, 0.55], [0.52, 0.59, 0.53], [0.51, 0.60, 0.57]])
    draws = list(itertools.product(range(3), repeat=3))
    exact = np.mean([pareto_front(cost, scores[:, d].mean(axis=1).round(12)) for d in map(list, draws)], axis=0)
    assert p_on_front(cost, scores, resamples=40_000) == pytest.approx(exact, abs=0.01)
    assert 0 < exact[1] < 1


def test_chance_of_the_front_with_missing_runs() -> None:
    scores = [[0.5, 0.6, math.nan], [0.9, math.nan, math.nan], [0.1, 0.2, 0.3]]
    found = p_on_front([1, 2, 3], scores)
    assert found[0] == 1.0 and math.isnan(found[1]) and found[2] == 0.0


@pytest.mark.parametrize("n", [3, 5])
def test_t_interval_covers_and_paired_t_rejects_at_their_level(n: int) -> None:
    """4,000 simulated samples: three standard errors of a 95% share are 1.0 points."""
    draws = np.random.default_rng(n).normal(size=(4000, 2, n))
    intervals = np.array([t_interval(a) for a, _ in draws])
    assert np.mean((intervals[:, 1] < 0) & (intervals[:, 2] > 0)) == pytest.approx(0.95, abs=0.011)
    assert np.mean([paired_difference(a, b).p < 0.05 for a, b in draws]) == pytest.approx(0.05, abs=0.011)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pareto_front([1, 2], [1, 2, 3]), "last axes must agree"),
        (lambda: paired_difference([1, 2], [1]), "equal shapes"),
        (lambda: t_interval([1, 2], 95), "between 0 and 1"),
        (lambda: t_interval([1, math.inf]), "infinite"),
        (lambda: holm([0.1, 1.2]), r"\[0, 1\]"),
        (lambda: p_on_front([1], [0.5, 0.6]), "shape"),
    ],
)
def test_nonsense_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
