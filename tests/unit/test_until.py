"""Seeds that are added until a row is decided: which runs a plan asks for, and who may go on with whom."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from kdbench.config import RunResult
from kdbench.errors import BadInput
from kdbench.run.job import Job
from kdbench.sweeps.plan import SweepPlan
from kdbench.sweeps.run import resolved
from kdbench.sweeps.store import write_spec
from tests.support.sweeps import LARGE, SMALL, ended, spec, told, walk


def test_seeds_are_added_where_a_row_is_not_decided_and_nowhere_else() -> None:
    def measured(job: Job) -> RunResult:
        """Distilling helps the small student for sure, the large one not at all."""
        c = job.config
        luck = (c.seed * 7919 % 101 + len(c.model)) / 10_000
        other = (c.seed * 104_729 % 97) / 10_000 if c.method == "kd" else 0.005
        gain = 0.1 if (c.model, c.method) == (SMALL, "kd") else 0.0
        return ended(job, val_acc=0.5, test_acc=None if c.phase == "search" else 0.5 + luck + other + gain)

    def whole(**options: object) -> tuple[dict[str, RunResult], dict[tuple[str, str], int]]:
        plan, finished = SweepPlan(spec(seeds=3, until="decided", max_seeds=10, **options)), dict[str, RunResult]()
        counts: dict[tuple[str, str], int] = {}
        while (job := next(iter(plan.jobs(finished)), None)) is not None:
            finished[job.id] = measured(job)
            plan.ended(job, finished[job.id])
            if job.config.phase == "confirm":
                counts[job.config.model, job.config.method] = counts.get((job.config.model, job.config.method), 0) + 1
        assert not list(SweepPlan(spec(seeds=3, until="decided", max_seeds=10, **options)).jobs(finished))  # resumed
        return finished, counts

    finished, counts = whole()
    assert counts == {(SMALL, "hard"): 3, (SMALL, "kd"): 3, (LARGE, "hard"): 10, (LARGE, "kd"): 10}
    assert len(finished) == 1 + 2 + 4 + 26
    assert spec(seeds=3, until="decided", max_seeds=10).looks == (3, 6, 10)
    assert spec(seeds=3).looks == () and "max_seeds" not in spec(seeds=3).model_dump()


def test_a_sweep_begun_without_looks_may_go_on_with_them_and_planned_looks_stay(tmp_path: Path) -> None:
    write_spec(tmp_path, spec(seeds=3, precision="fp32"), None)
    more = spec(seeds=3, precision="fp32", until="decided", max_seeds=9)
    assert resolved(more, tmp_path, torch.device("cpu")).looks == (3, 6, 9)
    write_spec(tmp_path, more, None)
    for other in (spec(seeds=4, precision="fp32", until="decided", max_seeds=9), spec(seeds=3, precision="fp32")):
        with pytest.raises(BadInput, match="holds another sweep"):
            resolved(other, tmp_path, torch.device("cpu"))


def test_seeds_are_added_for_methods_alone() -> None:
    plan = SweepPlan(spec(until="decided", max_seeds=6, seeds=2, controls="smoothing"))
    jobs = walk(plan, {}, test_acc=0.5)
    told(plan, jobs)
    counts = Counter(job.config.condition for job in jobs if job.config.phase == "confirm")
    assert counts["smoothing"] == 2 * 2 < counts["kd"] == counts["hard"]
