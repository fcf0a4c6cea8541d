"""The leaderboard's cells: flat records for programs, and the words that terminal, Markdown and page share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from kdbench.board._board import Board, Row
from kdbench.board._protocol import describe, differences, protocol_id
from kdbench.files import canonical_json
from kdbench.report._frames import HARD

HEADS: Mapping[str, str] = {
    "place": "#",
    "student": "Student",
    "method": "Method",
    "accuracy": "Test accuracy (%)",
    "gain": "Gain (points)",
    "verdict": "Verdict",
    "seeds": "Seeds",
    "params": "Params",
    "latency": "Latency (ms)",
    "settings": "Settings",
    "teacher": "Teacher",
    "by": "By",
    "when": "When",
    "macs": "MACs",
}
"""Columns that a person reads, with their headings."""

LEGEND = (
    "The letter of a row is its protocol: rows are ranked within a data set and protocol only, by mean test accuracy "
    "at the last epoch (± half of the 95% t interval over seeds). ★: on the Pareto front of parameters and accuracy of "
    "that group, hard-label rows included. Gain: percentage points over the same student on hard labels, paired by "
    "seed, with its 95% interval; verdicts by paired t-test, Holm-corrected over the group. A run that several folders "
    "hold counts once, and two runs on one seed are one seed."
)


def words(row: Row, hardware: Mapping[str, str]) -> dict[str, str]:
    """The row's cells by the keys of ``HEADS``; ``hardware`` maps what latency was measured on to a short label."""
    cell = row.words
    spread = f"{cell.accuracy} ± {cell.half}" if cell.half else cell.accuracy
    cells = {
        "place": row.place,
        "student": row.student,
        "teacher": row.teacher + ("" if math.isnan(row.teacher_acc) else f" ({100 * row.teacher_acc:.1f}%)"),
        "method": "hard labels" if row.method == HARD else row.method,
        "settings": settings(row),
        "params": cell.params,
        "macs": cell.macs,
        "latency": ", ".join(f"{entry.ms:.1f} ({hardware[entry.hardware]})" for entry in row.latency),
        "accuracy": spread + (" ★" if row.on_front else ""),
        "gain": "" if row.method == HARD else f"{cell.gain} {cell.bounds}".strip(),
        "verdict": "" if row.method == HARD else cell.verdict.short + (" *" if cell.verdict.caveat else ""),
        "seeds": str(len(row.scores)),
        "by": ", ".join(row.by),
        "when": row.when,
    }
    return {name: cells[name] for name in HEADS}


def settings(row: Row) -> str:
    """``T 4, α 0.69``; further hyper-parameters by name."""
    short = {"temperature": "T", "alpha": "α"}
    order = sorted(row.hyper, key=lambda name: (name not in short, name != "temperature", name))
    return ", ".join(f"{short.get(name, name)} {row.hyper[name]:.3g}" for name in order)


def caveats(rows: Iterable[Row]) -> list[str]:
    """``A3, B1: one seed gives no interval``: why verdicts marked with * are weaker than they look."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.method != HARD and row.words.verdict.caveat:
            found.setdefault(row.words.verdict.caveat, []).append(row.place)
    return [f"{', '.join(places)}: {caveat}." for caveat, places in found.items()]


def hardware_labels(board: Board) -> dict[str, str]:
    """``h1``, ``h2``, ... for each hardware that a latency was measured on."""
    names = dict.fromkeys(entry.hardware for row in board.rows for entry in row.latency)
    return {name: f"h{number}" for number, name in enumerate(sorted(names), start=1)}


def protocol_lines(board: Board, dataset: str) -> dict[str, str]:
    """By letter what a protocol is; from the second on also in what it differs from the first."""
    protocols = board.protocols[dataset]
    first = next(iter(protocols.values()))
    lines = {}
    for letter, protocol in protocols.items():
        text = f"{letter} ({protocol_id(protocol)}): {describe(protocol)}."
        if protocol is not first:
            changed = ", ".join(differences(first, protocol))
            text += f" Not ranked against {next(iter(protocols))}, from which it differs in {changed}."
        lines[letter] = text
    return lines


def records(board: Board) -> list[dict[str, Any]]:
    """One flat record a row, the columns of leaderboard.csv: accuracies are fractions, what is unknown is None."""
    return [_record(row, board) for row in board.rows]


def _record(row: Row, board: Board) -> dict[str, Any]:
    numbers = ("test_acc", "test_acc_lo", "test_acc_hi", "gain", "gain_lo", "gain_hi", "p_holm")
    return {
        "dataset": row.dataset,
        "protocol": row.protocol,
        "protocol_id": protocol_id(dict(board.protocols[row.dataset][row.protocol])),
        "rank": row.rank,
        "teacher": row.teacher,
        "student": row.student,
        "method": row.method,
        "temperature": row.hyper.get("temperature"),
        "alpha": row.hyper.get("alpha"),
        "hyper": canonical_json(row.hyper),
        "params": _whole(row.params),
        "macs": _whole(row.macs),
        "latency_ms": _latency([round(entry.ms, 3) for entry in row.latency]),
        "latency_hardware": "; ".join(entry.hardware for entry in row.latency),
        "n_seeds": len(row.scores),
        **{name: _known(getattr(row, name)) for name in numbers},
        "verdict": "" if row.method == HARD else row.words.verdict.short,
        "caveat": "" if row.method == HARD else row.words.verdict.caveat,
        "on_front": row.on_front,
        "p_on_front": _known(row.p_on_front),
        "teacher_acc": _known(row.teacher_acc),
        "by": "; ".join(row.by),
        "when": row.when,
        "sweeps": "; ".join(row.sweeps),
        "seeds": "; ".join(map(str, row.scores)),
        "trial_ids": "; ".join(row.trial_ids.values()),
        "wandb_runs": "; ".join(row.wandb_runs.values()),
    }


def _latency(measured: list[float]) -> float | str | None:
    """A number where there is one; several, of several hardware, as text that no program takes for one."""
    return "; ".join(map(str, measured)) if len(measured) > 1 else next(iter(measured), None)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _whole(value: float) -> int | None:
    return None if math.isnan(value) else int(value)
