"""Figures of the confirm runs themselves: how they learnt, and how far their confidence can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from kdbench.report._frames import HARD, History
from kdbench.report._grid import diagonal, panels, remark
from kdbench.report._points import Point, Points
from kdbench.report._style import GREY, colour_of, style

FEWEST = 10
"""Samples without which a bin of confidence is not drawn."""
_LONGEST = 36  # letters of a remark over a panel


def curves_figure(points: Points, histories: Mapping[str, History]) -> Figure | None:
    """Validation accuracy (percent) after each epoch, winners against hard labels, one panel a student.

    Lines are means over the confirm seeds, bands reach from the lowest to the highest seed. The axis begins
    where the slowest run stands after half of its epochs, so that the end can be read. None without curves of two
    epochs or more.

    Args:
        points: what is confirmed.
        histories: by trial id.
    """
    found = {
        (point.student, point.method): curves
        for point in points.all
        if len(curves := _curves(point, histories)) and curves.shape[1] > 1
    }
    if not found:
        return None
    students = [student for student in points.students if any(key[0] == student for key in found)]
    methods = _methods(points)
    settled = [curves[:, math.ceil(curves.shape[1] / 2) - 1 :] for curves in found.values()]
    low, high = min(one.min() for one in settled), max(one.max() for one in settled)
    room = max(0.06 * (high - low), 0.2)
    with style():
        figure, axes_of, lowest = panels(points, students, "confirm runs")
        for axes, student, last in zip(axes_of, students, lowest, strict=True):
            ends = []
            for method in (HARD, *methods):
                if (student, method) in found:
                    ends.append(f"{_word(method)} {found[student, method][:, -1].mean():.1f}")
                    _draw_curves(axes, found[student, method], *_look(method, methods), _label(method))
            remark(axes, _line("last %:", ends))
            axes.set_ylim(low - room, high + room)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.set_xlabel("epoch" if last else "")
            axes.set_ylabel("val. acc. (%)" if axes is axes_of[0] or student in students[::3] else "")
        _legend(figure, axes_of)
        return figure


def _curves(point: Point, histories: Mapping[str, History]) -> NDArray[np.float64]:
    """Percent, shape (seeds, epochs), as far as all seeds go; no seeds when none is known."""
    known = [histories[trial].val_acc for trial in point.trial_ids.values() if trial in histories]
    known = [one for one in known if len(one)]
    epochs = min(map(len, known), default=0)
    return 100 * np.array([list(one)[:epochs] for one in known], dtype=np.float64).reshape(len(known), epochs)


def _draw_curves(axes: Axes, curves: NDArray[np.float64], colour: str, marker: str, label: str) -> None:
    epochs = np.arange(1, curves.shape[1] + 1)
    few = curves.shape[1] <= 12
    look: dict[str, Any] = {"color": colour, "linewidth": 1.8, "zorder": 3, "label": label, "markersize": 5.5}
    look |= {"markerfacecolor": "white" if label == _label(HARD) else colour, "markeredgewidth": 1.3}
    axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.2, linewidth=0, zorder=2)
    axes.plot(epochs, curves.mean(axis=0), marker=marker, markevery=1 if few else curves.shape[1] // 8, **look)


def reliability_figure(points: Points, histories: Mapping[str, History]) -> Figure | None:
    """Share of right answers over confidence (both percent), winners against hard labels, one panel a student.

    Samples of all confirm seeds are pooled; bins with fewer than ``FEWEST`` samples are left out. Below the
    diagonal a network is too sure of itself. The heading gives the expected calibration error, mean over
    seeds. None where no run has kept its bins.

    Args:
        points: what is confirmed.
        histories: by trial id.
    """
    found = {(point.student, point.method): bins for point in points.all if (bins := _bins(point, histories))}
    if not found:
        return None
    students = [student for student in points.students if any(key[0] == student for key in found)]
    methods = _methods(points)
    with style():
        figure, axes_of, lowest = panels(points, students, "calibration on test")
        for axes, student, last in zip(axes_of, students, lowest, strict=True):
            diagonal(axes)
            errors = []
            for method in (HARD, *methods):
                if (student, method) not in found:
                    continue
                bins = found[student, method]
                errors.append(f"{_word(method)} {np.mean([_error(one) for one in bins]):.1f}")
                count, total, right = np.sum(bins, axis=0).T
                kept = count >= FEWEST
                x, y = 100 * total[kept] / count[kept], 100 * right[kept] / count[kept]
                colour, marker = _look(method, methods)
                filled: dict[str, Any] = {
                    "markerfacecolor": "white" if method == HARD else colour,
                    "markeredgewidth": 1.3,
                }
                axes.plot(x, y, marker=marker, color=colour, markersize=5.5, label=_label(method), zorder=3, **filled)
            remark(axes, _line("ECE %:", errors))
            axes.set_xlabel("confidence (%)" if last else "")
            axes.set_ylabel("accuracy (%)" if student in students[::3] else "")
        _legend(figure, axes_of)
        return figure


def _bins(point: Point, histories: Mapping[str, History]) -> list[NDArray[np.float64]]:
    """(bins, 3) of each seed that kept them."""
    known = [histories[trial].reliability for trial in point.trial_ids.values() if trial in histories]
    return [np.array(one, dtype=np.float64) for one in known if one]


def _error(bins: NDArray[np.float64]) -> float:
    """Expected calibration error in percent."""
    return float(100 * np.abs(bins[:, 2] - bins[:, 1]).sum() / bins[:, 0].sum())


def _methods(points: Points) -> tuple[str, ...]:
    return tuple(dict.fromkeys(point.method for point in points.all if point.method != HARD))


def _look(method: str, methods: Sequence[str]) -> tuple[str, str]:
    return (GREY, "s") if method == HARD else colour_of(method, tuple(methods))


def _line(what: str, numbers: list[str]) -> str:
    """``what hard 88.4, kd 89.6``, or nothing where that is too long for a panel."""
    text = f"{what} {', '.join(numbers)}"
    return text if len(text) <= _LONGEST else ""


def _word(method: str) -> str:
    return "hard" if method == HARD else method


def _label(method: str) -> str:
    return "hard labels" if method == HARD else f"distilled ({method})"


def _legend(figure: Figure, axes_of: list[Axes]) -> None:
    found = {text: one for axes in axes_of for one, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(4, len(found)), frameon=False)
