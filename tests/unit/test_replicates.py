"""Several teachers and repeated searches: which runs a plan asks for, and what a report says of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kdbench.config import RunResult
from kdbench.errors import BadInput
from kdbench.report.points import gather, pareto_table
from kdbench.report.report import judged, write_report
from kdbench.report.tables import pareto_grid, pareto_markdown
from kdbench.report.worth import worth
from kdbench.run.frame import conform
from kdbench.run.job import Job
from kdbench.stats import components, crossed_difference
from kdbench.sweeps.plan import SweepPlan
from kdbench.sweeps.run import resolved
from kdbench.sweeps.store import write_spec
from tests.support.report_frames import sweep_frame
from tests.support.sweeps import LARGE, SMALL, ended, spec, walk

KINDS = {
    "teachers": {"teacher_seeds": 3},
    "searches": {"repeat_search": 3},
    "both": {"teacher_seeds": 3, "repeat_search": 3},
}


def kd(jobs: list[Job], phase: str, model: str = SMALL) -> dict[int, list[Job]]:
    """Jobs of a phase by replicate."""
    found: dict[int, list[Job]] = {}
    for job in jobs:
        if (job.config.phase, job.config.model, job.config.method) == (phase, model, "kd"):
            found.setdefault(job.config.replicate, []).append(job)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_replicates_share_hard_labels_and_seeds_and_begin_with_the_sweep_as_it_is_without(kind: str) -> None:
    plan, finished = SweepPlan(spec(trials=3, seeds=2, **KINDS[kind])), dict[str, RunResult]()
    jobs = walk(plan, finished)
    plain = walk(SweepPlan(spec(trials=3, seeds=2)), {})
    teachers = [job for job in jobs if job.config.phase == "teacher" and job.task == "train"]
    assert [job.config.seed for job in teachers] == ([0, 1, 2] if kind != "searches" else [0])
    assert sum(job.task == "test" for job in jobs) == len(teachers)
    first = [job for job in jobs if not job.config.replicate and job.config.phase != "teacher"]
    assert [job.id for job in first] == [job.id for job in plain if job.config.phase != "teacher"]
    assert all(job.config.replicate == 0 for job in jobs if job.config.method == "hard")

    confirm, search = kd(jobs, "confirm"), kd(jobs, "search")
    assert [len(confirm[number]) for number in range(3)] == [2, 2, 2]
    assert len({tuple(job.config.seed for job in own) for own in confirm.values()}) == 1
    under = [teachers[0 if kind == "searches" else number].id for number in range(3)]
    assert [{job.config.teacher_id for job in confirm[number]} for number in range(3)] == [{name} for name in under]
    assert sorted(search) == ([0] if kind == "teachers" else [0, 1, 2])
    for number, own in search.items():
        assert {job.config.seed for job in own} == {2000 * number}
        assert {job.config.teacher_id for job in own} == {under[number]}
    for number, own in confirm.items():
        trials = search[number if kind != "teachers" else 0]
        best = max(trials, key=lambda job: finished[job.id].val_acc or 0)
        assert {str(job.config.hyper) for job in own} == {str(best.config.hyper)}

    served = [{(one.seed, one.teacher_id) for one in job.serves} for job in teachers]
    asked = {(job.config.seed, job.config.teacher_id) for job in jobs if job.teacher is not None}
    assert set().union(*served) == asked and sum(map(len, served)) == len(asked)
    assert plan.passes == spec().recipe.epochs * max(map(len, served))
    planned = Counter({(k.phase, k.example.model, k.example.method, k.example.replicate): 0 for k in plan.planned({})})
    for each in plan.planned({}):
        planned[each.phase, each.example.model, each.example.method, each.example.replicate] += each.runs
    trained = (job.config for job in jobs if job.task == "train")
    assert planned == Counter((c.phase, c.model, c.method, c.replicate) for c in trained)


def test_an_interrupted_plan_goes_on_and_more_teachers_extend_it(tmp_path: Path) -> None:
    asked = {"trials": 5, "seeds": 2, "sampler": "tpe"}
    whole = [job.id for job in walk(SweepPlan(spec(**asked, **KINDS["both"])), {})]
    finished: dict[str, RunResult] = {}
    plan, taken = SweepPlan(spec(**asked, **KINDS["both"]), tmp_path), list[str]()
    while len(taken) < len(whole) - 8:
        job = next(iter(plan.jobs(finished)))
        finished[job.id] = ended(job)
        plan.ended(job, finished[job.id])
        taken.append(job.id)
    next(iter(plan.jobs(finished)))
    again = walk(SweepPlan(spec(**asked, **KINDS["both"]), tmp_path), finished)
    assert taken + [job.id for job in again] == whole

    more = walk(SweepPlan(spec(**asked, teacher_seeds=4, repeat_search=4), tmp_path), finished)
    assert {job.config.replicate for job in more if job.config.phase != "teacher"} == {3}


def test_what_replicates_are_stays_and_there_may_be_more_of_them(tmp_path: Path) -> None:
    def held(**options: object) -> int:
        return resolved(spec(precision="fp32", **options), tmp_path, torch.device("cpu")).replicates

    write_spec(tmp_path, spec(precision="fp32"), None)
    assert held(teacher_seeds=2) == 2
    write_spec(tmp_path, spec(precision="fp32", teacher_seeds=2), None)
    assert held(teacher_seeds=3) == 3
    for other in ({}, {"repeat_search": 2}, {"teacher_seeds": 3, "repeat_search": 3}):
        with pytest.raises(BadInput, match=r"holds another sweep(.|\n)*(teacher_seeds|repeat_search): stored"):
            held(**other)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"teacher_seeds": 0}, "teacher-seeds must be 1 or more, not 0"),
        ({"teacher_seeds": 3, "repeat_search": 2}, "teacher-seeds 3, repeat-search 2: each teacher gets a search"),
        ({"teacher_seeds": 2, "teacher_weights": "pretrained"}, "teacher-seeds 2: teacher-weights are one teacher's"),
        ({"repeat_search": 2, "tune": "lr"}, "repeat-search 2: a search that --tune makes"),
        ({"repeat_search": 2, "temperature": "4", "alpha": "0.5"}, "repeat-search 2: nothing is searched"),
    ],
)
def test_what_cannot_be_repeated_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        spec(**options)


def test_one_of_each_is_the_sweep_that_it_was() -> None:
    assert spec(teacher_seeds=1, repeat_search=1).id == spec().id
    assert not {"teacher_seeds", "repeat_search"} & spec().model_dump().keys()


def test_seeds_are_added_under_every_teacher_until_rows_are_decided_over_all() -> None:
    def measured(job: Job) -> RunResult:
        """The small student gains under each teacher; what the large one gains depends on the teacher."""
        c = job.config
        luck = (c.seed * 7919 % 101 + len(c.model)) / 10_000 + (c.seed * 104_729 + c.replicate * 31) % 97 / 10_000
        gain = 0.1 if c.model == SMALL else 0.03 * (c.replicate - 0.8)
        soft = 0.5 + luck + gain * (c.method == "kd")
        return ended(job, val_acc=0.5, test_acc=None if c.phase == "search" else soft)

    plan, finished = SweepPlan(spec(seeds=3, until="decided", max_seeds=6, teacher_seeds=3)), dict[str, RunResult]()
    counts = Counter[tuple[str, str, int]]()
    while (job := next(iter(plan.jobs(finished)), None)) is not None:
        finished[job.id] = measured(job)
        plan.ended(job, finished[job.id])
        counts[job.config.model, job.config.method, job.config.replicate] += job.config.phase == "confirm"
    for number in range(3):
        assert (counts[SMALL, "kd", number], counts[LARGE, "kd", number]) == (3, 6)
    assert (counts[SMALL, "hard", 0], counts[LARGE, "hard", 0]) == (3, 6)


def repeated(replicates: int, sd: float = 0.004, searches: bool = False) -> pd.DataFrame:
    """A made-up sweep whose kd runs were made under further teachers, each better or worse than the first."""
    frame, rng = sweep_frame(seeds=4).assign(replicate=0), np.random.default_rng(2)
    made = [frame]
    for number in range(1, replicates):
        more = frame[(frame["phase"] == "confirm") & (frame["method"] == "kd")].assign(replicate=number)
        more["test_acc"] += rng.normal(0, sd) + rng.normal(0, 0.001, len(more))
        more["trial_id"] = [f"{number}{name[1:]}" for name in more["trial_id"]]
        made.append(more.assign(temperature=4.0 + number) if searches else more)
    return pd.concat(made, ignore_index=True)


def about(**options: int) -> dict[str, object]:
    return {"spec": options, "samples": {"classes": 10, "val": 6000, "test": 10_000}}


def test_a_row_and_the_headline_cover_teachers_and_seeds() -> None:
    frame = repeated(3)
    points, pareto, value = judged(conform(frame), about(teacher_seeds=3))
    confirm = frame[frame["phase"] == "confirm"]
    tables, hard = [], []
    for row in pareto.itertuples():
        own = confirm[confirm["student"] == row.student]
        soft = own[own["method"] == "kd"].pivot(index="replicate", columns="seed", values="test_acc").to_numpy()
        plain = own[own["method"] == "hard"].sort_values("seed")["test_acc"].to_numpy()
        expected = crossed_difference(soft, plain)
        assert (row.gain, row.gain_lo, row.gain_hi, row.p_value) == pytest.approx(expected[:4])
        assert (row.n_seeds, row.n_replicates, row.test_acc) == (4, 3, pytest.approx(soft.mean()))
        assert row.gain == pytest.approx(row.test_acc - row.baseline_acc)
        tables.append(soft)
        hard.append(plain)
    gains = np.mean(tables, axis=0) - np.mean(hard, axis=0)
    assert value.gains["kd"][:4] == pytest.approx(crossed_difference(gains, np.zeros(4))[:4])
    shares = [f"{100 * part / sum(components(gains)):.0f}%" for part in components(gains)]
    headline, shown, variance = value.sentences[:3]
    assert "(paired by seed, 3 teachers, 4 seeds, p = " in headline
    assert f"{shares[0]} lies between teachers, {shares[1]} between seeds, and the rest in neither" in variance
    plain_worth = worth(gather(sweep_frame(seeds=4)), 10_000)
    assert value.shows["kd"][0] > plain_worth.shows["kd"][0], "teachers that differ hide what seeds alone would show"
    text = pareto_markdown(pareto, points, value)
    assert "Intervals are over 3 teachers and 4 seeds, not another search or other test images." in text
    assert (
        "3 replicates of 4 seeds: " in text
        and "t interval over seeds" not in text
        and "With these teachers and seeds a true" in shown
    )


def test_searches_show_the_range_of_their_winners_and_pairs_cover_both() -> None:
    points, pareto, value = judged(conform(repeated(3, searches=True)), about(repeat_search=3))
    assert all("4 to 6" in [cell.text for cell in row] for row in pareto_grid(pareto, points).rows)
    assert pareto["temperature"].tolist() == [4.0] * 5
    assert "over 3 searches and 4 seeds, not another teacher or" in pareto_markdown(pareto, points, value)
    points, pareto, value = judged(conform(repeated(2)), about(teacher_seeds=2, repeat_search=2))
    assert "over 2 teacher-search pairs and 4 seeds, not other test images." in pareto_markdown(pareto, points, value)


def test_a_teacher_whose_runs_are_not_all_there_costs_as_few_runs_as_can_be(tmp_path: Path) -> None:
    frame = repeated(3)
    late = frame[(frame["replicate"] == 2)].groupby("student").tail(3)  # under the third teacher one seed is done
    points = gather(frame.drop(late.index))
    assert set(points.frame[points.frame["method"] == "kd"]["n_replicates"]) == {2}
    assert sum("1 confirm run left out, whose seed not every teacher" in note for note in points.notes) == 5
    some = frame.drop(late.groupby("student").tail(1).index)  # one run is missing
    kept = gather(some).frame
    assert {*zip(kept["method"], kept["n_replicates"], kept["n_seeds"], strict=True)} == {("hard", 1, 4), ("kd", 3, 3)}


def test_what_one_teacher_says_is_not_changed_by_the_column_of_replicates(tmp_path: Path) -> None:
    frame = sweep_frame()
    one, other = judged(conform(frame), about()), judged(conform(frame.assign(replicate=0)), about())
    pd.testing.assert_frame_equal(one[1], other[1])
    assert one[2].sentences == other[2].sentences and "n_replicates" not in one[1]
    assert math.isnan(pareto_table(sweep_frame(seeds=1))["p_value"].iloc[0])


def test_a_whole_report_of_replicates_names_each_run(tmp_path: Path) -> None:
    frame = repeated(3, searches=True)
    files = write_report(tmp_path, frame, about(teacher_seeds=3, repeat_search=3))
    page = files.paths["report.html"].read_text(encoding="utf-8")
    runs = frame[(frame["phase"] == "confirm")]["trial_id"]
    assert all(run in page for run in runs) and "1001 #2" in page and "4 to 6" in page
    assert replace(files.points, repeated="teacher").over == "3 teachers and 4 seeds"
