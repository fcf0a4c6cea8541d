"""Figures of the runs behind the points, one panel per student: the search, learning curves, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from kdbench.config import HARD
from kdbench.report.numbers import percent, short_names
from kdbench.report.points import History, Points, the_only
from kdbench.report.style import DASHES, GREY, INK, below, label, look, new_figure, style
from kdbench.run.frame import conform

COLUMNS = 3
FEWEST = 10
"""Samples without which a bin of confidence is not drawn."""
JOINED = 50
"""Samples in every bin of confidence from which on bins are joined by lines: below, a line shows noise."""


def _panels(students: Sequence[str], title: Sequence[str | None], *, share: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per student, headed by its name."""
    lines, columns = -(-len(students) // COLUMNS), min(len(students), COLUMNS)
    figure = new_figure(max(2.6 * columns + 0.5, 5.2), max(2.5 * lines + 1.3, 3.9))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=share).ravel()
    names = short_names(students)
    for axes, student in zip(grid, students, strict=False):
        axes.set_title(f"{_wrap(names[student])}\n", fontsize=11, loc="left", fontweight="bold")
    for index, axes in enumerate(grid):
        if index >= len(students):
            axes.remove()
        elif index + columns >= len(students):  # the lowest of its column
            axes.tick_params(labelbottom=True)
    figure.suptitle(",  ".join(filter(None, title)), fontsize=12)
    return figure, list(grid[: len(students)])


def _wrap(name: str, width: int = 22) -> str:
    return "\n".join(name[k : k + width] for k in range(0, len(name), width))


def _remark(axes: Axes, parts: Sequence[str], width: int = 34) -> None:
    """A grey line between a panel and its name, as much of ``parts`` as fits."""
    text = parts[0]
    for part in parts[1:]:
        text = f"{text}, {part}" if len(text) + len(part) < width else text
    written = axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=10 if len(text) <= 27 else 8.5, color=GREY)
    written.set_in_layout(False)  # a long line must not make the panels narrow


def _axis_names(all_axes: Sequence[Axes], x: str, y: str) -> None:
    """Names on the left and lowest panels alone."""
    for index, axes in enumerate(all_axes):
        axes.set(xlabel=x if index + COLUMNS >= len(all_axes) else "", ylabel="" if index % COLUMNS else y)


def _methods(points: Points) -> list[str]:
    return [method for method in dict.fromkeys(points.frame["method"]) if method != HARD]


def curves_figure(points: Points, histories: Mapping[str, History]) -> Figure | None:
    """Validation accuracy (percent) after each epoch, winners against hard labels, one panel per student.

    Lines are means over the confirm seeds, bands reach from the lowest to the highest seed. The axis begins where the
    slowest run stands after half of its epochs, so that the end can be read; an arrow says so. None without curves of
    two epochs or more.

    Args:
        points: what is confirmed.
        histories: by trial id.
    """
    rows = [
        {"student": point.student, "method": point.method, "seed": seed, "epoch": epoch, "acc": 100 * acc}
        for point in points
        for seed, trial in point.trial_ids.items()
        if trial in histories
        for epoch, acc in enumerate(histories[trial].val_acc, start=1)
    ]
    frame = pd.DataFrame(rows, columns=["student", "method", "seed", "epoch", "acc"])
    if frame.empty or frame["epoch"].max() < 2:
        return None
    students = [student for student in points.students if student in set(frame["student"])]
    methods, epochs = _methods(points), frame["epoch"].max()
    settled = frame[frame["epoch"] >= math.ceil(epochs / 2)]["acc"]
    room = max(0.06 * (settled.max() - settled.min()), 0.2)
    with style():
        figure, all_axes = _panels(students, [_under(points, "confirm runs"), points.dataset])
        for axes, student in zip(all_axes, students, strict=True):
            ends = []
            for method in (HARD, *methods):
                own = frame[(frame["student"] == student) & (frame["method"] == method)]
                if own.empty:
                    continue
                form = look(method, methods)
                sns.lineplot(own, x="epoch", y="acc", ax=axes, estimator="mean", errorbar=("pi", 100),
                             label=label(method), markevery=max(1, epochs // 8), markersize=5.5, linewidth=1.8,
                             markeredgecolor=form["color"],
                             err_kws={"alpha": 0.2, "linewidth": 0}, **form)  # fmt: skip
                last = own[own["epoch"] == own["epoch"].max()]["acc"].mean()
                ends.append(f"{'hard' if method == HARD else method} {last:.1f}")
            _remark(axes, [f"last %: {ends[0]}", *ends[1:]])
            axes.set_ylim(settled.min() - room, settled.max() + room)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        _axis_names(all_axes, "epoch", "val. acc. (%)")
        cut = " Earlier epochs lie below the axis." if frame["acc"].min() < settled.min() - room else ""
        one = "run" if points.over else "seed"
        below(figure, f"Mean over {one}s; bands from the lowest {one} to the highest.{cut}", all_axes)
        return figure


def _under(points: Points, about: str) -> str:
    return f"{about} under {points.teacher}" if points.teacher else about


def reliability_figure(points: Points, histories: Mapping[str, History]) -> Figure | None:
    """Share of right answers over confidence (both percent), winners against hard labels, one panel per student.

    Samples of all confirm seeds are pooled; bins with fewer than ``FEWEST`` samples are left out, and joined by lines
    only where each has ``JOINED``. Below the diagonal a network is too sure of itself. The heading gives the expected
    calibration error, mean over seeds, and after an arrow what temperature scaling leaves of it, where every seed has
    it. None where no run has kept its bins.

    Args:
        points: what is confirmed.
        histories: by trial id.
    """
    found = {(point.student, point.method): kept for point in points if (kept := _kept(point, histories))}
    if not found:
        return None
    students = [student for student in points.students if any(key[0] == student for key in found)]
    methods = _methods(points)
    with style():
        figure, all_axes = _panels(students, [_under(points, "calibration on test"), points.dataset])
        for axes, student in zip(all_axes, students, strict=True):
            axes.plot([0, 100], [0, 100], color=INK, linestyle=DASHES, linewidth=1.0, zorder=1)
            axes.set(xlim=(-3, 103), ylim=(-3, 103), xticks=np.arange(0, 101, 50), yticks=np.arange(0, 101, 50))
            errors = []
            for method in (HARD, *methods):
                if (student, method) not in found:
                    continue
                bins, after = zip(*found[student, method], strict=True)
                arrow = f"→{100 * np.mean(after):.1f}" if None not in after else ""
                error = f"{np.mean([_error(one) for one in bins]):.1f}{arrow}"
                errors.append(f"{'hard' if method == HARD else method} {error}")
                count, total, right = np.sum(bins, axis=0).T
                kept = count >= FEWEST
                join = "-" if (count[kept] >= JOINED).all() else "none"
                axes.plot(100 * total[kept] / count[kept], 100 * right[kept] / count[kept], label=label(method),
                          markersize=5.5, linestyle=join, linewidth=1.2, zorder=3, **look(method, methods))  # fmt: skip
            _remark(axes, [f"ECE %: {errors[0]}", *errors[1:]])
        _axis_names(all_axes, "confidence (%)", "right (%)")
        arrows = any(after is not None for kept in found.values() for _, after in kept)
        told = " Arrow: after temperature scaling on validation." if arrows else ""
        below(figure, f"Below the diagonal a network is too sure of itself.{told}", all_axes)
        return figure


def _kept(point: Any, histories: Mapping[str, History]) -> list[tuple[NDArray[np.float64], float | None]]:
    """((15, 3) samples, sum of confidences and correct per bin, scaled error), for each seed that has kept its bins."""
    kept = [histories[trial] for trial in point.trial_ids.values() if trial in histories]
    return [(np.asarray(one.reliability, dtype=np.float64), one.scaled_ece) for one in kept if one.reliability]


def _error(bins: NDArray[np.float64]) -> float:
    """Expected calibration error (percent) of one run's bins."""
    count, total, right = bins.T
    return float(100 * np.abs(total - right).sum() / count.sum())


def temperature_alpha_figure(runs: pd.DataFrame) -> Figure:
    """What the search saw: validation accuracy over the temperature, coloured by alpha; one panel per student.

    Points are percentage points above the student's hard labels on the search's seed (accuracies where there is no
    such run); crosses at the foot are pruned and failed trials, a ring marks the choice. Methods without a temperature
    stand over the number of the trial. Several methods have panels of their own.
    """
    frame = conform(runs)
    search = frame[(frame["phase"] == "search") & (frame["method"] != HARD)]
    done = search[(search["status"] == "complete") & search["val_acc"].notna()]
    base = frame[(frame["phase"] == "baseline") & (frame["status"] == "complete")].groupby("student")["val_acc"].max()
    panels = list(dict.fromkeys(zip(done["method"], done["student"], strict=True)))
    panels.sort(key=lambda panel: list(dict.fromkeys(done["method"])).index(panel[0]))
    with style():
        if not panels:
            figure = new_figure(5.2, 3.0)
            axes = figure.add_subplot()
            axes.text(0.5, 0.5, "no search trials yet", transform=axes.transAxes, ha="center", color=GREY)
            axes.set(xticks=[], yticks=[])
            return figure
        relative = all(student in base.index for _, student in panels)
        seeds = sorted(set(search["seed"].dropna()))
        title = [f"search under {the_only(frame, 'teacher')}", the_only(frame, "dataset")]
        title.append(f"one seed ({seeds[0]})" if len(seeds) == 1 else None)
        several = len({method for method, _ in panels}) > 1
        figure, all_axes = _panels([student for _, student in panels], title)
        heated = False
        for axes, (method, student) in zip(all_axes, panels, strict=True):
            own = search[(search["method"] == method) & (search["student"] == student)]
            hard = float(base.get(student, math.nan))
            best = f"best {percent(own['val_acc'].max())}%"
            knob = _knob(own)
            over = [f"over {knob.removeprefix('hyper_') if knob else 'trials'}"] if knob != "temperature" else []
            hard_acc = [f"hard {percent(hard)}%"] if hard == hard else []
            _remark(axes, [*([method] if several else []), *over, best, *hard_acc])
            _trials(axes, own, knob, hard if relative else 0.0)
            heated |= knob == "temperature"
        _axis_names(
            all_axes,
            "temperature T" if heated else "",
            "val. acc. − hard labels\n(points)" if relative else "val. acc. (%)",
        )
        below(figure, "Each dot is a trial; a ring marks the choice, crosses are pruned or failed trials.", all_axes)
        return figure


def _knob(own: pd.DataFrame) -> str | None:
    """What a search's trials are drawn over: temperature, else what varied first; None: nothing did."""
    names = ["temperature", *sorted(name for name in own.columns if name.startswith("hyper_"))]
    return next((name for name in names if own[name].nunique() > (name != "temperature")), None)


def _trials(axes: Axes, own: pd.DataFrame, knob: str | None, hard: float) -> None:
    """One panel of ``temperature_alpha_figure``, over ``knob``; without one over the trials' numbers."""
    done = own[(own["status"] == "complete") & own["val_acc"].notna()]
    heated = knob is not None
    where = own[knob] if knob else pd.Series(range(1, len(own) + 1), own.index, dtype=float)
    height = 100 * (done["val_acc"] - hard)
    if hard:
        axes.axhline(0, color=INK, linestyle=DASHES, linewidth=1.0, zorder=1, label="hard labels")
    alpha = done["alpha"].fillna(1.0)
    sns.scatterplot(x=where[done.index], y=height, hue=alpha, hue_norm=Normalize(0, 1), palette="viridis", ax=axes,
                    s=56, edgecolor=INK, linewidth=0.5, zorder=3, legend=False)  # fmt: skip
    top: Any = height.idxmax()
    axes.scatter([where[top]], [height[top]], s=190, facecolors="none", edgecolors=INK, linewidths=1.6, zorder=4)
    for value in (0.0, 0.5, 1.0) if own["alpha"].notna().any() else ():
        axes.plot([], [], marker="o", linestyle="none", color=colormaps["viridis"](value), label=f"alpha {value:g}")
    axes.margins(y=0.2)
    gone = own.drop(done.index)
    if len(gone):
        axes.plot(where[gone.index], [0.04] * len(gone), "x", color="#8a8a8a", markersize=5, clip_on=False,
                  transform=axes.get_xaxis_transform(), zorder=2)  # fmt: skip
    if heated and (low := float(where.min())) > 0:
        high = float(where.max())
        room = max((high / low) ** 0.1, 1.15) if high > low else 2.0
        axes.set_xlim(low / room, high * room)
        axes.set_xscale("log")
        marks = [round(k * 10.0**n, 9) for n in range(-6, 7) for k in ((1, 2, 5) if high / low < 30 else (1,))]
        marks = [1, 2, 5, 10, 20, 50] if knob == "temperature" else marks
        marks = sorted(set(where.dropna())) if where.nunique() <= 3 else marks
        axes.set_xticks([mark for mark in marks if low / room <= mark <= high * room])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
