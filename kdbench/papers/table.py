"""Published beside ours: one row a cell with its interval and verdict; no files, no formatting."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from kdbench.catalog.datasets import DATASETS
from kdbench.config import RunResult
from kdbench.papers.measures import Trials, Value, values
from kdbench.papers.plan import Protocol
from kdbench.papers.schema import UNITS, Cell
from kdbench.stats import t_interval

Verdict = Literal["reproduced", "higher", "lower", "one run", "no spread", "ours only", "not run"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell, published and ours, in the cell's unit; None where there is nothing."""

    cell: str
    group: str
    column: str
    what: str
    unit: str
    published: float | None
    reported: str
    ours: float | None
    """Mean over seeds, after the last epoch."""
    lo: float | None
    """95% t interval of that mean."""
    hi: float | None
    best_epoch: float | None
    """Mean over seeds of each run's best epoch on the test split."""
    chosen_on_test: float | None
    """Mean over seeds with the bias chosen on the test split."""
    runs: int
    planned: int
    difference: float | None
    """Ours minus published."""
    verdict: Verdict
    reason: str
    """Why it was not run."""


@dataclass(frozen=True)
class PaperTable:
    """All selected rows and the values they are made of."""

    protocol: Protocol
    rows: tuple[Row, ...]
    values: dict[str, list[Value]]

    def records(self) -> list[dict[str, Any]]:
        """A plain mapping a row, for JSON and CSV."""
        return [asdict(row) for row in self.rows]


def paper_table(protocol: Protocol, trials: Trials, reason: str = "") -> PaperTable:
    """The table as far as the trials go; ``reason`` says why the missing runs were not made."""
    found = {cell.id: values(protocol, cell, trials) for cell in protocol.cells}
    rows = tuple(_row(protocol, cell, found[cell.id], trials, reason) for cell in protocol.cells)
    return PaperTable(protocol, rows, found)


def verdict_of(published: float | None, ours: float | None, lo: float | None, hi: float | None, runs: int) -> Verdict:
    """``reproduced`` where the published value lies in the interval of ours; else where ours lies: higher or lower."""
    if ours is None:
        return "not run"
    if published is None:
        return "ours only"
    if lo is None or hi is None:
        return "one run" if runs < 2 else "no spread"
    if lo <= published <= hi:
        return "reproduced"
    return "higher" if ours > published else "lower"


def _row(protocol: Protocol, cell: Cell, found: list[Value], trials: Trials, reason: str) -> Row:
    last = t_interval([value.last for value in found])
    ours, lo, hi = (None if math.isnan(x) else float(x) for x in last)
    planned = protocol.seed_count(protocol.paper.run(cell.run)) if cell.run else 0
    difference = None if ours is None or cell.published is None else ours - cell.published
    return Row(
        cell=cell.id, group=cell.group, column=cell.column, what=cell.what, unit=UNITS[cell.measure],
        published=cell.published, reported=cell.reported, ours=ours, lo=lo, hi=hi,
        best_epoch=_mean([value.best for value in found]), chosen_on_test=_mean([value.on_test for value in found]),
        runs=len(found), planned=planned, difference=difference,
        verdict=verdict_of(cell.published, ours, lo, hi, len(found)),
        reason="" if ours is not None else _why(protocol, cell, trials, reason),
    )  # fmt: skip


def _why(protocol: Protocol, cell: Cell, trials: Trials, reason: str) -> str:
    """Why a cell has no number of ours."""
    if cell.run is None:
        return cell.reason
    failed = [result.error for result in _results(protocol, cell.run, trials) if result.status == "failed"]
    if failed:
        return f"every run failed: {failed[0]}"
    teacher = protocol.paper.run(cell.run).teacher
    if teacher and any(result.status == "failed" for result in _results(protocol, teacher, trials)):
        return f"its teacher's run failed ({teacher})"
    return reason or data_reason(protocol.paper.dataset) or "not run yet"


def _results(protocol: Protocol, name: str, trials: Trials) -> list[RunResult]:
    run = protocol.paper.run(name)
    held = (trials.get(protocol.config(run, k)) for k in range(protocol.seed_count(run)))
    return [trial.result for trial in held if trial is not None]


def data_reason(dataset: str) -> str:
    """What to do where the data set is not on this machine; empty where it is."""
    from kdbench.data.places import candidates, locate, markers

    if dataset == "digits" or locate(dataset) is not None:
        return ""
    shown = " or ".join(mark for mark in markers(dataset) if mark)
    places = ", ".join(str(folder) for folder, _ in candidates(dataset))
    source = DATASETS.get(dataset).source
    return f"{dataset} is not on this machine: put {shown} into one of {places} ({source})"


def _mean(numbers: list[float]) -> float | None:
    kept = [number for number in numbers if not math.isnan(number)]
    return float(np.mean(kept)) if kept else None
