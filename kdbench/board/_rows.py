"""Submissions to rows: one a (data set, protocol, teacher, student, method, setting), every run counted once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from kdbench.board._board import Board, Latency, Row
from kdbench.board._protocol import Protocol, letters, protocol_id, protocol_of
from kdbench.board._sources import Submission
from kdbench.config import RunConfig
from kdbench.files import canonical_json
from kdbench.report._cells import Row as Words
from kdbench.report._cells import rows_of as in_words
from kdbench.report._frames import HARD, PARETO_COLUMNS
from kdbench.report._pareto import Verdict, judge
from kdbench.report._points import Point, gather
from kdbench.run.store import Run
from kdbench.stats import paired_difference
from kdbench.sweeps.store import row_of


class _Copy(NamedTuple):
    """A run as one submission holds it."""

    trial: Run
    submission: Submission


_Key = tuple[str, str]
"""(data set, protocol id)."""
_MEASURED = ("test_acc", "test_acc_lo", "test_acc_hi", "gain", "gain_lo", "gain_hi")


def leaderboard(submissions: Sequence[Submission]) -> Board:
    """Merge ``submissions`` into one leaderboard.

    A run counts when it is a complete confirm run with a test accuracy. Copies of one trial id count once per
    protocol: the earliest finished one, of several at the same time the first given. Runs of one setting (teacher,
    student, method, hyper-parameters) on other seeds, by whomever, are seeds of one row; two runs on the same seed
    are not. Accuracy, gain, front and verdict are those of ``kdbench.report``; front, ranks and Holm's correction are
    over all rows of a data set and protocol, hard labels included.
    """
    teachers = _teachers(submissions)
    taught = {name: trial.result.test_acc for name, trial in teachers.items()}
    groups: dict[_Key, dict[str, list[_Copy]]] = defaultdict(lambda: defaultdict(list))
    protocols: dict[_Key, Protocol] = {}
    for submission in submissions:
        for trial in filter(_counts, submission.trials):
            teacher = teachers.get(trial.config.teacher_id or "")
            protocol = protocol_of(trial.config, teacher.config if teacher else None, submission.searched)
            key = (trial.config.data.name, protocol_id(protocol))
            protocols[key] = protocol
            groups[key][trial.result.id].append(_Copy(trial, submission))
    named = _letters(groups)
    notes = [note for submission in submissions for note in submission.notes] + _reruns(groups)
    rows: list[Row] = []
    for key in sorted(groups, key=lambda key: (key[0], list(named[key[0]]).index(key[1]))):
        found, more = _group(key[0], named[key[0]][key[1]], groups[key], taught)
        rows += found
        notes += more
    by_letter = {d: {letter: protocols[d, name] for name, letter in named[d].items()} for d in sorted(named)}
    return Board(tuple(rows), by_letter, tuple(dict.fromkeys(notes)))


def _counts(trial: Run) -> bool:
    return trial.config.phase == "confirm" and trial.result.status == "complete" and trial.result.test_acc is not None


def _teachers(submissions: Sequence[Submission]) -> dict[str, Run]:
    """Teachers' own runs by id; of several copies one whose test accuracy is known."""
    found: dict[str, Run] = {}
    for trial in (trial for submission in submissions for trial in submission.trials):
        if trial.config.phase == "teacher" and trial.result.status == "complete":
            before = found.get(trial.result.id)
            if before is None or before.result.test_acc is None:
                found[trial.result.id] = trial
    return found


def _letters(groups: Mapping[_Key, Mapping[str, list[_Copy]]]) -> dict[str, Mapping[str, str]]:
    """By data set: protocol id to letter, the protocol that was used first being A."""
    first: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for (dataset, name), trials in groups.items():
        times = [copy.submission.when for copies in trials.values() for copy in copies]
        first[dataset].append((min(times), name))
    return {dataset: letters([name for _, name in sorted(found)]) for dataset, found in first.items()}


def _counting(copies: list[_Copy]) -> _Copy:
    """The copy that counts."""
    return min(copies, key=lambda copy: (not copy.submission.when, copy.submission.when))


def _reruns(groups: Mapping[_Key, Mapping[str, list[_Copy]]]) -> list[str]:
    """A note on trials that really ran more than once (copies of one run have the same times and scores)."""
    again: dict[str, float] = {}
    for trials in groups.values():
        for name, copies in trials.items():
            if len({copy.trial.result.seconds for copy in copies}) > 1:
                scores = [copy.trial.result.test_acc or 0.0 for copy in copies]
                again[name] = max(scores) - min(scores)
    if not again:
        return []
    apart = f"the largest difference between two runs of one is {100 * max(again.values()):.2f} points"
    return [f"{len(again)} trials were run more than once; each counts once, with its earliest result; {apart}."]


def _group(
    dataset: str, letter: str, trials: Mapping[str, list[_Copy]], taught: Mapping[str, float | None]
) -> tuple[list[Row], list[str]]:
    """Ranked rows of one data set and protocol."""
    chosen = _one_a_seed(trials)
    points = gather(pd.DataFrame([_encoded(copy.trial) for copy in chosen.values()])).all
    table = _table(points)
    parts = zip(points, table.to_dict("records"), in_words(table), judge(table), strict=True)
    rows = [_row(dataset, letter, *part, chosen, trials, taught) for part in parts]
    where = f"{dataset}, protocol {letter}"
    notes = []
    if left := len(chosen) - sum(len(point.trial_ids) for point in points):
        notes.append(f"{where}: {left} runs without a partner on the same seed do not count.")
    if len(precisions := sorted({copy.trial.config.recipe.precision for copy in chosen.values()})) > 1:
        notes.append(f"{where}: runs in {' and '.join(precisions)} are ranked together (each machine's faster one).")
    return _ranked(rows), notes


def _row(
    dataset: str,
    letter: str,
    point: Point,
    numbers: Mapping[Any, Any],
    words: Words,
    verdict: Verdict,
    chosen: Mapping[str, _Copy],
    trials: Mapping[str, list[_Copy]],
    taught: Mapping[str, float | None],
) -> Row:
    copies = {seed: chosen[name] for seed, name in point.trial_ids.items()}
    config = next(iter(copies.values())).trial.config
    known = {seed: copy.trial.result.wandb_run for seed, copy in copies.items()}
    return Row(
        dataset=dataset,
        protocol=letter,
        rank=0,
        teacher=str(config.teacher),
        student=config.model,
        method=config.method,
        hyper=config.hyper,
        params=point.params,
        macs=point.macs,
        latency=_latency(config.model, [copy for name in point.trial_ids.values() for copy in trials[name]]),
        **{name: float(numbers[name]) for name in _MEASURED},
        p_holm=verdict.p_holm,
        on_front=point.on_front,
        p_on_front=point.p_on_front,
        teacher_acc=_or_nan(taught.get(config.teacher_id or "")),
        by=_who(copies.values(), trials),
        when=max(copy.submission.when for copy in copies.values())[:10],
        sweeps=tuple(dict.fromkeys(copy.submission.sweep for copy in copies.values())),
        scores=point.scores,
        trial_ids=point.trial_ids,
        wandb_runs={seed: run for seed, run in known.items() if run},
        words=words,
    )


def _one_a_seed(trials: Mapping[str, list[_Copy]]) -> dict[str, _Copy]:
    """The counting copy of each trial; of two trials of one setting on the same seed, the first by id."""
    seen: dict[tuple[str, str, int], str] = {}
    for name in sorted(trials):
        student, method = _setting(trials[name][0].trial.config)
        seen.setdefault((student, method, trials[name][0].trial.config.seed), name)
    return {name: _counting(trials[name]) for name in seen.values()}


def _setting(config: RunConfig) -> tuple[str, str]:
    """What takes the places of student and method in the report's tables: the same words mean the same point."""
    method = config.method if config.method == HARD else f"{config.method} {canonical_json(config.hyper)}"
    return f"{config.model} {config.teacher_id}", method


def _encoded(trial: Run) -> dict[str, object]:
    """The trial's row, its student and method standing for the whole setting."""
    student, method = _setting(trial.config)
    return {**row_of("", trial.config, trial.result), "student": student, "method": method, "teacher": None}


def _table(points: Sequence[Point]) -> pd.DataFrame:
    """A Pareto frame with a row a point, hard labels included."""
    hard = {point.student: point for point in points if point.method == HARD}
    rows = []
    for point in points:
        mean, lo, hi = point.interval
        row: dict[str, object] = {"student": point.student, "method": point.method, "n_seeds": len(point.scores)}
        row |= {"params": point.params, "macs": point.macs, "latency_ms": math.nan, "teacher_acc": math.nan}
        row |= {"temperature": point.temperature, "alpha": point.alpha}
        row |= {"test_acc": mean, "test_acc_lo": lo, "test_acc_hi": hi}
        row |= {"on_front": point.on_front, "p_on_front": point.p_on_front, "baseline_acc": math.nan}
        row |= dict.fromkeys(("gain", "gain_lo", "gain_hi", "p_value"), math.nan)
        partner = hard.get(point.student)
        if partner is not None:
            common = sorted(set(point.scores) & set(partner.scores))
            row["baseline_acc"] = partner.interval.mean
            if point.method != HARD and common:
                found = paired_difference([point.scores[s] for s in common], [partner.scores[s] for s in common])
                row |= dict(zip(("gain", "gain_lo", "gain_hi", "p_value"), found[:4], strict=True))
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(PARETO_COLUMNS))
    return frame.astype({"params": "float64", "macs": "float64"})


def _latency(student: str, copies: Iterable[_Copy]) -> tuple[Latency, ...]:
    """The student's latency on each hardware that any copy's sweep measured it on, the latest measurement of each."""
    sweeps = sorted((copy.submission for copy in copies), key=lambda submission: submission.when)
    measured = {sweep.hardware: sweep.latency[student] for sweep in sweeps if student in sweep.latency}
    return tuple(Latency(ms, hardware) for hardware, ms in sorted(measured.items()))


def _who(copies: Iterable[_Copy], trials: Mapping[str, list[_Copy]]) -> tuple[str, ...]:
    """Who made the runs that count; a copy of the very same run may know it where the counting one does not."""
    names = []
    for copy in copies:
        result = copy.trial.result
        same = [other for other in trials[result.id] if other.trial.result.seconds == result.seconds]
        known = [other.submission.by for other in (copy, *same) if other.submission.by]
        names += known[:1]
    return tuple(dict.fromkeys(names))


def _ranked(rows: list[Row]) -> list[Row]:
    """By accuracy, the smaller of two equal ones first."""

    def order(row: Row) -> tuple[float | str, ...]:
        return (-row.test_acc, row.params, row.student, row.teacher, row.method, canonical_json(row.hyper))

    return [replace(row, rank=place) for place, row in enumerate(sorted(rows, key=order), start=1)]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
