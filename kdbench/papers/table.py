"""Published beside ours: one row per cell with its interval and verdict, and what belongs under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from kdbench.catalog.datasets import DATASETS
from kdbench.papers.measures import Trials, Value, values
from kdbench.papers.plan import Protocol
from kdbench.papers.schema import DECIMALS, UNITS, Cell
from kdbench.report import render
from kdbench.report.numbers import COVERS, unknown
from kdbench.run.frame import named
from kdbench.stats import SURE_OF_ONE, prediction_interval, t_interval

Verdict = Literal["consistent", "higher", "lower", "cannot tell", "one run", "no spread", "ours only", "not run"]
COLUMNS = (
    render.Column("row", "Row", left=True),
    render.Column("unit", "Unit", left=True, spared=1),
    render.Column("published", "Published", short="Paper", optional=False),
    render.Column("ours", "Ours (last epoch)", short="Ours", optional=False),
    render.Column("best_epoch", "Ours (best epoch)", short="Best epoch", spared=3),
    render.Column("chosen_on_test", "Ours (bias chosen on test)", short="On test", spared=2),
    render.Column("difference", "Difference", short="Diff.", optional=False),
    render.Column("runs", "Runs", optional=False, spared=4),
    render.Column("verdict", "Verdict", left=True, optional=False),
)
_KINDS = {"consistent": "helps", "higher": "warn", "lower": "warn"}


@dataclass(frozen=True)
class PaperTable:
    """All selected rows and the values they are made of."""

    protocol: Protocol
    rows: pd.DataFrame
    """One row per cell, in the cell's unit, None or NaN where there is nothing: ``cell``, ``group``, ``column``,
    ``what``, ``unit``, ``published``, ``reported`` (how it was), ``ours`` (mean over seeds after the last epoch),
    ``lo`` and ``hi`` (its 95% t interval), ``best_epoch`` (mean of each run's best epoch on the test split),
    ``chosen_on_test`` (mean with the bias chosen there), ``runs``, ``planned``, ``difference``, ``verdict`` and
    ``reason`` (why it was not run)."""
    values: dict[str, list[Value]]

    def records(self) -> list[dict[str, Any]]:
        """A plain mapping per row, for JSON."""
        rows = self.rows.astype(object)
        return [
            {str(name): None if unknown(value) else value for name, value in row.items()}
            for row in rows.to_dict("records")
        ]

    def row(self, cell: str) -> Any:
        """The row of one cell, as a named tuple; None where it was not selected."""
        return next((row for row in named(self.rows) if row.cell == cell), None)


def paper_table(protocol: Protocol, trials: Trials, reason: str = "") -> PaperTable:
    """The table as far as the trials go; ``reason`` says why the missing runs were not made."""
    found = {cell.id: values(protocol, cell, trials) for cell in protocol.cells}
    rows = pd.DataFrame([_row(protocol, cell, found[cell.id], trials, reason) for cell in protocol.cells])
    return PaperTable(protocol, rows, found)


def legend(table: PaperTable) -> str:
    """What the columns mean and what their intervals cover."""
    each = table.protocol.paper.teachers == "each"
    covers = COVERS.replace("seeds, not another teacher,", "seeds and teachers (one per seed), not") if each else COVERS
    return (
        "Ours: mean ± half of the 95% t interval over seeds, after the last epoch. Difference and verdict compare like "
        "for like: our best epochs or our choice on test where the published number was chosen so and we have it. "
        "Consistent: a repetition of our runs gives such a number (95% prediction interval for a mean of as many runs "
        "as were published, one if not said); higher or lower says where ours lies, for one published run only outside "
        f"the {SURE_OF_ONE:.0%} interval (cannot tell: between the two). {covers}"
    )


def verdict_of(cell: Cell, found: Sequence[Value]) -> Verdict:
    """``consistent`` where the published number is one that a repetition of ours could have given (95%).

    A mean of as many runs as were published falls into the prediction interval of ours in 95% of exact replications,
    however many seeds ours has. Compared like for like: a number at its best epoch with our best epochs, one chosen on
    test with our choice on test. Otherwise ``higher`` or ``lower`` says where ours lies; a single published run must
    leave the interval of ``SURE_OF_ONE`` for that, and we ``cannot tell`` between the two.
    """
    if not found:
        return "not run"
    if cell.published is None:
        return "ours only"
    numbers, runs = judged(cell, found), cell.published_runs
    ours, lo, hi = prediction_interval(numbers, runs)
    if math.isnan(lo):
        return "one run" if len(found) < 2 else "no spread"
    if lo <= cell.published <= hi:
        return "consistent"
    _, lo, hi = prediction_interval(numbers, runs, SURE_OF_ONE if runs == 1 else 0.95)
    return "cannot tell" if lo <= cell.published <= hi else "higher" if ours > cell.published else "lower"


def judged(cell: Cell, found: Sequence[Value]) -> list[float]:
    """Our numbers that were chosen as the published one was; those after the last epoch where we have none such."""
    like = [getattr(value, cell.judged) for value in found]
    like = [value for value in like if not math.isnan(value)]
    return like or [value.last for value in found]


def _row(protocol: Protocol, cell: Cell, found: list[Value], trials: Trials, reason: str) -> dict[str, Any]:
    last = t_interval([value.last for value in found])
    ours, lo, hi = (None if math.isnan(x) else float(x) for x in last)
    return {
        "cell": cell.id, "group": cell.group, "column": cell.column, "what": cell.what, "unit": UNITS[cell.measure],
        "published": cell.published, "reported": cell.reported, "ours": ours, "lo": lo, "hi": hi,
        "best_epoch": _mean([value.best for value in found]),
        "chosen_on_test": _mean([value.on_test for value in found]),
        "runs": len(found), "planned": protocol.seed_count(protocol.paper.run(cell.run)) if cell.run else 0,
        "difference": _difference(cell, found),
        "verdict": verdict_of(cell, found),
        "reason": "" if ours is not None else _why(protocol, cell, trials, reason),
    }  # fmt: skip


def _difference(cell: Cell, found: Sequence[Value]) -> float | None:
    return float(np.mean(judged(cell, found))) - cell.published if found and cell.published is not None else None


def _why(protocol: Protocol, cell: Cell, trials: Trials, reason: str) -> str:
    """Why a cell has no number of ours."""
    if cell.run is None:
        return cell.reason
    failed = [error for status, error in _ends(protocol, cell.run, trials) if status == "failed"]
    if failed:
        return f"every run failed: {failed[0]}"
    teacher = protocol.paper.run(cell.run).teacher
    if teacher and any(status == "failed" for status, _ in _ends(protocol, teacher, trials)):
        return f"its teacher's run failed ({teacher})"
    return reason or data_reason(protocol.paper.dataset) or "not run yet"


def _ends(protocol: Protocol, name: str, trials: Trials) -> list[tuple[str, str | None]]:
    run = protocol.paper.run(name)
    held = (trials.get(protocol.config(run, k)) for k in range(protocol.seed_count(run)))
    return [(trial.result.status, trial.result.error) for trial in held if trial is not None]


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


def grid(table: PaperTable) -> render.Grid:
    """The rows in words, each group under its heading."""
    paper = table.protocol.paper
    rows: list[dict[str, render.Cell | str]] = []
    for row in named(table.rows):
        half = "" if unknown(row.lo) else f" ± {(row.hi - row.lo) / 2:.{_PLACES[row.unit]}f}"
        told = "" if row.verdict == "ours only" else row.verdict
        rows.append(
            {
                "row": f"{row.what}, {row.column}" if row.column else row.what,
                "unit": row.unit,
                **{name: _number(getattr(row, name), row.unit) for name in ("published", "best_epoch")},
                "ours": _number(row.ours, row.unit) + half,
                "chosen_on_test": _number(row.chosen_on_test, row.unit),
                "difference": _number(row.difference, row.unit, sign="+"),
                "runs": f"{row.runs} of {row.planned}" if row.runs < row.planned else str(row.runs or ""),
                "verdict": render.Cell(told, kind=_KINDS.get(told, "")),
            }
        )
    title = f"{paper.name}: {paper.title}"
    return render.Grid.of(COLUMNS, rows, groups=tuple(table.rows["group"]), title=title)


_PLACES = {UNITS[measure]: places for measure, places in DECIMALS.items()}


def _number(value: float | None, unit: str, *, sign: str = "") -> str:
    """A value in its unit's decimals; whole numbers of errors without any; empty for None."""
    if value is None or unknown(value):
        return ""
    places = 0 if unit == UNITS["errors"] and float(value).is_integer() else _PLACES[unit]
    return f"{value:{sign}.{places}f}"


def notes(table: PaperTable) -> list[tuple[str, list[str]]]:
    """What belongs under the table: (heading, lines)."""
    paper, request = table.protocol.paper, table.protocol.request
    cut = [(request.epochs, "epochs"), (request.limit, "training samples")]
    reasons = table.rows[table.rows["reason"] != ""].groupby("reason", sort=False)["cell"].agg(list)
    seeds = f"Seeds from {table.protocol.first_seed} on: other runs than those of {paper.name}, by the same protocol."
    listed = [
        ("A replication", [seeds] if table.protocol.replicates else []),
        ("Not run", [f"Not run ({_some(cells)}): {reason}" for reason, cells in reasons.items()]),
        (
            "Departures from the paper's protocol",
            [*(f"A rehearsal: at most {most} {what}." for most, what in cut if most), *paper.departures],
        ),
        ("The paper's protocol", list(paper.protocol)),
        ("Known disagreements", list(paper.disagreements)),
        ("Sources", [paper.citation, paper.source]),
    ]
    return [(head, lines) for head, lines in listed if lines]


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} and {len(names) - 1} more rows"
