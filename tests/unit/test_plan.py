"""What a sweep runs is a pure function of its spec: phases, slots, seeds and the points drawn before any result."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import LARGE, SEARCH, SMALL, TEACHER, spec

from kdbench.sweep.plan import drawn_point, fixed_of, lanes, seed_of, slots, startup, teacher_config, trial_config


def points(count: int, **options: object) -> list[dict[str, float]]:
    sweep = spec(**options)
    drawn = [drawn_point(sweep, SEARCH, slot) for slot in range(count)]
    assert all(point is not None for point in drawn)
    return [point for point in drawn if point is not None]


def test_phases_come_in_order_and_every_size_has_every_phase() -> None:
    sweep = spec(method="kd,dkd")
    found = list(lanes(sweep))
    phases = [lane.phase for lane in found]
    assert phases == sorted(phases, key=("teacher", "baseline", "search", "confirm").index)
    assert found[0].model == TEACHER
    assert {(lane.phase, lane.model, lane.method) for lane in found[1:]} == {
        *itertools.product(["baseline"], [SMALL, LARGE], ["hard"]),
        *itertools.product(["search"], [SMALL, LARGE], ["kd", "dkd"]),
        *itertools.product(["confirm"], [SMALL, LARGE], ["hard", "kd", "dkd"]),
    }
    assert len({lane.key for lane in found}) == len(found)


def test_seeds_are_common_in_search_and_fresh_in_confirm() -> None:
    sweep = spec(search_seed=7, seeds=4)
    seeds = {lane.key: [seed_of(sweep, lane, k) for k in range(slots(sweep, lane))] for lane in lanes(sweep)}
    assert {s for key, held in seeds.items() if key.startswith(("search/", "baseline/")) for s in held} == {7}
    confirm = {tuple(held) for key, held in seeds.items() if key.startswith("confirm/")}
    assert len(confirm) == 1
    fresh = set(confirm.pop())
    assert len(fresh) == 4
    assert 7 not in fresh


@settings(max_examples=60, deadline=None)
@given(
    sampler=st.sampled_from(["tpe", "random", "qmc", "gp"]),
    seed=st.integers(0, 2**31),
    low=st.floats(0.5, 4),
    width=st.floats(0.1, 20),
    slot=st.integers(0, 2),
)
def test_drawn_points_lie_in_their_ranges(sampler: str, seed: int, low: float, width: float, slot: int) -> None:
    high = low + width
    reach = f"{low!r}..{high!r}"
    point = points(slot + 1, sampler=sampler, search_seed=seed, temperature=reach, alpha="0..1")[slot]
    assert set(point) == {"temperature", "alpha"}
    assert low <= point["temperature"] <= high
    assert 0 <= point["alpha"] <= 1


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid"])
def test_points_are_the_same_in_another_process_and_do_not_depend_on_the_number_of_trials(sampler: str) -> None:
    options = {"sampler": sampler, "temperature": "1,2,4", "alpha": "0.5,1"}
    here = points(6, **options)
    code = f"from test_plan import points; print(points(6, trials=64, **{options!r}))"
    path = ":".join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/unit")))
    there = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path, "PYTHONHASHSEED": "5"}, capture_output=True, check=True
    )
    assert eval(there.stdout) == here


def test_points_differ_by_seed_student_and_slot() -> None:
    sweep = spec(sampler="random")
    other = next(lane for lane in lanes(sweep) if lane.phase == "search" and lane.model == LARGE)
    drawn = [
        *points(5, sampler="random"),
        *points(5, sampler="random", search_seed=1),
        drawn_point(sweep, other, 0),
    ]
    assert len({tuple(sorted((point or {}).items())) for point in drawn}) == len(drawn)


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_choices_are_all_drawn_about_equally_often(sampler: str) -> None:
    drawn = [point["temperature"] for point in points(64, sampler=sampler, temperature="1,2,4,8", trials=64)]
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [1, 2, 4, 8]
    assert counts.min() >= (16 if sampler == "qmc" else 6)


def test_a_grid_is_walked_once_whole_and_then_again() -> None:
    options = {"sampler": "grid", "temperature": "1,2,4", "alpha": "0,0.5,0.9,1", "trials": 12}
    walked = [(point["temperature"], point["alpha"]) for point in points(24, **options)]
    assert sorted(walked[:12]) == sorted(itertools.product([1, 2, 4], [0, 0.5, 0.9, 1]))
    assert walked[12:] == walked[:12]
    assert walked[:12] != sorted(walked[:12])  # shuffled: a part of it is spread over the grid


def test_sobol_fills_space_and_ranges_in_logarithm() -> None:
    drawn = points(16, sampler="qmc", temperature="1..16", alpha="0..1", trials=16)
    cells = {(int(np.log2(p["temperature"])), int(p["alpha"] * 4)) for p in drawn}
    assert len(cells) == 16  # a (0,4,2)-net in base 2: one point in each cell of the 4 x 4 grid


def test_an_adaptive_sampler_starts_with_the_same_sobol_points_and_then_decides_itself() -> None:
    sweep = spec(sampler="tpe", trials=10)
    drawn = [drawn_point(sweep, SEARCH, slot) for slot in range(10)]
    assert startup(sweep) == 5
    assert [point is not None for point in drawn] == [True] * 5 + [False] * 5


def test_fixed_values_reach_the_run_and_are_not_searched() -> None:
    sweep = spec(temperature="4", alpha="0.5..1", sampler="random")
    point = drawn_point(sweep, SEARCH, 0)
    assert point is not None
    assert set(point) == {"alpha"}
    assert fixed_of(sweep, "kd")["temperature"] == 4
    assert trial_config(sweep, SEARCH, 0, point).hyper == {**fixed_of(sweep, "kd"), **point}


def test_a_run_names_its_teacher_and_a_baseline_has_no_hyper_parameters() -> None:
    sweep = spec()
    teacher, baseline = list(lanes(sweep))[:2]
    config = trial_config(sweep, baseline, 0, {"temperature": 3.0})
    assert (config.hyper, config.teacher_id, config.phase) == ({}, teacher_config(sweep).id, "baseline")
    assert teacher_config(sweep).phase == teacher.phase
