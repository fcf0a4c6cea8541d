"""Frames in; tables, figures and a page out. Never imports torch.

- ``pareto_table``, ``verdicts``: a trials frame to the Pareto frame and one line a row.
- ``write_tables``: both frames as parquet, CSV, Markdown and LaTeX.
- ``pareto_figure``, ``temperature_alpha_figure``: matplotlib figures of a trials frame.
- ``render_table``: the Pareto table on a terminal.
- ``write_report``: all of it into a sweep's folder, whatever phases are there; with the runs' ``History`` their
  learning curves and calibration as well. Figures are PNG, SVG and PDF.
- ``drawing`` (a module): the style and the names, for scripts that draw figures of their own.

Names load what they need on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdbench.report._figure_pareto import pareto_figure
    from kdbench.report._figure_search import temperature_alpha_figure
    from kdbench.report._frames import PARETO_COLUMNS, TRIAL_COLUMNS, History
    from kdbench.report._pareto import pareto_table, verdicts
    from kdbench.report._points import gather
    from kdbench.report._render import render_table
    from kdbench.report._tables import write_tables
    from kdbench.report._write import ReportFiles, draw_figures, write_report

_HOMES = {
    "History": "_frames",
    "PARETO_COLUMNS": "_frames",
    "TRIAL_COLUMNS": "_frames",
    "ReportFiles": "_write",
    "draw_figures": "_write",
    "gather": "_points",
    "pareto_figure": "_figure_pareto",
    "pareto_table": "_pareto",
    "render_table": "_render",
    "temperature_alpha_figure": "_figure_search",
    "verdicts": "_pareto",
    "write_report": "_write",
    "write_tables": "_tables",
}

__all__ = [
    "History",
    "PARETO_COLUMNS",
    "TRIAL_COLUMNS",
    "ReportFiles",
    "draw_figures",
    "gather",
    "pareto_figure",
    "pareto_table",
    "render_table",
    "temperature_alpha_figure",
    "verdicts",
    "write_report",
    "write_tables",
]


def __getattr__(name: str) -> object:
    """The public name ``name``, from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
