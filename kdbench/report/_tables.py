"""The tables of a sweep as files: parquet and CSV for programs, Markdown and LaTeX for people."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from kdbench.files import atomic, atomic_text
from kdbench.report._cells import Row, rows_of
from kdbench.report._frames import PARETO_COLUMNS, conform_trials
from kdbench.report._points import gather
from kdbench.report._worth import SAVED_HEADS, SAVED_LEGEND, Worth, worth

LEGEND = (
    "Test accuracy in percent at the last epoch, mean ± half of the 95% t interval over seeds. Gain: percentage points "
    "over the same student on hard labels, paired by seed, with its 95% interval. A star marks points on the Pareto "
    "front of parameters and accuracy, hard-label points included. Verdicts: paired t-test, Holm-corrected over rows."
)


def write_tables(trials: pd.DataFrame, pareto: pd.DataFrame, out: Path) -> dict[str, Path]:
    """Write trials.parquet, trials.csv and pareto.csv, .md, .tex into ``out`` (made if absent).

    Each file is replaced whole or not at all; equal frames give equal bytes. Values in .csv and .parquet
    are fractions, numbers of parameters and milliseconds; .md and .tex are in percent.

    Returns:
        Paths by file name.

    Raises:
        BadInput: when ``trials`` is no trials frame.
        OSError: when ``out`` cannot be written.
    """
    frame = conform_trials(trials)
    points = gather(frame)
    texts = {
        "trials.csv": _csv(frame),
        "pareto.csv": _csv(pareto[list(PARETO_COLUMNS)]),
        "pareto.md": markdown(pareto, points.notes, worth(points)),
        "pareto.tex": latex(pareto),
    }
    atomic(out / "trials.parquet", lambda aside: frame.to_parquet(aside, engine="pyarrow", index=False))
    for name, text in texts.items():
        atomic_text(out / name, text)
    return {name: out / name for name in ("trials.parquet", *texts)}


def write_extras(tables: Mapping[str, pd.DataFrame], out: Path) -> dict[str, Path]:
    """Write further ``tables``, by file name, into ``out`` as CSV; returns their paths."""
    for name, table in tables.items():
        atomic_text(out / name, _csv(table))
    return {name: out / name for name in tables}


def _csv(frame: pd.DataFrame) -> str:
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def _columns(rows: list[Row]) -> list[tuple[str, str]]:
    """(heading, field) of the columns worth showing: what no row knows is left out."""
    every = [("Student", "student"), ("Params", "params"), ("MACs", "macs"), ("Latency (ms)", "latency")]
    every += [("Method", "method"), ("T", "temperature"), ("alpha", "alpha"), ("Seeds", "seeds")]
    optional = {"macs", "latency", "temperature", "alpha"}
    return [(head, field) for head, field in every if field not in optional or any(getattr(r, field) for r in rows)]


def markdown(pareto: pd.DataFrame, notes: Sequence[str] = (), value: Worth | None = None) -> str:
    """``pareto`` as a GitHub-flavoured Markdown table, with a legend, the verdicts, ``notes`` and size saved."""
    rows = rows_of(pareto)
    remarks = [f"- {_escape_markdown(note)}" for note in notes]
    if not rows:
        return "\n".join(["No confirmed runs yet.", "", *remarks]).rstrip() + "\n"
    columns = _columns(rows)
    heads = [head for head, _ in columns] + ["Distilled (%)", "Hard labels (%)", "Gain (points)", "Verdict"]
    lines = [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 2) + ["---"])]
    for row in rows:
        cells = [_escape_markdown(getattr(row, field)) for _, field in columns]
        distilled = "" if row.verdict.short == "no distilled run" else _star(_spread(row), row.on_front)
        hard = _star(row.baseline, row.baseline_on_front)
        lines.append(_line([*cells, distilled, hard, f"{row.gain} {row.bounds}".strip(), row.verdict.short]))
    caveats = [f"- {_escape_markdown(row.student)} ({row.method}): {row.verdict.text}" for row in rows]
    return "\n".join([*lines, "", LEGEND, "", *caveats, *remarks, *_saved(value)]) + "\n"


def _saved(value: Worth | None) -> list[str]:
    """Size saved at equal accuracy, and the area between the fronts."""
    if value is None or not value.matches:
        return []
    lines = ["", "Size saved at equal accuracy", "", _line(SAVED_HEADS), _line(["---", "---"] + ["---:"] * 5)]
    for one in value.matches:
        names = [_escape_markdown(name) for name in (one.student, one.method)]
        lines.append(_line([*names, *one.cells]))
    return [*lines, "", SAVED_LEGEND, "", *(f"- {_escape_markdown(text)}" for text in value.sentences)]


def _spread(row: Row) -> str:
    return f"{row.accuracy} ± {row.half}" if row.half else row.accuracy


def _star(text: str, starred: bool) -> str:
    return f"{text} ★" if starred and text else text


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape_markdown(text: str) -> str:
    for mark in "\\|`*<>[]":
        text = text.replace(mark, "\\" + mark)
    return text


def latex(pareto: pd.DataFrame) -> str:
    """``pareto`` as a LaTeX tabular; accuracies on the front are bold. Needs the package booktabs only."""
    rows = rows_of(pareto)
    columns = _columns(rows)
    heads = [head for head, _ in columns] + ["Distilled (%)", "Hard labels (%)", "Gain (points)"]
    lines = [
        "% Needs \\usepackage{booktabs}.",
        "% Bold: on the Pareto front of parameters and test accuracy.",
        f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        "\\toprule",
        " & ".join("$T$" if head == "T" else "$\\alpha$" if head == "alpha" else escape_latex(head) for head in heads)
        + " \\\\",
        "\\midrule",
    ]
    for row in rows:
        cells = [escape_latex(getattr(row, field)) for _, field in columns]
        accuracy = _bold(row.accuracy, row.on_front) + (f" $\\pm$ {row.half}" if row.half else "")
        distilled = "" if row.verdict.short == "no distilled run" else accuracy
        gain = f"{row.gain} {row.bounds}".strip().replace("-", "$-$").replace("+", "$+$")
        lines.append(" & ".join([*cells, distilled, _bold(row.baseline, row.baseline_on_front), gain]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _bold(text: str, bold: bool) -> str:
    return f"\\textbf{{{text}}}" if bold and text else text


_LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """``text`` as LaTeX prints it, character by character."""
    return "".join(_LATEX.get(mark, mark) for mark in text)
