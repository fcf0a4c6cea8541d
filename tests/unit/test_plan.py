"""What a sweep runs is a pure function of its spec: jobs, seeds and points."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.config import RunResult
from kdbench.errors import KdbenchError
from kdbench.sweeps.controls import capped, compute_epochs
from kdbench.sweeps.groups import groups
from kdbench.sweeps.plan import SweepPlan, fixed_of, point_of
from kdbench.sweeps.search import Journal, Search, startup
from tests.support.helpers import ROOT
from tests.support.sweeps import LARGE, SMALL, TEACHER, ended, search, spec, told, walk


def points(count: int, **options: object) -> list[dict[str, float]]:
    return drawn(search(**options), count)


def drawn(found: Search, count: int) -> list[dict[str, float]]:
    return [found.ask()[1] for _ in range(count)]


def test_sizes_come_one_after_the_other_and_each_has_every_phase_in_order() -> None:
    found = list(groups(spec(method="kd,dkd")))
    places = [([SMALL, LARGE].index(g.model), ("baseline", "search", "confirm").index(g.phase)) for g in found]
    assert places == sorted(places)
    assert {group[:3] for group in found} == {
        *itertools.product(["baseline"], [SMALL, LARGE], ["hard"]),
        *itertools.product(["search"], [SMALL, LARGE], ["kd", "dkd"]),
        *itertools.product(["confirm"], [SMALL, LARGE], ["hard", "kd", "dkd"]),
    }
    assert len({group.key for group in found}) == len(found)


def test_seeds_are_common_in_search_and_fresh_in_confirm() -> None:
    jobs = walk(SweepPlan(spec(search_seed=7, seeds=4)), {})
    seeds = {phase: {j.config.seed for j in jobs if j.config.phase == phase} for phase in ("baseline", "search")}
    assert seeds == {"baseline": {7}, "search": {7}}
    confirm = [job.config for job in jobs if job.config.phase == "confirm"]
    by_kind = {
        (c.model, c.method): {d.seed for d in confirm if (d.model, d.method) == (c.model, c.method)} for c in confirm
    }
    assert len(by_kind) == 4 and len({frozenset(held) for held in by_kind.values()}) == 1
    assert all(len(held) == 4 and 7 not in held for held in by_kind.values())


def test_the_teacher_comes_first_and_its_test_split_last_and_winners_are_confirmed() -> None:
    finished: dict[str, RunResult] = {}
    jobs = walk(SweepPlan(spec(trials=4)), finished)
    assert (jobs[0].config.model, jobs[0].task, jobs[-1].config.id, jobs[-1].task) == (
        TEACHER, "train", jobs[0].config.id, "test",
    )  # fmt: skip
    searched = [j for j in jobs if j.config.phase == "search" and j.config.model == SMALL]
    best = max(searched, key=lambda job: finished[job.id].val_acc or 0)
    confirmed = {tuple(j.config.hyper.items()) for j in jobs if j.config.phase == "confirm" and j.config.model == SMALL}
    assert confirmed == {(), tuple(best.config.hyper.items())}
    assert len({job.id for job in jobs}) == len(jobs) - 1


def test_an_interrupted_plan_goes_on_with_the_same_points(tmp_path: Path) -> None:
    whole = walk(SweepPlan(spec(trials=6, sampler="tpe")), {})
    for stop in (1, 5, 9, 12):
        folder = tmp_path / str(stop)
        folder.mkdir()
        finished: dict[str, RunResult] = {}
        first, taken = SweepPlan(spec(trials=6, sampler="tpe"), folder), []
        for _ in range(stop):
            job = next(iter(first.jobs(finished)))
            finished[job.id] = ended(job)
            first.ended(job, finished[job.id])
            taken.append(job.id)
        next(iter(first.jobs(finished)))  # asked for, and killed before it ended
        taken += [job.id for job in walk(SweepPlan(spec(trials=6, sampler="tpe"), folder), finished)]
        assert taken == [job.id for job in whole]


def test_a_torn_journal_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    plan = SweepPlan(spec(trials=6), tmp_path)
    finished: dict[str, RunResult] = {}
    walk(plan, finished)
    journal = tmp_path / "search.jsonl"
    whole = journal.read_text(encoding="utf-8")
    journal.write_text(whole[:-20], encoding="utf-8")
    again = SweepPlan(spec(trials=6), tmp_path)
    assert list(again.jobs(finished)) == []
    assert [line for line in journal.read_text(encoding="utf-8").splitlines() if line in whole.splitlines()]


def test_more_trials_and_seeds_add_runs_and_keep_the_others(tmp_path: Path) -> None:
    finished: dict[str, RunResult] = {}
    before = walk(SweepPlan(spec(trials=3, seeds=2, sampler="random"), tmp_path), finished)
    more = walk(SweepPlan(spec(trials=5, seeds=3, sampler="random"), tmp_path), finished)
    assert not {job.id for job in before} & {job.id for job in more}
    assert sum(job.config.phase == "search" for job in more) == 4  # two more of each student
    assert sum(job.config.method == "hard" and job.config.phase == "confirm" for job in more) == 2


def test_equal_points_are_one_run() -> None:
    jobs = walk(SweepPlan(spec(trials=4, temperature="2,4", alpha="0.5", sampler="random")), {})
    assert 2 <= sum(job.config.phase == "search" for job in jobs) <= 4


def test_a_teacher_below_its_minimum_ends_the_plan() -> None:
    plan = SweepPlan(spec(teacher_floor=0.9, budget="quick"))
    job = next(iter(plan.jobs({})))
    with pytest.raises(KdbenchError, match=r"below its floor of 90\.00%"):
        plan.ended(job, ended(job, val_acc=0.3))
    with pytest.raises(KdbenchError, match="could not be trained: boom"):
        plan.ended(job, ended(job, status="failed", error="boom"))


def test_asking_stays_cheap_with_thousands_of_runs() -> None:
    plan, finished = SweepPlan(spec(trials=1500, sampler="random", pruner="none")), dict[str, RunResult]()
    spent = []
    while len(finished) < 1200:
        began = time.process_time()
        job = next(iter(plan.jobs(finished)))
        finished[job.id] = ended(job)
        plan.ended(job, finished[job.id])
        spent.append(time.process_time() - began)
    early, late = np.median(spent[50:200]), np.median(spent[-150:])
    print(f"a run costs {1000 * early:.2f} ms of CPU at first, {1000 * late:.2f} ms after 1,200")
    assert late < 10 * early + 0.02


@settings(max_examples=60, deadline=None)
@given(
    sampler=st.sampled_from(["tpe", "random", "qmc", "gp"]),
    seed=st.integers(0, 2**31),
    low=st.floats(0.5, 4),
    width=st.floats(0.1, 20),
    slot=st.integers(0, 1),
)
def test_drawn_points_lie_in_their_ranges(sampler: str, seed: int, low: float, width: float, slot: int) -> None:
    high = low + width
    reach = f"{low!r}..{high!r}"
    point = points(slot + 1, sampler=sampler, search_seed=seed, temperature=reach, alpha="0..1")[slot]
    assert set(point) == {"temperature", "alpha"}
    assert low <= point["temperature"] <= high
    assert 0 <= point["alpha"] <= 1


def test_points_are_the_same_in_another_process_and_do_not_depend_on_the_number_of_trials() -> None:
    options = [{"sampler": name, "temperature": "1,2,4", "alpha": "0.5,1"} for name in ("random", "qmc", "grid")]
    code = f"from tests.unit.test_plan import points; print([points(6, trials=64, **each) for each in {options!r}])"
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "5"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert eval(there.stdout) == [points(6, trials=6, **each) for each in options]


def test_points_differ_by_seed_student_and_number() -> None:
    sweep = spec(sampler="random")
    other = Search(sweep, f"search/{LARGE}/kd", search(sampler="random").space, Journal(None), sweep.search_seed)
    found = [*points(5, sampler="random"), *points(5, sampler="random", search_seed=1), *drawn(other, 1)]
    assert len({tuple(sorted(point.items())) for point in found}) == len(found)


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
    assert startup(spec(sampler="tpe", trials=10)) == 5
    sobol = points(10, sampler="qmc", trials=10)
    tpe, other = search(sampler="tpe", trials=10), search(sampler="tpe", trials=10)
    for found, lift in ((tpe, 1.0), (other, -1.0)):
        for k in range(10):
            number, point = found.ask()
            value = 0.5 + lift * point["alpha"] / 4
            found.tell(number, RunResult(id=str(k), status="complete", val_acc=value))
    chosen = [[dict(trial.params) for trial in found.trials] for found in (tpe, other)]
    assert chosen[0][:5] == chosen[1][:5] and chosen[0][5:] != chosen[1][5:]
    assert len(sobol) == 10


def test_fixed_values_reach_the_run_and_are_not_searched() -> None:
    sweep = spec(temperature="4", alpha="0.5..1", sampler="random")
    jobs = walk(SweepPlan(sweep), {})
    trial = next(job for job in jobs if job.config.phase == "search")
    assert fixed_of(sweep, "kd")["temperature"] == 4 == trial.config.hyper["temperature"]
    assert 0.5 <= trial.config.hyper["alpha"] <= 1


def test_a_run_names_its_teacher_and_one_on_hard_labels_none() -> None:
    plan = SweepPlan(spec())
    jobs = walk(plan, {})
    hard = [job for job in jobs if job.config.method == "hard" and job.config.phase != "teacher"]
    assert {(j.config.teacher_id, j.config.teacher, j.teacher, str(j.config.hyper)) for j in hard} == {
        (None, None, None, "{}")
    }
    soft = [job for job in jobs if job.config.method == "kd"]
    assert {(j.config.teacher_id, j.config.teacher) for j in soft} == {(plan.teacher.id, TEACHER)}


def test_tuning_searches_hard_labels_in_as_many_trials_and_confirms_each_winner(tmp_path: Path) -> None:
    sweep, finished = spec(tune="lr,label-smoothing", trials=4, space__lr="0.01..0.3"), dict[str, RunResult]()
    plan = SweepPlan(sweep, tmp_path)
    jobs = walk(plan, finished)
    told(plan, jobs)
    for method, own in (("hard", set()), ("kd", {"temperature", "alpha"})):
        trials = [j for j in jobs if (j.config.phase, j.config.model, j.config.method) == ("search", LARGE, method)]
        assert len(trials) == 4 == len({j.config.recipe.lr for j in trials})
        assert {frozenset(j.config.hyper) for j in trials} == {frozenset(own)}
        assert all(0.01 <= j.config.recipe.lr <= 0.3 and j.config.recipe.label_smoothing <= 0.2 for j in trials)
        assert all({*point_of(sweep, j.config)} == {"lr", "label_smoothing", *own} for j in trials)
        best = max(trials, key=lambda job: finished[job.id].val_acc or 0).config
        phases = ("baseline", "confirm") if method == "hard" else ("confirm",)
        again = [
            j.config for j in jobs if j.config.phase in phases and (j.config.model, j.config.method) == (LARGE, method)
        ]
        assert {f"{config.recipe} {config.hyper}" for config in again} == {f"{best.recipe} {best.hyper}"}
    plain = jobs[0].config.recipe, sweep.recipe
    assert plain == (SweepPlan(spec()).teacher.recipe, spec().recipe), "the teacher and the sweep's own recipe stay"
    assert walk(SweepPlan(sweep, tmp_path), finished) == [], "the journal and the results tell the same plan again"


@pytest.mark.parametrize("method", ["kd", "dkd"])
@pytest.mark.parametrize("tune", ["", "weight-decay"])
def test_controls_differ_from_what_they_control_in_one_thing(method: str, tune: str) -> None:
    sweep = spec(method=method, tune=tune, controls="compute,self,smoothing", trials=3)
    plan = SweepPlan(sweep.model_copy(update={"compute_epochs": {SMALL: 7, LARGE: 20}}))
    jobs = walk(plan, {})
    told(plan, jobs)
    confirm = {j.config.condition: j for j in jobs if j.config.phase == "confirm" and j.config.model == SMALL}
    baseline = next(j for j in jobs if j.config.phase == "baseline" and j.config.model == SMALL)
    hard = confirm["hard"].config
    for control, changed in (("smoothing", {"label_smoothing": 0.1}), ("compute", {"epochs": 7})):
        same = {"recipe": hard.recipe.model_copy(update=changed), "control": control}
        assert confirm[control].config == hard.model_copy(update=same)
    own = confirm["self"]
    assert own.teacher == baseline.config and "weights" in baseline.keep
    assert (own.config.teacher, own.config.teacher_id, own.config.method) == (SMALL, baseline.id, "kd")
    if method == "kd":
        taught = {"teacher": TEACHER, "teacher_id": plan.teacher.id, "control": None}
        assert own.config.model_copy(update=taught) == confirm["kd"].config
    else:
        assert (own.config.hyper, own.config.recipe) == ({"temperature": 4.0, "alpha": 0.9}, hard.recipe)
    without = walk(SweepPlan(spec(method=method, tune=tune, trials=3)), {})
    assert {job.id for job in without} == {job.id for job in jobs if job.config.control is None}


def test_a_network_that_went_astray_teaches_nobody() -> None:
    finished: dict[str, RunResult] = {}
    plan = SweepPlan(spec(controls="self", trials=2))
    teacher = next(iter(plan.jobs(finished)))
    finished[teacher.id] = ended(teacher)
    lost = [job for job in plan.jobs(finished) if job.config.phase == "baseline"]
    finished |= {job.id: ended(job, status="failed", val_acc=None, error="diverged") for job in lost}
    jobs = walk(plan, finished)
    assert {job.config.condition for job in jobs if job.config.phase == "confirm"} == {"hard", "kd"}


def test_compute_is_counted_in_forward_passes() -> None:
    sweep = spec(trials=3, epochs=10, teacher_epochs=4)
    macs, taught = {SMALL: 100, LARGE: 300}, 600
    # 600 * (3 * 4 + 20) / 2 = 9600 of the teacher each; 3 trials and one run of 10 epochs
    assert compute_epochs(sweep, macs, taught, None, 3) == {SMALL: 40 + 32, LARGE: 40 + 11}
    assert compute_epochs(sweep, macs, taught, 2, 3) == {SMALL: 40 + 14, LARGE: 40 + 5}, (
        "two views a sample, asked for once"
    )
    given = sweep.model_copy(update={"teacher_weights": "file:abc"})
    assert compute_epochs(given, macs, taught, 2, 3) == {SMALL: 42, LARGE: 41}
    tuned = [given.model_copy(update={"teacher_tune": tune}) for tune in ("head", "full")]  # a probe: forward alone
    assert [compute_epochs(one, macs, taught, 2, 3)[SMALL] for one in tuned] == [40 + 6, 40 + 14]
    most = compute_epochs(sweep, {**macs, SMALL: 1}, taught, None, 3)
    assert most == {SMALL: 200, LARGE: 51}
    assert capped(most, 10) and SMALL in capped(most, 10)[0] and LARGE not in capped(most, 10)[0]
    assert capped({SMALL: 199}, 10) == capped({}, 10) == []
