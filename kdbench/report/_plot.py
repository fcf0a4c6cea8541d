"""Geometry of the interactive Pareto plot: what goes where in an SVG of fixed size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, MaxNLocator

from kdbench.report._cells import short_names, tick
from kdbench.report._frames import HARD
from kdbench.report._labels import Box, Label, place
from kdbench.report._points import Point, Points
from kdbench.report._style import GREY, METHOD_COLOURS

WIDTH, HEIGHT = 760.0, 430.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 14.0, 54.0
_LETTER, _LINE, _SIDE = 8.2, 15.0, 10.0


@dataclass(frozen=True)
class Mark:
    """One point of the plot, in pixels from the top left."""

    point: Point
    x: float
    y: float
    y_lo: float
    y_hi: float
    colour: str
    shape: str
    """SVG path around (0, 0)."""


@dataclass(frozen=True)
class Tick:
    """A grid line and its number."""

    at: float
    text: str


@dataclass(frozen=True)
class Name:
    """A student's name, and where it belongs when that is far."""

    x: float
    y: float
    text: str
    to_x: float
    to_y: float
    far: bool


@dataclass(frozen=True)
class Plot:
    """All of it."""

    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    front: str
    """SVG path of the staircase."""
    teacher_y: float | None
    names: tuple[Name, ...]
    key: tuple[tuple[str, str, str], ...]
    """(colour, shape, text) of each kind of point."""
    legend: tuple[str, ...] = ()
    """``1 mobilenetv4_conv_small`` where names are numbers, else nothing."""


_SHAPES = (
    "M-6,0a6,6 0 1,0 12,0a6,6 0 1,0 -12,0z",
    "M0,-7L7,6L-7,6z",
    "M0,-7L7,0L0,7L-7,0z",
    "M0,7L7,-6L-7,-6z",
)
_SQUARE = "M-5.5,-5.5h11v11h-11z"


def plot(points: Points) -> Plot | None:
    """The plot of ``points``; None when nothing is confirmed yet."""
    shown = [point for point in points.all if not math.isnan(point.params)]
    if not shown:
        return None
    methods = list(dict.fromkeys(point.method for point in shown if point.method != HARD))
    low, high = min(p.params for p in shown), max(p.params for p in shown)
    margin = max(0.1 * math.log10(high / low), 0.12 if high / low > 1.5 else 0.35)
    x0, x1 = math.log10(low) - margin, math.log10(high) + margin
    edges = [100 * edge for p in shown for edge in p.interval if not math.isnan(edge)]
    edges += [100 * points.teacher_acc] if not math.isnan(points.teacher_acc) else []
    room = max(0.12 * (max(edges) - min(edges)), 0.25)
    y0, y1 = min(edges) - room, max(edges) + room

    def across(params: float) -> float:
        return LEFT + (math.log10(params) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def down(percent: float) -> float:
        return TOP + (y1 - percent) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    marks = []
    for point in shown:
        slot = 0 if point.method == HARD else 1 + methods.index(point.method)
        mean, lo, hi = (100 * edge for edge in point.interval)
        at = down(mean)
        ends = (at, at) if math.isnan(lo) else (down(lo), down(hi))
        x = across(point.params) + (slot - len(methods) / 2) * _SIDE
        marks.append(Mark(point, x, at, ends[0], ends[1], *_look(point.method, methods)))
    x_values = LogLocator(subs=(1.0, 2.0, 5.0), numticks=12).tick_values(10**x0, 10**x1)
    y_values = MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]).tick_values(y0, y1)
    numbers = _needs_numbers(points)
    teacher_y = None if math.isnan(points.teacher_acc) else down(100 * points.teacher_acc)
    return Plot(
        marks=tuple(marks),
        x_ticks=tuple(Tick(across(v), tick(v)) for v in x_values if x0 <= math.log10(v) <= x1),
        y_ticks=tuple(Tick(down(v), f"{v:.10g}") for v in y_values if y0 <= v <= y1),
        front=_front(marks),
        teacher_y=teacher_y,
        names=tuple(_names(points, marks, teacher_y, numbers)),
        key=tuple((*_look(name, methods), "hard labels" if name == HARD else f"distilled ({name})")
                  for name in dict.fromkeys([HARD, *methods]) if any(p.method == name for p in shown)),
        legend=tuple(f"{k}: {s}" for k, s in enumerate(points.students, start=1)) if numbers else (),
    )  # fmt: skip


def _look(method: str, methods: list[str]) -> tuple[str, str]:
    if method == HARD:
        return GREY, _SQUARE
    index = methods.index(method)
    return METHOD_COLOURS[index % len(METHOD_COLOURS)], _SHAPES[index % len(_SHAPES)]


def _front(marks: list[Mark]) -> str:
    """Right, then up, from one point of the front to the next, and on to the edge."""
    corners = sorted((mark.x, mark.y) for mark in marks if mark.point.on_front)
    if not corners:
        return ""
    path = f"M{corners[0][0]:.1f},{corners[0][1]:.1f}"
    height = corners[0][1]
    for x, y in corners[1:]:
        height = min(height, y)
        path += f"H{x:.1f}V{height:.1f}"
    return path + f"H{WIDTH - RIGHT:.1f}"


def _needs_numbers(points: Points) -> bool:
    names = short_names(points.students)
    return max(map(len, names.values())) * len(names) > 75


def _names(points: Points, marks: list[Mark], teacher_y: float | None, numbers: bool) -> list[Name]:
    short = short_names(points.students)
    tops: dict[str, tuple[float, float]] = {}
    for student in points.students:
        own = [mark for mark in marks if mark.point.student == student]
        if own:
            tops[student] = (sum(mark.x for mark in own) / len(own), min(mark.y_hi for mark in own))
    texts = {s: str(k) if numbers else short[s] for k, s in enumerate(points.students, start=1) if s in tops}
    # The placement thinks upwards, SVG downwards.
    labels = [Label(x, -y, _LETTER * len(texts[s]), _LINE) for s, (x, y) in tops.items()]
    obstacles = [Box(m.x - 8, -m.y_lo - 8, m.x + 8, -m.y_hi + 8) for m in marks]
    if teacher_y is not None:
        obstacles.append(Box(LEFT, -teacher_y - 3, WIDTH - RIGHT, -teacher_y + 3))
    offsets = place(labels, obstacles, Box(LEFT, -(HEIGHT - BOTTOM), WIDTH - RIGHT, -TOP))
    return [
        Name(x + offset.dx, y - offset.dy, texts[student], x, y, offset.far)
        for (student, (x, y)), offset in zip(tops.items(), offsets, strict=True)
    ]
