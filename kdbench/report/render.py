"""One table, many forms: a grid of cells to a terminal, Markdown, LaTeX; a frame to CSV.

Sweeps, leaderboards and papers' tables all go through here, so that what is escaped, starred and shortened is so
everywhere. Pages take the same grid's cells.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kdbench.report.numbers import shared_prefix, short_names

STYLES = {"helps": "green", "hurts": "red", "unknown": "dim", "warn": "yellow"}
"""Colours of a terminal by kind of cell."""
_LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "α": "$\\alpha$",
    "→": "$\\to$",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


@dataclass(frozen=True)
class Column:
    """What is common to the cells under one heading."""

    key: str
    head: str
    left: bool = False
    """Words stand on the left, numbers on the right."""
    short: str = ""
    """The heading on a terminal, if another."""
    spared: int = 0
    """A terminal that is too narrow gives up the column with the highest number first; those with 0 stay."""
    names: bool = False
    """Names of students: a terminal shortens them where room is short."""
    folds: bool = False
    """May be broken into lines where nothing else helps; all may where no column says so."""
    printed: bool = True
    """Whether LaTeX, which has a page's width, has it."""
    least: bool = False
    """The best is the least: what a page sorts first."""
    optional: bool = True
    """Left out where all of its cells are empty."""


@dataclass(frozen=True)
class Cell:
    """A text, and how it stands out."""

    text: str
    star: bool = False
    """On the Pareto front: ★, or bold in LaTeX."""
    kind: str = ""
    """Key of ``STYLES``, and a class of the page."""
    order: float | str | None = None
    """What a page sorts by, if not the text."""


@dataclass(frozen=True)
class Grid:
    """Columns and rows of cells; ``groups`` gives each row a heading, equal ones standing together."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    groups: tuple[str, ...] = ()
    title: str = ""

    @classmethod
    def of(cls, columns: Sequence[Column], rows: Sequence[dict[str, Cell | str]], **more: Any) -> Grid:
        """The grid of ``rows`` by column key, without control characters and without columns that no row fills."""
        cells = [[_cell(row.get(column.key, "")) for column in columns] for row in rows]
        kept = [k for k, column in enumerate(columns) if not column.optional or any(row[k].text for row in cells)]
        return cls(tuple(columns[k] for k in kept), tuple(tuple(row[k] for k in kept) for row in cells), **more)

    def only(self, keep: Sequence[Column]) -> Grid:
        """The same with some columns."""
        places = [self.columns.index(column) for column in keep]
        return replace(self, columns=tuple(keep), rows=tuple(tuple(row[k] for k in places) for row in self.rows))

    def flat(self, title: str = "") -> Grid:
        """The same under one heading."""
        return replace(self, groups=(), title=title)

    def grouped(self) -> Iterator[tuple[str, list[tuple[Cell, ...]]]]:
        """Runs of rows under one heading."""
        held: list[tuple[str, list[tuple[Cell, ...]]]] = []
        for group, row in zip(self.groups or [""] * len(self.rows), self.rows, strict=True):
            if not held or held[-1][0] != group:
                held.append((group, []))
            held[-1][1].append(row)
        return iter(held)


def _cell(value: Cell | str) -> Cell:
    cell = value if isinstance(value, Cell) else Cell(value)
    return replace(cell, text=plain(cell.text))


def plain(text: str) -> str:
    """``text`` on one line, without characters that steer a terminal or turn the direction of writing."""
    line = "".join(" " if mark in "\n\r\t" else mark for mark in text)
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(mark) in ("Cc", "Cf") else mark for mark in line)


def markdown(grid: Grid) -> list[str]:
    """Lines of a GitHub-flavoured table; one table per group, below its heading."""
    rule = ["---" if column.left else "---:" for column in grid.columns]
    lines: list[str] = []
    for group, rows in grid.grouped():
        lines += ["", f"**{escape(group)}**", ""] if group else []
        body = [[escape(cell.text) + (" ★" if cell.star and cell.text else "") for cell in row] for row in rows]
        heads = [column.head for column in grid.columns]
        lines += ["| " + " | ".join(cells) + " |" for cells in (heads, rule, *body)]
    return lines


def escape(text: str) -> str:
    """``text`` as Markdown shows it, on one line. Underscores within words mean nothing to GitHub and stay."""
    line = " ".join(text.split())
    marks = r"([\\|`*<>~&\[\]])" if re.search(r"\]\s*[\[(]", line) else r"([\\|`*<>~&])"  # what could be a link
    marked = re.sub(marks, r"\\\1", line)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", marked)


_LONG, _WRAPPED = 34, 0.26
"""Letters from which a LaTeX column wraps, and its width then, as a share of the line."""


def latex(grid: Grid, caption: str, label: str, notes: Sequence[str] = ()) -> str:
    """A table float with caption and label, stars as bold. Needs the package booktabs only.

    ``notes`` become comments above it. Names lose the words that all of them share, which the caption keeps; columns
    that no row fills are left out.
    """
    filled = [any(row[k].text for row in grid.rows) for k in range(len(grid.columns))]
    kept = [column for column, some in zip(grid.columns, filled, strict=True) if column.printed and some]
    grid = grid.only(kept)
    full = [row[k].text for row in grid.rows for k, column in enumerate(grid.columns) if column.names]
    names = short_names(full)
    prefix = shared_prefix(full)
    heads = [(column.short or column.head).replace("\n", " ") for column in grid.columns]
    longest = [max(len(row[k].text) for row in grid.rows) if grid.rows else 0 for k in range(len(grid.columns))]
    widths = [
        f"p{{{_WRAPPED}\\linewidth}}" if column.left and not column.names and most > _LONG else "lr"[not column.left]
        for column, most in zip(grid.columns, longest, strict=True)
    ]
    caption += f" All names begin with {prefix}" if prefix else ""
    out = [
        *("% Needs \\usepackage{booktabs}.", *(f"% {escape_latex(note)}" for note in notes), "\\begin{table}"),
        *("\\centering\\footnotesize", "\\setlength{\\tabcolsep}{2.5pt}", f"\\caption{{{escape_latex(caption)}}}"),
        f"\\label{{tab:{re.sub(r'[^a-zA-Z0-9:.-]+', '-', label)}}}",
        f"\\begin{{tabular}}{{@{{}}{''.join(widths)}@{{}}}}",
        *("\\toprule", " & ".join("$T$" if head == "T" else escape_latex(head) for head in heads) + " \\\\"),
    ]
    for group, rows in grid.grouped():
        out.append("\\midrule")
        out += [f"\\multicolumn{{{len(heads)}}}{{l}}{{{escape_latex(group)}}} \\\\"] if group else []
        for row in rows:
            texts = [
                replace(cell, text=names[cell.text]) if column.names else cell
                for column, cell in zip(grid.columns, row, strict=True)
            ]
            out.append(" & ".join(_tex(cell) for cell in texts) + " \\\\")
    return "\n".join([*out, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _tex(cell: Cell) -> str:
    """A cell: signs in math mode; of what is bold, the first number."""
    parts = re.split(r"((?<![\w.)])[+-](?=\d))", cell.text)
    text = "".join(f"${part}$" if part in ("+", "-") else escape_latex(part) for part in parts)
    if not (cell.star and text):
        return text
    first, space, rest = text.partition(" ")
    return f"\\textbf{{{first}}}{space}{rest}"


def escape_latex(text: str) -> str:
    """``text`` as LaTeX prints it, character by character."""
    return "".join(_LATEX.get(mark, mark) for mark in text.replace("★", "").replace("…", "..."))


def csv(frame: pd.DataFrame) -> str:
    """``frame`` as CSV; text that a spreadsheet would take for a formula is quoted by an apostrophe."""
    buffer = io.StringIO()
    safe = frame.apply(lambda column: column if pd.api.types.is_numeric_dtype(column) else column.map(_inert))
    (safe if len(frame) else frame).to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value[1:] else value


class Screen:
    """A grid for a terminal, which fits itself to the console when it is printed.

    Names are shortened first (words that all begin with move to the heading), then gaps, then columns go by
    ``Column.spared``; the last resort folds cells.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in self._variants():
            if Measurement.get(console, options.update(width=10_000), table).maximum <= options.max_width:
                break
        yield table

    def _variants(self) -> Iterator[Table]:
        """Tables from the widest to the narrowest; the last one folds its cells where even it does not fit."""
        columns = list(self.grid.columns)
        yield self._table(self.grid, short=False, gap=1)
        yield self._table(self.grid, short=True, gap=1)
        yield self._table(self.grid, short=True, gap=0)
        for spared in sorted((column for column in columns if column.spared), key=lambda column: -column.spared):
            columns.remove(spared)
            yield self._table(self.grid.only(columns), short=True, gap=0)
        yield self._table(self.grid.only(columns), short=True, gap=0, wrap=True)

    def _table(self, grid: Grid, *, short: bool, gap: int, wrap: bool = False) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap), collapse_padding=True)
        table.title, table.title_justify, table.title_style = Text(grid.title) if grid.title else None, "left", "bold"
        named = next((k for k, column in enumerate(grid.columns) if column.names), None)
        full = [row[named].text for row in grid.rows] if named is not None else []
        names, prefix = (short_names(full), shared_prefix(full)) if short else ({}, "")
        starred = [any(row[k].star for row in grid.rows) for k in range(len(grid.columns))]
        folding = any(column.folds for column in grid.columns)
        for column in grid.columns:
            head = f"{prefix}…" if column.names and prefix else column.short or column.head
            if column.names:
                table.add_column(head, overflow="fold", min_width=12)
                continue
            fixed = not wrap or (folding and not column.folds)
            table.add_column(head, justify="left" if column.left else "right", overflow="fold", no_wrap=fixed)
        for number, (group, rows) in enumerate(grid.grouped()):
            if number:
                table.add_section()
            if group:
                table.add_row(Text(group, style="bold"), *[""] * (len(grid.columns) - 1))
            for row in rows:
                shown = [replace(cell, text=names.get(cell.text, cell.text)) for cell in row]
                table.add_row(*(_text(cell, room) for cell, room in zip(shown, starred, strict=True)))
        return table


def _text(cell: Cell, room: bool) -> Text:
    """The cell with a star or its room, so that numbers stay in line."""
    star = (" ★", "yellow") if cell.star and cell.text else "  " if room else ""
    return Text.assemble((cell.text, STYLES.get(cell.kind, "")), star)
