"""The size saved at equal accuracy, in words and as a table."""

from __future__ import annotations

import math

import pandas as pd

from kdbench.report.numbers import millions, percent
from kdbench.report.render import Cell, Column, Grid

SAVED_LEGEND = (
    "For each hard-label student on the hard-label front: parameters at which the distilled front is as accurate "
    "(sizes are joined by straight lines of log parameters, nothing is extrapolated), and the share saved, with the "
    "95% interval over seeds. At most, at least, from: the smallest distilled size is already better, and nobody knows "
    "how much smaller it could be. Never: no distilled size is as accurate. With few noisy seeds the interval is too "
    "narrow."
)
SAVED_COLUMNS = (
    *("student", "method", "params", "baseline_acc", "needed", "saved", "saved_lo", "saved_hi", "reached"),
)
"""Columns of size_saved.csv, in order."""


def saved_grid(saved: pd.DataFrame) -> Grid:
    """``Worth.saved`` in words."""
    columns = [
        Column("student", "To match", left=True),
        Column("method", "Method", left=True),
        Column("acc", "Hard labels (%)"),
        Column("params", "Params"),
        Column("needed", "Params needed"),
        Column("saved", "Saved"),
        Column("bounds", "95% interval", optional=False),
    ]
    return Grid.of(columns, [_cells(row) for _, row in saved.iterrows()])


def _cells(row: pd.Series) -> dict[str, Cell | str]:
    accuracy, params = percent(row["baseline_acc"]), millions(row["params"])
    return {"student": row["student"], "method": row["method"], "acc": accuracy, "params": params, **words_of(row)}


def words_of(row: pd.Series) -> dict[str, str]:
    """``at most 0.58 M``, ``at least 44%``, ``10% to 45%`` (``from 10%``, ``undetermined``, empty)."""
    if row["reached"] == "never":
        return {"needed": "never", "saved": "", "bounds": _bounds(row)}
    smallest = row["reached"] == "smallest"
    needed, saved = millions(row["needed"]), share(row["saved"])
    return {
        "needed": f"at most {needed}" if smallest else needed,
        "saved": f"at least {saved}" if smallest else saved,
        "bounds": _bounds(row),
    }


def _bounds(row: pd.Series) -> str:
    lo, hi = row["saved_lo"], row["saved_hi"]
    if math.isnan(lo):
        return ""
    if hi >= 1:
        return "undetermined" if lo == -math.inf else f"from {share(lo)}"
    return f"{share(lo)} to {share(hi)}"


def fewer(row: pd.Series) -> str:
    """The share saved in a sentence: ``at least 44% fewer``, ``12% more``."""
    if round(row["saved"], 2) == 0:
        return "at least as few" if row["reached"] == "smallest" else "as many"
    return f"{words_of(row)['saved']} fewer" if row["saved"] > 0 else f"{share(-row['saved'])} more"


def share(fraction: float) -> str:
    """A size saved: ``44%``, or never."""
    return "never" if fraction == -math.inf else f"{percent(fraction, 0)}%"
