"""What the analysis scripts share: reading sweeps, one-line errors, saving. Copy it along with a script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from kdbench.errors import BadInput, KdbenchError
from kdbench.report.drawing import METHOD_COLOURS, METHOD_MARKERS, new_figure, style, tick
from kdbench.report.points import pareto_table
from kdbench.run.frame import COLUMNS, OPTIONAL

KEY = ["student", "method", "temperature", "alpha"]
TEXT = dict.fromkeys(["sweep", "trial_id", "phase", "status", "dataset", "teacher", "student", "method"], "string")


def read(paths: list[Path]) -> list[pd.DataFrame]:
    """Trials frames, one a (sweep, data set, teacher), from sweep folders, folders of them, or trials.csv files."""
    frames = []
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("trials.csv"))
        if not files:
            raise BadInput(
                f"no trials.csv in {path}: give the folder that a sweep wrote, or one that holds such folders"
            )
        for file in files:
            try:
                frame = pd.read_csv(file, dtype=TEXT).reindex(columns=[*COLUMNS, *OPTIONAL])
            except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
                raise BadInput(f"{file} is no trials table: {error}") from error
            frames += [rows for _, rows in frame.groupby(["sweep", "dataset", "teacher"], dropna=False, sort=False)]
    return [frame for frame in frames if len(frame)]


def name(trials: pd.DataFrame) -> str:
    """``fashion-mnist, resnet50``: what one frame of ``read`` is about."""
    return f"{trials['dataset'].iloc[0]}, {str(trials['teacher'].iloc[0]).split('.')[0]}"


def confirmed(trials: pd.DataFrame) -> pd.DataFrame:
    """The complete confirm runs that the Pareto table is made of (of several settings of a method, its choice)."""
    rows = trials[(trials["phase"] == "confirm") & (trials["status"] == "complete") & trials["test_acc"].notna()]
    chosen = pareto_table(trials)[KEY].astype({"student": "string", "method": "string"})
    return pd.concat([rows[rows["method"] == "hard"], rows.merge(chosen[chosen["method"] != "hard"], on=KEY)])


def by_seed(rows: pd.DataFrame, method: str, value: str = "test_acc") -> pd.DataFrame:
    """``value`` of one method, a row a (params, student) by ascending size, a column a seed."""
    return rows[rows["method"] == method].pivot_table(index=["params", "student"], columns="seed", values=value)


def distilled(rows: pd.DataFrame) -> list[str]:
    """The methods other than hard labels, in order of appearance."""
    return [method for method in rows["method"].unique() if method != "hard"]


def panels(count: int, width: float = 4.6, height: float = 4.0, across: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes, at most ``across`` a line."""
    columns = min(count, across)
    lines = -(-count // columns)
    figure = new_figure(width * columns + 0.8, height * lines + 0.4)
    return figure, [figure.add_subplot(lines, columns, index + 1) for index in range(count)]


def look(kind: str, kinds: dict[str, int]) -> tuple[str, str]:
    """(colour, marker) of ``kind``, the same in all panels: ``kinds`` remembers which came when."""
    index = kinds.setdefault(kind, len(kinds)) % len(METHOD_COLOURS)
    return METHOD_COLOURS[index], METHOD_MARKERS[index]


def legend(figure: Figure, axes_of: list[Axes]) -> None:
    """One legend for all panels, below them; beyond two lines the figure grows."""
    found = {label: handle for axes in axes_of for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    across = int(11 * figure.get_figwidth() / (6 + max(map(len, found))))  # letters to an inch, and a handle's room
    lines = -(-len(found) // max(1, min(len(found), 3, across)))
    figure.set_figheight(figure.get_figheight() + 0.26 * max(0, lines - 2))
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=max(1, min(len(found), 3, across)),
        frameon=False,
    )


def log_axis(axes: Axes, label: str, form: Callable[[float], str] = tick, *, y: bool = False) -> None:
    """A logarithmic axis with round numbers on it, wide enough for two of them at least."""
    axis, low, high = (axes.yaxis, *axes.get_ylim()) if y else (axes.xaxis, *axes.get_xlim())
    subs = (1.0, 2.0, 5.0) if high / low > 4 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(base=10, subs=subs if high / low < 100 else (1.0,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_label_text(label)


def run(about: str, default: str, draw: Callable[[list[pd.DataFrame]], tuple[Figure, str]]) -> None:
    """Parse ``PATH... [--out FILE]``, print the text that ``draw`` gives and save its figure (or the text, as .md)."""
    parser = argparse.ArgumentParser(description=about.split("\n\n")[0], epilog="\n\n".join(about.split("\n\n")[1:]))
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a sweep's folder, or one that holds several"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(default), help="picture (.png, .svg, .pdf) or text (.md) to write"
    )
    chosen = parser.parse_args()
    try:
        if chosen.out.suffix not in (".png", ".svg", ".pdf", ".md"):
            raise BadInput(f"--out {chosen.out}: the name must end in .png, .svg, .pdf or .md")
        with style():
            figure, text = draw(read(chosen.paths))
            print(text)
            if chosen.out.suffix == ".md":
                chosen.out.write_text(text + "\n", encoding="utf-8")
            else:
                figure.savefig(chosen.out, facecolor="white")
        print(f"wrote {chosen.out}")
    except (KdbenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
