"""What a point costs to make: its own training, the teacher's share, the search for it."""

from __future__ import annotations

import math

import pandas as pd

from kdbench.config import HARD
from kdbench.report.points import Points
from kdbench.run.frame import replicate_of

COST_COLUMNS = (
    *("student", "method", "params", "test_acc", "run_hours", "teacher_hours", "search_hours", "total_hours"),
    *("hours_per_point", "hardware"),
)
"""Columns of cost.csv, in order."""
SMALLEST_GAIN = 1e-4
"""A hundredth of a point: the price of less is the price of nothing."""


def cost_table(frame: pd.DataFrame, points: Points) -> pd.DataFrame:
    """One row per (student, method), hard labels included and controls not, with the columns of ``COST_COLUMNS``.

    Wall-clock hours: ``run_hours`` of one confirm run (mean over seeds), ``teacher_hours`` the teacher's training
    shared evenly among the students that it taught (a teacher that came with its weights costs nothing here),
    ``search_hours`` all search trials of this student and method, pruned ones too; of several teachers or searches the
    mean. ``hours_per_point``: what distilling costs beyond a hard-label run, for each percentage point gained; NaN
    without a gain. ``hardware`` names all that the hours were measured on: with several, they do not add up to hours of
    one machine.
    """
    timed = frame[frame["seconds"] > 0]
    teacher = timed[timed["phase"] == "teacher"]
    taught = {point.student for point in points.compared if point.method != HARD}
    share = float(teacher["seconds"].mean()) / max(len(taught), 1) / 3600 if len(teacher) else math.nan
    rows = []
    for point in points.compared:
        used = own = timed[timed["trial_id"].isin(list(point.trial_ids.values()))]
        run = float(own["seconds"].mean()) / 3600 if len(own) else math.nan
        row = dict.fromkeys(COST_COLUMNS, math.nan) | {"run_hours": run, "total_hours": run}
        row |= {name: getattr(point, name) for name in COST_COLUMNS[:4]}
        search = timed[(timed["phase"] == "search") & (timed["student"] == point.student)]
        search = search[search["method"] == point.method]
        if point.method != HARD or len(search):
            row["search_hours"] = float(search["seconds"].sum()) / max(replicate_of(search).nunique(), 1) / 3600
            row["total_hours"] += row["search_hours"]
            used = pd.concat([own, search])
        if point.method != HARD:
            row["teacher_hours"] = share
            row["total_hours"] += share if share == share else 0.0
            used = pd.concat([used, teacher])
        rows.append(row | {"hardware": " + ".join(sorted(used["hardware"].dropna().unique()))})
    table = pd.DataFrame(rows, columns=list(COST_COLUMNS))
    hard = table[table["method"] == HARD].set_index("student")
    gain = table["test_acc"] - table["student"].map(hard["test_acc"])
    extra = table["total_hours"] - table["student"].map(hard["total_hours"])
    table["hours_per_point"] = (extra / (100 * gain)).where((gain > SMALLEST_GAIN) & (table["method"] != HARD))
    return table
