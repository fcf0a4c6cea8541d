"""What temperature and alpha did to each student, over the trials of the search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.tri import Triangulation

from kdbench.report._cells import short_names
from kdbench.report._frames import HARD, conform_trials, the_only
from kdbench.report._grid import COLUMNS, remark, wrap
from kdbench.report._pareto import points as percent
from kdbench.report._style import GREY, INK, new_figure, style

_FEWEST = 6
"""Trials in a panel that contours need."""
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Panel:
    """The search trials of one student under one method."""

    student: str
    method: str
    trials: pd.DataFrame
    baseline: float
    """Validation accuracy on hard labels with the seed of the search; NaN when not known."""

    @property
    def kind(self) -> Literal["plane", "temperature", "alpha", "none"]:
        """What can be drawn: both axes, accuracy over one of them, or accuracy alone."""
        knows = [bool(self.trials[name].notna().any()) for name in ("temperature", "alpha")]
        return "plane" if all(knows) else "temperature" if knows[0] else "alpha" if knows[1] else "none"

    @property
    def complete(self) -> pd.DataFrame:
        """Trials that ran to their last epoch."""
        return self.trials[(self.trials["status"] == "complete") & self.trials["val_acc"].notna()]


def temperature_alpha_figure(trials: pd.DataFrame) -> Figure:
    """Validation accuracy of every search trial over temperature (log axis) and alpha, one panel a student.

    Colour is the accuracy relative to the same student on hard labels (percentage points, one scale for
    all panels, neutral at zero), so that a response of a point or less shows although the sizes differ
    by more; where some student has no baseline yet, it is the accuracy itself. The panel's heading gives
    the hard-label accuracy; the line at alpha = 0 is where the loss is hard labels alone. A ring marks
    the best trial. Pruned trials are small crosses without colour, because their accuracy is that of an
    earlier epoch. All of it is one seed a trial: differences of a few tenths are within the noise.

    With six trials or more, pale contours join them; they are interpolation, not smoothing.

    A method without one of the two axes gets accuracy on the other axis instead of colour.

    Raises:
        BadInput: when ``trials`` is no trials frame, or of several data sets or teachers.
    """
    frame = conform_trials(trials)
    panels = _panels(frame)
    with style():
        if not panels:
            return _empty()
        slots = _slots(panels)
        lines = 1 + max(line for line, _ in slots)
        columns = 1 + max(column for _, column in slots)
        figure = new_figure(max(2.6 * columns + 1.4, 5.2), max(2.55 * lines + 1.1, 4.0))
        grid = figure.subplots(lines, columns, squeeze=False)
        for place in set(np.ndindex(lines, columns)) - set(slots):
            grid.item(place).remove()
        relative = all(not math.isnan(panel.baseline) for panel in panels)
        norm = _norm(panels, relative)
        names = short_names(tuple(dict.fromkeys(panel.student for panel in panels)))
        several = len({panel.method for panel in panels}) > 1
        temperatures = pd.concat([panel.trials["temperature"] for panel in panels]).dropna().to_numpy(dtype=float)
        for panel, (line, column) in zip(panels, slots, strict=True):
            label = names[panel.student] + (f", {panel.method}" if several else "")
            _draw(grid[line, column], panel, label, norm, relative)
            _x_axis(grid[line, column], panel, temperatures)
            _axis_labels(grid[line, column], panel, left=column == 0, below=(line + 1, column) not in slots)
        _colour_bar(figure, [grid[slot] for slot in slots], norm, relative)
        _legend(figure, panels)
        teacher, dataset = the_only(frame, "teacher"), the_only(frame, "dataset")
        figure.suptitle(",  ".join(filter(None, [f"search under {teacher}", dataset, _seed(panels)])), fontsize=12)
        return figure


def _panels(frame: pd.DataFrame) -> list[Panel]:
    search = frame[(frame["phase"] == "search") & (frame["method"] != HARD)]
    baselines = frame[(frame["phase"] == "baseline") & (frame["status"] == "complete")]
    level = baselines.groupby("student")["val_acc"].max()
    found = []
    for (method, student), rows in search.groupby(["method", "student"], sort=False):
        if ((rows["status"] != "failed") & rows["val_acc"].notna()).any():
            found.append(Panel(str(student), str(method), rows, float(level.get(student, math.nan))))
    methods = list(dict.fromkeys(panel.method for panel in found))
    return sorted(found, key=lambda panel: methods.index(panel.method))


def _slots(panels: list[Panel]) -> list[tuple[int, int]]:
    """(line, column) of each panel: left to right, at most three a line, each method on a new line."""
    slots, line, column = list[tuple[int, int]](), -1, COLUMNS
    for index, panel in enumerate(panels):
        if column == COLUMNS or (index and panels[index - 1].method != panel.method):
            line, column = line + 1, 0
        slots.append((line, column))
        column += 1
    return slots


def _values(panel: Panel, relative: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Colour values of the complete trials: percent, or points above the hard labels."""
    accuracy = 100 * panel.complete["val_acc"].to_numpy(dtype=float)
    return accuracy - 100 * panel.baseline if relative else accuracy


def _norm(panels: list[Panel], relative: bool) -> Normalize:
    """One colour scale for all panels; around zero it reaches as far as 95% of the trials, a fifth of a point at least.

    A single hopeless trial (T or alpha at an extreme) would otherwise flatten all other differences.
    """
    values = np.concatenate([_values(panel, relative) for panel in panels if panel.kind == "plane"] or [np.zeros(1)])
    if not values.size:
        values = np.zeros(1)
    if relative:
        reach = max(float(np.quantile(np.abs(values), 0.95)), 0.2)
        return TwoSlopeNorm(0.0, -reach, reach)
    low, high = float(np.quantile(values, 0.05)), float(values.max())
    return Normalize(low - 0.1, high + 0.1)


def _draw(axes: Axes, panel: Panel, label: str, norm: Normalize, relative: bool) -> None:
    best = "" if panel.complete.empty else f"best {percent(float(panel.complete['val_acc'].max()))}%"
    hard = "" if math.isnan(panel.baseline) else f"hard {percent(panel.baseline)}%"
    axes.set_title(f"{wrap(label)}\n", fontsize=11, loc="left", fontweight="bold")
    remark(axes, ",  ".join(filter(None, [hard, best])))
    done, pruned = panel.complete, panel.trials[panel.trials["status"] == "pruned"]
    x_name = "alpha" if panel.kind == "alpha" else "temperature"
    x, y = _coordinates(panel, done, x_name)
    if panel.kind == "plane":
        axes.axhline(0, color=INK, linestyle=(0, (5, 3)), linewidth=1.0, zorder=1)
        colours: dict[str, Any] = {"c": _values(panel, relative), "cmap": _map(relative), "norm": norm}
        _contours(axes, x, y, _values(panel, relative), {"cmap": _map(relative), "norm": norm})
        axes.scatter(x, y, s=64, edgecolors=INK, linewidths=0.6, zorder=3, **colours)
        axes.set_ylim(-0.08, 1.08)
        axes.set_yticks([0, 0.5, 1])
    else:
        if not math.isnan(panel.baseline):
            axes.axhline(100 * panel.baseline, color=INK, linestyle=(0, (5, 3)), linewidth=1.0, zorder=1)
        axes.scatter(x, y, s=52, color="#0072B2", edgecolors=INK, linewidths=0.6, zorder=3)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    gone_x, gone_y = _coordinates(panel, pruned, x_name)
    if panel.kind == "plane":
        axes.scatter(gone_x, gone_y, s=22, marker="x", color="#8a8a8a", linewidths=1.2, zorder=2)
    if len(done):
        top = int(np.argmax(done["val_acc"].to_numpy(dtype=float)))
        axes.scatter(x[top], y[top], s=190, facecolors="none", edgecolors=INK, linewidths=1.6, zorder=4)


def _contours(axes: Axes, x: Any, y: Any, values: Any, look: dict[str, Any]) -> None:
    """Pale bands between the trials, by straight lines from trial to trial: only where trials stand around.

    Nothing below ``_FEWEST`` different trials, or where all lie on a line.
    """
    places = pd.DataFrame({"x": np.log(x), "y": y, "value": values}).groupby(["x", "y"], as_index=False).mean()
    flat = places[["x", "y"]].to_numpy(dtype=float)
    if len(places) < _FEWEST or np.linalg.matrix_rank(flat - flat.mean(axis=0), tol=1e-6) < 2:
        return
    norm = look["norm"]
    # What lies beyond the colours takes the last one.
    heights = np.clip(places["value"], norm.vmin, norm.vmax)
    levels = MaxNLocator(nbins=10, steps=[1, 2, 2.5, 5, 10]).tick_values(norm.vmin, norm.vmax)
    mesh = Triangulation(flat[:, 0], flat[:, 1])
    place = Triangulation(np.exp(flat[:, 0]), flat[:, 1], mesh.triangles)  # neighbours on the logarithmic axis
    axes.tricontourf(place, heights, levels=levels, alpha=0.55, zorder=0.5, **look)
    axes.tricontour(place, heights, levels=levels, colors="white", linewidths=0.8, linestyles="solid", zorder=0.6)


def _coordinates(panel: Panel, rows: pd.DataFrame, x_name: str) -> tuple[Any, Any]:
    """Places (x, y) of ``rows``; without either hyper-parameter x is the order of the trials."""
    x = np.arange(1, len(rows) + 1) if panel.kind == "none" else rows[x_name].to_numpy(dtype=float)
    y = rows["alpha"].to_numpy(dtype=float) if panel.kind == "plane" else 100 * rows["val_acc"].to_numpy(dtype=float)
    return x, y


def _x_axis(axes: Axes, panel: Panel, temperatures: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """The same for all panels: logarithmic for temperature, with room around a single value and round ticks."""
    if panel.kind == "none":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        return
    if panel.kind == "alpha":
        axes.set_xlim(-0.08, 1.08)
        axes.set_xticks([0, 0.5, 1])
        return
    low, high = float(temperatures.min()), float(temperatures.max())
    room = max((high / low) ** 0.1, 1.15) if high > low else 2.0
    axes.set_xscale("log")
    axes.set_xlim(low / room, high * room)
    ticks = [tick for tick in _TICKS if low / room <= tick <= high * room]
    distinct = np.unique(temperatures)
    grid = distinct.size <= 6 and (distinct[1:] / distinct[:-1] > 1.3).all()
    if grid or len(ticks) < 2:  # a grid, or one fixed temperature: say exactly which
        ticks = list(distinct if grid else distinct[[0, -1]])
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _axis_labels(axes: Axes, panel: Panel, *, left: bool, below: bool) -> None:
    if below:
        axes.set_xlabel({"alpha": "alpha", "none": "trial"}.get(panel.kind, "temperature T"))
    if left or panel.kind != "plane":
        axes.set_ylabel("alpha" if panel.kind == "plane" else "val. acc. (%)")


def _map(relative: bool) -> str:
    return "PuOr_r" if relative else "viridis"


def _colour_bar(figure: Figure, axes: list[Axes], norm: Normalize, relative: bool) -> None:
    from matplotlib.cm import ScalarMappable

    if not any(len(one.collections) and one.collections[0].get_array() is not None for one in axes):
        return
    label = "validation accuracy minus\nhard labels (points)" if relative else "validation accuracy (%)"
    bar = figure.colorbar(
        ScalarMappable(norm, _map(relative)), ax=axes, extend="both" if relative else "min", shrink=0.85, aspect=28
    )
    bar.set_label(label)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
    if relative:
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if abs(value) > 1e-9 else "0"))


def _legend(figure: Figure, panels: list[Panel]) -> None:
    ring: dict[str, Any] = {"marker": "o", "linestyle": "none", "markerfacecolor": "none"}
    dot = {**ring, "markerfacecolor": "#d9d9d9"}
    handles = [
        Line2D([], [], markersize=8, markeredgecolor=INK, markeredgewidth=0.6, label="trial", **dot),
        Line2D([], [], markersize=13, markeredgecolor=INK, markeredgewidth=1.6, label="best", **ring),
    ]
    planes = [panel for panel in panels if panel.kind == "plane"]
    if any((panel.trials["status"] == "pruned").any() for panel in planes):
        handles.append(Line2D([], [], marker="x", linestyle="none", color="#8a8a8a", markersize=6, label="pruned"))
    if planes or any(not math.isnan(panel.baseline) for panel in panels):
        handles.append(Line2D([], [], color=INK, linestyle=(0, (5, 3)), linewidth=1.0, label="hard labels"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _seed(panels: list[Panel]) -> str | None:
    seeds = {int(seed) for panel in panels for seed in panel.trials["seed"].dropna()}
    return f"one seed ({seeds.pop()})" if len(seeds) == 1 else None


def _empty() -> Figure:
    figure = new_figure(5.2, 3.0)
    axes = figure.add_subplot()
    axes.text(0.5, 0.5, "no search trials yet", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_xticks([])
    axes.set_yticks([])
    return figure
