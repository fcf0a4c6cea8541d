"""Whether a submission says of itself what its runs say."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kdbench.board.submissions import read
from kdbench.errors import BadInput
from kdbench.report.report import judged
from kdbench.report.tables import write_tables
from kdbench.run.manifest import read_manifest
from kdbench.run.store import load_runs
from kdbench.sweeps.store import load_trials

TABLES = ("trials.csv", "pareto.csv", "pareto.md", "pareto.tex", "size_saved.csv")


def check(folder: Path) -> tuple[int, list[str]]:
    """How many runs there are, and everything that differs from what they give: empty when all is as it should be.

    Ids are those of the configs, results those of the epochs and confidences, numbers possible ones, and a sweep's
    tables are made again from the runs. Whether the numbers were measured only training again could tell.

    Raises:
        BadInput: no submission in ``folder``, or more than one.
    """
    found = read([folder])
    if len(found) != 1:
        raise BadInput(f"{folder} holds {len(found)} sweeps: check them one by one")
    place, faults = found[0].folder, list(found[0].notes)
    runs, sizes = load_runs(place, epochs=True, faults=[]), dict[str, set[tuple[int, int] | None]]()
    for config, result, epochs in runs:
        name = f"run {result.id} ({config.phase} {config.model} {config.method} seed {config.seed})"
        if len(epochs) != result.epochs:
            faults.append(f"{name}: {result.epochs} epochs by its result, {len(epochs)} logged")
        elif epochs and epochs[-1].val_acc != result.val_acc:
            faults.append(f"{name}: validation accuracy {result.val_acc} by its result, {epochs[-1].val_acc} logged")
        elif epochs and max(log.val_acc for log in epochs) != result.best_val_acc:
            faults.append(f"{name}: its best validation accuracy is not the best that was logged")
        bins = result.reliability or ()
        seen, right = sum(n for n, *_ in bins), sum(right for *_, right in bins)
        if bins and abs(right - (result.test_acc or 0) * seen) > 1e-6 * seen:
            faults.append(f"{name}: test accuracy {result.test_acc} by its result, another by its confidences")
        sizes.setdefault(config.model, set()).add((result.params, result.macs) if result.status == "complete" else None)
    for model, held in sizes.items():
        if len(held - {None}) > 1:
            faults.append(f"{model} has {len(held - {None})} different numbers of parameters or MACs")
    if (place / "sweep.json").exists():
        about = read_manifest(place)
        frame = load_trials(place, runs)
        points, pareto, value = judged(frame, about)
        with tempfile.TemporaryDirectory(prefix="kdbench-") as again:
            write_tables(frame, points, pareto, value, Path(again))
            for table in TABLES:
                if (place / table).exists() and (place / table).read_bytes() != (Path(again) / table).read_bytes():
                    faults.append(f"{table}: the runs give another one (`kdbench report {place}` writes it)")
    return len(runs), faults
