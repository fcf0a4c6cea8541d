"""The Pareto table of a sweep, and the verdict on each of its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from kdbench.report._frames import HARD, PARETO_COLUMNS
from kdbench.report._points import Point, Points, gather
from kdbench.stats import holm, paired_difference

LEVEL = 0.05
"""Chance of one or more false verdicts in a table when no method makes a difference."""


def pareto_table(trials: pd.DataFrame, latency: Mapping[str, float] | None = None) -> pd.DataFrame:
    """One row a (student, method), by ascending parameters, with the columns of ``PARETO_COLUMNS``.

    - ``test_acc`` and its bounds: mean over seeds and 95% t interval (normal noise between seeds
      assumed; cut to [0, 1]). ``n_seeds``: the seeds it is over, shared with the hard labels.
    - ``baseline_acc``: the same student on hard labels, same seeds. ``gain``: paired difference, 95% t
      interval; ``p_value``: raw two-sided paired t-test (normal differences assumed; see
      ``kdbench.stats.paired_difference``). ``verdicts`` corrects it for the number of rows.
    - With one seed, or no spread at all between the seeds, bounds are NaN.
    - ``on_front``: whether this row's point is on the Pareto front of (parameters, mean accuracy) over
      ALL points, every student's hard-label point included: a size whose hard labels win has a row that
      is off the front. ``p_on_front``: bootstrap chance of that over seeds.
    - A student with hard-label runs only has a row with method ``hard`` and no gain.
    - Failed runs are left out; ``write_report`` notes how many.

    Args:
        trials: the trials frame of one sweep (one data set, one teacher); may be empty or partial.
        latency: milliseconds of one batch-1 forward, by student.

    Raises:
        BadInput: when ``trials`` is no trials frame, or of several data sets or teachers.
    """
    return table_of(gather(trials), latency)


def table_of(points: Points, latency: Mapping[str, float] | None = None) -> pd.DataFrame:
    """``pareto_table`` of points already gathered."""
    rows = []
    for student in points.students:
        own = [point for point in points.all if point.student == student]
        hard = points.find(student, HARD)
        distilled = [point for point in own if point.method != HARD]
        for point in distilled or own:
            rows.append({**_row(point, hard), "latency_ms": (latency or {}).get(student, math.nan)})
    frame = pd.DataFrame(rows, columns=list(PARETO_COLUMNS)).assign(teacher_acc=points.teacher_acc)
    whole = {"params": "Int64", "macs": "Int64", "n_seeds": "int64", "on_front": "bool"}
    text = {"student": "string", "method": "string"}
    return frame.astype({name: {**whole, **text}.get(name, "float64") for name in PARETO_COLUMNS})


def _row(point: Point, hard: Point | None) -> dict[str, Any]:
    mean, lo, hi = point.interval
    row: dict[str, Any] = {
        "student": point.student,
        "params": point.params,
        "macs": point.macs,
        "method": point.method,
        "temperature": point.temperature,
        "alpha": point.alpha,
        "n_seeds": len(point.scores),
        "test_acc": mean,
        "test_acc_lo": lo,
        "test_acc_hi": hi,
        "on_front": point.on_front,
        "p_on_front": point.p_on_front,
    }
    if hard is None:
        return row
    common = sorted(set(point.scores) & set(hard.scores))
    own, partner = [point.scores[seed] for seed in common], [hard.scores[seed] for seed in common]
    row["baseline_acc"] = sum(partner) / len(partner) if common else hard.interval.mean
    if point.method != HARD and common:
        row["gain"], row["gain_lo"], row["gain_hi"], row["p_value"], _ = paired_difference(own, partner)
    return row


@dataclass(frozen=True)
class Verdict:
    """What may be said of one row of the Pareto table."""

    kind: Literal["helps", "hurts", "none", "unknown"]
    text: str
    """One line, e.g. ``+1.3 points [0.6, 2.0], 5 seeds: distilling helps``."""
    short: str
    """The conclusion alone."""
    caveat: str = ""
    """Why the conclusion is weaker than the interval looks, or empty."""
    p_holm: float = math.nan
    """p after Holm's correction over all rows."""


def verdicts(pareto: pd.DataFrame) -> list[str]:
    """One line a row of ``pareto``, in its order, without the student's name.

    ``distilling helps`` (or ``hurts``) is said only when the paired t-test, Holm-corrected over all rows
    of the table (the sizes, times the methods compared), is below 0.05: the chance of even one false
    claim in the table is then at most 5%. The line says so when the interval alone excludes 0 but the
    correction does not let it count.
    """
    return [verdict.text for verdict in judge(pareto)]


def judge(pareto: pd.DataFrame) -> list[Verdict]:
    """``verdicts`` with their kinds, for colouring."""
    corrected = holm(pareto["p_value"].to_numpy(dtype=float))
    tested = int(pareto["p_value"].notna().sum())
    digits = decimals(pareto)
    rows = pareto.to_dict("records")
    return [_verdict(row, float(p), tested, digits) for row, p in zip(rows, corrected, strict=True)]


def _verdict(row: dict[Any, Any], p_holm: float, tested: int, digits: int) -> Verdict:
    gain, lo, hi, n = row["gain"], row["gain_lo"], row["gain_hi"], int(row["n_seeds"])
    if pd.isna(gain):
        only_hard = row["method"] == HARD
        text = (
            "hard labels only, nothing distilled yet"
            if only_hard
            else "no hard-label run on the same seeds to compare with"
        )
        return Verdict("unknown", text, "no distilled run" if only_hard else "no baseline")
    seeds = f"{n} seed{'s' * (n != 1)}"
    if math.isnan(p_holm):
        short, caveat = "cannot tell", "one seed gives no interval"
        return Verdict("unknown", f"{signed(gain, digits)} points, {seeds}: {short} ({caveat})", short, caveat)
    kind: Literal["helps", "hurts", "none"] = "none"
    if p_holm < LEVEL:
        kind = "helps" if gain > 0 else "hurts"
    short = {"helps": "distilling helps", "hurts": "distilling hurts", "none": "no difference seen"}[kind]
    caveat = ""
    if pd.isna(lo):
        bounds, caveat = "", "all seeds gave the same difference, so there is no interval"
    else:
        bounds = f" [{points(lo, digits)}, {points(hi, digits)}]"
        if kind == "none" and (lo > 0 or hi < 0):
            caveat = (
                f"the interval alone excludes 0, Holm's correction over {tested} comparisons does not: p = {p_holm:.2g}"
            )
    text = f"{signed(gain, digits)} points{bounds}, {seeds}: {short}" + (f" ({caveat})" if caveat else "")
    return Verdict(kind, text, short, caveat, p_holm)


def decimals(pareto: pd.DataFrame) -> int:
    """Decimals of percentages in a table: 1, or 2 where 1 would round a gain or a bound to 0.0."""
    values = pareto[["gain", "gain_lo", "gain_hi"]].abs().to_numpy(dtype=float)
    return 2 if ((values > 1e-9) & (values < 0.0005)).any() else 1


def points(fraction: float, digits: int = 1) -> str:
    """A fraction in percent or percentage points, without ever saying ``-0.0``."""
    text = f"{100 * fraction:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(fraction: float, digits: int = 1) -> str:
    """``points`` with a plus before what is above zero."""
    text = points(fraction, digits)
    return f"+{text}" if float(text) > 0 else text
