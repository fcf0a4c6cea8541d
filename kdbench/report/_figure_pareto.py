"""Accuracy against parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kdbench.report._cells import shared_prefix, short_names, tick
from kdbench.report._frames import HARD
from kdbench.report._labels import Box, Label, place
from kdbench.report._points import Point, Points, gather
from kdbench.report._style import GREY, INK, colour_of, new_figure, style

_WIDTH, _HEIGHT = 7.5, 5.0
_AXIS_INCHES = 6.5
_NAME_SIZE = 11
_NAMES_FIT = 75  # characters of all names together that find room beside the points


def pareto_figure(trials: pd.DataFrame) -> Figure:
    """Test accuracy (percent) over parameters (log axis) of all confirmed points of one sweep.

    Hard-label points are hollow, distilled ones filled, each with its 95% t interval; a dashed line is
    the teacher, a staircase the Pareto front over all points. Points of one size stand side by side
    instead of on top of each other, so their place on the parameter axis is off by a hair.

    Raises:
        BadInput: as ``pareto_table``.
    """
    return draw(gather(trials))


def draw(points: Points) -> Figure:
    """``pareto_figure`` of points already gathered."""
    with style():
        figure = new_figure(_WIDTH, _HEIGHT)
        axes = figure.add_subplot()
        shown = [point for point in points.all if not math.isnan(point.params)]
        axes.set_title(title_of(points), loc="left")
        axes.set_ylabel("Test accuracy (%)")
        axes.set_xlabel("Parameters")
        if not shown:
            axes.text(0.5, 0.5, "no confirmed runs yet", transform=axes.transAxes, ha="center", color=GREY)
            axes.set_xticks([])
            axes.set_yticks([])
            return figure
        places = _places(shown)
        _scale(axes, places, points)
        _teacher(axes, points)
        _staircase(axes, shown, places)
        _draw_points(axes, shown, places)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
        axes.spines[["top", "right"]].set_visible(False)
        handles = axes.get_legend_handles_labels()[0]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False, columnspacing=1.4
        )
        names = names_of(points.students)
        number_key(figure, points.students, names)
        figure.draw_without_rendering()
        name_points(axes, shown, places, names)
        return figure


def title_of(points: Points) -> str:
    """``resnet50 → mobilenetv3, fashion-mnist, 3 seeds``: the words that all labels share are here."""
    students = list(points.students)
    prefix = shared_prefix(students)
    to = prefix.rstrip("_-/") if prefix else students[0] if len(students) == 1 else f"{len(students)} students"
    counts = sorted({len(point.scores) for point in points.all})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else ""
    parts = [f"{points.teacher or 'teacher'} → {to}" if students else points.teacher, points.dataset]
    parts.append(f"{seeds} seed{'s' * (counts[-1] != 1)}" if counts else None)
    return ",  ".join(part for part in parts if part)


def _limits(shown: list[Point]) -> tuple[float, float]:
    """Ends of the parameter axis: a margin of a tenth on each side, of half a decade around one size."""
    low, high = min(p.params for p in shown), max(p.params for p in shown)
    margin = max(0.1 * math.log10(high / low), 0.12 if high / low > 1.5 else 0.35)
    return low * 10**-margin, high * 10**margin


def _places(shown: list[Point]) -> list[tuple[float, float]]:
    """(x, y) of each point in data coordinates: methods of one size stand side by side."""
    low, high = _limits(shown)
    per_point = math.log10(high / low) / (_AXIS_INCHES * 72)
    methods = _methods(shown)
    places = []
    for point in shown:
        slot = 0 if point.method == HARD else 1 + methods.index(point.method)
        shift = (slot - len(methods) / 2) * (9 if len(methods) < 2 else 6) * per_point
        places.append((point.params * 10**shift, 100 * point.interval.mean))
    return places


def _methods(shown: list[Point]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(point.method for point in shown if point.method != HARD))


def _scale(axes: Axes, places: list[tuple[float, float]], points: Points) -> None:
    shown = [point for point in points.all if not math.isnan(point.params)]
    axes.set_xscale("log")
    axes.set_xlim(*_limits(shown))
    low, high = axes.get_xlim()
    # Within about a decade the powers of ten alone would leave one tick or none.
    subs = (1.0, 2.0, 5.0) if high / low > 4 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    edges = [100 * edge for p in shown for edge in p.interval if not math.isnan(edge)]
    edges += [100 * points.teacher_acc] if not math.isnan(points.teacher_acc) else []
    margin = max(0.12 * (max(edges) - min(edges)), 0.25)
    axes.set_ylim(min(edges) - margin, max(edges) + margin)


def _teacher(axes: Axes, points: Points) -> None:
    if math.isnan(points.teacher_acc):
        return
    level = 100 * points.teacher_acc
    axes.axhline(level, color=INK, linestyle=(0, (5, 3)), linewidth=1.2, zorder=1.5, label=f"teacher {level:.1f}%")


def _staircase(axes: Axes, shown: list[Point], places: list[tuple[float, float]]) -> None:
    corners = sorted(place for point, place in zip(shown, places, strict=True) if point.on_front)
    # Exact ties share a corner; what comes later in x never lies lower.
    xs = [*(x for x, _ in corners), axes.get_xlim()[1]]
    heights = np.maximum.accumulate([y for _, y in corners])
    ys = [*heights, heights[-1]]
    axes.plot(xs, ys, drawstyle="steps-post", color="#b8b8b8", linewidth=2.2, zorder=1.8, label="Pareto front")


def _draw_points(axes: Axes, shown: list[Point], places: list[tuple[float, float]]) -> None:
    methods = _methods(shown)
    for method in (HARD, *methods):
        chosen = [(p, place) for p, place in zip(shown, places, strict=True) if p.method == method]
        if not chosen:
            continue
        colour, marker = (GREY, "s") if method == HARD else colour_of(method, methods)
        x, y = np.array([place for _, place in chosen]).T
        bounds = np.array([(100 * p.interval.lo, 100 * p.interval.hi) for p, _ in chosen])
        reach = np.nan_to_num(np.abs(bounds - y[:, None])).T
        axes.errorbar(
            x,
            y,
            yerr=reach,
            fmt=marker,
            color=colour,
            markersize=7.5,
            markerfacecolor="white" if method == HARD else colour,
            markeredgewidth=1.6,
            elinewidth=1.6,
            capsize=3.5,
            zorder=3,
            label="hard labels" if method == HARD else f"distilled ({method})",
        )


def names_of(students: tuple[str, ...]) -> dict[str, str]:
    """What stands beside each student's points: its name without shared words, or a number when names are long.

    Numbers are explained by ``number_key``.
    """
    short = short_names(students)
    if max(map(len, short.values()), default=0) * len(short) <= _NAMES_FIT:
        return short
    return {student: str(number) for number, student in enumerate(students, start=1)}


def number_key(figure: Figure, students: tuple[str, ...], names: dict[str, str]) -> None:
    """Which number is which student, to the right of the axes, when ``names`` are numbers."""
    if not students or not names[students[0]].isdigit():
        return
    figure.set_figwidth(_WIDTH + 0.085 * max(map(len, short_names(students, prefix=False).values())) + 0.6)
    # A figure space is as wide as a digit, so that the names line up.
    lines = [f"{names[student]:\u2007>2}  {name}" for student, name in short_names(students, prefix=False).items()]
    handles = [Line2D([], [], linestyle="none", label=line) for line in lines]
    figure.legend(
        handles=handles, loc="outside right upper", frameon=False, handlelength=0, handletextpad=0, fontsize=10
    )


def name_points(
    axes: Axes,
    shown: Sequence[Point],
    places: Sequence[tuple[float, float]],
    names: Mapping[str, str],
    *,
    bars: bool = True,
    lines: Sequence[tuple[float, float, float]] = (),
) -> None:
    """One name a student, beside its group of points and clear of every point, bar and the teacher's line.

    Args:
        axes: scaled already, with a logarithmic x axis.
        shown: the points that carry names.
        places: their (x, y) in data coordinates.
        names: what to write, by student.
        bars: whether the points have their intervals drawn.
        lines: (x, y, x of the other end) of level lines to keep clear of as well.
    """
    to_pixels, frame = axes.transData.transform, axes.get_window_extent()
    obstacles: list[Box] = []
    groups: dict[str, list[tuple[float, float]]] = {}
    for point, (x, y) in zip(shown, places, strict=True):
        edges = point.interval[1:] if bars else (math.nan, math.nan)
        lo, hi = ((100 * edge if not math.isnan(edge) else y) for edge in edges)
        (left, bottom), (right, top) = to_pixels((x, lo)) - 8, to_pixels((x, hi)) + 8
        obstacles.append(Box(left, bottom, right, top))
        groups.setdefault(point.student, []).append((x, hi))
    obstacles += [Box(*(to_pixels((x, y)) - 8), *(to_pixels((end, y)) + 8)) for x, y, end in lines]
    for line in axes.get_lines():
        if str(line.get_label()).startswith("teacher"):
            height = to_pixels((1.0, float(np.asarray(line.get_ydata())[0])))[1]
            obstacles.append(Box(frame.x0, height - 3, frame.x1, height + 3))
    tops = {
        student: (10 ** float(np.mean([math.log10(x) for x, _ in found])), max(y for _, y in found))
        for student, found in groups.items()
    }
    sizes = {student: _text_size(axes, names[student]) for student in tops}
    at = {student: to_pixels(top) for student, top in tops.items()}
    labels = [Label(at[name][0], at[name][1], width, height) for name, (width, height) in sizes.items()]
    scale = axes.figure.dpi / 72
    offsets = place(labels, obstacles, Box(frame.x0, frame.y0, frame.x1, frame.y1), scale)
    for (student, top), (dx, dy, far) in zip(tops.items(), offsets, strict=True):
        lead = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4}
        axes.annotate(
            names[student],
            top,
            xytext=(dx / scale, dy / scale),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_NAME_SIZE,
            color=INK,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],  # grid lines may pass behind
            arrowprops=lead if far else None,
        )


def _text_size(axes: Axes, text: str) -> tuple[float, float]:
    """(width, height) of ``text`` in pixels."""
    probe = axes.text(0, 0, text, fontsize=_NAME_SIZE)
    box = probe.get_window_extent()
    probe.remove()
    return float(box.width), float(box.height)
