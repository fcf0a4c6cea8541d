"""What the verbs share: consoles, tables, JSON output and finding a sweep's folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from kdbench.errors import BadInput, suggestion
from kdbench.run.words import counted, duration

if TYPE_CHECKING:
    from kdbench.run.estimate import DryRun

ROW_WIDTH, PAGE_WIDTH = 10_000, 140
SPEC_FILE = "sweep.json"
"""What makes a folder a sweep's: its resolved spec."""


def console(width: int = ROW_WIDTH) -> Console:
    """Results go to stdout; without a terminal in ``width`` columns, by default so many that a row stays one line."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=width)


def print_json(value: Any, *, line: bool = False) -> None:
    """``value`` as JSON on stdout, indented or on one line; paths and other objects as their text."""
    text = json.dumps(value, indent=None if line else 2, default=str, ensure_ascii=False)
    sys.stdout.write(text + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, whole: int = 1) -> None:
    """A plain table; None shows as an empty cell. The first ``whole`` columns, which hold names, are never folded."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=place < whole)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))  # Text: brackets are no markup
    console().print(table)


def find_sweep(sweep: str, out: Path, *, series: bool = False) -> Path:
    """The folder of the sweep (or ``series``) called ``sweep`` under ``out``, or the folder ``sweep`` itself.

    Raises:
        BadInput: when no sweep is there, with those that are.
    """
    out = out.expanduser()
    for folder in (out / sweep, Path(sweep).expanduser()):
        if (folder / SPEC_FILE).is_file() or (series and any(folder.glob(f"*/{SPEC_FILE}"))):
            return folder
    there = sorted(path.parent.name for path in out.glob(f"*/{SPEC_FILE}"))
    known = f" (there: {', '.join(there)})" if there else f" ('{out}' holds no sweep)"
    raise BadInput(f"no sweep '{sweep}'{suggestion(sweep, there) or known}")


def show_plan(plan: DryRun, *, as_json: bool) -> None:
    """What a plan would do, and about how long it would take."""
    if as_json:
        print_json({**asdict(plan), "seconds": plan.seconds})
        return
    rows = [
        (row.phase, row.label, row.method, row.runs, row.done or "", row.epochs, f"{row.params:,}",
         "?" if row.seconds is None else duration(row.seconds))
        for row in plan.rows
    ]  # fmt: skip
    title = f"{plan.name} -> {plan.folder}"
    columns = ("phase", "run", "method", "runs", "done", "epochs", "parameters", "time")
    print_table(title, columns, rows, whole=2)
    total = f"about {duration(plan.seconds)}" if plan.seconds is not None else "of unknown length"
    left = sum(max(row.runs - row.done, 0) for row in plan.rows)
    runs, workers = counted(left, "run"), counted(plan.workers, "worker")
    sys.stdout.write(f"\n{runs} to do, {total} with {workers} on {plan.hardware}. Nothing was run.\n")
    sys.stdout.writelines(f"{note}\n" for note in plan.notes)


def show_plans(plans: Sequence[DryRun], *, as_json: bool) -> None:
    """``show_plan`` of each sweep of a series, and how long all of them take."""
    times = [plan.seconds for plan in plans]
    seconds = None if None in times else sum(time or 0.0 for time in times)
    if as_json:
        print_json({"sweeps": [{**asdict(plan), "seconds": plan.seconds} for plan in plans], "seconds": seconds})
        return
    for plan in plans:
        show_plan(plan, as_json=False)
        sys.stdout.write("\n")
    total = "of unknown length" if seconds is None else f"about {duration(seconds)}"
    sys.stdout.write(f"{counted(len(plans), 'sweep')}, {total} in all; runs that two of them share are counted once.\n")


def show_report(folder: Path, *, as_json: bool) -> None:
    """Write the report of the sweep, or series, in ``folder``; print its table and where the rest is, or as JSON."""
    from kdbench.result import Result
    from kdbench.series import Series

    if not (folder / SPEC_FILE).is_file():
        series = Series(folder).report()
        if as_json:
            print_json({"event": "series", "folder": str(folder), **series.as_json()}, line=True)
        else:
            console(PAGE_WIDTH).print(series)
            console(PAGE_WIDTH).print(f"\nFigures and tables: {folder}", soft_wrap=True)
        return
    report = Result(folder).report()
    if as_json:
        print_json({"event": "report", "folder": str(folder), **report.as_json()}, line=True)
        return
    screen = console(PAGE_WIDTH)
    screen.print(report)
    screen.print(f"\nFigures and tables: {report.paths['report.html']}", soft_wrap=True)
