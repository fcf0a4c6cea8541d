"""Whether a submission says of itself what its runs say."""

from __future__ import annotations

import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.board.submissions import read
from kdbench.errors import BadInput
from kdbench.methods import ships_more
from kdbench.papers.measures import Trials
from kdbench.papers.plan import Protocol, Request
from kdbench.papers.schema import PaperFile
from kdbench.papers.table import paper_table
from kdbench.report.render import csv
from kdbench.report.report import judged
from kdbench.report.shifted import shifted_table
from kdbench.report.tables import write_tables
from kdbench.run.manifest import read_manifest
from kdbench.run.store import Run, load_runs
from kdbench.run.words import counted
from kdbench.sweeps.store import load_trials

TABLES = ("trials.csv", "pareto.csv", "pareto.md", "pareto.tex", "size_saved.csv")


def check(folder: Path) -> tuple[int, list[str]]:
    """How many runs there are, and everything that differs from what they give: empty when all is as it should be.

    Ids are those of the configs, results those of the epochs and confidences, numbers possible ones, and the tables of
    a sweep or a paper are made again from the runs. Whether the numbers were measured only training again could tell.

    Raises:
        BadInput: no submission in ``folder``, or more than one.
    """
    found = read([folder])
    if len(found) != 1:
        raise BadInput(f"{folder} holds {len(found)} sweeps: check them one by one")
    place, faults = found[0].folder, list(found[0].notes)
    runs, sizes = load_runs(place, epochs=True, faults=[]), dict[tuple[str, bool], set[tuple[int, int] | None]]()
    for config, result, epochs in runs:
        name = f"run {result.id} ({config.phase} {config.model} {config.method} seed {config.seed})"
        if len(epochs) != result.epochs:
            faults.append(f"{name}: {counted(result.epochs, 'epoch')} by its result, {len(epochs)} logged")
        elif epochs and epochs[-1].val_acc != result.val_acc:
            faults.append(f"{name}: validation accuracy {result.val_acc} by its result, {epochs[-1].val_acc} logged")
        elif epochs and max(log.val_acc for log in epochs) != result.best_val_acc:
            faults.append(f"{name}: its best validation accuracy is not the best that was logged")
        bins = result.reliability or ()
        seen, right = sum(n for n, *_ in bins), sum(right for *_, right in bins)
        if bins and abs(right - (result.test_acc or 0) * seen) > 1e-6 * seen:
            faults.append(f"{name}: test accuracy {result.test_acc} by its result, another by its confidences")
        own = sizes.setdefault((config.model, ships_more(config.method)), set())
        own.add((result.params, result.macs) if result.status == "complete" else None)
    for (model, _), held in sizes.items():
        if len(held - {None}) > 1:
            faults.append(f"{model} has {len(held - {None})} different numbers of parameters or MACs")
    about = read_manifest(place)
    if (place / "table.csv").exists() and isinstance(about.get("spec"), dict):
        faults += _paper(place, about["spec"], runs)
    if (place / "sweep.json").exists():
        frame = load_trials(place, runs)
        points, pareto, value = judged(frame, about)
        with tempfile.TemporaryDirectory(prefix="kdbench-") as again:
            shifted = shifted_table(frame, {run.config.id: run.result.shifted for run in runs})
            write_tables(frame, points, pareto, value, Path(again), shifted)
            for table in TABLES:
                if (place / table).exists() and (place / table).read_bytes() != (Path(again) / table).read_bytes():
                    faults.append(f"{table}: the runs give another one (`kdbench report {place}` writes it)")
    return len(runs), faults


def _paper(place: Path, spec: dict[str, Any], runs: list[Run]) -> list[str]:
    """Rows of table.csv that the runs do not give; rows made of logits that it lacks as values.csv has them."""
    try:
        told = pd.read_csv(place / "table.csv", dtype=str, keep_default_na=False)
        request = Request(seeds=min(max(map(int, told["planned"])), len(runs)))
        table = paper_table(Protocol(PaperFile.model_validate(spec), request), Trials(place, runs))
    except (ValueError, KeyError) as error:
        return [f"table.csv or manifest.json: not a paper's ({str(error).splitlines()[0]})"]
    made = pd.read_csv(StringIO(csv(table.rows)), dtype=str, keep_default_na=False)
    told, made = (rows.drop(columns=["planned", "reason"]) for rows in (told, made))  # what was asked for, and where
    again = {row["cell"]: row for row in made.to_dict("records")}
    return [f"table.csv: the runs give another {row['cell']}" for row in told.to_dict("records")
            if again.get(row["cell"]) != row]  # fmt: skip
