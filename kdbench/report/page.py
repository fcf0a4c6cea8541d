"""Pages that ask nothing of the network; the report embeds the very figures that are files beside it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from kdbench.config import HARD
from kdbench.report.figures import title_of
from kdbench.report.numbers import millions, percent, spread, unknown
from kdbench.report.points import Points
from kdbench.report.ranking import LEGEND as RANKS
from kdbench.report.ranking import method_grid, method_table, ranking_words
from kdbench.report.render import Grid
from kdbench.report.rerun import PLAIN, rerun_command
from kdbench.report.saved import SAVED_LEGEND, saved_grid
from kdbench.report.shifted import LEGEND as SHIFTED
from kdbench.report.shifted import shifted_grid
from kdbench.report.style import label
from kdbench.report.tables import caveats, legend, pareto_grid
from kdbench.report.verdicts import headline, judge
from kdbench.report.worth import FEW, Worth
from kdbench.run.words import counted

PICTURES = (
    ("gain", "Gain by size", "Gain over hard labels with its interval and verdict, one line per size."),
    ("methods", "Which method?", "Mean ranks over the sizes with intervals over seeds, and gains over kd."),
    ("temperature_alpha", "What temperature and alpha did",
     "Validation accuracy of every search trial over temperature and alpha, one panel per student. One seed each: "
     "differences of a few tenths of a point are within the noise."),
    ("curves", "How they learnt",
     "Validation accuracy after each epoch, winner and hard labels, one panel per student."),
    ("reliability", "Calibration",
     "Share of right answers over confidence on the test split, all confirm seeds together, 15 bins; bins with fewer "
     "than 10 samples are left out. ECE: mean over seeds."),
    ("cost", "What it costs",
     "Test accuracy over wall-clock time. The teacher’s training is shared evenly among the sizes it taught; the line "
     "to the right adds every search trial of that size. cost.csv holds the numbers."),
)  # fmt: skip
"""(file's name, heading, caption, which is also told to who does not see it) of the figures below the table."""


def environment(package: str = "kdbench.report") -> Environment:
    """Templates of ``package`` over the shared ones; every value is escaped."""
    loader = ChoiceLoader([PackageLoader(package, "."), PackageLoader("kdbench.report", ".")])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       keep_trailing_newline=True)  # fmt: skip


def page(
    frame: pd.DataFrame,
    points: Points,
    pareto: pd.DataFrame,
    manifest: Mapping[str, Any],
    worth: Worth,
    shifted: pd.DataFrame,
    pictures: Mapping[str, str],
) -> str:
    """The whole report. ``pictures`` are figures as SVG text, by name; a content security policy forbids to fetch."""
    cards = [_card(k, point, points, frame, pareto, manifest) for k, point in enumerate(points, start=1)]
    anchors = {(card["student"], card["key"]): card["anchor"] for card in cards}
    shown = [(*one, _data_uri(pictures[one[0]])) for one in PICTURES if one[0] in pictures]
    if not (frame["phase"] == "search").any():
        shown = [one for one in shown if one[0] != "temperature_alpha"]
    grid = _ordered(pareto_grid(pareto, points), pareto["method"].nunique() > 1)
    further: list[tuple[str, str, Grid, str]] = []
    """(id, heading, table, legend) of the tables below the main one."""
    if len(table := method_table(points, worth)):
        further.append(("methods", "Methods side by side", method_grid(table), f"{RANKS} {ranking_words(points)}"))
    if len(shifted):
        further.append(("shifted", "Under shift", shifted_grid(shifted), SHIFTED))
    rows = zip(grid.rows, pareto["student"], pareto["method"], strict=True)
    return environment().get_template("report.html.j2").render(
        title=title_of(points),
        headline=[*worth.sentences, *(headline(pareto, points.methods) if len(worth.gains) <= FEW else [])],
        facts=_facts(points, frame, manifest),
        notes=points.notes,
        plot=_inline(pictures["pareto"]) if cards else "",
        marks=json.dumps({card["anchor"]: card["label"] for card in cards}).replace("<", "\\u003c"),
        grid=grid,
        rows=[(cells, anchors[student, method]) for cells, student, method in rows],
        caveats=caveats(pareto),
        legend=legend(pareto, points),
        further=further,
        saved=_ordered(saved_grid(worth.saved), len(worth.gains) > 1) if len(worth.saved) else None,
        saved_legend=SAVED_LEGEND,
        pictures=shown,
        cards=cards,
        manifest=json.dumps(manifest, indent=2, sort_keys=True, default=str, ensure_ascii=False) if manifest else "",
    )  # fmt: skip


def _ordered(grid: Grid, several: bool) -> Grid:
    """What is asked first stands first; the method where there are ``several``."""
    first, last = ("student", "method", "verdict", "gain", "distilled", "hard"), ("latency", "macs")
    columns = [column for column in grid.columns if several or column.key != "method"]
    return grid.only(
        sorted(columns, key=lambda one: first.index(one.key) if one.key in first else 6 + (one.key in last))
    )


def _inline(svg: str) -> str:
    """The drawing as an element that grows with the page."""
    inner = svg[svg.index("<svg") :]
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    tag, rest = inner.split(">", 1)
    about = "Test accuracy against parameters; each point is a link to its details. The table holds the same numbers."
    sized = re.sub(r' (width|height)="[^"]*"', "", tag)
    return f'{sized} role="group" aria-label="{about}">{rest}'


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _facts(points: Points, frame: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a reader asks first: what, when, how much of it, by which command."""
    spec = manifest.get("spec") or {}
    budget, recipe = spec.get("budget") or {}, spec.get("recipe") or {}
    hardware = sorted(frame["hardware"][frame["seconds"] > 0].dropna().unique())
    facts = {
        "data set": points.dataset or "",
        "teacher": f"{points.teacher or 'unknown'}, {percent(points.teacher_acc)}% on test"
        if not unknown(points.teacher_acc) else points.teacher or "",
        "budget": f"{budget.get('name')}: {counted(budget.get('trials', 0), 'search trial')} per size and method, "
        f"{counted(budget.get('seeds', 0), 'seed')}, {counted(recipe.get('epochs', 0), 'epoch')}" if budget else "",
        "finished": str(manifest.get("finished") or "")[:10],
        "hardware": ", ".join(map(str, hardware)),
        "command": str(manifest.get("command") or ""),
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value}


def _card(
    number: int, point: Any, points: Points, frame: pd.DataFrame, pareto: pd.DataFrame, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """What is known about one point: its details, its runs, the command that makes it again, and a line on hover."""
    hard = point.method == HARD
    told = [
        verdict.text
        for row, verdict in zip(pareto.to_dict("records"), judge(pareto), strict=True)
        if (row["student"], row["method"]) == (point.student, point.method) and not hard
    ]
    mean, _, rest = spread(point.test_acc, point.test_acc_lo, point.test_acc_hi, 2).partition(" ")
    acc = f"{mean}% {rest}".rstrip()
    further = {name[6:]: value for name, value in point._asdict().items() if name.startswith("hyper_")}
    numbers = {"temperature T": point.temperature, "alpha": point.alpha, **further}
    names = {"temperature": "temperature T", **{f"hyper_{name}": name for name in further}}
    ranges = {names.get(name, name): f"{low:.4g} to {high:.4g}" for name, (low, high) in point.ranges.items()}
    chance = "" if unknown(point.p_on_front) else f" (in {percent(point.p_on_front, 0)}% of bootstrap draws)"
    facts = {
        "parameters": millions(point.params),
        "multiply-accumulates": millions(point.macs),
        **{name: ranges.get(name, f"{value:.4g}") for name, value in numbers.items() if value == value},
        "verdict": "".join(told),
        "Pareto front": ("on it" if point.on_front else "off it") + chance,
    }
    accs, wandb = (dict(zip(frame["trial_id"], frame[name], strict=True)) for name in ("test_acc", "wandb_run"))
    method = label(point.method)
    settings = ", ".join(f"{name} {facts[name]}" for name in numbers if name in facts)
    lines = [f"{point.student}, {method}", acc, f"{facts['parameters']} parameters"]
    return {
        "anchor": f"point-{number}", "student": point.student, "key": point.method, "method": method,
        "accuracy": acc,
        "facts": {name: value for name, value in facts.items() if value},
        "runs": [(seed, percent(accs[run], 2), run, "" if unknown(wandb[run]) else str(wandb[run]))
                 for seed, run in point.trial_ids.items()],
        "command": rerun_command(point, points, manifest),
        "remark": "A sweep of this student makes it as its baseline:" if point.method in PLAIN
        else "Under the first teacher, after the first search:" if point.n_replicates > 1 else "",
        "label": [*lines, *([settings] if settings else []), *told],
    }  # fmt: skip
