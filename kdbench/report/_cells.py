"""What the rows of a Pareto table look like to a person: the same strings in Markdown, LaTeX, terminal and HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import pandas as pd

from kdbench.report._frames import HARD
from kdbench.report._pareto import Verdict, decimals, judge, points, signed
from kdbench.stats import pareto_front


@dataclass(frozen=True)
class Row:
    """One row in words: percent for accuracies, percentage points for gains, empty where unknown."""

    student: str
    params: str
    macs: str
    latency: str
    method: str
    temperature: str
    alpha: str
    accuracy: str
    """Mean test accuracy, percent."""
    half: str
    """Half width of its 95% interval, or empty."""
    baseline: str
    gain: str
    """Signed points, e.g. ``+1.3``."""
    bounds: str
    """``[0.6, 2.0]``, or empty."""
    seeds: str
    on_front: bool
    baseline_on_front: bool
    """Whether the student's hard-label point is on the front."""
    chance: str
    """Chance of the distilled point being on the front, percent."""
    verdict: Verdict


def rows_of(pareto: pd.DataFrame) -> list[Row]:
    """One ``Row`` a row of ``pareto``."""
    digits = decimals(pareto)
    baselines = _baselines_on_front(pareto)
    records = pareto.to_dict("records")
    found = []
    for record, verdict, baseline in zip(records, judge(pareto), baselines, strict=True):
        lo, hi = record["gain_lo"], record["gain_hi"]
        hard = record["method"] == HARD
        found.append(
            Row(
                student=str(record["student"]),
                params=millions(record["params"]),
                macs=millions(record["macs"]),
                latency=_number(record["latency_ms"], ".1f"),
                method=str(record["method"]),
                temperature="" if hard else _number(record["temperature"], ".3g"),
                alpha="" if hard else _number(record["alpha"], ".2f"),
                accuracy=_percent(record["test_acc"], digits),
                half=half_width(record["test_acc"], record["test_acc_lo"], record["test_acc_hi"], digits),
                baseline=_percent(record["baseline_acc"], digits),
                gain="" if _unknown(record["gain"]) else signed(record["gain"], digits),
                bounds="" if _unknown(lo) else f"[{points(lo, digits)}, {points(hi, digits)}]",
                seeds=str(record["n_seeds"]),
                on_front=bool(record["on_front"]),
                baseline_on_front=baseline,
                chance=_percent(record["p_on_front"], 0),
                verdict=verdict,
            )
        )
    return found


def _baselines_on_front(pareto: pd.DataFrame) -> list[bool]:
    """Whether each row's hard-label point is on the front of all points in the table."""
    params = pareto["params"].to_numpy(dtype=float, na_value=np.nan)
    scores = np.concatenate([pareto["test_acc"].to_numpy(dtype=float), pareto["baseline_acc"].to_numpy(dtype=float)])
    # A hard-only row stands in both halves; equal duplicates are both on the front, so nothing changes.
    mask: list[bool] = pareto_front(np.tile(params, 2), np.round(scores, 12))[len(pareto) :].tolist()
    return mask


def half_width(mean: float, lo: float, hi: float, digits: int = 1) -> str:
    """Half of an interval in percent; of one cut at 0 or 1, the uncut side. Empty without an interval."""
    return "" if _unknown(lo) else points(max(mean - lo, hi - mean), digits)


def millions(count: object) -> str:
    """``0.58 M``, ``4.2 M``, ``1.3 G``, ``85 k``: three significant digits at most, empty when unknown."""
    if _unknown(count):
        return ""
    value = float(count)  # type: ignore[arg-type]
    for unit, suffix in ((1e9, "G"), (1e5, "M"), (1e2, "k")):
        if value >= unit:
            scaled = value / (1e6 if suffix == "M" else 1e3 if suffix == "k" else unit)
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {suffix}"
    return f"{value:.0f}"


def tick(count: float) -> str:
    """``millions`` for an axis: ``0.5 M`` rather than ``0.50 M``."""
    number, _, unit = millions(count).partition(" ")
    return f"{float(number):g} {unit}".rstrip()


def shared_prefix(names: Sequence[str]) -> str:
    """The whole words that all ``names`` begin with, separator included (``mobilenetv3_``); empty for one name."""
    distinct = set(names)
    if len(distinct) < 2:
        return ""
    first, last = min(distinct), max(distinct)  # what these two share, all names between them share
    prefix = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return prefix[: max(map(prefix.rfind, "_-/")) + 1]


def short_names(students: Sequence[str], *, prefix: bool = True) -> dict[str, str]:
    """Names without timm's weights tag and, if ``prefix``, without the words they share, as long as they stay distinct.

    ``mobilenetv3_small_050.lamb_in1k`` beside other mobilenetv3 becomes ``small_050``.
    """
    names = {student: student.split(".")[0] or student for student in students}
    if len(set(names.values())) < len(names):
        names = {student: student for student in students}
    shared = shared_prefix(list(names.values())) if prefix else ""
    return {student: name.removeprefix(shared) for student, name in names.items()}


def _unknown(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _percent(fraction: float, digits: int) -> str:
    return "" if _unknown(fraction) else points(fraction, digits)


def _number(value: float, form: str) -> str:
    return "" if _unknown(value) else format(value, form)
