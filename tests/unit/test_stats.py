"""Statistics against scipy, moocore, closed forms, brute force and simulated seeds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from kdbench.stats import (
    friedman_p,
    holm,
    mean_ranks,
    p_on_front,
    paired_difference,
    paired_t_power,
    pareto_front,
    ranks,
    seeds_needed,
    sign_flip_p,
    size_saved,
    student_replicates,
    t_interval,
)  # fmt: skip

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
@given(st.lists(st.integers(-32, 32).map(lambda k: k / 32), min_size=2, max_size=8))  # what ties, ties beyond doubt
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
    assert p_on_front(cost, scores) == pytest.approx(exact, abs=1e-12)  # up to 10 seeds all draws are gone through
    many = np.tile(scores, 4)
    assert p_on_front(cost, many) == pytest.approx(p_on_front(cost, many, seed=1), abs=0.01)
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


SIZES = np.array([0.5e6, 1e6, 2e6, 4e6])
levels = st.lists(st.integers(0, 40), min_size=1, max_size=6)


def line(shift: float = 0.0, slope: float = 0.05) -> np.ndarray:
    """Accuracy that grows by ``slope`` with every doubling, one column a seed."""
    return (0.7 + shift + slope * np.log2(SIZES / SIZES[0]))[:, None] + np.zeros((1, 3))


@pytest.mark.parametrize("gain", [0.01, 0.03, -0.02])
def test_size_saved_on_straight_lines_is_the_closed_form(gain: float) -> None:
    """Accuracy a + b log2(size): a gain of g is worth a factor of 2^(g / b) in size."""
    found = size_saved(SIZES, line(gain), SIZES, line())
    inside = found[1:] if gain > 0 else found[:-1]
    assert [one.saved for one in inside] == pytest.approx([1 - 2 ** (-gain / 0.05)] * 3)
    assert {one.reached for one in inside} == {"within"} and all(math.isnan(one.lo) for one in inside)
    edge = found[0] if gain > 0 else found[-1]
    assert (edge.reached, edge.needed) == (("smallest", 0.5e6) if gain > 0 else ("never", math.inf))


@settings(deadline=None)
@given(levels, st.integers(0, 40))
def test_size_saved_agrees_with_interp_over_the_front(heights: list[int], wanted: int) -> None:
    cost, score = 2.0 ** np.arange(len(heights)), np.array(heights) / 40
    front = pareto_front(cost, score)
    (found,) = size_saved(cost, score[:, None], [1.0], [[wanted / 40]], resamples=1)
    if wanted / 40 > score.max():
        assert found.reached == "never" and found.saved == -math.inf
    else:
        expected = 2 ** np.interp(wanted / 40, score[front], np.log2(cost[front]))
        assert found.needed == pytest.approx(expected)


def test_size_saved_moves_one_way() -> None:
    """A higher baseline never needs less; a better front never needs more."""
    rng = np.random.default_rng(2)
    front, wanted = rng.random((6, 1)), np.sort(rng.random(30))[:, None]
    cost = rng.permutation(6) + 1.0
    plain = [one.needed for one in size_saved(cost, front, np.ones(30), wanted, resamples=1)]
    better = [one.needed for one in size_saved(cost, front + 0.05, np.ones(30), wanted, resamples=1)]
    assert (np.diff(np.nan_to_num(plain, posinf=99)) >= 0).all()
    assert (np.array(better) <= np.array(plain)).all()


@pytest.mark.parametrize("n", [3, 10])
def test_replicates_of_one_mean_are_the_t_interval(n: int) -> None:
    sample = np.random.default_rng(n).normal(size=(1, n))
    drawn = np.quantile(student_replicates(sample, 200_000, 0)[:, 0], [0.025, 0.975])
    wanted = t_interval(sample[0])
    assert drawn == pytest.approx(wanted[1:], abs=0.04 * (wanted.hi - wanted.lo))


def test_a_seeds_common_luck_cancels_in_the_size_saved() -> None:
    """What moves front and baselines alike says nothing about the saving; with runs missing it cannot cancel."""
    luck, own = np.array([[-0.01, 0.0, 0.01]]), np.random.default_rng(0).normal(0, 1e-4, (8, 3))
    distilled, hard = line(0.02) + luck + own[:4], line() + luck + own[4:]
    paired = size_saved(SIZES, distilled, SIZES, hard)[2]
    gap = distilled.copy()
    gap[0, 0] = math.nan
    apart = size_saved(SIZES, gap, SIZES, hard)[2]
    assert paired.hi - paired.lo < 0.02 < 0.2 < apart.hi - apart.lo
    assert paired.lo < 1 - 2**-0.4 < paired.hi


def test_what_the_smallest_size_beats_is_bounded_on_one_side_only() -> None:
    found = size_saved(SIZES, line(0.03) + np.array([0.0, 1e-4, -1e-4]), [2e6], [[0.70, 0.71, 0.69]])[0]
    assert (found.reached, found.saved, found.hi) == ("smallest", 0.75, 1.0) and 0 < found.lo <= 0.75


def test_a_lone_run_has_no_bounds() -> None:
    distilled = line(0.02) + np.array([[0.0, 0.001, -0.001]])
    distilled[1, 1:] = math.nan
    assert all(math.isnan(one.lo) for one in size_saved(SIZES, distilled, SIZES, line()))


@settings(deadline=None)
@given(st.floats(0.0, 3.0), st.integers(2, 60), st.sampled_from([0.01, 0.05, 0.2]))
def test_power_is_scipys_noncentral_t(effect: float, n: int, level: float) -> None:
    edge = oracle.t.ppf(1 - level / 2, n - 1)
    wrong_side = oracle.nct.cdf(-edge, n - 1, effect * math.sqrt(n))  # NaN where it underflows
    wanted = oracle.nct.sf(edge, n - 1, effect * math.sqrt(n)) + np.nan_to_num(wrong_side)
    assert paired_t_power(-effect, 1.0, n, level) == pytest.approx(wanted, abs=1e-6)


def test_power_matches_simulated_sweeps() -> None:
    draws = np.random.default_rng(4).normal(0.003, 0.002, size=(20_000, 5))
    share = np.mean(oracle.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert paired_t_power(0.003, 0.002, 5) == pytest.approx(share, abs=0.011)


@settings(deadline=None)
@given(st.floats(0.2, 4.0), st.sampled_from([0.5, 0.8, 0.95]), st.integers(1, 6))
def test_seeds_needed_is_the_first_that_suffices(effect: float, power: float, comparisons: int) -> None:
    n = seeds_needed(effect * 0.002, 0.002, power=power, comparisons=comparisons)
    level = 0.05 / comparisons
    assert paired_t_power(effect, 1.0, n, level) >= power
    assert n == 2 or paired_t_power(effect, 1.0, n - 1, level) < power


def test_textbook_numbers_of_seeds() -> None:
    """Cohen 1988: a paired effect of 0.5 standard deviations needs 34 pairs at 80% power, of 0.2 needs 199."""
    assert (seeds_needed(0.5, 1.0), seeds_needed(0.2, 1.0)) == (34, 199)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=2, max_size=8))
def test_ranks_and_friedman_are_scipys(blocks: list[list[int]]) -> None:
    table = np.array(blocks, dtype=float)
    np.testing.assert_allclose(ranks(table), oracle.rankdata(-table, axis=1))
    with np.errstate(all="ignore"):
        wanted = oracle.friedmanchisquare(*table.T).pvalue
    assert friedman_p(table) == pytest.approx(wanted, nan_ok=True)
    with_gap = np.vstack([table, [1, 2, math.nan, 3]])
    np.testing.assert_allclose(mean_ranks(with_gap), oracle.rankdata(-table, axis=1).mean(axis=0))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=12))
def test_the_front_is_moocores(found: list[tuple[int, int]]) -> None:
    moocore = pytest.importorskip("moocore", reason="moocore is not installed")
    cost, score = np.array(found, dtype=float).T
    objectives = np.column_stack([cost, -score])  # moocore minimises both
    wanted = moocore.is_nondominated(objectives, keep_weakly=True)
    assert pareto_front(cost, score).tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pareto_front([1, 2], [1, 2, 3]), "last axes must agree"),
        (lambda: paired_difference([1, 2], [1]), "equal shapes"),
        (lambda: t_interval([1, 2], 95), "between 0 and 1"),
        (lambda: t_interval([1, math.inf]), "infinite"),
        (lambda: holm([0.1, 1.2]), r"\[0, 1\]"),
        (lambda: p_on_front([1], [0.5, 0.6]), "shape"),
        (lambda: size_saved([0.0], [[0.5]], [1.0], [[0.5]]), "positive"),
        (lambda: size_saved([1.0], [[0.5]], [1.0], [[0.5, 0.6]]), "common seeds"),
        (lambda: paired_t_power(0.01, 0.01, 1), "at least 2 seeds"),
        (lambda: seeds_needed(0.0, 0.01), "gain of zero"),
        (lambda: seeds_needed(1e-9, 1.0), "more than"),
        (lambda: seeds_needed(0.01, 0.0), "sd must be positive"),
    ],
)
def test_nonsense_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
