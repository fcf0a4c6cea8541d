"""Find what was run: sweeps' folders, records and pulled rows, below any folders given."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdbench.errors import BadInput, MachineFault
from kdbench.run.manifest import read_manifest
from kdbench.run.store import RUNS_FILE, Run, load_runs
from kdbench.run.words import counted
from kdbench.sweeps.plan import trials_of
from kdbench.sweeps.store import read_spec
from kdbench.sweeps.types import Sweep

PULLED = "pulled_from"
"""Key of a manifest that ``pull`` wrote: W&B knows best who ran what."""
_SPEC = "sweep.json"
_NO_NAMES = ("results", "records", "pulled")
_SKIPPED = ("trials", "wandb", "trash")
_FAULTS = 3
"""Unreadable runs of a folder that notes name."""


@dataclass(frozen=True)
class Submission:
    """One sweep as one folder holds it."""

    sweep: str
    """The sweep's name."""
    folder: Path
    by: str
    """Who ran it; empty where nobody said."""
    when: str
    """ISO time of its end (of its start while it runs), or empty."""
    searched: int
    """Search trials a student size and method."""
    planned: bool
    """Whether ``searched`` is what the spec says, or counted from the runs."""
    hardware: str
    """What ``latency`` was measured on."""
    latency: Mapping[str, float]
    """Milliseconds of one batch-1 forward, by student."""
    trials: tuple[Run, ...]
    notes: tuple[str, ...] = ()
    """What could not be read, one sentence each."""
    tuned: tuple[str, ...] = ()
    """Fields of the recipe that were searched as well."""


def read(paths: Sequence[str | Path]) -> list[Submission]:
    """All submissions in and below ``paths``, in the order given, each folder once.

    A path is a sweep's folder, a record, a folder that ``kdbench leaderboard pull`` wrote, or any folder above
    such; ``NAME=PATH`` says who ran what is in it. Without a name (and always for pulled runs) the manifest's
    ``by`` counts, else the names of the folders between PATH and the sweep: ``members/alice/mnist`` given as
    ``members`` is alice's.

    Raises:
        BadInput: a path that is no folder, or nothing to read in any of them.
    """
    found: dict[Path, Submission] = {}
    for path in paths:
        name, root = _named(path)
        for folder in _folders(root):
            if folder.resolve() not in found:
                between = [part for part in folder.relative_to(root).parts[:-1] if part not in _NO_NAMES]
                found[folder.resolve()] = _submission(folder, name, "/".join(between))
    if not found:
        given = ", ".join(map(str, paths))
        raise BadInput(f"no sweep in {given}: give a folder that `kdbench sweep`, `record` or `pull` wrote")
    return _adopt(list(found.values()))


def _named(path: str | Path) -> tuple[str, Path]:
    """(name or empty, folder) of one argument."""
    text = str(path)
    if Path(text).expanduser().is_dir():
        return "", Path(text).expanduser()
    splits = [(text[:at], Path(text[at + 1 :]).expanduser()) for at, mark in enumerate(text) if mark == "="]
    for name, root in splits:
        if root.is_dir():
            return name.strip(), root
    if any(root.is_file() for root in (Path(text).expanduser(), *(root for _, root in splits))):
        raise BadInput(f"'{text}' is a file: give the folder that holds it")
    raise BadInput(f"no folder '{text}'")


def _folders(root: Path) -> Iterator[Path]:
    """Every submission's folder in and below ``root``, in the order of their names."""
    for place, folders, files in os.walk(root):
        if _SPEC in files or RUNS_FILE in files or ("manifest.json" in files and "trials" in folders):
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))


def _submission(folder: Path, name: str, between: str) -> Submission:
    trials, notes = _trials(folder)
    spec, manifest = None, dict[str, Any]()
    try:
        manifest = read_manifest(folder)
        spec = read_spec(folder)[0] if (folder / _SPEC).exists() else None
    except MachineFault as error:
        notes.append(f"{folder.name}: {' '.join(str(error).split())}")
    hardware, latency = (_mapping(manifest.get(name)) for name in ("hardware", "latency_ms"))
    parts = (hardware.get("processor"), hardware.get("device"))
    return Submission(
        sweep=spec.name if spec else str(manifest.get("sweep") or folder.name),
        folder=folder,
        by=str(manifest.get("by") or "") if manifest.get(PULLED) else name or str(manifest.get("by") or between),
        when=str(manifest.get("finished") or manifest.get("started") or ""),
        searched=_searched(spec, trials),
        tuned=spec.tuned if spec else (),
        planned=spec is not None,
        hardware=", ".join(str(part) for part in parts if part) or "unknown hardware",
        latency={str(name): float(ms) for name, ms in latency.items() if isinstance(ms, int | float) and 0 < ms < 1e9},
        trials=tuple(trials),
        notes=tuple(notes),
    )


def _mapping(value: object) -> dict[str, Any]:
    """A part of somebody's manifest, nothing where it is something else."""
    return value if isinstance(value, dict) else {}


def _searched(spec: Sweep | None, trials: list[Run]) -> int:
    """The budget that selection had: what the spec allowed, or the most that any size and method got."""
    if spec is not None:
        try:
            return trials_of(spec)
        except BadInput:  # a method of a package that is not installed here
            return spec.budget.trials
    return max(Counter((t.config.model, t.config.method) for t in trials if t.config.phase == "search").values() or [0])


def _trials(folder: Path) -> tuple[list[Run], list[str]]:
    """The finished runs in ``folder``, by id, and notes on what is not readable here."""
    faults: list[str] = []
    try:
        runs = load_runs(folder, faults=faults)
    except (MachineFault, OSError) as error:
        why = " ".join(str(error).split("\n")[0].split())
        return [], [f"{folder.name}: left out, not readable by this version of kdbench ({why})."]
    whole = [run for run in runs if run.config.id == run.result.id]
    notes = [f"{folder.name}: {fault[:300]}." for fault in faults[:_FAULTS]]
    if len(faults) > _FAULTS:
        notes.append(f"{folder.name}: {counted(len(faults) - _FAULTS, 'more line')} left out.")
    if len(whole) < len(runs):
        left = counted(len(runs) - len(whole), "run")
        notes.append(f"{folder.name}: {left} left out: the id is not that of the config.")
    if not runs:
        notes.append(f"{folder.name}: no finished run in it yet (a record keeps its runs in {RUNS_FILE}).")
    return sorted(whole, key=lambda run: run.result.id), notes


def _adopt(submissions: list[Submission]) -> list[Submission]:
    """Pulled copies of a sweep that is here with its spec get the spec's budget, in case not every run was pulled."""
    planned = [(each.sweep, _confirmed(each), each.searched) for each in submissions if each.planned]
    adopted = []
    for each in submissions:
        mine = _confirmed(each)
        known = [searched for sweep, ids, searched in planned if sweep == each.sweep and mine <= ids]
        adopted.append(replace(each, searched=known[0]) if known and not each.planned else each)
    return adopted


def _confirmed(submission: Submission) -> set[str]:
    return {trial.result.id for trial in submission.trials if trial.config.phase == "confirm"}
