"""Whether a submission says of itself what its runs say."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kdbench.board.submissions import read
from kdbench.errors import BadInput
from kdbench.report.points import gather, pareto_table
from kdbench.report.report import samples_of
from kdbench.report.tables import write_tables
from kdbench.report.worth import worth
from kdbench.run.manifest import read_manifest
from kdbench.run.store import load_runs
from kdbench.sweeps.store import load_trials

TABLES = ("trials.csv", "pareto.csv", "size_saved.csv")


def check(folder: Path) -> tuple[int, list[str]]:
    """How many runs there are, and everything that differs from what they give: empty when all is as it should be.

    Ids are those of the configs, results those of the epochs, numbers possible ones, and the tables in the folder are
    made again from the runs. What only training again could tell (whether the numbers were measured) is not told.

    Raises:
        BadInput: no submission in ``folder``, or more than one.
    """
    found = read([folder])
    if len(found) != 1:
        raise BadInput(f"{folder} holds {len(found)} sweeps: check them one by one")
    place, faults = found[0].folder, list(found[0].notes)
    runs = load_runs(place, epochs=True, faults=[])
    for config, result, epochs in runs:
        name = f"run {result.id} ({config.phase} {config.model} {config.method} seed {config.seed})"
        if len(epochs) != result.epochs:
            faults.append(f"{name}: {result.epochs} epochs by its result, {len(epochs)} logged")
        elif epochs and epochs[-1].val_acc != result.val_acc:
            faults.append(f"{name}: validation accuracy {result.val_acc} by its result, {epochs[-1].val_acc} logged")
        elif epochs and max(log.val_acc for log in epochs) != result.best_val_acc:
            faults.append(f"{name}: its best validation accuracy is not the best that was logged")
    if (place / "sweep.json").exists():
        frame = load_trials(place, runs)
        about = read_manifest(place)
        classes, latency = samples_of(about).get("classes"), about.get("latency_ms") or {}
        points = gather(frame, chance=1 / classes if classes else None)
        with tempfile.TemporaryDirectory(prefix="kdbench-") as again:
            write_tables(frame, points, pareto_table(points, latency), worth(points), Path(again))
            for table in TABLES:
                if (place / table).exists() and (place / table).read_bytes() != (Path(again) / table).read_bytes():
                    faults.append(f"{table}: the runs give another one (`kdbench report {place}` writes it)")
    return len(runs), faults
