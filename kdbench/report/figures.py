"""Figures of the operating points: accuracy against size, gain by size, accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kdbench.config import CONTROLS, HARD
from kdbench.report.labels import Box, Label, place
from kdbench.report.numbers import millions, shared_prefix, short_names, tick
from kdbench.report.points import Points, gather
from kdbench.report.style import DASHES, GREY, INK, below, label, look, new_figure, style
from kdbench.report.verdicts import judge
from kdbench.run.frame import named
from kdbench.run.words import counted

_WIDTH, _HEIGHT = 7.5, 5.2
_AXIS_INCHES = 6.5
_NAME_SIZE = 11
_NAMES_FIT = 75  # characters of all names together that find room beside the points
_INKS = {"helps": "#00695c", "hurts": "#a63c00"}
_BESIDE = 75  # characters of a row's name and the title that find room beside each other
_UNITS = (("hours", 1.0), ("minutes", 60.0), ("seconds", 3600.0))
Places = list[tuple[float, float]]


def title_of(points: Points) -> str:
    """``resnet50 → mobilenetv3, fashion-mnist, 3 seeds``: the words that all labels share are here."""
    students = list(points.students)
    prefix = shared_prefix(students)
    to = prefix.rstrip("_-/") if prefix else students[0] if len(students) == 1 else f"{len(students)} students"
    counts = sorted(set(points.frame["n_seeds"])) if students else []
    seeds = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else ""
    parts = [f"{points.teacher or 'teacher'} → {to}" if students else points.teacher, points.dataset]
    parts.append(points.over or (counted(seeds, "seed") if counts else None))
    return ",  ".join(part for part in parts if part)


def pareto_figure(points: Points | pd.DataFrame, axis: str = "Parameters") -> Figure:
    """Test accuracy (percent) over parameters (log axis) of all confirmed points of one sweep.

    Hard-label points are hollow, distilled ones filled, each with its 95% t interval; a dashed line is the teacher, a
    staircase the Pareto front over all points. Points of one size stand side by side instead of on top of each
    other, so their place on the parameter axis is off by a hair. Each point's artist has the gid ``point-K``, K
    counting ``points`` from 1: what the page finds it by.

    Raises:
        BadInput: for a frame that ``gather`` refuses.
    """
    points = points if isinstance(points, Points) else gather(points)
    shown = [(k, point) for k, point in enumerate(points, start=1)
             if point.params == point.params and point.method not in CONTROLS]  # fmt: skip
    with style():
        figure = new_figure(_WIDTH, _HEIGHT)
        axes = figure.add_subplot()
        axes.set_title(title_of(points), loc="left")
        axes.set(xlabel=axis, ylabel="Test accuracy (%)")
        if not shown:
            _nothing(axes, "no confirmed runs yet")
            return figure
        held = [point for _, point in shown]
        methods = _methods(held)
        low, high = min(p.params for p in held), max(p.params for p in held)
        # A tenth on each side, half a decade around one size.
        margin = max(0.1 * math.log10(high / low), 0.12 if high / low > 1.5 else 0.35)
        _log_axis(axes, low * 10**-margin, high * 10**margin, tick if low >= 1000 else "{:g}".format)
        edges = [getattr(p, name) for p in held for name in ("test_acc", "test_acc_lo", "test_acc_hi")]
        _heights(axes, 100 * np.array([*edges, points.teacher_acc]))
        per_point = (math.log10(high / low) + 2 * margin) / (_AXIS_INCHES * 72)
        step = (9 if len(methods) < 2 else 6) * per_point
        slots = {method: k - len(methods) / 2 for k, method in enumerate((HARD, *methods))}
        places = [(p.params * 10 ** (slots[p.method] * step), 100 * p.test_acc) for p in held]
        if points.teacher_acc == points.teacher_acc:
            level = 100 * points.teacher_acc
            axes.axhline(level, color=INK, linestyle=DASHES, linewidth=1.2, zorder=1.5, label=f"teacher {level:.1f}%")
        _staircase(axes, [at for at, point in zip(places, held, strict=True) if point.on_front])
        for (k, point), (x, y) in zip(shown, places, strict=True):
            reach = np.nan_to_num([[y - 100 * point.test_acc_lo], [100 * point.test_acc_hi - y]])
            seen = label(point.method) if held.index(point) == _first(held, point.method) else None
            bars = axes.errorbar(x, y, yerr=reach, label=seen, markersize=7.5, elinewidth=1.6, capsize=3.5, zorder=3,
                                 **look(point.method, methods))  # fmt: skip
            bars.lines[0].set_gid(f"point-{k}")
        below(figure, f"Bars: 95% intervals over {points.over or 'seeds'}. Points of one size stand side by side.")
        names = _names(figure, points.students)
        figure.draw_without_rendering()
        _write_names(axes, held, places, names)
        return figure


def _methods(shown: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(point.method for point in shown if point.method != HARD))


def _first(shown: Sequence[Any], method: str) -> int:
    return next(k for k, point in enumerate(shown) if point.method == method)


def _nothing(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=GREY)
    axes.set(xticks=[], yticks=[])


def _log_axis(axes: Axes, low: float, high: float, form: Any) -> None:
    """A logarithmic x axis with round numbers; within a decade the powers of ten alone would leave one or none."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    subs = (1.0, 2.0, 5.0) if high / low > 4 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs if high / low < 200 else (1.0,), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _heights(axes: Axes, values: Any) -> None:
    low, high = np.nanmin(values), np.nanmax(values)
    margin = max(0.12 * (high - low), 0.25)
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))


def _staircase(axes: Axes, corners: Places) -> None:
    if not corners:
        return
    corners = sorted(corners)
    # Exact ties share a corner; what comes later in x never lies lower.
    heights = np.maximum.accumulate([y for _, y in corners])
    xs, ys = [*(x for x, _ in corners), axes.get_xlim()[1]], [*heights, heights[-1]]
    axes.plot(xs, ys, drawstyle="steps-post", color="#b8b8b8", linewidth=2.2, zorder=1.8, label="Pareto front")


def _names(figure: Figure, students: Sequence[str]) -> dict[str, str]:
    """What stands beside each student's points: its name without shared words, or a number when names are long.

    What the numbers mean stands to the right of the axes then.
    """
    short = short_names(students)
    if max(map(len, short.values()), default=0) * len(short) <= _NAMES_FIT:
        return short
    full = short_names(students, prefix=False)
    figure.set_figwidth(_WIDTH + 0.085 * max(map(len, full.values())) + 0.6)
    # A figure space is as wide as a digit, so that the names line up.
    lines = [f"{number:\u2007>2}  {full[student]}" for number, student in enumerate(students, start=1)]
    handles = [Line2D([], [], linestyle="none", label=line) for line in lines]
    figure.legend(
        handles=handles, loc="outside right upper", frameon=False, handlelength=0, handletextpad=0, fontsize=10
    )
    return {student: str(number) for number, student in enumerate(students, start=1)}


def _write_names(
    axes: Axes, shown: Sequence[Any], places: Places, names: Mapping[str, str], ends: Sequence[float] = ()
) -> None:
    """One name per student, beside its group of points and clear of every point, bar and the teacher's line.

    ``ends``: where a level line from each point ends that names keep clear of; without it bars are there.
    """
    to_pixels, frame = axes.transData.transform, axes.get_window_extent()
    obstacles: list[Box] = []
    groups: dict[str, Places] = {}
    for k, (point, (x, y)) in enumerate(zip(shown, places, strict=True)):
        lo, hi = (y, y) if ends or point.test_acc_lo != point.test_acc_lo else (
            100 * point.test_acc_lo, 100 * point.test_acc_hi)  # fmt: skip
        (left, bottom), (right, top) = to_pixels((x, lo)) - 8, to_pixels((ends[k] if ends else x, hi)) + 8
        obstacles.append(Box(left, bottom, right, top))
        groups.setdefault(point.student, []).append((x, hi))
    for line in axes.get_lines():
        if str(line.get_label()).startswith("teacher"):
            height = to_pixels((1.0, float(np.asarray(line.get_ydata())[0])))[1]
            obstacles.append(Box(frame.x0, height - 3, frame.x1, height + 3))
    tops = {
        student: (10 ** float(np.mean([math.log10(x) for x, _ in found])), max(y for _, y in found))
        for student, found in groups.items()
    }
    labels = []
    for student, top in tops.items():
        x, y = to_pixels(top)
        labels.append(Label(float(x), float(y), *_text_size(axes, names[student])))
    scale = axes.figure.dpi / 72
    offsets = place(labels, obstacles, Box(frame.x0, frame.y0, frame.x1, frame.y1), scale)
    for (student, top), (dx, dy, far) in zip(tops.items(), offsets, strict=True):
        lead = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4}
        axes.annotate(
            names[student], top, xytext=(dx / scale, dy / scale), textcoords="offset points", ha="center",
            va="center", fontsize=_NAME_SIZE, color=INK, arrowprops=lead if far else None,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],  # grid lines may pass behind
        )  # fmt: skip


def _text_size(axes: Axes, text: str) -> tuple[float, float]:
    """(width, height) of ``text`` in pixels."""
    probe = axes.text(0, 0, text, fontsize=_NAME_SIZE)
    box = probe.get_window_extent()
    probe.remove()
    return float(box.width), float(box.height)


def gain_figure(pareto: pd.DataFrame, title: str = "") -> Figure | None:
    """Gain (points, paired by seed) with its 95% interval for each row of ``pareto``, sizes from the top down.

    The verdict (Holm-corrected over the rows) stands at the right. None when no row has a gain.
    """
    rows = pareto.assign(verdict=pd.Series(judge(pareto), index=pareto.index, dtype="object"))
    rows = rows[rows["gain"].notna()].reset_index(drop=True)
    if rows.empty:
        return None
    methods, students = list(dict.fromkeys(rows["method"])), list(dict.fromkeys(rows["student"]))
    names, sizes = short_names(students), dict(zip(rows["student"], rows["params"], strict=True))
    with style():
        figure = new_figure(_WIDTH, 1.7 + (0.5 + 0.2 * (len(methods) - 1)) * len(students))
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linestyle=DASHES, linewidth=1.0, zorder=1)
        for method in methods:
            own = rows[rows["method"] == method]
            shift = min(0.28, 0.84 / len(methods)) * (methods.index(method) - (len(methods) - 1) / 2)
            heights = [students.index(student) + shift for student in own["student"]]
            gain, lo, hi = 100 * own[["gain", "gain_lo", "gain_hi"]].to_numpy(dtype=float).T
            axes.errorbar(gain, heights, xerr=np.nan_to_num([gain - lo, hi - gain]), label=label(method), zorder=3,
                          linestyle="none", markersize=7.5, elinewidth=1.6, capsize=3.5,
                          **look(method, methods))  # fmt: skip
            for height, verdict in zip(heights, own["verdict"], strict=True):
                axes.text(1.02, height, verdict.short, transform=axes.get_yaxis_transform(), va="center", fontsize=11,
                          color=_INKS.get(verdict.kind, GREY))  # fmt: skip
        shown = [fill(f"{names[one]}  {millions(sizes[one])}", 34) for one in students]
        axes.set_yticks(range(len(students)), shown)
        axes.set_ylim(len(students) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if abs(value) > 1e-9 else "0"))
        axes.set_xlabel("Gain over hard labels (percentage points of test accuracy)")
        if len(title) + max(map(len, shown)) < _BESIDE:
            axes.set_title(title, loc="left")
        else:  # long names beside the axes leave too little above them
            figure.suptitle(fill(title, _BESIDE), x=0.02, ha="left", fontsize=12)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        below(figure, "Bars: 95% intervals of the paired difference. Verdicts are corrected for the number of rows.")
        return figure


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
    rows = [row for row in named(costs) if row.run_hours > 0]
    if not rows:
        return None
    shown = [points.find(row.student, row.method) for row in rows]
    totals = np.array([row.total_hours for row in rows])
    unit, factor = next((one for one in _UNITS if np.nanmax(totals) * one[1] >= 1), _UNITS[-1])
    starts = factor * np.nansum([[row.run_hours, row.teacher_hours] for row in rows], axis=1)
    ends, acc = np.fmax(factor * totals, starts), 100 * np.array([point.test_acc for point in shown])
    methods, places = _methods(shown), list(zip(starts, acc, strict=True))
    with style():
        figure = new_figure(_WIDTH, _HEIGHT)
        axes = figure.add_subplot()
        room = max((max(ends) / min(starts)) ** 0.1, 1.3)
        _log_axis(axes, min(starts) / room, max(ends) * room, lambda value: f"{value:g}")
        _heights(axes, acc)
        axes.set_title(title, loc="left")
        axes.set(xlabel=f"Wall-clock time ({unit})", ylabel="Test accuracy (%)")
        hard = {point.student: at for point, at in zip(shown, places, strict=True) if point.method == HARD}
        for point, at in zip(shown, places, strict=True):
            if point.method != HARD and point.student in hard:
                axes.plot(*zip(hard[point.student], at, strict=True), color="#b0b0b0", linestyle=":", zorder=1)
        for method in (HARD, *methods):
            mine = np.array([point.method == method for point in shown])
            if not mine.any():
                continue
            form = look(method, methods)
            axes.plot(starts[mine], acc[mine], linestyle="none", markersize=7.5, zorder=3,
                      label=label(method), **form)  # fmt: skip
            if method != HARD and (ends[mine] > starts[mine] * 1.001).any():
                axes.hlines(acc[mine], starts[mine], ends[mine], color=form["color"], linewidth=1.2, zorder=2)
                axes.plot(ends[mine], acc[mine], marker="|", color=form["color"], markersize=9, linestyle="none",
                          markeredgewidth=1.6, label="and the search" if method == methods[0] else None)  # fmt: skip
        below(figure, "Of one run; distilled ones with their share of the teacher.")
        names = _names(figure, points.students)
        figure.draw_without_rendering()
        # The hard-label point carries its student's name, where there is one.
        kept = {shown[k].student: k for k in sorted(range(len(shown)), key=lambda k: shown[k].method == HARD)}.values()
        _write_names(axes, [shown[k] for k in kept], [places[k] for k in kept], names, [ends[k] for k in kept])
        return figure
