"""What is worth committing of a finished plan, without checkpoints, weights and databases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from kdbench.errors import BadInput
from kdbench.files import atomic_text
from kdbench.run.store import LOGITS, RUNS_FILE, load_runs, read_result, recorded_logits, run_folder, run_line
from kdbench.run.words import counted
from kdbench.sweeps.store import read_status

KEPT = ("manifest.json", "sweep.json")
KINDS = (".csv", ".parquet", ".md", ".tex", ".png", ".svg", ".html")
"""Endings of what is copied of a report; PDFs stay out, `kdbench report RECORD` draws them again."""


HISTORY = "history.md"
"""What stood in a record before it was made again, and why it was."""


def make_record(sweep_dir: Path, records: Path, why: str = "") -> Path:
    """Copy a finished sweep's tables, figures, spec, manifest and runs to ``records/<name>``; returns that folder.

    Raises:
        BadInput: a sweep that is not finished, has no report yet, or would replace runs without saying why.
    """
    if (sweep_dir / RUNS_FILE).exists():
        raise BadInput(f"'{sweep_dir}' is a record already; `kdbench report {sweep_dir}` draws its figures again")
    if not read_status(sweep_dir)["finished"]:
        raise BadInput(f"'{sweep_dir.name}' is not finished: run its command again, then record it")
    if not (sweep_dir / "pareto.csv").exists():
        raise BadInput(f"'{sweep_dir.name}' has no tables yet: `kdbench report {sweep_dir.name}` writes them")
    ids = sorted(path.parent.name for path in sweep_dir.glob("trials/*/result.json"))
    return copy_record(sweep_dir, records / sweep_dir.name, ids, why)


def copy_record(folder: Path, target: Path, ids: Iterable[str], why: str = "") -> Path:
    """Copy tables, figures and manifest of any plan's folder to ``target``, which is returned.

    ``runs.jsonl`` holds every finished run of ``ids`` whole, a line each: config, epochs, result; ``logits`` what
    a paper's bias corrections are chosen on. With ``why``
    an earlier record's summary is kept in ``history.md``; one that loses runs must have it.

    Raises:
        BadInput: none of them is finished, or runs of an earlier record would go and nobody says why.
    """
    done = [place for place in (run_folder(folder, each) for each in ids) if read_result(place) is not None]
    if not done:
        raise BadInput(f"'{target.name}' has no finished run in {folder}: nothing to record")
    held = {run.config.id for run in load_runs(target)} if (target / RUNS_FILE).exists() else set()
    if (lost := len(held - {place.name for place in done})) and not why:
        raise BadInput(
            f"{target} holds {lost} of {counted(len(held), 'run')} that this one lacks: say --why it is made again "
            f"(its summary is kept in {HISTORY}), or give another --to folder"
        )
    if held and why:
        _remember(target, len(held), why)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.name in KEPT or path.suffix in KINDS):
            shutil.copyfile(path, target / path.name)
    for place in done:
        if (place / LOGITS).exists():
            (kept := recorded_logits(target, place.name)).parent.mkdir(exist_ok=True)
            shutil.copyfile(place / LOGITS, kept)
    for kept in recorded_logits(target, "").parent.glob("*.npz"):
        if run_folder(folder, kept.stem) not in done:  # of a run that an earlier record held
            kept.unlink()
    atomic_text(target / RUNS_FILE, "".join(f"{run_line(place)}\n" for place in done))
    return target


def _remember(target: Path, runs: int, why: str) -> None:
    """What the record said, before it is overwritten: when, by which command, and its table."""
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    table = next(target / name for name in ("pareto.md", "table.md") if (target / name).exists())
    entry = (
        f"Begun {manifest['started'][:10]} by `{manifest['command']}` at {manifest['git']}; {counted(runs, 'run')}. "
        f"Made again because: {why}\n\n{table.read_text(encoding='utf-8').strip()}\n"
    )
    place = target / HISTORY
    before = place.read_text(encoding="utf-8") if place.exists() else "# What stood here before\n"
    atomic_text(place, f"{before}\n{entry}")
