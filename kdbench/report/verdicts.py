"""What may be said of each row of the Pareto table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from kdbench.config import CONTROLS, HARD
from kdbench.report.numbers import bounds, decimals, signed, unknown
from kdbench.run.words import counted
from kdbench.stats import LEVEL, holm


@dataclass(frozen=True)
class Verdict:
    """What may be said of one row of the Pareto table."""

    kind: Literal["helps", "hurts", "none", "unknown"]
    text: str
    """One line, e.g. ``+1.3 points [0.6, 2.0], 5 seeds: distilling helps``."""
    short: str
    """The conclusion alone: ``helps``, ``hurts``, ``no difference``, ``cannot tell``, or what is missing."""
    caveat: str = ""
    """Why the conclusion is weaker than the interval looks, or empty."""
    p_holm: float = math.nan
    """p after Holm's correction over all rows."""


def verdicts(pareto: pd.DataFrame) -> list[str]:
    """One line per row of ``pareto``, in its order, without the student's name.

    ``distilling helps`` (or ``hurts``) is said only when the paired t-test, Holm-corrected over all rows of the table
    (the sizes, times the methods compared), is below 0.05: the chance of even one false claim in the table is then at
    most 5%. Rows of controls are a family of their own. The line says so when the interval alone excludes 0 but the
    correction does not let it count.
    """
    return [verdict.text for verdict in judge(pareto)]


def judge(pareto: pd.DataFrame) -> list[Verdict]:
    """``verdicts`` with their kinds."""
    raw, digits = pareto["p_value"].to_numpy(dtype=float), decimals(pareto)
    control = pareto["method"].isin([*CONTROLS]).to_numpy(dtype=bool)
    corrected, tested = np.array(raw), np.zeros(len(raw), dtype=int)
    for family in (control, ~control):
        corrected[family], tested[family] = holm(raw[family]), np.isfinite(raw[family]).sum()
    rows = zip(pareto.to_dict("records"), corrected, tested, strict=True)
    return [_verdict(row, float(p), int(n), digits) for row, p, n in rows]


def _verdict(row: dict[Any, Any], p_holm: float, tested: int, digits: int) -> Verdict:
    gain, lo, hi, n = row["gain"], row["gain_lo"], row["gain_hi"], int(row["n_seeds"])
    if unknown(gain):
        if row["method"] == HARD:
            return Verdict("unknown", "hard labels only, nothing distilled yet", "no distilled run")
        return Verdict("unknown", "no hard-label run on the same seeds to compare with", "no baseline")
    start, seeds, several = f"{signed(gain, digits)} points", counted(n, "seed"), int(row.get("n_replicates", 1))
    seeds = f"{counted(several, 'replicate')} of {seeds}" if several > 1 else seeds
    if math.isnan(p_holm):
        short, caveat = "cannot tell", "one seed gives no interval"
        return Verdict("unknown", f"{start}, {seeds}: {short} ({caveat})", short, caveat)
    kind: Literal["helps", "hurts", "none"] = "none"
    if p_holm < LEVEL:
        kind = "helps" if gain > 0 else "hurts"
    short = "no difference" if kind == "none" else kind
    caveat = ""
    if unknown(lo):
        caveat = "all seeds gave the same difference, so there is no interval"
    elif kind == "none" and (lo > 0 or hi < 0):
        caveat = (
            f"the interval alone excludes 0, Holm's correction over {tested} comparisons does not: p = {p_holm:.2g}"
        )
    said = short if kind == "none" else f"{CONTROLS.get(row['method'], 'distilling')} {short}"
    text = f"{start} {bounds(lo, hi, digits)}".rstrip() + f", {seeds}: {said}" + (f" ({caveat})" if caveat else "")
    return Verdict(kind, text, short, caveat, p_holm)


def headline(pareto: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """One sentence for each of ``methods``: at how many sizes it helps, hurts, or these seeds show no difference."""
    told = pareto.assign(kind=[verdict.kind for verdict in judge(pareto)])
    lines = []
    for method in methods:
        rows = told[told["method"] == method]
        counts = {kind: int((rows["kind"] == kind).sum()) for kind in ("helps", "hurts", "none", "unknown")}
        said = {
            "helps": f"helps at {counts['helps']} of {counted(len(rows), 'size')}",
            "hurts": f"hurts at {counts['hurts']}",
            "none": f"makes no difference that these seeds could show at {counts['none']}",
            "unknown": f"cannot be judged at {counts['unknown']}",
        }
        kept = [said[kind] for kind, count in counts.items() if count or kind == "helps"]
        gains = [gain for gain in rows["gain"] if not unknown(gain)]
        span = f" Gains run from {signed(min(gains))} to {signed(max(gains))} points." if len(gains) > 1 else ""
        lines.append(f"Distilling by {method} {', '.join(kept)}.{span}")
    return lines
