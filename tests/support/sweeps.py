"""Tiny sweeps for tests: specs without timm, command lines as processes, what a finished folder holds."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from kdbench.api import run_sweep
from kdbench.cli.main import main
from kdbench.config import RunResult
from kdbench.run.job import Job
from kdbench.run.observers import Observer, Observers
from kdbench.sweeps.groups import Group
from kdbench.sweeps.overrides import read_config
from kdbench.sweeps.plan import SweepPlan, space_of
from kdbench.sweeps.search import Journal, Search
from kdbench.sweeps.spec import build_sweep
from kdbench.sweeps.types import Sweep

TEACHER, SMALL, LARGE = "test_resnet", "test_efficientnet", "test_vit"
WHOLE = ["--pair", f"{TEACHER}:{SMALL},{LARGE}", "--name", "whole", "--json"]
"""What is asked of the finished sweep that tests share."""
SEARCH = Group("search", SMALL, "kd")
UNEQUAL = ["seconds", "hardware", "wandb_run", "sweep"]
"""Columns that tell of the machine and the attempt, not of the run."""


def spec(**options: Any) -> Sweep:
    """A resolved smoke sweep of the tiny pair; dotted keys are written with ``__``."""
    asked = {"pair": f"{TEACHER}:{SMALL},{LARGE}", "budget": "smoke", "name": "tiny"}
    asked |= {key.replace("__", ".").replace("_", "-"): value for key, value in options.items()}
    return build_sweep(read_config(None, (), asked), known_models=lambda: (TEACHER, SMALL, LARGE))


def search(**options: Any) -> Search:
    """The first search of a sweep, nothing of it written down."""
    sweep = spec(**options)
    return Search(sweep, SEARCH.key, space_of(sweep, SEARCH.method), Journal(None), sweep.search_seed)


def command(out: Path, cache: Path, *arguments: object) -> list[str]:
    """``kdbench sweep`` on digits, of the tiny pair unless another is given."""
    pair = () if "--pair" in arguments else ("--pair", f"{TEACHER}:{SMALL}")
    words = ["sweep", *pair, "--budget", "smoke", "--out", out, "--cache", cache]
    return [str(word) for word in [*words, "--precision", "fp32", "--workers", 1, *arguments]]


def here(words: list[str], log: Path, code: int = 0) -> str:
    """``finish`` in this process, which has torch and timm imported already."""
    with pytest.MonkeyPatch.context() as patch, log.open("a") as out, redirect_stdout(out), redirect_stderr(out):
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            patch.delenv(name, raising=False)
        ended = main(words)
    told = log.read_text(encoding="utf-8")
    assert ended == code, told[-3000:]
    return told


def sweep_here(place: Path, observer: Observer | None = None, **options: Any) -> Path:
    """The sweep of ``command`` by Python in ``place``, without its report; its folder."""
    about = {"pair": f"{TEACHER}:{SMALL}", "budget": "smoke", "precision": "fp32", "workers": 1, "wandb": "disabled"}
    asked = {**about, "out": place / "results", "cache": place / "cache", **options}
    return run_sweep(read_config(None, (), asked), observer or Observers())


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder that ``build`` filled once for all test processes, never to be changed."""
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{place}.lock"):
        if not place.with_suffix(".done").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            build(place)
            place.with_suffix(".done").touch()
    return place


def build_whole(place: Path) -> None:
    """The sweep that tests share: ``results/whole`` and ``cache`` in ``place``, and what was printed.

    ``plan.log`` is its dry run, which writes nothing, ``run.log`` the run, ``mirror.db`` Optuna's mirror of it.
    """
    words = command(place / "results", place / "cache", *WHOLE)
    here([*words, "--dry-run"], place / "plan.log")
    assert {path.name for path in place.iterdir()} == {"plan.log"}
    here([*words, "--storage", f"sqlite:///{place / 'mirror.db'}"], place / "run.log")


def lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ended(job: Job, **more: object) -> RunResult:
    """A made-up result."""
    about = {"status": "complete", "val_acc": 0.5 + (int(job.id, 16) % 1000) / 4000, "test_acc": None, **more}
    return RunResult.model_validate({"id": job.id, **about})


def walk(plan: SweepPlan, finished: dict[str, RunResult], **more: object) -> list[Job]:
    """The jobs of a plan in the order in which one worker takes them."""
    taken = []
    while (job := next(iter(plan.jobs(finished)), None)) is not None:
        result = ended(job, **(more | ({"test_acc": 0.5} if job.task == "test" else {})))
        taken.append(job)
        finished[job.id] = result
        plan.ended(job, result)
    return taken


def told(plan: SweepPlan, jobs: list[Job]) -> None:
    """Runs are distinct, a dry run foresees each of them, and hard labels ask no teacher."""
    trained = [job.config for job in jobs if job.task == "train"]
    assert len({config.id for config in trained}) == len(trained)
    kinds = Counter((config.phase, config.model, config.condition) for config in trained)
    assert kinds == {(k.phase, k.label, k.example.condition): k.runs for k in plan.planned({})}
    assert all((job.teacher is None) == (job.config.method == "hard") for job in jobs if job.task == "train")
