"""One small panel a student, the same in every figure that has them."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench.report._cells import short_names
from kdbench.report._points import Points
from kdbench.report._style import GREY, INK, new_figure

COLUMNS = 3


def panels(points: Points, students: list[str], about: str) -> tuple[Figure, list[Axes], list[bool]]:
    """A figure with one panel a student, headed by its name; and whether each panel is the lowest of its column."""
    lines, columns = -(-len(students) // COLUMNS), min(len(students), COLUMNS)
    figure = new_figure(max(2.6 * columns + 0.5, 5.2), max(2.55 * lines + 1.1, 3.8))
    grid = figure.subplots(lines, columns, squeeze=False)
    names = short_names(students)
    found, lowest = list[Axes](), list[bool]()
    for index in range(lines * columns):
        axes = grid.flat[index]
        if index >= len(students):
            axes.remove()
            continue
        axes.set_title(f"{wrap(names[students[index]])}\n", fontsize=11, loc="left", fontweight="bold")
        found.append(axes)
        lowest.append(index + columns >= len(students))
    words = [f"{about} under {points.teacher}" if points.teacher else about, points.dataset]
    figure.suptitle(",  ".join(filter(None, words)), fontsize=12)
    return figure, found, lowest


def remark(axes: Axes, text: str) -> None:
    """A grey line of text between a panel and its name."""
    size = 10 if len(text) <= 27 else 8.5
    written = axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=size, color=GREY)
    written.set_in_layout(False)  # a long line must not make the panels narrow


def diagonal(axes: Axes) -> None:
    """Where both axes agree, both from 0 to 100%."""
    axes.plot([0, 100], [0, 100], color=INK, linestyle=(0, (5, 3)), linewidth=1.0, zorder=1)
    axes.set(xlim=(-3, 103), ylim=(-3, 103), xticks=np.arange(0, 101, 50), yticks=np.arange(0, 101, 50))


def wrap(label: str, width: int = 20) -> str:
    """``label`` in lines of at most ``width`` letters, broken after an underscore where there is one nearby."""
    lines = [""]
    for word in re.findall(rf"[^_ ]{{1,{width}}}[_ ]?|[_ ]", label):
        if lines[-1] and len(lines[-1] + word) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines)
