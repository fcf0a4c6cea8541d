"""Accuracy against the time it takes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kdbench.report._figure_pareto import name_points, names_of, number_key
from kdbench.report._frames import HARD
from kdbench.report._points import Point, Points
from kdbench.report._style import GREY, colour_of, new_figure, style

Row = dict[Hashable, Any]
_UNITS = (("hours", 1.0), ("minutes", 60.0), ("seconds", 3600.0))


def cost_figure(costs: pd.DataFrame, points: Points, title: str = "") -> Figure | None:
    """Test accuracy (percent) over the wall-clock time (log axis) of making each point.

    Hollow: one run on hard labels. Filled: one distilled run and its share of the teacher's training; the thin line
    to the right ends where the search for T and alpha is paid as well. Dotted lines join one student's points.
    None without any time.

    Args:
        costs: of ``cost_table``.
        points: the same points.
        title: above the axes.
    """
    rows = costs[costs["run_hours"] > 0]
    shown = [(point, row) for row in rows.to_dict("records") if (point := points.find(row["student"], row["method"]))]
    if not shown:
        return None
    totals = [row["total_hours"] for _, row in shown if row["total_hours"] == row["total_hours"]]
    unit, factor = next((one for one in _UNITS if max(totals, default=0) * one[1] >= 1), _UNITS[-1])
    methods = tuple(dict.fromkeys(point.method for point, _ in shown if point.method != HARD))
    places = [(factor * _start(row), 100 * point.interval.mean) for point, row in shown]
    with style():
        figure = new_figure(7.5, 5.0)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_title(title, loc="left")
        axes.set_xlabel(f"Wall-clock time of one run, with its share of the teacher ({unit})")
        axes.set_ylabel("Test accuracy (%)")
        _pair(axes, [point for point, _ in shown], places)
        for method in (HARD, *methods):
            own = [(row, place) for (point, row), place in zip(shown, places, strict=True) if point.method == method]
            if own:
                _draw(axes, method, methods, own, factor)
        _scale(axes, places, [factor * total for total in totals])
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, columnspacing=1.2, handletextpad=0.5)
        names = names_of(points.students)
        number_key(figure, points.students, names)
        figure.draw_without_rendering()
        named = _named(shown, places)
        lines = [(x, y, max(x, factor * row["total_hours"])) for (_, row), (x, y) in zip(shown, places, strict=True)]
        name_points(axes, [point for point, _ in named], [place for _, place in named], names, bars=False, lines=lines)
        return figure


def _start(row: Row) -> float:
    """Hours of one run, with the teacher's share where there is one."""
    return float(np.nansum([row["run_hours"], row["teacher_hours"]]))


def _pair(axes: Axes, shown: list[Point], places: list[tuple[float, float]]) -> None:
    """A dotted line from each student's hard-label point to its distilled ones."""
    hard = {point.student: place for point, place in zip(shown, places, strict=True) if point.method == HARD}
    for point, place in zip(shown, places, strict=True):
        if point.method != HARD and point.student in hard:
            x, y = zip(hard[point.student], place, strict=True)
            axes.plot(x, y, color="#b0b0b0", linestyle=":", linewidth=1.2, zorder=1)


def _draw(axes: Axes, method: str, methods: tuple[str, ...], own: list[tuple[Row, tuple[float, float]]],
          factor: float) -> None:  # fmt: skip
    colour, marker = (GREY, "s") if method == HARD else colour_of(method, methods)
    x, y = np.array([place for _, place in own]).T
    label = "hard labels" if method == HARD else f"distilled ({method})"
    look: dict[str, Any] = {"markersize": 7.5, "markeredgewidth": 1.6, "linestyle": "none", "zorder": 3}
    axes.plot(x, y, marker=marker, color=colour, label=label,
              markerfacecolor="white" if method == HARD else colour, **look)  # fmt: skip
    ends = np.array([factor * row["total_hours"] for row, _ in own])
    if method != HARD and (ends > x * 1.001).any():
        axes.hlines(y, x, ends, color=colour, linewidth=1.2, zorder=2)
        axes.plot(ends, y, marker="|", color=colour, markersize=9, markeredgewidth=1.6, linestyle="none",
                  label="with the search" if method == methods[0] else None)  # fmt: skip


def _scale(axes: Axes, places: list[tuple[float, float]], ends: list[float]) -> None:
    low, high = min(x for x, _ in places), max([*ends, *(x for x, _ in places)])
    room = max((high / low) ** 0.1, 1.3)
    axes.set_xlim(low / room, high * room)
    heights = [y for _, y in places]
    margin = max(0.14 * (max(heights) - min(heights)), 0.25)
    axes.set_ylim(min(heights) - margin, max(heights) + margin)
    subs = (1.0, 2.0, 5.0) if high / low < 200 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))


def _named(
    shown: list[tuple[Point, Row]], places: list[tuple[float, float]]
) -> list[tuple[Point, tuple[float, float]]]:
    """The points that carry their student's name: the hard-label one, else the first."""
    found: dict[str, tuple[Point, tuple[float, float]]] = {}
    for (point, _), place in zip(shown, places, strict=True):
        if point.student not in found or point.method == HARD:
            found[point.student] = (point, place)
    return list(found.values())
