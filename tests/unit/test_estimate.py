"""What a dry run says that a plan will take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdbench.catalog.datasets import DATASETS
from kdbench.config import EpochLog
from kdbench.papers.load import load_paper
from kdbench.papers.paper_plan import PaperPlan
from kdbench.papers.plan import Protocol, Request
from kdbench.run.estimate import dry_run
from kdbench.run.speeds import Speeds
from kdbench.sweeps.plan import SweepPlan
from kdbench.train.step import describe_hardware
from tests.support.sweeps import SMALL, TEACHER, spec


@pytest.mark.parametrize("tune", [None, "head"])
def test_a_probe_and_a_teacher_that_runs_live_cost_their_forward_passes(tune: str | None, tmp_path: Path) -> None:
    weights = {"teacher_weights": "file:0", "teacher_tune": tune} if tune else {}
    plan = SweepPlan(spec(method="kd,at", pair=f"{TEACHER}:{SMALL}").model_copy(update=weights))
    kinds, cpu, threads = plan.planned({}), torch.device("cpu"), torch.get_num_threads()
    speeds = Speeds(tmp_path, describe_hardware(cpu), threads)
    for k, seconds in ((0, 30.0), (1, 3.0)):  # epochs of the whole teacher, and of the student on hard labels
        speeds.learn(kinds[k].example.model_copy(update={"tune": "full"}), EpochLog.model_construct(seconds=seconds))
    speeds.save()
    found = dry_run(plan, tmp_path, DATASETS.get("digits"), device=cpu, workers=1, threads=threads, cache=tmp_path,
                    tell=print)  # fmt: skip
    row, *rows = found.rows
    assert {each.method: each.seconds / (each.runs * each.epochs) for each in rows if each.seconds} == {
        "hard": 3, "kd": 3, "at": 3 + 30 / 3
    }  # fmt: skip
    kept = plan.passes * 30 / 3  # the logits that kd reads
    assert row.seconds == pytest.approx(row.epochs * (30 / 3 if tune else 30) + kept)


def test_runs_on_fewer_samples_take_less(tmp_path: Path) -> None:
    plan = PaperPlan(Protocol(load_paper("hinton2015-mnist"), Request(rows=("without-3", "only-7-8"))))
    found = dry_run(plan, tmp_path, DATASETS.get("mnist"), device=torch.device("cpu"), workers=1,
                    threads=torch.get_num_threads(), cache=tmp_path, tell=print)  # fmt: skip
    nine, two = (next(row.seconds for row in found.rows if row.label == name) for name in ("without-3", "only-7-8"))
    assert nine and two == pytest.approx(nine * 2 / 9)
