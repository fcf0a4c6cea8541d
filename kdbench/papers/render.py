"""A paper's table in words: Markdown, LaTeX, CSV and cells for the terminal; what is under it stays with it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kdbench.files import atomic_text
from kdbench.papers.schema import DECIMALS, UNITS
from kdbench.papers.table import PaperTable, Row
from kdbench.report._tables import _escape_markdown as escape_markdown
from kdbench.report._tables import escape_latex

LEGEND = (
    "Ours: mean ± half of the 95% t interval over seeds, after the last epoch. Difference: ours minus published. "
    "Verdict: reproduced where the published value lies inside our interval; higher or lower says where ours lies."
)
_PLACES = {UNITS[measure]: places for measure, places in DECIMALS.items()}


def number(value: float | None, unit: str, *, signed: bool = False) -> str:
    """A value in its unit's decimals; whole numbers of errors without any; empty for None."""
    if value is None:
        return ""
    places = 0 if unit == UNITS["errors"] and float(value).is_integer() else _PLACES[unit]
    return f"{value:+.{places}f}" if signed else f"{value:.{places}f}"


def ours(row: Row) -> str:
    """``76.2 ± 3.1``."""
    text = number(row.ours, row.unit)
    if row.lo is None or row.hi is None:
        return text
    return f"{text} ± {(row.hi - row.lo) / 2:.{_PLACES[row.unit]}f}"


def columns(table: PaperTable) -> list[str]:
    """Headings of the columns worth showing."""
    heads = ["Row", "Unit", "Published", "Ours (last epoch)"]
    heads += ["Ours (best epoch)"] if any(row.best_epoch is not None for row in table.rows) else []
    heads += ["Ours (bias chosen on test)"] if any(row.chosen_on_test is not None for row in table.rows) else []
    return [*heads, "Difference", "Runs", "Verdict"]


def cells(table: PaperTable) -> list[list[str]]:
    """The rows as texts under ``columns``; a reason stands in the verdict's place."""
    heads = columns(table)
    lines = []
    for row in table.rows:
        texts = {
            "Row": f"{row.what}, {row.column}" if row.column else row.what,
            "Unit": row.unit,
            "Published": number(row.published, row.unit),
            "Ours (last epoch)": ours(row),
            "Ours (best epoch)": number(row.best_epoch, row.unit),
            "Ours (bias chosen on test)": number(row.chosen_on_test, row.unit),
            "Difference": number(row.difference, row.unit, signed=True),
            "Runs": f"{row.runs} of {row.planned}" if row.runs < row.planned else str(row.runs or ""),
            "Verdict": "" if row.verdict == "ours only" else row.verdict,
        }
        lines.append([texts[head] for head in heads])
    return lines


def reasons(table: PaperTable) -> list[str]:
    """Why rows were not run, rows of one reason together."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        if row.reason:
            found.setdefault(row.reason, []).append(row.cell)
    return [f"Not run ({_some(names)}): {reason}" for reason, names in found.items()]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} and {len(names) - 1} more rows"


def notes(table: PaperTable) -> list[tuple[str, list[str]]]:
    """What belongs under the table: (heading, lines)."""
    paper, request = table.protocol.paper, table.protocol.request
    rehearsal = []
    if request.epochs:
        rehearsal.append(f"A rehearsal: at most {request.epochs} epochs.")
    if request.limit:
        rehearsal.append(f"A rehearsal: at most {request.limit} training samples.")
    listed = [
        ("Not run", reasons(table)),
        ("Departures from the paper's protocol", [*rehearsal, *paper.departures]),
        ("The paper's protocol", list(paper.protocol)),
        ("Known disagreements", list(paper.disagreements)),
        ("Sources", [paper.citation, paper.source]),
    ]
    return [(head, lines) for head, lines in listed if lines]


def markdown(table: PaperTable, answers: Sequence[str] = ()) -> str:
    """The whole page."""
    paper, heads = table.protocol.paper, columns(table)
    out = [f"# {paper.title}", "", paper.note, ""]
    last = None
    for row, texts in zip(table.rows, cells(table), strict=True):
        if row.group != last:
            out += ["", f"**{row.group}**", ""] if row.group else []
            out += [_line(heads), _line(["---", "---"] + ["---:"] * (len(heads) - 3) + ["---"])]
            last = row.group
        out.append(_line([escape_markdown(text) for text in texts]))
    out += ["", LEGEND]
    for head, lines in [("Claims", list(answers)), *notes(table)]:
        out += ["", f"**{head}**", "", *(f"- {line}" for line in lines)] if lines else []
    return "\n".join(out).replace("\n\n\n", "\n\n") + "\n"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def latex(table: PaperTable) -> str:
    """The table with booktabs; notes as comments above it."""
    heads = columns(table)
    under = [f"%   {escape_latex(line)}" for head, lines in notes(table) for line in [f"{head}:", *lines]]
    out = [
        "% Needs \\usepackage{booktabs}.",
        f"% {LEGEND}",
        *under,
        f"\\begin{{tabular}}{{ll{'r' * (len(heads) - 3)}l}}",
    ]
    out += ["\\toprule", " & ".join(escape_latex(head) for head in heads) + " \\\\"]
    last: str | None = None
    for row, texts in zip(table.rows, cells(table), strict=True):
        if row.group != last:
            out += ["\\midrule"]
            out += [f"\\multicolumn{{{len(heads)}}}{{l}}{{{escape_latex(row.group)}}} \\\\"] if row.group else []
            last = row.group
        out.append(" & ".join(_tex(text) for text in texts) + " \\\\")
    return "\n".join([*out, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    """A cell: a sign or ± in math mode."""
    if text[:1] in "+-" and text[1:2].isdigit():
        return f"${text}$".replace("±", "\\pm")
    return escape_latex(text).replace("±", "$\\pm$")


def csv(table: PaperTable) -> str:
    """One line a cell."""
    return _csv(pd.DataFrame(table.records()))


def values_csv(table: PaperTable) -> str:
    """One line a cell and seed: what the means are made of, with the run's id."""
    lines = [{"cell": cell, **value._asdict()} for cell, found in table.values.items() for value in found]
    return _csv(pd.DataFrame(lines, columns=["cell", "seed", "trial_id", "last", "best", "on_test"]))


def _csv(frame: pd.DataFrame) -> str:
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def write_table(table: PaperTable, folder: Path, answers: Sequence[str] = ()) -> dict[str, Path]:
    """table.md, .tex, .csv and values.csv into ``folder``; equal tables give equal bytes."""
    texts = {
        "table.md": markdown(table, answers),
        "table.tex": latex(table),
        "table.csv": csv(table),
        "values.csv": values_csv(table),
    }
    for name, text in texts.items():
        atomic_text(folder / name, text)
    return {name: folder / name for name in texts}
