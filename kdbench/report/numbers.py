"""Numbers and names as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile

import pandas as pd

COVERS = "Intervals cover other seeds, not another teacher, another search or other test images."
"""What stands under every table that has one."""


def unknown(value: object) -> bool:
    """Whether a cell of a frame holds nothing."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in percent or percentage points, without ever saying ``-0.0``; empty when unknown."""
    if unknown(fraction):
        return ""
    text = f"{100 * fraction:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(fraction: float, digits: int = 1) -> str:
    """``percent`` with a plus before what is above zero."""
    text = percent(fraction, digits)
    return f"+{text}" if text and float(text) > 0 else text


def bounds(lo: float, hi: float, digits: int = 1) -> str:
    """``[0.6, 2.0]``; empty without an interval."""
    return "" if unknown(lo) else f"[{percent(lo, digits)}, {percent(hi, digits)}]"


def spread(mean: float, lo: float, hi: float, digits: int = 1) -> str:
    """``89.7 ± 0.3`` in percent; an interval that was cut at 0 or 1 in full: ``68.5 [25.2, 100.0]``."""
    if unknown(lo):
        return percent(mean, digits)
    if abs((hi - mean) - (mean - lo)) > 1e-9:
        return f"{percent(mean, digits)} {bounds(lo, hi, digits)}"
    return f"{percent(mean, digits)} ± {percent(hi - mean, digits)}"


def number(value: float, form: str) -> str:
    """``value`` in a format, empty when unknown."""
    return "" if unknown(value) else format(value, form)


def decimals(pareto: pd.DataFrame) -> int:
    """Decimals of percentages in a table: 1, or 2 where 1 would round a gain or a bound to 0.0."""
    values = pareto[["gain", "gain_lo", "gain_hi"]].abs().to_numpy(dtype=float)
    return 2 if ((values > 1e-9) & (values < 0.0005)).any() else 1


def millions(count: object) -> str:
    """``0.58 M``, ``4.2 M``, ``1.3 G``, ``85 k``: three significant digits at most, empty when unknown."""
    if unknown(count):
        return ""
    value = float(count)  # type: ignore[arg-type]
    for unit, suffix in ((1e9, "G"), (1e5, "M"), (1e2, "k")):
        if value >= unit:
            scaled = value / (1e6 if suffix == "M" else 1e3 if suffix == "k" else unit)
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {suffix}"
    return f"{value:.0f}"


def tick(count: float) -> str:
    """``millions`` for an axis: ``0.5 M`` rather than ``0.50 M``."""
    digits, _, unit = millions(count).partition(" ")
    return f"{float(digits):g} {unit}".rstrip()


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
