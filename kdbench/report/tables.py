"""The tables of a sweep: the Pareto table as a grid of cells, and as files for programs and for people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from kdbench.config import CONTROLS, HARD, TUNABLE
from kdbench.files import atomic, atomic_text
from kdbench.report.numbers import COVERS, bounds, decimals, millions, number, percent, signed, spread
from kdbench.report.points import Points
from kdbench.report.render import Cell, Column, Grid, Screen, csv, escape, latex, markdown
from kdbench.report.saved import SAVED_LEGEND, saved_grid
from kdbench.report.shifted import LEGEND as SHIFTED_LEGEND
from kdbench.report.shifted import shifted_grid
from kdbench.report.verdicts import judge
from kdbench.report.worth import Worth
from kdbench.run.frame import conform
from kdbench.run.words import counted
from kdbench.sweeps.controls import SMOOTHING

LEGEND = (
    "Test accuracy in percent at the last epoch, mean ± half of the 95% t interval over seeds (an interval cut at 0 or "
    "100 is given by its ends). Gain: percentage points over the same student on hard labels, paired by seed, with its "
    "95% interval. A star marks points on the Pareto front of parameters and accuracy, hard-label points included. "
    "Verdicts: paired t-test, Holm-corrected over rows."
)
STAR = "★ on the Pareto front (parameters, accuracy), hard-label points included"
COLUMNS = (
    Column("student", "Student", left=True, names=True),
    Column("params", "Params", spared=1, least=True),
    Column("macs", "MACs", printed=False, spared=9, least=True),
    Column("latency", "Latency (ms)", short="ms", printed=False, spared=4, least=True),
    Column("method", "Method", left=True),
    Column("temperature", "T", spared=2),
    Column("alpha", "alpha", short="α", spared=3),
    Column("further", "Further settings", left=True, spared=5),
    Column("seeds", "Seeds", spared=8),
    Column("distilled", "Distilled (%)", short="Distilled", optional=False),
    Column("hard", "Hard labels (%)", short="Hard\nlabels", optional=False),
    Column("gain", "Gain (points)", folds=True, optional=False),
    Column("verdict", "Verdict", left=True, folds=True, optional=False),
)


_MEANT = {
    "smoothing": f"hard labels with label smoothing {SMOOTHING:g}",
    "self": "a teacher of the student's own kind",
    "compute": "hard labels trained for what distilling cost",
}


def covers(points: Points) -> str:
    """What the intervals of a table cover."""
    if not points.over:
        return COVERS
    fixed = [f"another {noun}" for noun in ("teacher", "search") if noun not in points.repeated]
    return f"Intervals are over {points.over}, not {' or '.join([*fixed, 'other test images'])}."


def legend(pareto: pd.DataFrame, points: Points) -> str:
    """What stands under the table of ``pareto``."""
    text = LEGEND
    if points.over:
        text = text.replace("t interval over seeds", "interval").replace("paired t-test", "Welch-type paired t-test")
    return f"{text} {covers(points)}{further_legend(pareto)}"


def further_legend(pareto: pd.DataFrame) -> str:
    """What a legend says of a tuned baseline and of controls, where they are."""
    tuned = ", ".join(name for name in TUNABLE if f"hyper_{name}" in pareto)
    text = f" Tuned baseline: {tuned} searched on hard labels in as many trials as with each method." if tuned else ""
    used = [f"{name} ({meant})" for name, meant in _MEANT.items() if name in set(pareto["method"])]
    if used:
        text += f" Controls, without a star and with verdicts corrected among themselves: {', '.join(used)}."
    return text


def _columns(pareto: pd.DataFrame) -> list[Column]:
    """``COLUMNS`` with the headings that are true of ``pareto``."""
    heads: dict[str, dict[str, Any]] = {}
    if pareto["method"].isin([*CONTROLS]).any():
        heads["distilled"] = {"head": "Accuracy (%)", "short": "Accuracy"}
    if any(f"hyper_{name}" in pareto for name in TUNABLE):
        heads["hard"] = {"head": "Tuned hard labels (%)", "short": "Tuned\nbaseline"}
    return [replace(column, **heads.get(column.key, {})) for column in COLUMNS]


def pareto_grid(pareto: pd.DataFrame, points: Points) -> Grid:
    """``pareto`` of ``points`` in words: percent for accuracies, points for gains, a star on what is on the front."""
    digits, starred = decimals(pareto), {point.student for point in points if point.method == HARD and point.on_front}
    further = [name for name in pareto.columns if name.startswith("hyper_")]
    rows: list[dict[str, Cell | str]] = []
    for record, verdict in zip(pareto.to_dict("records"), judge(pareto), strict=True):
        hard = record["method"] == HARD
        ranges = _ranges(points, record)
        idle = ("hyper_kd_weight", "hyper_kd_temperature") if record.get("hyper_kd_weight") == 0 else ()
        held = [name for name in further if record[name] == record[name] and name not in idle]
        settings = [f"{name[6:]} {ranges.get(name, format(record[name], '.3g'))}" for name in held]
        acc = spread(record["test_acc"], record["test_acc_lo"], record["test_acc_hi"], digits)
        base = percent(record["baseline_acc"], digits)
        gain = f"{signed(record['gain'], digits)} {bounds(record['gain_lo'], record['gain_hi'], digits)}".strip()
        rows.append(
            {
                "student": str(record["student"]),
                "params": Cell(millions(record["params"]), order=_order(record["params"])),
                "macs": Cell(millions(record["macs"]), order=_order(record["macs"])),
                "latency": number(record["latency_ms"], ".1f"),
                "method": str(record["method"]),
                "temperature": "" if hard else ranges.get("temperature", number(record["temperature"], ".3g")),
                "alpha": "" if hard else ranges.get("alpha", number(record["alpha"], ".2f")),
                "further": ", ".join(settings),
                "seeds": str(record["n_seeds"]),
                "distilled": "" if hard else Cell(acc, bool(record["on_front"]), order=_order(record["test_acc"])),
                "hard": Cell(base, record["student"] in starred, order=_order(record["baseline_acc"])),
                "gain": Cell(gain, kind=verdict.kind, order=_order(record["gain"])),
                "verdict": Cell(verdict.short + (" *" if verdict.caveat else ""), kind=verdict.kind),
            }
        )
    return Grid.of(_columns(pareto), rows)


def _ranges(points: Points, record: dict[Any, Any]) -> dict[str, str]:
    """Hyper-parameters in which the winners of several searches differ: ``2.3 to 10.6``."""
    point = points.find(record["student"], record["method"])
    return {name: f"{low:.3g} to {high:.3g}" for name, (low, high) in (point.ranges if point else {}).items()}


def _order(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[arg-type, call-overload]


def render_table(pareto: pd.DataFrame, points: Points) -> RenderableType:
    """``pareto`` for a terminal: what every row shares in the title, caveats of verdicts as lines below."""
    if pareto.empty:
        return Text("No confirmed runs yet, so there is no table.")
    seeds = sorted({int(n) for n in pareto["n_seeds"]})
    over = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
    grid = pareto_grid(pareto, points)
    several = pareto["method"].nunique() > 1
    kept = [column for column in grid.columns if column.key not in ("seeds", "macs", *(() if several else ("method",)))]
    title = f"Test accuracy (%), mean ± 95% interval over {points.over or counted(over, 'seed')}"
    word = "Teachers" if "teacher" in points.repeated else "Teacher"
    before = f"{word} {percent(points.teacher_acc)}%. " if points.teacher_acc == points.teacher_acc else ""
    return Group(
        Screen(grid.only(kept).flat(title)),
        Text(f"{before}{STAR}. {covers(points)}{further_legend(pareto)}", style="dim"),
        *(Text(f"* {line}") for line in caveats(pareto)),
    )


def caveats(pareto: pd.DataFrame) -> list[str]:
    """Why verdicts are weaker than they look, those of one reason together."""
    found: dict[str, list[str]] = {}
    several = pareto["method"].nunique() > 1
    for row, verdict in zip(pareto.to_dict("records"), judge(pareto), strict=True):
        if verdict.caveat:
            name = f"{row['student']} ({row['method']})" if several else str(row["student"])
            found.setdefault(verdict.caveat, []).append(name)
    return [f"{', '.join(names)}: {why}" for why, names in found.items()]


def write_tables(
    runs: pd.DataFrame,
    points: Points,
    pareto: pd.DataFrame,
    worth: Worth,
    out: Path,
    shifted: pd.DataFrame | None = None,
) -> dict[str, Path]:  # fmt: skip
    """Write trials.parquet, trials.csv, size_saved.csv and pareto.csv, .md, .tex into ``out`` (made if absent).

    Each file is replaced whole or not at all; equal frames give equal bytes. Values in .csv and .parquet are
    fractions, numbers of parameters and milliseconds; .md and .tex are in percent.

    Returns:
        Paths by file name.

    Raises:
        OSError: when ``out`` cannot be written.
    """
    frame = conform(runs)
    texts = {
        "trials.csv": csv(frame),
        "pareto.csv": csv(pareto),
        "size_saved.csv": csv(worth.saved),
        "pareto.md": pareto_markdown(pareto, points, worth, shifted),
        "pareto.tex": pareto_latex(pareto, points, worth),
    }
    atomic(out / "trials.parquet", lambda aside: frame.to_parquet(aside, engine="pyarrow", index=False))
    for name, text in texts.items():
        atomic_text(out / name, text)
    return {name: out / name for name in ("trials.parquet", *texts)}


def pareto_markdown(pareto: pd.DataFrame, points: Points, worth: Worth, shifted: pd.DataFrame | None = None) -> str:
    """``pareto`` as a GitHub-flavoured Markdown table, with a legend, the verdicts, notes, size saved, and shifts."""
    remarks = [f"- {escape(note)}" for note in points.notes]
    if pareto.empty:
        return "\n".join(["No confirmed runs yet.", "", *remarks]).rstrip() + "\n"
    told = zip(pareto["student"], pareto["method"], judge(pareto), strict=True)
    told_first = [line for text in worth.sentences for line in (escape(text), "")]
    lines = [*told_first, *markdown(pareto_grid(pareto, points)), "", legend(pareto, points), ""]
    lines += [f"- {escape(str(student))} ({method}): {verdict.text}" for student, method, verdict in told] + remarks
    if len(worth.saved):
        lines += ["", "Size saved at equal accuracy", "", *markdown(saved_grid(worth.saved)), "", SAVED_LEGEND]
    if shifted is not None and len(shifted):
        lines += ["", "Under shift", "", *markdown(shifted_grid(shifted)), "", SHIFTED_LEGEND]
    return "\n".join(lines) + "\n"


def pareto_latex(pareto: pd.DataFrame, points: Points, worth: Worth) -> str:
    """``pareto`` as a LaTeX table with caption and verdicts; accuracies on the front are bold."""
    grid = pareto_grid(pareto, points)
    if pareto["method"].nunique() < 2:
        grid = grid.only([column for column in grid.columns if column.key not in ("method", "seeds")])
    about = f"Students of {points.teacher} on {points.dataset}"
    if points.teacher_acc == points.teacher_acc:
        about += f" (teacher: {percent(points.teacher_acc)}%)"
    how = f", distilled by {pareto['method'].iloc[0]}" if pareto["method"].nunique() == 1 else ""
    told = "".join(f"{text} " for text in worth.sentences)
    caption = f"{about}{how}. {told}{legend(pareto, points).replace('A star marks', 'Bold:')}"
    return latex(grid, caption, f"{points.dataset}-{points.teacher}")
