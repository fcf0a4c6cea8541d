"""What is worth committing of a finished plan, without checkpoints, weights and databases."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from kdbench.errors import BadInput
from kdbench.files import atomic_text
from kdbench.run.store import RUNS_FILE, read_result, run_folder, run_line
from kdbench.sweeps.store import read_spec, read_status

KEPT = ("manifest.json", "sweep.json")
KINDS = (".csv", ".parquet", ".md", ".tex", ".png", ".svg", ".html")
"""Endings of what is copied of a report; PDFs stay out, `kdbench report RECORD` draws them again."""


def make_record(sweep_dir: Path, records: Path) -> Path:
    """Copy a finished sweep's tables, figures, spec, manifest and runs to ``records/<name>``; returns that folder.

    Raises:
        BadInput: a sweep that is not finished, has no report yet, or would replace another's record.
    """
    if (sweep_dir / RUNS_FILE).exists():
        raise BadInput(f"'{sweep_dir}' is a record already; `kdbench report {sweep_dir}` draws its figures again")
    if not read_status(sweep_dir)["finished"]:
        raise BadInput(f"'{sweep_dir.name}' is not finished: run its command again, then record it")
    if not (sweep_dir / "pareto.csv").exists():
        raise BadInput(f"'{sweep_dir.name}' has no tables yet: `kdbench report {sweep_dir.name}` writes them")
    target = records / sweep_dir.name
    if (target / "sweep.json").exists() and read_spec(target)[0].id != read_spec(sweep_dir)[0].id:
        raise BadInput(
            f"{target} is the record of another sweep of that name: remove it first, or give another --to folder"
        )
    return copy_record(sweep_dir, target, sorted(path.parent.name for path in sweep_dir.glob("trials/*/result.json")))


def copy_record(folder: Path, target: Path, ids: Iterable[str]) -> Path:
    """Copy tables, figures and manifest of any plan's folder to ``target``, which is returned.

    ``runs.jsonl`` holds every finished run of ``ids`` whole, a line each: config, epochs, result.

    Raises:
        BadInput: none of them is finished.
    """
    done = [place for place in (run_folder(folder, each) for each in ids) if read_result(place) is not None]
    if not done:
        raise BadInput(f"'{target.name}' has no finished run in {folder}: nothing to record")
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.name in KEPT or path.suffix in KINDS):
            shutil.copyfile(path, target / path.name)
    atomic_text(target / RUNS_FILE, "".join(f"{run_line(place)}\n" for place in done))
    return target
