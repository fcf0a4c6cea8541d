"""The leaderboard as Markdown, CSV, a page, and on a terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from kdbench.board.leaderboard import Board
from kdbench.board.protocol import describe, differences, protocol_id
from kdbench.config import HARD
from kdbench.files import atomic_text, canonical_json
from kdbench.report.numbers import COVERS, bounds, decimals, millions, percent, signed, spread, unknown
from kdbench.report.page import environment
from kdbench.report.render import Cell, Column, Grid, Screen, csv, escape, markdown
from kdbench.run.words import counted

LEGEND = (
    "The letter of a row is its protocol: rows are compared within a data set and protocol only, in the order of "
    "their mean test accuracy at the last epoch (± half of the 95% t interval over seeds). Rank: rows whose "
    "accuracies cannot be told apart share ranks (pair by pair at 95%, paired by seed where two rows share seeds, "
    "else by Welch's test). ★: on the Pareto front of parameters and accuracy of that group. Hard-label rows "
    "belong to every protocol of their data and recipe. Gain: percentage points over the same student on hard "
    "labels, paired by seed, with its 95% interval; verdicts by paired t-test, Holm-corrected over the rows of "
    "one submission: other people's rows change none. "
    f"{COVERS} A run that several folders hold counts once, and two runs on one seed are one seed."
)
COLUMNS = (
    Column("place", "#", least=True, optional=False),
    Column("student", "Student", left=True, names=True),
    Column("accuracy", "Test accuracy (%)", short="Test %", optional=False),
    Column("method", "Method", left=True, optional=False),
    Column("rank", "Rank", least=True),
    Column("gain", "Gain (points)", short="Gain", optional=False),
    Column("verdict", "Verdict", left=True, optional=False),
    Column("seeds", "Seeds", spared=2, optional=False),
    Column("params", "Params", spared=1, least=True),
    Column("latency", "Latency (ms)", short="ms", spared=6, least=True),
    Column("settings", "Settings", left=True, spared=5),
    Column("teacher", "Teacher", left=True, spared=3),
    Column("by", "By", left=True, spared=4),
    Column("when", "When", spared=7),
    Column("macs", "MACs", spared=8, least=True),
)


def grid(board: Board, dataset: str) -> Grid:
    """One data set's rows in words, grouped by protocol."""
    rows = [row for row in board.rows if row.dataset == dataset]
    labels = hardware_labels(board)
    parts = board.frame[board.frame["dataset"] == dataset].groupby("protocol")
    digits = {letter: decimals(part) for letter, part in parts}
    columns = [*COLUMNS[:8], Column("cost", board.axis, short="Cost", least=True), *COLUMNS[8:]]
    cells = [_cells(row, labels, digits[row.protocol]) for row in rows]
    return Grid.of(columns if board.axis else COLUMNS, cells, title=dataset,
                   groups=tuple(row.protocol for row in rows))  # fmt: skip


def _cells(row: Any, labels: dict[str, str], digits: int) -> dict[str, Cell | str]:
    hard = row.method == HARD
    gain = f"{signed(row.gain, digits)} {bounds(row.gain_lo, row.gain_hi, digits)}".strip()
    verdict = row.verdict.short + (" *" if row.verdict.caveat else "")
    acc = spread(row.test_acc, row.test_acc_lo, row.test_acc_hi, digits) + " (disputed)" * row.disputed
    first = row.latency[0] if row.latency else None
    return {
        "place": Cell(row.place, order=row.rank),
        "student": row.student,
        "method": "hard labels" if hard else row.method,
        "accuracy": Cell(acc, bool(row.on_front), order=row.test_acc),
        "gain": Cell("" if hard else gain, order=None if hard or unknown(row.gain) else row.gain),
        "verdict": Cell("" if hard else verdict, kind="" if hard else row.verdict.kind),
        "rank": Cell(ranks(row.rank_lo, row.rank_hi), order=_known(row.rank_lo)),
        "seeds": Cell(f"{row.n_seeds}{' (fewer)' * (row.n_seeds < row.most_seeds)}", order=row.n_seeds),
        "params": Cell(millions(row.params), order=_known(row.params)),
        "cost": _priced(getattr(row, "cost", math.nan)),
        # latencies of different hardware stay apart
        "latency": Cell(
            ", ".join(f"{entry.ms:.1f} ({labels[entry.hardware]})" for entry in row.latency),
            order=list(labels).index(first.hardware) * 1e9 + first.ms if first else None,
        ),
        "settings": settings(row.hyper),
        "teacher": row.teacher + ("" if math.isnan(row.teacher_acc) else f" ({percent(row.teacher_acc)}%)"),
        "by": ", ".join(row.by),
        "when": row.when,
        "macs": Cell(millions(row.macs), order=_known(row.macs)),
    }


def _priced(cost: float) -> Cell | str:
    return "" if unknown(cost) else Cell(f"{cost:.4g}", order=cost)


def legend(board: Board) -> str:
    """``LEGEND``, of this board's fronts."""
    return LEGEND.replace("front of parameters and", f"front of {board.axis} and") if board.axis else LEGEND


def ranks(lo: float, hi: float) -> str:
    """``2`` or ``1–3``; empty where one seed tells nothing."""
    return "" if unknown(lo) else f"{lo:.0f}" if lo == hi else f"{lo:.0f}–{hi:.0f}"


def settings(hyper: dict[str, float]) -> str:
    """``T 4, α 0.69``; further hyper-parameters by name."""
    short = {"temperature": "T", "alpha": "α"}
    order = sorted(hyper, key=lambda name: (name not in short, name != "temperature", name))
    return ", ".join(f"{short.get(name, name)} {hyper[name]:.3g}" for name in order)


def hardware_labels(board: Board) -> dict[str, str]:
    """``h1``, ``h2``, ... for each hardware that a latency was measured on."""
    names = dict.fromkeys(entry.hardware for row in board.rows for entry in row.latency)
    return {name: f"h{number}" for number, name in enumerate(sorted(names), start=1)}


def below(board: Board, dataset: str) -> list[str]:
    """``* A3, B1: one seed gives no interval.``: why verdicts marked with *, and rows of fewer seeds, are less sure."""
    weak: dict[str, list[str]] = {}
    few: dict[tuple[int, int], list[str]] = {}
    for row in board.rows:
        if row.dataset == dataset and row.method != HARD and row.verdict.caveat:
            weak.setdefault(row.verdict.caveat, []).append(row.place)
        if row.dataset == dataset and row.n_seeds < row.most_seeds:
            few.setdefault((row.n_seeds, row.most_seeds), []).append(row.place)
    one = ": no interval, hence no rank; a star rests on a single run"
    return [f"* {', '.join(places)}: {caveat}." for caveat, places in weak.items()] + [
        f"{', '.join(places)}: {counted(int(n), 'seed')}, where other rows have up to {most}{one * (n == 1)}."
        for (n, most), places in sorted(few.items())
    ]


def protocol_lines(board: Board, dataset: str) -> dict[str, str]:
    """By letter what a protocol is; from the second on also in what it differs from the first."""
    protocols = board.protocols[dataset]
    start, first = next(iter(protocols.items()))
    lines = {}
    for letter, protocol in protocols.items():
        text = f"{letter} ({protocol_id(protocol)}): {describe(protocol, dataset)}."
        if protocol is not first:
            changed = ", ".join(differences(first, protocol))
            text += f" Not ranked against {start}, from which it differs in {changed}."
        lines[letter] = text
    return lines


def records(board: Board) -> list[dict[str, Any]]:
    """One flat record per row, the columns of leaderboard.csv: accuracies are fractions, what is unknown is None."""
    return [_record(row, board) for row in board.rows]


def _record(row: Any, board: Board) -> dict[str, Any]:
    hard = row.method == HARD
    measured = [round(entry.ms, 3) for entry in row.latency]
    return {
        **{name: getattr(row, name) for name in ("dataset", "protocol")},
        "protocol_id": protocol_id(board.protocols[row.dataset][row.protocol]),
        "rank": row.rank,
        **{name: None if unknown(getattr(row, name)) else int(getattr(row, name)) for name in ("rank_lo", "rank_hi")},
        **{name: getattr(row, name) for name in ("teacher", "student", "method")},
        "temperature": row.hyper.get("temperature"),
        "alpha": row.hyper.get("alpha"),
        "hyper": canonical_json(row.hyper),
        "params": None if unknown(row.params) else int(row.params),
        "macs": None if unknown(row.macs) else int(row.macs),
        # several, of several hardware, as text that no program takes for one
        "latency_ms": "; ".join(map(str, measured)) if len(measured) > 1 else next(iter(measured), None),
        "latency_hardware": "; ".join(entry.hardware for entry in row.latency),
        "n_seeds": row.n_seeds,
        **{name: _known(getattr(row, name))
           for name in ("test_acc", "test_acc_lo", "test_acc_hi", "gain", "gain_lo", "gain_hi")},
        **({"cost": _known(row.cost)} if board.axis else {}),
        "p_holm": _known(row.verdict.p_holm),
        "verdict": "" if hard else row.verdict.short,
        "caveat": "" if hard else row.verdict.caveat,
        "on_front": bool(row.on_front),
        "teacher_acc": _known(row.teacher_acc),
        "by": "; ".join(row.by),
        "when": row.when,
        "sweeps": "; ".join(row.sweeps),
        "seeds": "; ".join(map(str, row.scores)),
        "trial_ids": "; ".join(row.trial_ids.values()),
        "wandb_runs": "; ".join(row.wandb_runs.values()),
    }  # fmt: skip


def _known(value: float) -> float | None:
    return None if unknown(value) else float(value)


def write(board: Board, out: Path) -> dict[str, Path]:
    """leaderboard.md, .html and .csv in ``out`` (made if absent), each whole or not at all; paths by file name.

    Equal boards give equal bytes: no file says when it was made.
    """
    texts = {"md": text(board), "html": page(board), "csv": table(board)}
    for kind, held in texts.items():
        atomic_text(out / f"leaderboard.{kind}", held)
    return {f"leaderboard.{kind}": out / f"leaderboard.{kind}" for kind in texts}


def table(board: Board) -> str:
    """The records as CSV."""
    return csv(pd.DataFrame(records(board), dtype=object))


def text(board: Board, *, runs: bool = True) -> str:
    """Markdown, one table per data set, protocols below; with ``runs`` which trial and W&B run each number is of."""
    lines = ["# Leaderboard", "", legend(board), ""]
    for dataset in board.datasets:
        lines += [f"## {escape(dataset)}", "", *markdown(grid(board, dataset).flat()), ""]
        lines += [f"- Protocol {escape(line)}" for line in protocol_lines(board, dataset).values()]
        lines += [f"- {escape(line)}" for line in below(board, dataset)]
        lines.append("")
        if runs:
            each = [_runs(row) for row in board.rows if row.dataset == dataset]
            lines += ["<details><summary>Runs</summary>", "", *each, "", "</details>", ""]
    lines += [f"- {label}: {escape(name)}" for name, label in hardware_labels(board).items()]
    lines += [f"- {escape(note)}" for note in board.notes]
    return "\n".join(lines).rstrip() + "\n"


def _runs(row: Any) -> str:
    each = [
        f"seed {seed} {row.trial_ids[seed]}"
        + (f" (W&B {escape(row.wandb_runs[seed])})" if seed in row.wandb_runs else "")
        for seed in row.scores
    ]
    return f"- {row.place} ({escape(', '.join(row.sweeps))}): " + ", ".join(each)


def page(board: Board) -> str:
    """One HTML file that asks nothing of the network; everything from configs and folders is escaped."""
    sections = []
    for dataset in board.datasets:
        found, lines = grid(board, dataset), protocol_lines(board, dataset)
        rows = iter([row for row in board.rows if row.dataset == dataset])
        groups = [(lines[letter], [(cells, next(rows)) for cells in held]) for letter, held in found.grouped()]
        sections.append({"name": dataset, "columns": found.columns, "groups": groups, "below": below(board, dataset)})
    return environment("kdbench.board").get_template("leaderboard.html.j2").render(
        title=f"Leaderboard: {', '.join(board.datasets)}", sections=sections, notes=board.notes, legend=legend(board),
        labels=hardware_labels(board),
    )  # fmt: skip


def screen(board: Board) -> RenderableType:
    """The board for a terminal: columns that do not fit are in the files."""
    parts: list[RenderableType] = []
    for dataset in board.datasets:
        found = grid(board, dataset)
        columns = [column for column in found.columns if column.key not in ("when", "macs")]
        teachers = {row.teacher for row in board.rows if row.dataset == dataset and row.teacher}
        if len(teachers) == 1:
            columns = [column for column in columns if column.key != "teacher"]
        title = f"{dataset}, teacher {next(iter(teachers))}" if len(teachers) == 1 else dataset
        parts.append(Screen(found.only(columns).flat(title)))
        parts += [Text(line) for line in below(board, dataset)]
        parts += [Text(f"Protocol {line}", style="dim") for line in protocol_lines(board, dataset).values()]
    parts += [Text(f"{label}: {name}", style="dim") for name, label in hardware_labels(board).items()]
    over = board.axis or "parameters"
    parts += [Text(f"★ on the Pareto front ({over}, accuracy) of its protocol, hard labels included", style="dim")]
    return Group(*parts, *(Text(note, style="yellow") for note in board.notes))
