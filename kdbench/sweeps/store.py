"""A sweep's folder: its spec beside the runs, and how far it is. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from kdbench.config import PHASES
from kdbench.errors import BadInput, MachineFault, suggestion
from kdbench.files import atomic_text
from kdbench.run.frame import frame_of, row_of
from kdbench.run.lease import owner_of
from kdbench.run.manifest import read_manifest
from kdbench.run.store import Run, load_runs, read_config, read_epochs, run_folder
from kdbench.sweeps.types import Sweep

SPEC_FILE = "sweep.json"
"""What makes a folder a sweep's: its resolved spec."""


def write_spec(sweep_dir: Path, sweep: Sweep, storage: str | None) -> None:
    """sweep.json: the resolved spec, and the storage that mirrors it."""
    text = json.dumps({"sweep": sweep.model_dump(mode="json"), "storage": storage}, indent=1)
    atomic_text(sweep_dir / SPEC_FILE, text + "\n")


def read_spec(sweep_dir: Path) -> tuple[Sweep, str | None]:
    """The stored spec and storage URL.

    Raises:
        BadInput: when the folder holds no sweep, with the closest name beside it.
        MachineFault: when sweep.json cannot be read.
    """
    path = sweep_dir / SPEC_FILE
    if not path.is_file():
        near = [p.parent.name for p in sweep_dir.parent.glob(f"*/{SPEC_FILE}")] if sweep_dir.parent.is_dir() else []
        close = suggestion(sweep_dir.name, near)
        raise BadInput(f"no sweep '{sweep_dir.name}' in {sweep_dir.parent}{close or f' ({path} is not there)'}")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return Sweep.model_validate(held["sweep"]), held["storage"]
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise MachineFault(f"{path} cannot be read ({why}): delete it, the sweep's command writes it again") from error


def load_trials(sweep_dir: Path, runs: list[Run] | None = None) -> pd.DataFrame:
    """The runs frame of all finished runs, possibly empty; of ``runs`` where they are read already."""
    sweep, _ = read_spec(sweep_dir)
    found = load_runs(sweep_dir) if runs is None else runs
    return frame_of(
        {**row_of(sweep.name, run.config, run.result, sweep.tuned), "teacher": sweep.pair.teacher} for run in found
    )


def read_status(sweep_dir: Path) -> dict[str, Any]:
    """What `kdbench status` shows: per phase how many runs are planned, done, pruned, failed, under way."""
    from kdbench.sweeps.plan import SweepPlan

    sweep, storage = read_spec(sweep_dir)
    runs = load_runs(sweep_dir)
    phases: dict[str, dict[str, int]] = {
        phase: dict.fromkeys(("planned", "complete", "pruned", "failed"), 0) for phase in PHASES
    }
    for kind in SweepPlan(sweep).planned({}):
        phases[kind.phase]["planned"] += kind.runs
    for run in runs:
        phases[run.config.phase][run.result.status] += 1
    ended = {run.config.id for run in runs}
    started = sorted(p.parent.name for p in sweep_dir.glob("trials/*/config.json") if p.parent.name not in ended)
    under_way = [_progress(run_folder(sweep_dir, run_id)) for run_id in started]
    return {
        "name": sweep.name,
        "pair": str(sweep.pair),
        "dataset": sweep.data.name,
        "methods": list(sweep.methods),
        "storage": storage,
        "phases": phases,
        "under_way": [row for row in under_way if row],
        "finished": "finished" in read_manifest(sweep_dir) and not started,
    }


def _progress(place: Path) -> dict[str, Any]:
    config, logs = read_config(place), read_epochs(place)
    if config is None:
        return {}
    return {
        "trial_id": config.id,
        "phase": config.phase,
        "student": config.model,
        "method": config.condition,
        **{name: config.hyper.get(name) for name in ("temperature", "alpha")},
        "seed": config.seed,
        "epoch": len(logs),
        "epochs": config.recipe.epochs,
        "val_acc": logs[-1].val_acc if logs else None,
        "now": "training" if owner_of(place) else "stopped: the same command goes on with it",
    }
