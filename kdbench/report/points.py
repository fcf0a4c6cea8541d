"""Confirm runs to operating points, one per student and method, and those to the Pareto table: frames in and out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kdbench.config import CONTROLS, HARD
from kdbench.errors import BadInput
from kdbench.methods import ships_more
from kdbench.report.numbers import percent
from kdbench.run.frame import conform, named, replicate_of
from kdbench.run.words import counted, numbered
from kdbench.stats import (
    at_look,
    crossed_difference,
    crossed_interval,
    look_level,
    p_on_front,
    pareto_front,
    whole_part,
)

PARETO_COLUMNS: tuple[str, ...] = (
    *("student", "params", "macs", "latency_ms", "method", "temperature", "alpha", "n_seeds"),
    *("test_acc", "test_acc_lo", "test_acc_hi", "baseline_acc", "gain", "gain_lo", "gain_hi", "p_value"),
    *("on_front", "p_on_front", "teacher_acc"),
)
"""Columns of pareto.csv, in order; a method's further hyper-parameters follow as ``hyper_<name>``."""
NESTED = ("scores", "replicates", "trial_ids", "ranges")
"""Columns of ``Points.frame`` that hold a mapping for each point."""
AT_CHANCE = 1.1
"""A mean accuracy below so many times that of guessing is called chance, and gets no star."""
_TYPES = {"params": "Int64", "macs": "Int64", "n_seeds": "int64", "n_replicates": "int64", "on_front": "bool"}
_TYPES |= dict.fromkeys(("student", "method"), "string")


class History(NamedTuple):
    """What the runs frame leaves out of a run."""

    val_acc: Sequence[float]
    """Validation accuracy (fraction) after each epoch."""
    reliability: Sequence[tuple[int, float, int]] | None = None
    """(samples, sum of confidences, correct) per bin of confidence on the test split, where kept."""
    scaled_ece: float | None = None
    """Expected calibration error (fraction) on test after temperature scaling on validation, where measured."""
    shifted: Mapping[str, float] = MappingProxyType({})
    """Accuracy (fraction) on further test sets."""


@dataclass(frozen=True)
class Points:
    """All operating points of one teacher's students, and what was left out of them."""

    frame: pd.DataFrame
    """One row per point by ascending parameters: the columns of ``pareto_table`` but latency and teacher, the columns
    it was gathered by, ``n_replicates`` (teachers or searches), ``scores`` and ``trial_ids``: test accuracy (fraction,
    averaged over replicates) and run by seed (from the second replicate on by ``1001 #2``), ``replicates``: accuracies
    by replicate and seed, and ``ranges``: least and largest of the hyper-parameters that differ between replicates."""
    teacher_acc: float
    """Test accuracy of the teacher, NaN while it is not measured."""
    dataset: str | None
    teacher: str | None
    notes: tuple[str, ...]
    """One sentence for each thing that a reader should know is missing."""
    repeated: str = "replicate"
    """What a further replicate is, such as ``teacher``."""
    asked: tuple[str, ...] = ()
    """Methods in the order in which they were asked for, where that is known."""

    def __iter__(self) -> Iterator[Any]:
        """The points as named tuples."""
        return iter(named(self.frame))

    def find(self, student: str, method: str) -> Any:
        """The point of ``student`` and ``method``, or None."""
        return next((point for point in self if (point.student, point.method) == (student, method)), None)

    @property
    def compared(self) -> Points:
        """The same without controls."""
        return replace(self, frame=self.frame[~self.frame["method"].isin([*CONTROLS])])

    @property
    def methods(self) -> list[str]:
        """Those that distil, in the order in which they were asked for."""
        own = dict.fromkeys(self.compared.frame["method"])
        return sorted([*own.keys() - {HARD}], key=[*self.asked, *own].index)

    @property
    def over(self) -> str:
        """What intervals are over: ``3 teachers and 5 seeds``; empty where it is seeds alone."""
        own = self.compared.frame[self.compared.frame["method"] != HARD]
        if not own["n_replicates"].gt(1).any():
            return ""
        counts = {self.repeated: own["n_replicates"], "seed": own["n_seeds"]}
        ends = {noun: dict.fromkeys((n.min(), n.max())) for noun, n in counts.items()}
        return " and ".join(counted(" to ".join(map(str, n)), noun) for noun, n in ends.items())

    @property
    def students(self) -> tuple[str, ...]:
        """Students by ascending parameters."""
        return tuple(dict.fromkeys(self.frame["student"]))


def gather(
    runs: pd.DataFrame,
    *,
    arm: Sequence[str] = ("student",),
    setting: Sequence[str] = ("method",),
    chance: float | None = None,
    looks: Sequence[int] = (),
    chances: bool = True,
) -> Points:
    """The operating points in a runs frame, one per ``arm`` and ``setting`` (columns of ``runs``).

    A run counts when it is of the confirm phase, complete, and has a test accuracy; of several hyper-parameters of
    one point those with most runs count. The points of an arm are paired with its hard labels: hard labels count on
    the seeds they share with at least one distilled point (all of their seeds when they share none), a distilled
    point on the seeds it shares with the hard labels (likewise). So ``gain`` is the difference of the two accuracies
    printed beside it.

    Args:
        runs: a runs frame (``kdbench.run.frame``), whole or partial.
        arm: what is compared within: a student, or a student of one teacher.
        setting: what is compared: a method, or a method with its hyper-parameters.
        chance: accuracy (fraction) of guessing; points near it are noted and never on the front.
        looks: numbers of seeds at which somebody looked and added seeds where nothing was decided; intervals of gains
            are wider and p larger for it (``kdbench.stats.at_look``).
        chances: whether to find ``p_on_front``, which takes seconds for hundreds of points; else it is NaN.

    Raises:
        BadInput: for runs of several data sets or teachers, or a frame that is not a runs frame.
    """
    arm, key = list(arm), [*arm, *setting]
    frame = conform(runs, tuple(name for name in key if name not in ("student", "method")))
    frame["replicate"] = replicate_of(frame)
    confirm = frame[frame["phase"] == "confirm"]
    usable = confirm[(confirm["status"] == "complete") & confirm["test_acc"].notna() & confirm["seed"].notna()]
    notes = _missing(frame, confirm, usable)
    chosen = _one_setting(usable, [*key, "replicate"])
    for name, held in usable.groupby(key, sort=False):
        if left := len(held.index.difference(chosen.index)):
            notes.append(
                f"{name[0]} {name[-1]}: {counted(left, 'confirm run')} with other settings or a repeated seed left out."
            )
    paired = _paired(chosen, arm, key)
    notes += _partners(chosen, paired, arm)
    every, paired = paired, _whole(paired, key)
    notes += [
        f"{name[0]} {name[-1]}: {counted(left, 'confirm run')} left out, whose seed not every teacher or search has."
        for name, held in every.groupby(key, sort=False) if (left := len(held.index.difference(paired.index)))
    ]  # fmt: skip
    hard = paired[paired["method"] == HARD].set_index("seed")
    points = [
        _point(rows, hard, arm, key, () if rows["method"].iloc[0] in CONTROLS else looks)  # they get no further seeds
        for _, rows in paired.groupby(key, sort=False)
    ]
    found = with_front(pd.DataFrame(points), chances)
    if chance and len(found) and (low := found["test_acc"] < AT_CHANCE * chance).any():
        found.loc[low, ["on_front", "p_on_front"]] = [False, math.nan]
        names = ", ".join(f"{row.student} {row.method}" for row in named(found[low]))
        notes.append(f"No better than guessing ({percent(chance)}%), so nothing was learned there: {names}.")
    taught = frame[(frame["phase"] == "teacher") & (frame["status"] == "complete")]["test_acc"].dropna()
    if len(frame) and taught.empty:
        notes.append("The teacher's test accuracy is not measured yet.")
    acc = float(taught.mean()) if len(taught) else math.nan
    return Points(found, acc, the_only(frame, "dataset"), the_only(frame, "teacher"), tuple(notes))


def _missing(frame: pd.DataFrame, confirm: pd.DataFrame, usable: pd.DataFrame) -> list[str]:
    """Notes on phases without a complete run, students not confirmed, and runs left out."""
    notes = []
    done = set(frame["phase"][frame["status"] == "complete"])
    absent = [phase for phase in ("teacher", "baseline", "search", "confirm") if phase not in done]
    if absent:
        notes.append(f"No complete run yet in phase {', '.join(absent)}: this report is partial.")
    for phase, word in (("baseline", "baseline"), ("search", "search trial"), ("confirm", "confirm run")):
        tried = frame[frame["phase"] == phase]
        lost = tried[tried["status"] == "failed"]
        if len(lost):
            counts = Counter(zip(lost["student"], lost["method"], strict=True))
            where = ", ".join(f"{student} {method} {count}" for (student, method), count in counts.items())
            notes.append(f"{len(lost)} of {counted(len(tried), word)} failed (diverged, say) and left out: {where}.")
    unmeasured = len(confirm[confirm["status"] != "failed"]) - len(usable)
    if unmeasured:
        notes.append(f"{counted(unmeasured, 'confirm run')} without a test accuracy left out.")
    students = frame["student"][frame["phase"].isin(["baseline", "search", "confirm"])].dropna().unique()
    waiting = [str(name) for name in students if name not in set(usable["student"])]
    if waiting and "confirm" in done:
        notes.append(f"Not confirmed, hence not in the table: {', '.join(waiting)}.")
    return notes


def _one_setting(usable: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Of several hyper-parameters of a point those with most runs, the later on a tie; one run per seed, the later."""
    hyper = ["temperature", "alpha", *(name for name in usable.columns if name.startswith("hyper_"))]
    groups = usable.groupby(list(dict.fromkeys([*key, *hyper])), dropna=False, sort=False)
    held = usable.assign(group=groups.ngroup(), size=groups["phase"].transform("size"))
    best = held.sort_values(["size", "group"]).groupby(key, sort=False)["group"].transform("last").reindex(held.index)
    return usable[held["group"] == best].drop_duplicates([*key, "seed"], keep="last").sort_index()


def _paired(chosen: pd.DataFrame, arm: list[str], key: list[str]) -> pd.DataFrame:
    """The runs that have a partner on the same seed, where any of their point has one."""
    hard = chosen["method"] == HARD
    place = pd.MultiIndex.from_frame(chosen[[*arm, "seed"]])
    met = pd.Series(np.where(hard, place.isin(place[~hard]), place.isin(place[hard])), chosen.index)
    some = met.groupby([chosen[name] for name in key]).transform("any") if len(chosen) else met
    return chosen[met | ~some.astype(bool)]


def _whole(paired: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """The runs of seeds that each replicate of their point has, of as many replicates as leaves most runs."""
    kept = [paired.index[:0]]
    for _, rows in paired.groupby(key, sort=False) if paired["replicate"].any() else ():
        table = rows.pivot(index="replicate", columns="seed", values="test_acc")
        replicates, seeds = whole_part(table)
        whole = rows["replicate"].isin(table.index[replicates]) & rows["seed"].isin(table.columns[seeds])
        kept.append(rows.index[whole])
    return paired.loc[np.sort(np.concatenate(kept))] if len(kept) > 1 else paired


def _partners(chosen: pd.DataFrame, paired: pd.DataFrame, arm: list[str]) -> list[str]:
    notes = []
    for name, held in chosen.groupby(arm, sort=False):
        kept = paired.loc[paired.index.intersection(held.index)]
        hard, soft = (set(kept["seed"][(kept["method"] == HARD) == side]) for side in (True, False))
        if not hard:
            notes.append(f"{name[0]}: no hard-label confirm run yet, so no gain.")
        elif not soft:
            notes.append(f"{name[0]}: no distilled confirm run yet, hard labels only.")
        elif not hard & soft:
            notes.append(f"{name[0]}: hard-label and distilled runs share no seed, so no gain.")
        elif left := len(held) - len(kept):
            notes.append(f"{name[0]}: {counted(left, 'confirm run')} without a partner on the same seed left out.")
    return notes


def _point(
    rows: pd.DataFrame, hard: pd.DataFrame, arm: list[str], key: list[str], looks: Sequence[int]
) -> dict[str, Any]:
    """One row of ``Points.frame``; ``hard``: all runs on hard labels, by seed."""
    rows = rows.sort_values(["replicate", "seed"])
    first, seeds = rows.iloc[0], [int(seed) for seed in rows["seed"].unique()]
    partner = hard["test_acc"][(hard[arm] == first[arm]).all(axis=1)]
    table = rows["test_acc"].to_numpy().reshape(-1, len(seeds))
    mean, lo, hi = crossed_interval(table)
    numbers = [int(number) for number in rows["replicate"].unique()]
    named_by = [numbered(seed, number) for number in numbers for seed in seeds]
    searched = ("temperature", "alpha", *(name for name in rows.columns if name.startswith("hyper_")))
    point: dict[str, Any] = {
        **{name: first[name] for name in key},
        **{name: first[name] for name in searched},
        **{name: _largest(rows[name]) for name in ("params", "macs")},
        **{name: first[name] for name in ("student", "method")},
        "scores": dict(zip(seeds, map(float, table.mean(axis=0)), strict=True)),
        "replicates": {k: dict(zip(seeds, own, strict=True)) for k, own in zip(numbers, table.tolist(), strict=True)},
        "trial_ids": dict(zip(named_by, map(str, rows["trial_id"]), strict=True)),
        "ranges": {name: (rows[name].min(), rows[name].max()) for name in searched if rows[name].nunique() > 1},
        "n_replicates": len(table), "n_seeds": len(seeds), "test_acc": mean, **_cut("test_acc", lo, hi, 0.0),
        **dict.fromkeys(("baseline_acc", "gain", "gain_lo", "gain_hi", "p_value"), math.nan),
    }  # fmt: skip
    if len(partner):
        common = {*seeds} <= {*partner.index}  # else they share none
        theirs = (partner.loc[seeds] if common else partner).to_numpy()
        point["baseline_acc"] = float(theirs.sum() / len(theirs))
        if first["method"] != HARD and common:
            sure = 1 - look_level(len(seeds), looks)
            mean, lo, hi, p, n = crossed_difference(table, theirs, sure)
            point |= {"gain": mean, "p_value": at_look(p, n, looks), **_cut("gain", lo, hi, -1.0)}
    return point


def _cut(name: str, lo: float, hi: float, least: float) -> dict[str, float]:
    """The bounds of a fraction, without what is below ``least`` and above 1; NaN stays."""
    return {f"{name}_lo": float(np.clip(lo, least, 1)), f"{name}_hi": float(np.clip(hi, least, 1))}


def _largest(column: pd.Series) -> float:
    """The largest positive value of a whole-number column, NaN when there is none (0 means unknown)."""
    values = column[column > 0].dropna()
    return float(values.max()) if len(values) else math.nan


def with_front(points: pd.DataFrame, chances: bool) -> pd.DataFrame:
    """The points by ascending parameters, marked with the front over all of them but controls."""
    if points.empty:
        return pd.DataFrame(columns=[*PARETO_COLUMNS, "n_replicates", *NESTED])
    points = points.sort_values(["params", "student"], kind="stable").reset_index(drop=True)
    seeds = sorted({seed for scores in points["scores"] for seed in scores})
    table = np.array([[scores.get(seed, math.nan) for seed in seeds] for scores in points["scores"]])
    size = points["params"].mask(points["method"].isin([*CONTROLS]))  # what has no size is on no front
    # Rounded so that equal accuracies added in another order still tie.
    front = pareto_front(size, np.round(np.nanmean(table, axis=1), 12))
    return points.assign(on_front=front, p_on_front=p_on_front(size, table) if chances else math.nan)


def the_only(frame: pd.DataFrame, column: str) -> str | None:
    """The one value of ``column``; None when it is empty everywhere."""
    values = sorted(frame[column].dropna().unique())
    if len(values) > 1:
        raise BadInput(f"one table cannot hold several values of '{column}': {', '.join(map(str, values))}")
    return str(values[0]) if values else None


def pareto_table(runs: pd.DataFrame | Points, latency: Mapping[str, float] | None = None) -> pd.DataFrame:
    """One row per student and method or control, by ascending parameters, with the columns of ``PARETO_COLUMNS``.

    - ``test_acc`` and its bounds: mean over seeds and 95% t interval (normal noise between seeds assumed; cut to
      [0, 1], that of a gain to [-1, 1]). ``n_seeds``: the seeds it is over, shared with the hard labels.
    - ``baseline_acc``: the same student on hard labels, same seeds. ``gain``: paired difference, 95% t interval;
      ``p_value``: raw two-sided paired t-test (normal differences assumed; see ``kdbench.stats.paired_difference``).
      ``verdicts`` corrects it for the number of rows.
    - With one seed, or no spread at all between the seeds, bounds are NaN.
    - ``on_front``: whether this row's point is on the Pareto front of (parameters, mean accuracy) over ALL points,
      every student's hard-label point included: a size whose hard labels win has a row that is off the front.
      ``p_on_front``: bootstrap chance of that over seeds. Controls are on no front.
    - With several teachers or searches (then in a column ``n_replicates``) all of this is averaged over them as well,
      intervals and p by ``kdbench.stats.crossed_difference``; temperature and the like are those of the first search.
    - A student with hard-label runs only has a row with method ``hard`` and no gain. Failed runs are left out.

    Args:
        runs: the runs frame of one sweep (one data set, one teacher), may be empty or partial; or gathered from it.
        latency: milliseconds of one batch-1 forward, by student.

    Raises:
        BadInput: when ``runs`` is no runs frame, or of several data sets or teachers.
    """
    found = runs if isinstance(runs, Points) else gather(runs)
    frame = found.frame
    distilled = frame[frame["method"] != HARD]
    shown = frame[(frame["method"] != HARD) | ~frame["student"].isin(distilled["student"])]
    further = [name for name in frame.columns if name.startswith("hyper_") and shown[name].notna().any()]
    timed = shown["student"].map(dict(latency or {})).mask(shown["method"].map(ships_more).astype(bool))
    shown = shown.assign(latency_ms=timed, teacher_acc=found.teacher_acc)
    further += ["n_replicates"] if shown["n_replicates"].gt(1).any() else []
    table = shown[[*PARETO_COLUMNS, *further]].reset_index(drop=True)
    return table.astype({name: _TYPES.get(name, "float64") for name in table.columns})
