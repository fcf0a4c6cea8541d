"""One look for all figures, and figures as files whose bytes depend on nothing but their content."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from kdbench.config import CONTROLS, HARD
from kdbench.files import atomic

GREY = "#6b6b6b"
INK = "#222222"
# Okabe & Ito's colours (distinct under the common colour blindnesses), each with a marker of its own.
METHOD_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
METHOD_MARKERS = ("o", "^", "D", "v", "P", "X", "*")
DASHES = (0, (5, 3))
"""Of lines that are a reference: the teacher, zero, hard labels."""

# Any: seaborn's keys are plain strings, matplotlib's a closed set of literals.
_RC: Any = {
    **sns.axes_style("ticks"),
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.minor.visible": False,
    "text.parse_math": False,  # a "$" in a name is a dollar
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "svg.hashsalt": "kdbench",
    "figure.dpi": 100,
    "savefig.dpi": 200,
}


@contextmanager
def style() -> Iterator[None]:
    """The style of all figures; drawing and saving both happen inside it."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches that belongs to no window and no global list."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def look(method: str, methods: Sequence[str]) -> dict[str, Any]:
    """Marker and colours of a method by its place among those that distil; hard labels are grey, square and hollow."""
    if method == HARD:
        return {"color": GREY, "marker": "s", "markerfacecolor": "white", "markeredgewidth": 1.6}
    index = list(methods).index(method)
    colour = METHOD_COLOURS[index % len(METHOD_COLOURS)]
    return {"color": colour, "marker": METHOD_MARKERS[index % len(METHOD_MARKERS)], "markeredgewidth": 1.6}


def label(method: str) -> str:
    """A method in a legend."""
    told = f"control: {CONTROLS[method]}" if method in CONTROLS else f"distilled ({method})"
    return "hard labels" if method == HARD else told


MANY = 8
"""Entries of a legend above which methods are called by their names alone."""
LETTERS = 14
"""Of a remark's size, that fit into an inch."""


def below(figure: Figure, text: str, axes: Sequence[Axes] = ()) -> None:
    """One legend of all ``axes`` (the figure's own, unless given) below them, and a line of text on what it shows."""
    found: dict[str, Any] = {}
    for one in axes or figure.axes:
        found |= {name: handle for handle, name in zip(*one.get_legend_handles_labels(), strict=True)}
        if one.get_legend() is not None:
            one.get_legend().remove()  # type: ignore[union-attr]
    many = len(found) > MANY  # then names alone
    found = {re.sub(r"^distilled \((.*)\)$", r"\1", name) if many else name: handle for name, handle in found.items()}
    across = min(len(found), 4) if many or len("".join(found)) < 62 else 2
    legend = figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=across,
                           frameon=False, columnspacing=1.4, handletextpad=0.5,
                           title=fill(text, int(LETTERS * figure.get_figwidth())))  # fmt: skip
    legend.get_title().set(fontsize=9.5, color=GREY)


def save(figure: Figure, out: Path, name: str) -> dict[str, Path]:
    """Write ``name``.png, .svg and .pdf into ``out``, each whole or not at all, without dates in them."""
    metadata: dict[str, dict[str, str | None]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    paths = {}
    with style():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out: three formats need not do it three times again
        for kind, entries in metadata.items():

            def write(aside: Path, kind: str = kind, entries: dict[str, str | None] = entries) -> None:
                figure.savefig(aside, format=kind, metadata=entries, facecolor="white")

            paths[f"{name}.{kind}"] = out / f"{name}.{kind}"
            atomic(out / f"{name}.{kind}", write)
    return paths
