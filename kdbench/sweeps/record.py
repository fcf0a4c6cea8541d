"""A finished sweep as a record: what is worth committing, without checkpoints, weights and databases."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdbench.errors import BadInput
from kdbench.files import atomic_text
from kdbench.run.store import RUNS_FILE, run_line
from kdbench.sweeps.store import read_spec, read_status

KEPT = ("manifest.json", "sweep.json")
KINDS = (".csv", ".parquet", ".md", ".tex", ".png", ".svg", ".html")
"""Endings of what is copied of a report; PDFs stay out, `kdbench report RECORD` draws them again."""


def make_record(sweep_dir: Path, records: Path) -> Path:
    """Copy a finished sweep's tables, figures, spec and manifest to ``records/<name>``; returns that folder.

    ``runs.jsonl`` holds every run whole, a line each: config, epochs, result.

    Raises:
        BadInput: a sweep that is not finished, or has no report yet.
    """
    if (sweep_dir / RUNS_FILE).exists():
        raise BadInput(f"'{sweep_dir}' is a record already; `kdbench report {sweep_dir}` draws its figures again")
    if not read_status(sweep_dir)["finished"]:
        raise BadInput(f"'{sweep_dir.name}' is not finished: run its command again, then record it")
    if not (sweep_dir / "pareto.csv").exists():
        raise BadInput(f"'{sweep_dir.name}' has no tables yet: `kdbench report {sweep_dir.name}` writes them")
    target = records / sweep_dir.name
    _keep_other_records(target, sweep_dir)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(sweep_dir.iterdir()):
        if path.is_file() and (path.name in KEPT or path.suffix in KINDS):
            shutil.copyfile(path, target / path.name)
    folders = sorted(path.parent for path in sweep_dir.glob("trials/*/result.json"))
    atomic_text(target / RUNS_FILE, "".join(run_line(folder) + "\n" for folder in folders))
    return target


def _keep_other_records(target: Path, sweep_dir: Path) -> None:
    """Refuse to replace the record of another sweep that has the same name.

    Raises:
        BadInput: with what to do.
    """
    if (target / "sweep.json").exists() and read_spec(target)[0].id != read_spec(sweep_dir)[0].id:
        raise BadInput(
            f"{target} is the record of another sweep of that name: remove it first, or give another --to folder"
        )
