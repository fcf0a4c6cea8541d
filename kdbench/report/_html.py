"""The report as one HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from kdbench.report import _plot
from kdbench.report._cells import Row, half_width, millions, rows_of, shared_prefix
from kdbench.report._frames import HARD
from kdbench.report._pareto import points as percent
from kdbench.report._points import Point, Points
from kdbench.report._rerun import rerun_command
from kdbench.report._tables import LEGEND
from kdbench.report._worth import SAVED_HEADS, SAVED_LEGEND, Worth


@dataclass(frozen=True)
class Card:
    """What is known about one point: shown on hover, listed below, printed."""

    anchor: str
    student: str
    method: str
    accuracy: str
    facts: tuple[tuple[str, str], ...]
    runs: tuple[tuple[str, str, str, str], ...]
    """(seed, test accuracy, trial, W&B run or empty) of each run."""
    command: str


@dataclass(frozen=True)
class Line:
    """A row of the table with the numbers it sorts by."""

    row: Row
    anchor: str
    order: dict[str, float | None]


@dataclass(frozen=True)
class Picture:
    """A figure below the table."""

    name: str
    """Of its file."""
    heading: str
    alt: str
    caption: str
    source: str = ""
    """Data URI."""


PICTURES = (
    Picture(
        "gain",
        "Gain by size",
        "Gain over hard labels with its interval and verdict, one line a size; the table above holds the numbers.",
        "Points are percentage points of test accuracy, paired by seed; bars are 95% t intervals. Verdicts are "
        "corrected for the number of rows (Holm), so a bar that just misses zero may still be \u201cno difference "
        "seen\u201d.",
    ),
    Picture(
        "temperature_alpha",
        "What temperature and alpha did",
        "Validation accuracy of every search trial over temperature and alpha, one panel a student.",
        "Search trials, chosen on the validation split, one seed each: differences of a few tenths of a point are "
        "within the noise. Pale bands, with six trials or more, are straight lines from trial to trial.",
    ),
    Picture(
        "curves",
        "How they learnt",
        "Validation accuracy after each epoch, winner and hard labels, one panel a student.",
        "Confirm runs on the validation split: mean over seeds, and a band from the lowest seed to the highest.",
    ),
    Picture(
        "reliability",
        "Calibration",
        "Share of right answers over confidence, winner and hard labels, one panel a student.",
        "Test split, all confirm seeds together, 15 bins of confidence; bins with fewer than 10 samples are left out. "
        "Below the dashed diagonal a network is too sure of itself. ECE: mean over seeds.",
    ),
    Picture(
        "cost",
        "What it costs",
        "Test accuracy over wall-clock time of one run, its share of the teacher, and the search.",
        "Wall-clock time. The teacher\u2019s training is shared evenly among the sizes it taught; the line to the "
        "right adds every search trial of that size. cost.csv holds the numbers.",
    ),
)


def page(
    frame: pd.DataFrame,
    points: Points,
    pareto: pd.DataFrame,
    manifest: Mapping[str, Any],
    value: Worth,
    pictures: Mapping[str, str],
) -> str:
    """The whole page. ``pictures`` are figures as SVG text, by name; those of ``PICTURES`` are shown.

    Every value is escaped; a content security policy forbids the page to fetch anything.
    """
    environment = Environment(
        loader=PackageLoader("kdbench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    anchors = {(point.student, point.method): f"point-{index}" for index, point in enumerate(points.all, start=1)}
    rows = rows_of(pareto)
    lines = [
        Line(row, anchors[row.student, row.method], _order(record))
        for row, record in zip(rows, pareto.to_dict("records"), strict=True)
    ]
    searched = (frame["phase"] == "search").any()
    shown = [one for one in PICTURES if one.name in pictures and (searched or one.name != "temperature_alpha")]
    hardware = sorted(frame["hardware"][frame["seconds"] > 0].dropna().unique())
    return environment.get_template("report.html.j2").render(
        title=_title(points),
        points=points,
        teacher=percent(points.teacher_acc) if points.teacher_acc == points.teacher_acc else "",
        plot=_plot.plot(points),
        size=_plot,
        lines=lines,
        several=len({row.method for row in rows}) > 1,
        latency=any(row.latency for row in rows),
        cards=[_card(point, anchors, points, frame, rows, manifest) for point in points.all],
        anchors=anchors,
        pictures=[replace(one, source=_data_uri(pictures[one.name])) for one in shown],
        hardware=hardware,
        value=value,
        saved_heads=SAVED_HEADS,
        saved_legend=SAVED_LEGEND,
        legend=LEGEND,
        manifest=json.dumps(manifest, indent=2, sort_keys=True, default=str, ensure_ascii=False) if manifest else "",
    )


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _title(points: Points) -> str:
    prefix = shared_prefix(list(points.students)).rstrip("_-/")
    students = prefix or (points.students[0] if len(points.students) == 1 else f"{len(points.students)} students")
    return f"{points.teacher or 'teacher'} → {students}" + (f" on {points.dataset}" if points.dataset else "")


def _order(record: Mapping[Any, Any]) -> dict[str, float | None]:
    """Numbers behind the cells that sort as numbers; None where unknown."""
    names = ("params", "macs", "latency_ms", "temperature", "alpha", "n_seeds", "test_acc", "baseline_acc", "gain")
    values = {name: record[name] for name in (*names, "p_on_front")}
    return {name: None if pd.isna(value) else float(value) for name, value in values.items()}


def _card(
    point: Point,
    anchors: Mapping[tuple[str, str], str],
    points: Points,
    frame: pd.DataFrame,
    rows: list[Row],
    manifest: Mapping[str, Any],
) -> Card:
    mean, lo, hi = point.interval
    half = half_width(mean, lo, hi, 2)
    mine = next((row for row in rows if (row.student, row.method) == (point.student, point.method)), None)
    number = (
        {} if point.method == HARD else {"temperature T": f"{point.temperature:.4g}", "alpha": f"{point.alpha:.3g}"}
    )
    facts = {
        "parameters": millions(point.params),
        "multiply-accumulates": millions(point.macs),
        **{name: value for name, value in number.items() if value != "nan"},
        "verdict": mine.verdict.text if mine and point.method != HARD else "",
        "Pareto front": _front_words(point),
    }
    wandb = dict(zip(frame["trial_id"], frame["wandb_run"].fillna(""), strict=True))
    runs = [
        (str(seed), percent(score, 2), point.trial_ids[seed], str(wandb.get(point.trial_ids[seed], "")))
        for seed, score in sorted(point.scores.items())
    ]
    return Card(
        anchor=anchors[point.student, point.method],
        student=point.student,
        method="hard labels" if point.method == HARD else f"distilled ({point.method})",
        accuracy=f"{percent(mean, 2)}%" + (f" ± {half}" if half else ""),
        facts=tuple((name, value) for name, value in facts.items() if value),
        runs=tuple(runs),
        command=rerun_command(point, points, frame, manifest),
    )


def _front_words(point: Point) -> str:
    chance = "" if point.p_on_front != point.p_on_front else f" (in {percent(point.p_on_front, 0)}% of bootstrap draws)"
    return ("on it" if point.on_front else "off it") + chance
