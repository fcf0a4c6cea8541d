"""A table as a record: what is worth committing, without checkpoints and weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdbench.errors import BadInput
from kdbench.files import atomic_text
from kdbench.papers.plan import Protocol
from kdbench.run.store import RUNS_FILE, read_result, run_folder, run_line

ENDINGS = (".md", ".tex", ".csv", ".png", ".svg")


def make_record(protocol: Protocol, folder: Path, records: Path) -> Path:
    """Copy the table, its figures, manifest and every run's numbers to ``records/<name>``; returns that folder.

    Raises:
        BadInput: when there is no run to record.
    """
    done = [job for job in protocol.jobs if read_result(run_folder(folder, job.config.id)) is not None]
    if not done:
        raise BadInput(f"'{protocol.name}' has no finished run in {folder}: nothing to record")
    target = records / protocol.name
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.suffix in ENDINGS or path.name == "manifest.json":
            shutil.copyfile(path, target / path.name)
    lines = (run_line(run_folder(folder, job.config.id)) for job in done)
    atomic_text(target / RUNS_FILE, "".join(f"{line}\n" for line in lines))
    return target
