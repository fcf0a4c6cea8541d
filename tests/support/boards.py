"""Made-up finished sweeps on disk, as kdbench leaves them, for the leaderboard's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kdbench.config import RunConfig, RunResult
from kdbench.files import atomic_text
from kdbench.run.store import run_folder, write_config, write_result
from kdbench.sweeps.groups import groups
from kdbench.sweeps.plan import SweepPlan
from kdbench.sweeps.store import write_spec
from kdbench.sweeps.types import Sweep
from tests.support.sweeps import LARGE, SMALL, TEACHER, spec

PARAMS = {TEACHER: 900_000, SMALL: 300_000, LARGE: 400_000}
HYPER = {"temperature": 4.0, "alpha": 0.5}


def configs(sweep: Sweep, hyper: dict[str, float]) -> list[RunConfig]:
    """Every run of ``sweep``; confirm runs at ``hyper``, each search trial at a point of its own."""
    plan = SweepPlan(sweep)
    found = [plan.teacher]
    for group in groups(sweep):
        seeds = sweep.confirm_seeds if group.phase == "confirm" else [sweep.search_seed] * plan.size(group)
        for number, seed in enumerate(seeds):
            point = {**hyper, "temperature": number + 1.5} if group.phase == "search" else hyper
            found.append(plan.config(group, point, seed))
    return found


def result(config: RunConfig, *, lift: float = 0.02, luck: str = "", **more: Any) -> RunResult:
    """A complete run; its score is settled by its config, ``lift`` (gain of distilling) and ``luck``."""
    noise = np.random.default_rng([*f"{config.seed} {config.method} {luck}".encode()]).normal(0, 0.002)
    score = 0.9 + PARAMS[config.model] / 1e8 + (lift if config.method != "hard" else 0.0) + float(noise)
    tested = score if config.phase in ("confirm", "teacher") else None
    about: dict[str, Any] = {"status": "complete", "val_acc": score, "best_val_acc": score, "test_acc": tested}
    about |= {
        "params": PARAMS[config.model],
        "macs": 7,
        "epochs": config.recipe.epochs,
        "seconds": 1 + abs(float(noise)),
    }
    return RunResult.model_validate({"id": config.id, "hardware": "cpu", **about, **more})


def submit(
    folder: Path,
    *,
    hyper: dict[str, float] | None = None,
    when: str = "2026-01-02T00:00:00+00:00",
    hardware: str = "box",
    ms: float = 3.0,
    lift: float = 0.02,
    luck: str = "",
    **options: Any,
) -> Sweep:
    """A finished sweep of two students in ``folder``, three seeds unless ``options`` (of ``sweeps.spec``) say other."""
    sweep = spec(**{"budget__seeds": 3, **options})
    write_spec(folder, sweep, None)
    for config in configs(sweep, hyper or HYPER):
        write_config(run_folder(folder, config.id), config)
        write_result(run_folder(folder, config.id), result(config, lift=lift, luck=luck))
    manifest = {"finished": when, "hardware": {"processor": hardware, "device": "cpu"}, "latency_ms": {SMALL: ms}}
    atomic_text(folder / "manifest.json", json.dumps(manifest))
    return sweep
