"""Everything a sweep's report consists of, written into its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from kdbench.fsio import atomic_text
from kdbench.report import _figure_pareto
from kdbench.report._figure_search import temperature_alpha_figure
from kdbench.report._frames import conform_trials
from kdbench.report._html import page
from kdbench.report._pareto import table_of, verdicts
from kdbench.report._points import gather
from kdbench.report._render import render_table
from kdbench.report._style import save
from kdbench.report._tables import write_tables


@dataclass(frozen=True)
class ReportFiles:
    """What ``write_report`` wrote, and what it says. Prints as the table a person reads (rich)."""

    paths: dict[str, Path]
    """By file name: trials.parquet, trials.csv, pareto.csv, pareto.md, pareto.tex, pareto.png, pareto.svg,
    temperature_alpha.png, temperature_alpha.svg, report.html."""
    pareto: pd.DataFrame
    """The Pareto frame."""
    verdicts: list[str]
    """One line a row of ``pareto``."""
    notes: tuple[str, ...]
    """What is missing or was left out, one sentence each; empty for a whole sweep without failures."""

    def __rich__(self) -> RenderableType:
        """The table, then the notes."""
        return Group(render_table(self.pareto, self.verdicts), *(Text(note, style="yellow") for note in self.notes))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data: files, rows with their verdicts (unknown numbers are null), notes."""
        rows = [
            {name: None if value is pd.NA or value != value else value for name, value in row.items()}
            for row in self.pareto.astype(object).to_dict("records")
        ]
        return {
            "files": {name: str(path) for name, path in self.paths.items()},
            "rows": [{**row, "verdict": verdict} for row, verdict in zip(rows, self.verdicts, strict=True)],
            "notes": list(self.notes),
        }


def write_report(
    out: Path,
    trials: pd.DataFrame,
    manifest: Mapping[str, Any] | None = None,
    latency: Mapping[str, float] | None = None,
) -> ReportFiles:
    """Write tables, figures and report.html into ``out`` from a trials frame, whole or partial.

    A sweep that was interrupted leaves what can be said so far, with notes on what is missing. Equal
    input gives equal bytes (parquet and PNG: with the same versions of their libraries). Each file is
    replaced whole or not at all. ``manifest`` is shown in the page and is not written.

    Args:
        out: the sweep's folder, made if absent.
        trials: the trials frame of one sweep.
        manifest: JSON data on where the numbers come from; of its keys ``command`` (the command line
            that made the sweep, a string) serves to say how to rerun a point.
        latency: milliseconds of one batch-1 forward, by student.

    Raises:
        BadInput: when ``trials`` is no trials frame, or of several data sets or teachers.
        OSError: when ``out`` cannot be written.
    """
    frame = conform_trials(trials)
    points = gather(frame)
    pareto = table_of(points, latency)
    lines = verdicts(pareto)
    paths = write_tables(frame, pareto, out)
    paths |= save(_figure_pareto.draw(points), out, "pareto")
    paths |= save(temperature_alpha_figure(frame), out, "temperature_alpha")
    search_picture = paths["temperature_alpha.svg"].read_text(encoding="utf-8")
    html = page(frame, points, pareto, manifest or {}, search_picture)
    atomic_text(out / "report.html", html)
    paths["report.html"] = out / "report.html"
    return ReportFiles(paths, pareto, lines, points.notes)
