"""The leaderboard on a terminal, as Markdown, CSV and a page."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kdbench.board._board import Board, Row
from kdbench.board._cells import HEADS, LEGEND, caveats, hardware_labels, protocol_lines, records, words
from kdbench.files import atomic_text
from kdbench.report._cells import shared_prefix, short_names

_LEFT = ("place", "student", "teacher", "method", "settings", "verdict", "by")
_SCREEN: tuple[str, ...] = ("place", "student", "teacher", "method", "settings", "params", "latency", "accuracy")
_SCREEN += ("gain", "verdict", "seeds", "by")
_SPARED = ("latency", "settings", "by", "teacher", "seeds", "params")
_SHORT = {"latency": "ms", "accuracy": "Test %", "gain": "Gain"}


def write(board: Board, out: Path) -> dict[str, Path]:
    """leaderboard.md, .html and .csv in ``out`` (made if absent), each whole or not at all; paths by file name.

    Equal boards give equal bytes: no file says when it was made.
    """
    texts = {"leaderboard.md": markdown(board), "leaderboard.html": page(board), "leaderboard.csv": table(board)}
    for name, text in texts.items():
        atomic_text(out / name, text)
    return {name: out / name for name in texts}


def table(board: Board) -> str:
    """The records as CSV; what starts like a formula of a spreadsheet is quoted by an apostrophe."""
    found = records(board)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(found[0] if found else [])
    writer.writerows([[_inert(value) for value in record.values()] for record in found])
    return stream.getvalue()


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+@\t\r" and value else value


def markdown(board: Board, *, runs: bool = True) -> str:
    """A table a data set, its protocols below; with ``runs`` also which trial and W&B run each number comes from."""
    labels = hardware_labels(board)
    lines = ["# Leaderboard", "", LEGEND, ""]
    for dataset in board.datasets:
        rows = [row for row in board.rows if row.dataset == dataset]
        lines += [f"## {escape(dataset)}", "", *_pipes(rows, labels), ""]
        lines += [f"- Protocol {escape(text)}" for text in protocol_lines(board, dataset).values()]
        lines += [f"- \\* {escape(text)}" for text in caveats(rows)]
        lines.append("")
        if runs:
            lines += ["<details><summary>Runs</summary>", "", *map(_runs, rows), "", "</details>", ""]
    lines += [f"- {label}: {escape(name)}" for name, label in labels.items()]
    lines += [f"- {escape(note)}" for note in board.notes]
    return "\n".join(lines).rstrip() + "\n"


def _pipes(rows: list[Row], labels: dict[str, str]) -> list[str]:
    rule = ["---" if name in _LEFT else "---:" for name in HEADS]
    body = [[escape(text) for text in words(row, labels).values()] for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in (list(HEADS.values()), rule, *body)]


def _runs(row: Row) -> str:
    each = [f"seed {seed} {row.trial_ids[seed]}" + _run(row, seed) for seed in row.scores]
    return f"- {row.place} ({escape(', '.join(row.sweeps))}): " + ", ".join(each)


def _run(row: Row, seed: int) -> str:
    return f" (W&B {escape(row.wandb_runs[seed])})" if seed in row.wandb_runs else ""


def escape(text: str) -> str:
    """``text`` as Markdown shows it, on one line. Underscores within words mean nothing to GitHub and stay."""
    marked = re.sub(r"([\\|`*<>\[\]~&])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", marked)


def page(board: Board) -> str:
    """One HTML file that asks nothing of the network; everything from configs and folders is escaped."""
    environment = Environment(
        loader=PackageLoader("kdbench.board", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    labels = hardware_labels(board)
    return environment.get_template("leaderboard.html.j2").render(
        board=board,
        legend=LEGEND,
        heads=HEADS,
        left=_LEFT,
        labels=labels,
        words={id(row): words(row, labels) for row in board.rows},
        order={id(row): _order(row, labels) for row in board.rows},
        key=id,
        lines={dataset: protocol_lines(board, dataset) for dataset in board.datasets},
        caveats={d: caveats(row for row in board.rows if row.dataset == d) for d in board.datasets},
    )


def _order(row: Row, labels: dict[str, str]) -> dict[str, float | str]:
    """What cells sort by where that is not their text; latencies of different hardware stay apart."""
    order: dict[str, float | str] = {
        "place": row.rank,
        "seeds": len(row.scores),
        "params": row.params,
        "macs": row.macs,
    }
    order |= {"accuracy": row.test_acc, "gain": row.gain}
    places = list(labels)
    order["latency"] = places.index(row.latency[0].hardware) * 1e9 + row.latency[0].ms if row.latency else ""
    return {name: "" if value != value else value for name, value in order.items()}


def screen(board: Board) -> RenderableType:
    """The board for a terminal: columns that do not fit are in the files."""
    labels = hardware_labels(board)
    parts: list[RenderableType] = []
    for dataset in board.datasets:
        rows = [row for row in board.rows if row.dataset == dataset]
        parts.append(_Grid(rows, labels))
        parts += [Text(f"* {text}") for text in caveats(rows)]
        parts += [Text(f"Protocol {text}", style="dim") for text in protocol_lines(board, dataset).values()]
    parts += [Text(f"{label}: {name}", style="dim") for name, label in labels.items()]
    parts += [Text("★ on the Pareto front (parameters, accuracy) of its protocol, hard labels included", style="dim")]
    return Group(*parts, *(Text(note, style="yellow") for note in board.notes))


class _Grid:
    """One data set's rows; the columns that a reader can do without go first where the console is narrow."""

    def __init__(self, rows: list[Row], labels: dict[str, str]) -> None:
        self._rows = rows
        self._cells = [words(row, labels) for row in rows]
        known = [name for name in _SCREEN if any(cells[name] for cells in self._cells)]
        one_teacher = len({cells["teacher"] for cells in self._cells}) == 1
        self._columns = [name for name in known if name != "teacher" or not one_teacher]
        self._names = short_names([row.student for row in rows])
        self._prefix = shared_prefix([row.student for row in rows])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(self._columns)
        table = self._table(columns)
        for name in _SPARED:
            if Measurement.get(console, options.update(width=10_000), table).maximum <= options.max_width:
                break
            columns = [column for column in columns if column != name]
            table = self._table(columns)
        yield table

    def _table(self, columns: list[str]) -> Table:
        title = Text(f"{self._rows[0].dataset}, teacher {self._cells[0]['teacher']}")
        title = title if "teacher" not in self._columns else Text(self._rows[0].dataset)
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
        grid.title, grid.title_justify, grid.title_style = title, "left", "bold"
        for name in columns:
            head = f"{self._prefix}…" if name == "student" and self._prefix else _SHORT.get(name, HEADS[name])
            grid.add_column(head, justify="left" if name in _LEFT else "right", overflow="fold")
        for row, cells in zip(self._rows, self._cells, strict=True):
            if row.rank == 1 and row is not self._rows[0]:
                grid.add_section()
            shown = cells | {"student": self._names[row.student]}
            shown["accuracy"] += "" if row.on_front else "  "
            grid.add_row(*(Text(shown[name]) for name in columns))
        return grid
