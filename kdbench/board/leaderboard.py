"""Submissions to one frame: a row per data set, protocol, teacher's recipe, student, method, setting; each run once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from kdbench.board.protocol import Protocol, fair, letters, protocol_id, protocol_of, teacher_of
from kdbench.board.submissions import Submission
from kdbench.catalog.datasets import DATASETS
from kdbench.config import HARD, RunConfig
from kdbench.files import canonical_json
from kdbench.methods import ships_more
from kdbench.report.numbers import percent
from kdbench.report.points import AT_CHANCE, gather
from kdbench.report.verdicts import Verdict, judge
from kdbench.run.frame import named, row_of
from kdbench.run.store import Run
from kdbench.run.words import counted
from kdbench.stats import pareto_front, rank_intervals


class Latency(NamedTuple):
    """Milliseconds of one batch-1 forward, and what it was measured on."""

    ms: float
    hardware: str


@dataclass(frozen=True)
class Board:
    """A whole leaderboard."""

    frame: pd.DataFrame
    """By data set, protocol (a letter within the data set) and ``rank`` (1: the highest mean test accuracy there):
    the columns of ``kdbench.report.points.Points.frame``, and ``teacher`` (empty for hard labels), ``teacher_acc`` (the
    mean of its teachers), ``hyper`` (its values by name), ``latency`` (one ``Latency`` per hardware), ``verdict`` (on
    the gain; of no meaning for hard labels), ``by``, ``when`` (day by which all of its runs were there), ``disputed``
    (whether copies of its runs differ), ``sweeps``, ``wandb_runs`` (by seed), ``place`` (``A1``), ``rank_lo`` and
    ``rank_hi`` (``kdbench.stats.rank_intervals``, NaN with one seed), ``most_seeds`` (of any row there)."""
    protocols: Mapping[str, Mapping[str, Protocol]]
    """By data set and letter."""
    notes: tuple[str, ...]
    """One sentence for each thing that was left out or reconciled."""
    axis: str = ""
    """What ``cost`` of a row is, over which the fronts then are; empty: parameters."""

    @property
    def rows(self) -> list[Any]:
        """The rows as named tuples."""
        return named(self.frame)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets by name."""
        return tuple(self.protocols)


Costs = Mapping[Path, Mapping[str, float]]
"""What each student costs, by the folder of the submission that says so."""


class _Copy(NamedTuple):
    """A run as one submission holds it."""

    trial: Run
    submission: Submission

    @property
    def hard(self) -> bool:
        """Whether it has no teacher."""
        return self.trial.config.method == HARD


_Key = tuple[str, str]
"""(data set, protocol id)."""
_OF_THE_MACHINE = {"seconds", "attempts", "hardware", "wandb_run", "weights"}
_NAMED = 6
"""Disputed runs that a note names."""


def leaderboard(submissions: Sequence[Submission], costs: Costs | None = None, axis: str = "") -> Board:
    """Merge ``submissions`` into one leaderboard.

    A run counts when it is a complete confirm run with a test accuracy. Copies of one trial id count once per
    protocol: the first one given (dates can be forged); where they differ the row is disputed and says so. Runs of
    one setting (teacher's recipe, student, method, hyper-parameters) on other seeds, by whomever, are seeds of one row;
    two runs on the same seed are not. Hard labels belong to every protocol of their data and recipe, whoever teaches
    there. Accuracy, gain and front are those of ``kdbench.report``, over all rows of a data set and protocol, hard
    labels included; Holm's correction is over the rows of one submission, so that nobody's rows change another's
    verdict. With ``costs`` fronts are over them (``axis`` says what they are) instead of over parameters.
    """
    teachers = _teachers(submissions)
    groups: dict[_Key, dict[str, list[_Copy]]] = defaultdict(lambda: defaultdict(list))
    protocols: dict[_Key, Protocol] = {}
    alike: dict[_Key, list[_Key]] = defaultdict(list)
    copies = [_Copy(run, submission) for submission in submissions for run in submission.trials if _counts(run)]
    for copy in sorted(copies, key=lambda copy: copy.hard):  # hard labels last: they join what is there
        config = copy.trial.config
        protocol = protocol_of(config, _teacher(config, teachers), copy.submission.searched, copy.submission.tuned)
        key, base = ((config.data.name, protocol_id(held)) for held in (protocol, fair(protocol)))
        if key not in protocols and not (copy.hard and alike[base]):
            protocols[key] = protocol
            alike[base].append(key)
        for each in alike[base] if copy.hard else [key]:
            groups[each][copy.trial.result.id].append(copy)
    named = _letters(groups)
    notes = [note for submission in submissions for note in submission.notes] + _disputes(groups)
    tables = []
    for key in sorted(groups, key=lambda key: (key[0], list(named[key[0]]).index(key[1]))):
        table, more = _group(key[0], named[key[0]][key[1]], groups[key], teachers, costs)
        tables.append(table)
        notes += more
    by_letter = {d: {letter: protocols[d, name] for name, letter in named[d].items()} for d in sorted(named)}
    frame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Board(frame, by_letter, tuple(dict.fromkeys(notes)), axis)


def _counts(trial: Run) -> bool:
    """A whole confirm run, of no control, and of several teachers or searches of the first; one on hard labels has no
    hyper-parameters that could make it another run.
    """
    config, result = trial.config, trial.result
    whole = (
        config.phase == "confirm"
        and config.control is None
        and not config.replicate
        and result.status == "complete"
        and result.test_acc is not None
    )
    return whole and not (config.method == HARD and config.hyper)


def _teachers(submissions: Sequence[Submission]) -> dict[str, Run]:
    """The runs, of any phase, that some run names as its teacher; of several copies one with a test accuracy."""
    runs = [run for submission in submissions for run in submission.trials]
    named, found = {run.config.teacher_id for run in runs}, dict[str, Run]()
    for run in runs:
        if run.result.id in named and run.result.status == "complete":
            before = found.get(run.result.id)
            if before is None or before.result.test_acc is None:
                found[run.result.id] = run
    return found


def _teacher(config: RunConfig, teachers: Mapping[str, Run]) -> RunConfig | None:
    """The run that taught this one, where somebody sent it."""
    found = teachers.get(config.teacher_id or "")
    return found.config if found else None


def _letters(groups: Mapping[_Key, Mapping[str, list[_Copy]]]) -> dict[str, Mapping[str, str]]:
    """By data set: protocol id to letter, the protocol that was used first being A; those of hard labels alone last."""
    first: dict[str, list[tuple[bool, str, int, str]]] = defaultdict(list)
    for (dataset, name), trials in groups.items():
        times = [(copy.hard, copy.submission.when) for copies in trials.values() for copy in copies]
        first[dataset].append((*min(times), -len(trials), name))  # of several at once the largest
    return {dataset: letters([name for *_, name in sorted(found)]) for dataset, found in first.items()}


def _versions(copies: Sequence[_Copy]) -> dict[str, tuple[float, str]]:
    """What copies of one run claim, by all but the machine: test accuracy, and the folder that has it first."""
    found: dict[str, tuple[float, str]] = {}
    for copy in copies if len(copies) > 1 else ():
        claim = copy.trial.result.model_dump_json(exclude=_OF_THE_MACHINE)
        found.setdefault(claim, (copy.trial.result.test_acc or 0.0, copy.submission.folder.name))
    return found


def _disputes(groups: Mapping[_Key, Mapping[str, list[_Copy]]]) -> list[str]:
    """A note on runs whose copies differ: made again with another outcome, or altered by somebody."""
    told = []
    for trials in groups.values():
        for name, copies in trials.items():
            if len(held := _versions(copies)) > 1:
                told.append(f"{name} ({', '.join(f'{percent(acc, 2)}% in {where}' for acc, where in held.values())})")
    if not told:
        return []
    some = ", ".join(told[:_NAMED]) + (f" and {len(told) - _NAMED} more" if len(told) > _NAMED else "")
    return [f"Disputed, since the folders that hold the run differ (the first one given counts): {some}."]


def _group(
    dataset: str, letter: str, trials: Mapping[str, list[_Copy]], teachers: Mapping[str, Run], costs: Costs | None
) -> tuple[pd.DataFrame, list[str]]:
    """Ranked rows of one data set and protocol."""
    rows = {name: _row(copies[0].trial, teachers) for name, copies in trials.items()}
    chosen = {name: trials[name][0] for name in _one_per_seed(rows)}
    runs = pd.DataFrame([rows[name] for name in chosen])
    chance = 1 / DATASETS.get(dataset).classes if dataset in DATASETS else None
    table = gather(runs, setting=("taught", "method", "setting"), chance=chance, chances=False).frame
    told = [_about(point, chosen, trials, teachers) for point in named(table)]
    lo, hi = rank_intervals(pd.DataFrame(list(table["scores"])).to_numpy(dtype=float))
    table = table.assign(
        **{name: [one[name] for one in told] for name in told[0]},
        dataset=dataset, protocol=letter, rank_lo=lo, rank_hi=hi, most_seeds=table["n_seeds"].max(),
    )  # fmt: skip
    held = [{chosen[name].submission.folder for name in ids.values()} for ids in table["trial_ids"]]
    table = table.assign(verdict=pd.Series(_verdicts(table, held), table.index))
    if costs is not None:
        cost = [
            math.nan if ships_more(method) else
            next((costs[at][model] for at in sorted(where) if model in costs.get(at, {})), math.nan)
            for model, method, where in zip(table["student"], table["method"], held, strict=True)
        ]  # fmt: skip
        learned = table["test_acc"] >= AT_CHANCE * (chance or 0)
        front = pareto_front(pd.Series(cost, table.index).where(learned), table["test_acc"].round(12))
        table = table.assign(cost=cost, on_front=front)
    where = f"{dataset}, protocol {letter}"
    notes = []
    if left := len(chosen) - int(table["n_seeds"].sum()):
        notes.append(f"{where}: {counted(left, 'run')} without a partner on the same seed do not count.")
    if left := len(rows) - len(chosen):
        twice = f"{counted(left, 'run')} that repeat a seed of their row (other teacher or precision)"
        notes.append(f"{where}: {twice} do not count.")
    if len(precisions := sorted({copy.trial.config.recipe.precision for copy in chosen.values()})) > 1:
        notes.append(f"{where}: runs in {' and '.join(precisions)} are ranked together.")
    order = table.assign(worse=-table["test_acc"])
    order = order.sort_values(["worse", "params", "student", "teacher", "method", "setting"], kind="stable")
    rank = range(1, len(order) + 1)
    ranked = order.drop(columns="worse").assign(rank=rank, place=[f"{letter}{k}" for k in rank])
    return ranked, notes


def _verdicts(table: pd.DataFrame, folders: Sequence[set[Path]]) -> list[Verdict]:
    """Verdicts corrected over the rows of each submission; a row of several has the most cautious of theirs."""
    found: list[list[Verdict]] = [[] for _ in folders]
    told = table[["method", "n_seeds", "gain", "gain_lo", "gain_hi", "p_value"]]
    for folder in sorted(set().union(*folders)):
        own = [k for k, held in enumerate(folders) if folder in held]
        for k, verdict in zip(own, judge(told.iloc[own]), strict=True):
            found[k].append(verdict)
    return [max(each, key=lambda verdict: verdict.p_holm) for each in found]


def _one_per_seed(rows: Mapping[str, Mapping[str, object]]) -> Iterable[str]:
    """The trials that count: of two of one setting on one seed the one given first."""
    seen: dict[tuple[object, ...], str] = {}
    for name, row in rows.items():
        seen.setdefault(tuple(row[part] for part in ("student", "taught", "setting", "seed")), name)
    return seen.values()


def _row(trial: Run, teachers: Mapping[str, Run]) -> dict[str, object]:
    """The trial's row, with all that makes it another point; the teacher's name may differ within a table."""
    config = trial.config
    setting = canonical_json([config.method, config.method_version, config.hyper if config.method != HARD else {}])
    return {**row_of("", config, trial.result), "taught": teacher_of(config, _teacher(config, teachers)),
            "setting": setting, "teacher": None}  # fmt: skip


def _about(
    point: Any, chosen: Mapping[str, _Copy], trials: Mapping[str, list[_Copy]], teachers: Mapping[str, Run]
) -> dict[str, Any]:
    """What a row says beside its numbers."""
    copies = {seed: chosen[name] for seed, name in point.trial_ids.items()}
    config = next(iter(copies.values())).trial.config
    named = {copy.trial.config.teacher_id for copy in copies.values()} if config.method != HARD else set()
    taught = [teachers[name].result.test_acc for name in sorted(filter(None, named)) if name in teachers]
    accs = [acc for acc in taught if acc is not None]
    known = {seed: copy.trial.result.wandb_run for seed, copy in copies.items()}
    return {
        "teacher": "" if config.method == HARD else str(config.teacher),
        "hyper": config.hyper,
        "teacher_acc": sum(accs) / len(accs) if accs else math.nan,
        "latency": ()
        if ships_more(config.method)
        else _latency(config.model, [copy for name in point.trial_ids.values() for copy in trials[name]]),
        "by": _who(copies.values(), trials),
        "when": max(min(copy.submission.when for copy in trials[name]) for name in point.trial_ids.values())[:10],
        "disputed": any(len(_versions(trials[name])) > 1 for name in point.trial_ids.values()),
        "sweeps": tuple(dict.fromkeys(copy.submission.sweep for copy in copies.values())),
        "wandb_runs": {seed: run for seed, run in known.items() if run},
    }


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
