"""Confirm-phase runs gathered into operating points: one a (student, method), the hard labels included."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kdbench.report._frames import HARD, conform_trials, the_only
from kdbench.stats import Interval, p_on_front, pareto_front, t_interval


@dataclass(frozen=True)
class Point:
    """One student trained by one method, measured on the test split over seeds."""

    student: str
    method: str
    params: float
    """Trainable parameters; NaN when unknown."""
    macs: float
    """Multiply-accumulates of one image; NaN when unknown."""
    temperature: float
    alpha: float
    scores: dict[int, float]
    """Test accuracy (fraction) by seed, complete runs that count only."""
    trial_ids: dict[int, str]
    """Trial by seed, for the same runs."""
    on_front: bool = False
    """Whether no other point, hard-label ones included, is as small and as accurate (and better in one)."""
    p_on_front: float = math.nan
    """Chance of that over seeds (bootstrap); NaN with one seed."""

    @property
    def interval(self) -> Interval:
        """Mean test accuracy with its 95% t interval, cut to [0, 1]; bounds NaN with one seed."""
        mean, lo, hi = t_interval(list(self.scores.values()))
        return Interval(mean, max(lo, 0.0) if lo == lo else lo, min(hi, 1.0) if hi == hi else hi)


@dataclass(frozen=True)
class Points:
    """All operating points of a sweep, by ascending parameters, and what was left out of them."""

    all: tuple[Point, ...]
    teacher_acc: float
    """Test accuracy of the teacher, NaN while it is not measured."""
    dataset: str | None
    teacher: str | None
    notes: tuple[str, ...]
    """One sentence for each thing that a reader should know is missing."""

    def find(self, student: str, method: str) -> Point | None:
        """The point of ``student`` and ``method``, or None."""
        return next((p for p in self.all if (p.student, p.method) == (student, method)), None)

    @property
    def students(self) -> tuple[str, ...]:
        """Students by ascending parameters."""
        return tuple(dict.fromkeys(point.student for point in self.all))


def gather(trials: pd.DataFrame) -> Points:
    """The operating points of one sweep's trials.

    A run counts when it is of the confirm phase, complete, and has a test accuracy. A student's hard
    labels count on the seeds they share with at least one of its distilled points (all of their seeds
    when they share none); a distilled point counts on the seeds it shares with the hard labels
    (likewise). So ``gain`` is the difference of the two accuracies printed beside it.

    Raises:
        BadInput: for trials of several data sets or teachers, or a frame that is not a trials frame.
    """
    frame = conform_trials(trials)
    confirm = frame[frame["phase"] == "confirm"]
    usable = confirm[(confirm["status"] == "complete") & confirm["test_acc"].notna() & confirm["seed"].notna()]
    found: dict[str, dict[str, Point]] = {}
    notes = _missing(frame, confirm, usable)
    for _, rows in usable.groupby(["student", "method"], sort=False):
        point, note = _one(str(rows["student"].iloc[0]), str(rows["method"].iloc[0]), rows)
        found.setdefault(point.student, {})[point.method] = point
        notes += [note] if note else []
    points: list[Point] = []
    for methods in found.values():
        kept, note = _paired(methods)
        points += kept
        notes += [note] if note else []
    taught = frame[(frame["phase"] == "teacher") & (frame["status"] == "complete")]
    measured = taught["test_acc"].dropna()
    if len(frame) and measured.empty:
        notes.append("The teacher's test accuracy is not measured yet.")
    return Points(
        all=tuple(_with_front(points)),
        teacher_acc=float(measured.mean()) if len(measured) else math.nan,
        dataset=the_only(frame, "dataset"),
        teacher=the_only(frame, "teacher"),
        notes=tuple(notes),
    )


def _missing(frame: pd.DataFrame, confirm: pd.DataFrame, usable: pd.DataFrame) -> list[str]:
    """Notes on phases without a complete run, students not confirmed, and runs left out."""
    notes = []
    done = set(frame["phase"][frame["status"] == "complete"])
    absent = [phase for phase in ("teacher", "baseline", "search", "confirm") if phase not in done]
    if absent:
        notes.append(f"No complete run yet in phase {', '.join(absent)}: this report is partial.")
    for phase, word in (("baseline", "baseline"), ("search", "search trial")):
        tried = frame[frame["phase"] == phase]
        lost = tried[tried["status"] == "failed"]
        if len(lost):
            counts = Counter(zip(lost["student"], lost["method"], strict=True))
            where = ", ".join(f"{student} {method} {count}" for (student, method), count in counts.items())
            notes.append(f"{len(lost)} of {len(tried)} {word}s failed (diverged, say): {where}.")
    failed = confirm[confirm["status"] == "failed"]
    if len(failed):
        counts = Counter(zip(failed["student"], failed["method"], strict=True))
        where = ", ".join(f"{student} {method} {count}" for (student, method), count in counts.items())
        notes.append(f"{_runs(len(failed))} failed and left out: {where}.")
    unmeasured = len(confirm) - len(failed) - len(usable)
    if unmeasured:
        notes.append(f"{_runs(unmeasured)} without a test accuracy left out.")
    students = frame["student"][frame["phase"].isin(["baseline", "search", "confirm"])].dropna().unique()
    waiting = [str(name) for name in students if name not in set(usable["student"])]
    if waiting and "confirm" in done:
        notes.append(f"Not confirmed, hence not in the table: {', '.join(waiting)}.")
    return notes


def _runs(count: int) -> str:
    return f"{count} confirm run{'s' * (count != 1)}"


def _one(student: str, method: str, rows: pd.DataFrame) -> tuple[Point, str | None]:
    """The point of one (student, method); of several settings the one with most runs, the later on a tie."""
    setting = ["temperature", "alpha", *(name for name in rows.columns if name.startswith("hyper_"))]
    groups = [group for _, group in rows.groupby(setting, dropna=False, sort=False)]
    best = max(range(len(groups)), key=lambda index: (len(groups[index]), index))
    chosen = groups[best].drop_duplicates("seed", keep="last")
    note = None
    if len(chosen) < len(rows):
        extra = _runs(len(rows) - len(chosen))
        note = f"{student} {method}: {extra} with other settings or a repeated seed left out."
    seeds = [int(seed) for seed in chosen["seed"]]
    return Point(
        student=student,
        method=method,
        params=_known(chosen["params"]),
        macs=_known(chosen["macs"]),
        temperature=float(chosen["temperature"].iloc[0]),
        alpha=float(chosen["alpha"].iloc[0]),
        scores=dict(zip(seeds, map(float, chosen["test_acc"]), strict=True)),
        trial_ids=dict(zip(seeds, map(str, chosen["trial_id"]), strict=True)),
    ), note


def _known(column: pd.Series) -> float:
    """The largest positive value of a whole-number column, NaN when there is none (0 means unknown)."""
    values = column[column > 0].dropna()
    return float(values.max()) if len(values) else math.nan


def _paired(methods: dict[str, Point]) -> tuple[list[Point], str | None]:
    """The points of one student, each cut to the seeds it shares as ``gather`` says."""
    hard = methods.get(HARD)
    if hard is None:
        student = next(iter(methods.values())).student
        return list(methods.values()), f"{student}: no hard-label confirm run yet, so no gain."
    kept, shared, dropped = [], set[int](), 0
    for name, point in methods.items():
        common = set(point.scores) & set(hard.scores)
        if name != HARD:
            shared |= common
            dropped += len(point.scores) - len(common) if common else 0
            kept.append(_restrict(point, common))
    dropped += len(hard.scores) - len(shared) if shared else 0
    note = None
    if dropped:
        note = f"{hard.student}: {_runs(dropped)} without a partner on the same seed left out."
    elif len(methods) > 1 and not shared:
        note = f"{hard.student}: hard-label and distilled runs share no seed, so no gain."
    elif len(methods) == 1:
        note = f"{hard.student}: no distilled confirm run yet, hard labels only."
    return [_restrict(hard, shared), *kept], note


def _restrict(point: Point, seeds: set[int]) -> Point:
    if not seeds:
        return point
    return replace(
        point,
        scores={seed: score for seed, score in sorted(point.scores.items()) if seed in seeds},
        trial_ids={seed: name for seed, name in sorted(point.trial_ids.items()) if seed in seeds},
    )


def _with_front(points: list[Point]) -> list[Point]:
    """The same points by ascending parameters, marked with the front over all of them."""
    points = sorted(points, key=lambda p: (math.isnan(p.params), p.params if p.params == p.params else 0.0, p.student))
    if not points:
        return []
    seeds = sorted({seed for point in points for seed in point.scores})
    table = np.array([[point.scores.get(seed, math.nan) for seed in seeds] for point in points])
    cost = [point.params for point in points]
    # Rounded so that equal accuracies added in another order still tie.
    front = pareto_front(cost, np.round(np.nanmean(table, axis=1), 12))
    chance = p_on_front(cost, table)
    return [
        replace(point, on_front=bool(on), p_on_front=float(p))
        for point, on, p in zip(points, front, chance, strict=True)
    ]
