"""A sweep's folder: its spec, a folder a trial, and the frame of all trials. Imports no torch."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from filelock import FileLock, Timeout
from pydantic import ValidationError

from kdbench.config import PHASES, EpochLog, RunConfig, RunResult
from kdbench.errors import BadInput, MachineFault, suggestion
from kdbench.files import atomic_text
from kdbench.sweep.types import Sweep

COLUMNS = [
    "sweep", "trial_id", "phase", "status", "dataset", "teacher", "student", "method", "temperature", "alpha", "seed",
    "params", "macs", "epochs", "val_acc", "test_acc", "best_val_acc", "nll", "ece", "agreement", "seconds",
    "hardware", "wandb_run",
]  # fmt: skip
TEXT = ("sweep", "trial_id", "phase", "status", "dataset", "teacher", "student", "method", "hardware", "wandb_run")
WHOLE = ("seed", "params", "macs", "epochs")
RUNS_FILE = "runs.jsonl"
"""A record's runs: config, epochs and result of one in each line."""


def trial_folder(sweep_dir: Path, trial_id: str) -> Path:
    """Where one run keeps config.json, metrics.jsonl, its checkpoint and, last of all, result.json."""
    return sweep_dir / "trials" / trial_id


def write_spec(sweep_dir: Path, sweep: Sweep, storage: str | None) -> None:
    """sweep.json: the resolved spec, and the storage where it is not the default file."""
    text = json.dumps({"sweep": sweep.model_dump(mode="json"), "storage": storage}, indent=1)
    atomic_text(sweep_dir / "sweep.json", text + "\n")


def read_spec(sweep_dir: Path) -> tuple[Sweep, str | None]:
    """The stored spec and storage URL.

    Raises:
        BadInput: when the folder holds no sweep, with the closest name beside it.
        MachineFault: when sweep.json cannot be read.
    """
    path = sweep_dir / "sweep.json"
    if not path.is_file():
        near = [p.parent.name for p in sweep_dir.parent.glob("*/sweep.json")] if sweep_dir.parent.is_dir() else []
        close = suggestion(sweep_dir.name, near)
        raise BadInput(f"no sweep '{sweep_dir.name}' in {sweep_dir.parent}{close or f' ({path} is not there)'}")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return Sweep.model_validate(held["sweep"]), held["storage"]
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise MachineFault(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def write_config(folder: Path, config: RunConfig) -> None:
    """config.json of a run; written before it starts."""
    atomic_text(folder / "config.json", config.model_dump_json(indent=1) + "\n")


def write_result(folder: Path, result: RunResult) -> None:
    """result.json; its presence means that the run is whole."""
    atomic_text(folder / "result.json", result.model_dump_json(indent=1) + "\n")


def read_result(folder: Path) -> RunResult | None:
    """The run's result, or None while it has none (a damaged file counts as none: the run is repeated)."""
    try:
        return RunResult.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None


def read_metrics(folder: Path) -> list[EpochLog]:
    """A run's epochs so far."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [EpochLog.model_validate_json(line) for line in lines]


def row_of(sweep_name: str, config: RunConfig, result: RunResult) -> dict[str, Any]:
    """One line of the trials table; further hyper-parameters follow as ``hyper_<name>``."""
    teacher = config.model if config.phase == "teacher" else config.teacher
    extra = {f"hyper_{k}": v for k, v in sorted(config.hyper.items()) if k not in ("temperature", "alpha")}
    kept = result.model_dump(include=set(COLUMNS))
    return {
        **dict.fromkeys(COLUMNS),
        **kept,
        "sweep": sweep_name,
        "trial_id": config.id,
        "phase": config.phase,
        "dataset": config.data.name,
        "teacher": teacher,
        "student": config.model,
        "method": config.method,
        "temperature": config.hyper.get("temperature"),
        "alpha": config.hyper.get("alpha"),
        "seed": config.seed,
        **extra,
    }


class Run(NamedTuple):
    """A finished run."""

    config: RunConfig
    result: RunResult
    epochs: list[EpochLog]
    """Empty where they were not asked for."""


def load_runs(sweep_dir: Path, *, epochs: bool = False) -> list[Run]:
    """All finished runs in a sweep's folder, from ``trials/``, or from a record's ``runs.jsonl``.

    Raises:
        MachineFault: when a record's lines cannot be read.
    """
    record = sweep_dir / RUNS_FILE
    if record.is_file() and not (sweep_dir / "trials").is_dir():
        try:
            return [_recorded(line, epochs) for line in record.read_text(encoding="utf-8").splitlines()]
        except (ValueError, KeyError, TypeError) as error:
            raise MachineFault(f"{record} cannot be read: {str(error).splitlines()[0]}") from error
    runs = []
    for path in sorted(sweep_dir.glob("trials/*/result.json")):
        result = read_result(path.parent)
        if result is not None:
            config = RunConfig.model_validate_json((path.parent / "config.json").read_text(encoding="utf-8"))
            runs.append(Run(config, result, read_metrics(path.parent) if epochs else []))
    return runs


def _recorded(line: str, epochs: bool) -> Run:
    held = json.loads(line)
    logs = [EpochLog.model_validate(log) for log in held["epochs"]] if epochs else []
    return Run(RunConfig.model_validate(held["config"]), RunResult.model_validate(held["result"]), logs)


def rows_of(sweep_dir: Path, runs: list[Run] | None = None) -> list[dict[str, Any]]:
    """Rows of all finished runs (``load_runs``), in the order of phases, students, methods and seeds."""
    sweep, _ = read_spec(sweep_dir)
    found = load_runs(sweep_dir) if runs is None else runs
    rows = [row_of(sweep.name, run.config, run.result) for run in found]
    order = {name: k for k, name in enumerate((sweep.pair.teacher, *sweep.pair.students))}

    def rank(row: dict[str, Any]) -> tuple[Any, ...]:
        return PHASES.index(row["phase"]), order.get(row["student"], 99), row["method"], row["seed"], row["trial_id"]

    return sorted(rows, key=rank)


def load_trials(sweep_dir: Path, runs: list[Run] | None = None) -> pd.DataFrame:
    """The trials table (design: one row a trial), typed, possibly empty; of ``runs`` where they are read already."""
    rows = rows_of(sweep_dir, runs)
    extra = sorted({key for row in rows for key in row} - set(COLUMNS))
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *extra])
    kinds = {c: ("string" if c in TEXT else "Int64" if c in WHOLE else "float64") for c in frame.columns}
    return frame.astype(kinds)


def read_status(sweep_dir: Path) -> dict[str, Any]:
    """What `kdbench status` shows: per phase how many runs are planned, done, pruned, failed, under way."""
    from kdbench.sweep.manifest import read_manifest
    from kdbench.sweep.plan import lanes, slots

    sweep, storage = read_spec(sweep_dir)
    planned: Counter[str] = Counter()
    for lane in lanes(sweep):
        planned[lane.phase] += slots(sweep, lane) if lane.phase != "teacher" else 1
    seen = Counter((row["phase"], row["status"]) for row in rows_of(sweep_dir))
    started = {p.parent.name for p in sweep_dir.glob("trials/*/config.json")}
    ended = {p.parent.name for p in sweep_dir.glob("trials/*/result.json")}
    phases = {
        phase: {"planned": planned[phase], **{s: seen[phase, s] for s in ("complete", "pruned", "failed")}}
        for phase in PHASES
    }
    return {
        "name": sweep.name,
        "pair": str(sweep.pair),
        "dataset": sweep.data.name,
        "methods": list(sweep.methods),
        "storage": storage or f"sqlite:///{sweep_dir / 'optuna.db'}",
        "phases": phases,
        "under_way": [_progress(sweep_dir, trial_id) for trial_id in sorted(started - ended)],
        "finished": "finished" in read_manifest(sweep_dir) and not started - ended,
    }


def _progress(sweep_dir: Path, trial_id: str) -> dict[str, Any]:
    folder = trial_folder(sweep_dir, trial_id)
    config = RunConfig.model_validate_json((folder / "config.json").read_text(encoding="utf-8"))
    logs = read_metrics(folder)
    lock = sweep_dir / ".lock" if config.phase == "teacher" else sweep_dir / ".locks" / trial_id
    return {
        "trial_id": trial_id,
        "phase": config.phase,
        "student": config.model,
        "method": config.method,
        "epoch": len(logs),
        "epochs": config.recipe.epochs,
        "val_acc": logs[-1].val_acc if logs else None,
        "now": "training" if _held(lock) else "stopped: the same command goes on with it",
    }


def _held(lock: Path) -> bool:
    """Whether a process of this machine holds a lock file (over a network file system, perhaps another's)."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True
