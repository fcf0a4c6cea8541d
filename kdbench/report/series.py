"""A series: sweeps side by side in one folder, as one table with teacher and epochs as dimensions; its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from rich.console import Group, RenderableType
from rich.text import Text

from kdbench.config import CONTROLS, HARD
from kdbench.errors import BadInput, unknown
from kdbench.files import atomic_text
from kdbench.report.numbers import millions, percent, short_names, signed, spread
from kdbench.report.points import Points
from kdbench.report.render import Column, Grid, Screen, csv, markdown
from kdbench.report.report import judged
from kdbench.report.style import (
    DASHES,
    INK,
    METHOD_COLOURS,
    METHOD_MARKERS,
    below,
    new_figure,
    save,
    style,
)
from kdbench.run.frame import named
from kdbench.run.manifest import read_manifest
from kdbench.run.words import counted
from kdbench.stats import smallest_crossed_gain, spread_of
from kdbench.sweeps.store import SPEC_FILE, load_trials, read_spec

FIGURES = ("capacity_gap", "budget_curve")
_BOUNDED = ("test_acc", "test_acc_lo", "test_acc_hi")
COLUMNS = (
    *("sweep", "dataset", "teacher", "teacher_params", "teacher_acc", "teacher_ece", "epochs", "student", "params"),
    *("method", "n_seeds", "hard_acc", "hard_acc_lo", "hard_acc_hi", *_BOUNDED),
    *("gain", "gain_lo", "gain_hi", "p_value", "detectable_gain"),
)
"""Columns of series.csv, in order: accuracies, gains and calibration error are fractions, bounds those of 95%."""
_TEXT = ("sweep", "dataset", "teacher", "student", "method")
LEGEND = (
    "Teacher: test accuracy and expected calibration error (15 bins). Epochs are the students'. Gain: distilled minus "
    "hard labels, paired by seed, with its 95% interval over seeds, not corrected for the number of rows. Detectable: "
    "the true gain that these seeds show with a chance of 80%."
)
_GRID = (
    Column("teacher", "Teacher", left=True, folds=True),
    Column("teacher_params", "Teacher's params", short="Params", spared=3),
    Column("teacher_acc", "Teacher (%)", spared=1),
    Column("teacher_ece", "Teacher's ECE (%)", short="ECE", spared=2),
    Column("epochs", "Epochs"),
    Column("student", "Student", left=True, names=True),
    Column("method", "Method", left=True),
    Column("seeds", "Seeds", spared=4),
    Column("hard", "Hard labels (%)", short="Hard\nlabels"),
    Column("distilled", "Distilled (%)", short="Distilled"),
    Column("gain", "Gain (points)", folds=True),
    Column("detectable", "Detectable", spared=5),
)


def sweeps_in(folder: Path) -> list[Path]:
    """The folders of the sweeps that lie in ``folder``."""
    return sorted(path.parent for path in folder.glob(f"*/{SPEC_FILE}"))


@dataclass(frozen=True)
class SeriesReport:
    """What a series comes to so far. Prints as the table a person reads (rich)."""

    table: pd.DataFrame
    """``series_table``."""
    paths: dict[str, Path]
    """By file name: series.csv, series.md, and each figure that there is as .png, .svg and .pdf."""

    def __rich__(self) -> RenderableType:
        return Group(Screen(series_grid(self.table)), Text(LEGEND))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data; what is unknown is null."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {"files": {name: str(path) for name, path in self.paths.items()}, "rows": rows}


def write_series(folder: Path) -> SeriesReport:
    """series.csv, series.md and the figures of the sweeps in ``folder``, written beside them.

    Raises:
        BadInput: no sweep lies there, or sweeps of several data sets.
    """
    table, paths = series_table(sweeps_in(folder)), dict[str, Path]()
    title = f"# {folder.resolve().name}\n\n"
    for name, text in (("series.csv", csv(table)), ("series.md", title + series_markdown(table))):
        atomic_text(folder / name, text)
        paths[name] = folder / name
    for name in FIGURES:
        if (figure := series_figure(table, name)) is not None:
            paths |= save(figure, folder, name)
    return SeriesReport(table, paths)


def series_table(folders: Sequence[Path]) -> pd.DataFrame:
    """One row per sweep, student and method confirmed so far, by teacher's size, epochs and student's size.

    Raises:
        BadInput: no folder, or sweeps of several data sets.
    """
    if not folders:
        raise BadInput("no sweep here: a series is a folder with the folders of its sweeps")
    found = pd.DataFrame([row for folder in folders for row in _rows(folder)], columns=[*COLUMNS])
    if found["dataset"].nunique() > 1:
        raise BadInput(f"sweeps of several data sets are no series: {', '.join(found['dataset'].unique())}")
    numbers = [name for name in COLUMNS if name not in _TEXT]
    found[numbers] = found[numbers].astype(float)
    order = ["teacher_params", "teacher", "epochs", "params", "student"]
    return found.sort_values(order, kind="stable", ignore_index=True)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    spec, runs = read_spec(folder)[0], load_trials(folder)
    points, _, _ = judged(runs, read_manifest(folder))
    # of an ensemble's members and of assistants' teachers nobody reads the test accuracy
    taught = runs[(runs["phase"] == "teacher") & runs["test_acc"].notna()]
    teacher = {f"teacher_{to}": taught[of].mean() for to, of in (("params", "params"), ("ece", "ece"))}
    about = {"sweep": spec.name, "dataset": spec.data.name, "teacher": spec.pair.teacher, **teacher,
             "teacher_acc": points.teacher_acc, "epochs": spec.recipe.epochs}  # fmt: skip
    for point in points:
        if point.method == HARD or point.method in CONTROLS:
            continue
        hard = points.find(point.student, HARD)
        row = {**about, **{name: getattr(point, name) for name in COLUMNS if hasattr(point, name)}}
        bounds = {f"hard{name[4:]}": getattr(hard, name) for name in _BOUNDED} if hard is not None else {}
        yield {**row, **bounds, "detectable_gain": _detectable(points, point)}


def _detectable(points: Points, point: Any) -> float:
    """``kdbench.stats.smallest_gain`` of a row, NaN without a baseline or a second seed."""
    hard = points.find(point.student, HARD)
    both = sorted({*point.scores} & {*hard.scores}) if hard is not None else []
    gaps = [[own[seed] - hard.scores[seed] for seed in both] for own in point.replicates.values()]
    found = smallest_crossed_gain(spread_of(gaps)) if len(both) > 1 else math.nan
    return found if math.isfinite(found) else math.nan


def series_grid(table: pd.DataFrame) -> Grid:
    """The table in words."""
    rows = [
        {
            "teacher": row.teacher, "teacher_params": millions(row.teacher_params), "student": row.student,
            "teacher_acc": percent(row.teacher_acc), "teacher_ece": percent(row.teacher_ece),
            "epochs": f"{row.epochs:.0f}", "method": row.method, "seeds": f"{row.n_seeds:.0f}",
            "hard": spread(row.hard_acc, row.hard_acc_lo, row.hard_acc_hi),
            "distilled": spread(row.test_acc, row.test_acc_lo, row.test_acc_hi),
            "gain": f"{signed(row.gain, 2)} [{signed(row.gain_lo, 2)}, {signed(row.gain_hi, 2)}]",
            "detectable": percent(row.detectable_gain, 2),
        } for row in named(table)
    ]  # fmt: skip
    return Grid.of(_GRID, rows)


def series_markdown(table: pd.DataFrame) -> str:
    """series.md without its title."""
    return "\n".join([*markdown(series_grid(table)), "", LEGEND]) + "\n"


def series_figure(table: pd.DataFrame, name: str) -> Figure | None:
    """``capacity_gap`` of several teachers, or ``budget_curve`` of several numbers of epochs; else None.

    Raises:
        BadInput: another name.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES, "one of " + ", ".join(FIGURES))
    rows = table.dropna(subset=["gain"])
    draw, varied = {"capacity_gap": (_capacity_gap, "teacher"), "budget_curve": (_budget_curve, "epochs")}[name]
    return draw(rows) if rows[varied].nunique() > 1 else None


def _capacity_gap(rows: pd.DataFrame) -> Figure:
    """Gain over hard labels against the teacher's parameters, test accuracy and calibration error."""
    teachers, kinds = list(dict.fromkeys(rows["teacher"])), _kinds(rows, ["student", "method", "epochs"])
    panels = (("teacher_params", "Teacher's parameters", 1.0), ("teacher_acc", "Teacher's test accuracy (%)", 100.0),
              ("teacher_ece", "Teacher's calibration error (%)", 100.0))  # fmt: skip
    with style():
        figure = new_figure(13.5, 4.9 + 0.3 * math.ceil((len(teachers) + len(kinds)) / 4))
        for place, (column, text, scale) in enumerate(panels):
            axes = figure.add_subplot(1, 3, place + 1)
            axes.axhline(0, color=INK, linestyle=DASHES, linewidth=1)
            for row, x in zip(named(rows), _aside(rows[column], log=column == "teacher_params"), strict=True):
                kind = (row.student, row.method, row.epochs)
                axes.errorbar(scale * x, 100 * row.gain, yerr=_reach(row, "gain"), capsize=3.5,
                              color=_colour(kinds, kind), marker=METHOD_MARKERS[teachers.index(row.teacher) % 7],
                              markersize=8, elinewidth=1.4, linestyle="none")  # fmt: skip
            if column == "teacher_params":
                _sizes(axes, rows[column].unique())
            axes.margins(x=0.12, y=0.1)
            axes.set(xlabel=text, ylabel="Gain over hard labels (points)" if not place else "")
        for number, teacher in enumerate(teachers):
            axes.plot([], [], color=INK, marker=METHOD_MARKERS[number % 7], linestyle="none", label=teacher)
        for kind, shown in kinds.items():
            axes.plot([], [], color=_colour(kinds, kind), linewidth=5, label=shown)
        below(figure, _told(rows), [axes])
        return figure


def _budget_curve(rows: pd.DataFrame) -> Figure:
    """Test accuracy on hard labels and distilled against the students' epochs, a panel a teacher."""
    teachers, kinds = list(dict.fromkeys(rows["teacher"])), _kinds(rows, ["student", "method"])
    with style():
        figure = new_figure(max(7.5, 5.2 * len(teachers)), 5.2 + 0.15 * len(kinds))
        first: Axes | None = None
        for place, teacher in enumerate(teachers):
            axes = figure.add_subplot(1, len(teachers), place + 1, sharey=first)
            first = first or axes
            for number, ((student, method), shown) in enumerate(kinds.items()):
                mine = rows[(rows["teacher"] == teacher) & (rows["student"] == student) & (rows["method"] == method)]
                curves: list[tuple[str, str, dict[str, Any]]] = [("test_acc", method, {
                    "linestyle": "-", "marker": METHOD_MARKERS[number % 7]})]  # fmt: skip
                if method == next(m for s, m in kinds if s == student):  # one curve on hard labels a student
                    curves.append(("hard_acc", "hard labels", {
                        "linestyle": "--", "marker": "s", "markerfacecolor": "white"}))  # fmt: skip
                for side, way, form in curves if len(mine) else ():
                    reach = np.concatenate([_reach(row, side) for row in named(mine)], axis=1)
                    aside = 1.015 if side == "test_acc" else 1 / 1.015  # the two may be equal
                    axes.errorbar(mine["epochs"] * aside, 100 * mine[side], yerr=reach, capsize=3.5, linewidth=1.4,
                                  color=_colour(kinds, (student, method)), markersize=7,
                                  label=f"{shown.split(', ')[0]}, {way}", **form)  # fmt: skip
            _sizes(axes, rows["epochs"].unique(), "{:g}")
            axes.margins(x=0.1, y=0.1)
            axes.set(xlabel="Students' epochs, each schedule to its own end")
            axes.set_title(f"under {teacher}", loc="left")
        if first is not None:
            first.set_ylabel("Test accuracy (%)")
        below(figure, _told(rows))
        return figure


def _aside(values: pd.Series, *, log: bool) -> list[float]:
    """Where to draw each of ``values``: equal ones side by side."""
    at = np.log10(values) if log else values
    same = at.groupby(at)
    step = 0.02 * (float(np.ptp(at)) or 1.0)
    moved = at + step * (same.cumcount() - (same.transform("size") - 1) / 2)
    return [float(each) for each in (10**moved if log else moved)]


def _kinds(rows: pd.DataFrame, by: Sequence[str]) -> dict[tuple[Any, ...], str]:
    """The curves by what they are of, with what differs among them in words."""
    names = short_names([*dict.fromkeys(rows["student"])], prefix=False)
    kinds = dict.fromkeys(rows[[*by]].itertuples(index=False, name=None))
    form: dict[str, Callable[[Any], str]] = {
        "student": names.__getitem__, "method": str, "epochs": lambda value: counted(int(value), "epoch"),
    }  # fmt: skip
    told = [k for k, column in enumerate(by) if column == "student" or rows[column].nunique() > 1]
    return {kind: ", ".join(form[by[k]](kind[k]) for k in told) for kind in kinds}


def _colour(kinds: dict[tuple[Any, ...], str], kind: tuple[Any, ...]) -> str:
    return METHOD_COLOURS[[*kinds].index(kind) % len(METHOD_COLOURS)]


def _reach(row: Any, name: str) -> Any:
    """How far the interval of ``name`` goes below and above, (2, 1), in percent; 0 without one."""
    at = getattr(row, name)
    return np.nan_to_num([[100 * (at - getattr(row, f"{name}_lo"))], [100 * (getattr(row, f"{name}_hi") - at)]])


def _sizes(axes: Axes, values: Any, form: str = "") -> None:
    """A logarithmic axis with a mark at each of the values."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(values)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value) if form else millions(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _told(rows: pd.DataFrame) -> str:
    counts = sorted({int(count) for count in rows["n_seeds"]})
    seeds = counted(f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0]), "seed")
    least, most = (percent(each(rows["detectable_gain"]), 2) for each in (np.nanmin, np.nanmax))
    shown = f" True gains of {least if least == most else f'{least} to {most}'} points show with a chance of 80%."
    known = rows["detectable_gain"].notna().any()
    return f"Bars: 95% intervals over {seeds}, not corrected for the number of rows.{shown if known else ''}"
