"""Shapes of the two frames, and the trials frame put into its fixed order and types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from kdbench.config import PHASES
from kdbench.errors import BadInput

_TEXT = ("sweep", "trial_id", "phase", "status", "dataset", "teacher", "student", "method", "hardware", "wandb_run")
_WHOLE = ("seed", "params", "macs", "epochs")

TRIAL_COLUMNS: tuple[str, ...] = (
    *("sweep", "trial_id", "phase", "status", "dataset", "teacher", "student", "method", "temperature", "alpha"),
    *("seed", "params", "macs", "epochs", "val_acc", "test_acc", "best_val_acc", "nll", "ece", "agreement"),
    *("seconds", "hardware", "wandb_run"),
)
"""Columns of trials.csv, in order; a method's further hyper-parameters follow as ``hyper_<name>``."""

PARETO_COLUMNS: tuple[str, ...] = (
    *("student", "params", "macs", "latency_ms", "method", "temperature", "alpha", "n_seeds"),
    *("test_acc", "test_acc_lo", "test_acc_hi", "baseline_acc", "gain", "gain_lo", "gain_hi", "p_value"),
    *("on_front", "p_on_front", "teacher_acc"),
)
"""Columns of pareto.csv, in order."""

HARD = "hard"
"""The method that every other one is paired with."""


class History(NamedTuple):
    """What the trials table leaves out of a run."""

    val_acc: Sequence[float]
    """Validation accuracy (fraction) after each epoch."""
    reliability: Sequence[tuple[int, float, int]] | None = None
    """(samples, sum of confidences, correct) a bin of confidence on the test split, where kept."""


def conform_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """A copy with exactly the contract's columns (absent optional ones empty), types and row order.

    Rows: by phase, then students in ascending parameters, method, seed; rows that tie keep the order
    given, so the trials of a search stay in the order they were asked in. A sweep that was interrupted
    and resumed therefore leaves the same file as one that was not.

    Raises:
        BadInput: when a column that identifies a row is missing, a phase or status is unknown, or a
            trial id appears twice.
    """
    needed = [name for name in ("trial_id", "phase", "status", "student", "method", "seed") if name not in trials]
    if needed and len(trials):
        raise BadInput(f"the trials table lacks the column(s) {', '.join(needed)}; it has {', '.join(trials.columns)}")
    hyper = sorted(name for name in trials.columns if name.startswith("hyper_"))
    frame = trials.reindex(columns=[*TRIAL_COLUMNS, *hyper]).reset_index(drop=True)
    for name in frame.columns:
        if name in _TEXT:
            frame[name] = frame[name].astype("string")
        elif name in _WHOLE:
            frame[name] = pd.to_numeric(frame[name]).astype("Int64")
        else:
            frame[name] = pd.to_numeric(frame[name]).astype("float64")
    _check(frame)
    return _ordered(frame)


def _check(frame: pd.DataFrame) -> None:
    for column, allowed in (("phase", PHASES), ("status", ("complete", "pruned", "failed"))):
        strange = sorted(set(frame[column].fillna("(empty)")) - set(allowed))
        if strange:
            raise BadInput(f"unknown {column} '{strange[0]}' in the trials table; it may be {', '.join(allowed)}")
    twice = frame["trial_id"][frame["trial_id"].notna() & frame["trial_id"].duplicated()]
    if len(twice):
        raise BadInput(f"trial '{twice.iloc[0]}' is in the trials table twice; keep its last attempt only")


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    size = frame["student"].map(frame.groupby("student")["params"].max()).astype("Float64")
    keys = pd.DataFrame(
        {
            "phase": frame["phase"].map({name: index for index, name in enumerate(PHASES)}),
            "unsized": ~(size > 0).fillna(False).astype(bool),
            "size": size.fillna(0.0).astype("float64"),
            "student": frame["student"].fillna(""),
            "distilled": (frame["method"] != HARD).fillna(True).astype(bool),
            "method": frame["method"].fillna(""),
            "seed": frame["seed"].fillna(-1).astype("int64"),
        }
    )
    return frame.loc[keys.sort_values(list(keys.columns), kind="stable").index].reset_index(drop=True)


def the_only(frame: pd.DataFrame, column: str) -> str | None:
    """The one value of ``column``; None when it is empty everywhere.

    Raises:
        BadInput: when there are several, because their rows cannot share one table.
    """
    values = sorted(frame[column].dropna().unique())
    if len(values) > 1:
        raise BadInput(f"one table cannot hold several values of '{column}': {', '.join(map(str, values))}")
    return str(values[0]) if values else None
