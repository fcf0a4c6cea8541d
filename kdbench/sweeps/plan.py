"""A sweep as a plan: teacher, baselines, searches, then the winners and their baselines on fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from kdbench.catalog.recipes import schedule_of
from kdbench.catalog.shifts import parts_of
from kdbench.catalog.types import Dimension
from kdbench.config import CONTROLS, HARD, EpochLog, Hyper, RunConfig, RunResult
from kdbench.errors import KdbenchError
from kdbench.methods import METHODS
from kdbench.run.job import Finished, Job, Planned
from kdbench.run.store import read_epochs, run_folder
from kdbench.run.words import numbered
from kdbench.stats import LEVEL, at_look, crossed_difference, holm
from kdbench.sweeps.controls import BORN_AGAIN, SMOOTHING
from kdbench.sweeps.groups import Group, groups, search_seed
from kdbench.sweeps.search import Journal, Search, search_size
from kdbench.sweeps.teachers import lessons, with_precision
from kdbench.sweeps.types import Sweep


def space_of(sweep: Sweep, method: str) -> dict[str, Dimension]:
    """The part of the sweep's search space that a method has, in a fixed order: its own, and the tuned recipe's."""
    knobs = [*sorted(METHODS.get(method).knobs), *sweep.tuned]
    found = {name: sweep.space.get(f"{method}.{name}", sweep.space.get(name)) for name in knobs}
    return {name: d for name, d in found.items() if d is not None and f"{method}.{name}" not in sweep.fixed}


def trials_of(sweep: Sweep) -> int:
    """Search trials of a student, for the method that has most."""
    return max(search_size(sweep, space_of(sweep, method)) for method in sweep.methods)


def fixed_of(sweep: Sweep, method: str) -> Hyper:
    """Hyper-parameters that the search leaves alone."""
    spec = METHODS.get(method)
    for_all = {name: value for name, value in sweep.fixed.items() if name in spec.knobs}
    own = {name: sweep.fixed[f"{method}.{name}"] for name in spec.knobs if f"{method}.{name}" in sweep.fixed}
    held = {**spec.defaults, **for_all, **own}
    return {name: value for name, value in held.items() if name not in space_of(sweep, method)}


def point_of(sweep: Sweep, config: RunConfig) -> Hyper:
    """Where in the search space a run lies."""
    held = {name: getattr(config.recipe, name) for name in sweep.tuned} | config.hyper
    return {name: held[name] for name in space_of(sweep, config.method)}


def _remedy(teacher: RunConfig) -> str:
    """What may help a teacher below its floor."""
    if teacher.teacher_id is None:
        return "Train it longer (--teacher-epochs)"
    return (
        "Its classes are likely others than the data's, or in another order: name them in theirs, label_names in a "
        "config.json beside the weights"
    )


class SweepPlan:
    """Implements ``kdbench.run.job.Plan``. ``folder`` holds what was asked and run before; None: nothing."""

    def __init__(self, sweep: Sweep, folder: Path | None = None) -> None:
        self.sweep, self.name, self._folder = sweep, sweep.name, folder
        made = [lessons(sweep, number) for number in range(sweep.teacher_seeds)]
        self.teachers = [each[-1].config for each in made]
        self.teacher = self.teachers[0]
        self._lessons = {lesson.config.id: lesson for each in made for lesson in each}
        self._journal = Journal(folder / "search.jsonl" if folder else None)
        self._searches = {
            group.key: Search(sweep, group.key, space_of(sweep, group.method), self._journal, search_seed(sweep, group))
            for group in groups(sweep) if group.phase == "search"
        }  # fmt: skip
        self._asked: dict[str, list[tuple[str, int]]] = {}
        self._configs: dict[tuple[str, int], RunConfig] = {}
        self._closed: set[str] = set()
        self._also = parts_of(sweep.also_test)
        self._added: dict[Group, int] = {}

    def spec(self) -> dict[str, Any]:
        return self.sweep.model_dump(mode="json")

    def config(self, group: Group, hyper: Hyper, seed: int) -> RunConfig:
        """One student's run. One on hard labels holds no teacher: it is the same under every one."""
        sweep, teacher = self.sweep, self._teacher_of(group)
        control = next((name for name in sweep.controls if name == group.method), None)
        method = "kd" if control == "self" else HARD if control else group.method
        changes: dict[str, Any] = {name: hyper[name] for name in sweep.tuned if name in hyper}
        if control == "smoothing":
            changes["label_smoothing"] = SMOOTHING
        if control == "compute":
            epochs = sweep.compute_epochs[group.model]
            changes |= {"epochs": epochs, **schedule_of(sweep.recipe, epochs / sweep.recipe.epochs)}
        held = (BORN_AGAIN if control == "self" else {}) | fixed_of(sweep, method)
        hyper = {name: value for name, value in hyper.items() if name not in sweep.tuned}
        return RunConfig(
            data=sweep.data,
            model=group.model,
            teacher=teacher.written if teacher else None,
            teacher_id=teacher.id if teacher else None,
            method=method,
            method_version=METHODS.get(method).version,
            hyper={**held, **hyper} if teacher else {},
            recipe=with_precision(sweep, group.model, sweep.recipe_of(group.model)).model_copy(update=changes),
            seed=seed,
            phase=group.phase,
            start=sweep.student_weights.get(group.model),
            control=control,
            replicate=group.replicate,
        )

    def _teacher_of(self, group: Group) -> RunConfig | None:
        """Whose weights guide a group's runs: for ``self`` those of the student's own run on hard labels."""
        if group.method != "self":
            number = group.replicate if len(self.teachers) > 1 else 0  # searches alone: all under the one teacher
            return None if group.method in (HARD, *CONTROLS) else self.teachers[number]
        own = Group("baseline", group.model, HARD)
        return self._configs.get((own.key, 0)) or self.config(own, {}, self.sweep.search_seed)

    def jobs(self, finished: Finished) -> Iterator[Job]:
        for teacher, guide in self._lessons.values():  # one after the other: each has the machine to itself
            if teacher.id not in finished:
                yield Job(teacher, guide, keep=frozenset({"weights"}), serves=self._served(teacher))
                return
            self._check_teacher(teacher, finished[teacher.id])
        known = True
        for group in groups(self.sweep):
            if group.key in self._closed:
                continue
            if group.phase == "search":
                yield from self._search_jobs(group, finished)
                done: bool | None = self._searches[group.key].done
            else:
                left, done = self._fixed(group, finished)
                yield from left
            known = known and done is not None
            if done:
                self._closed.add(group.key)
        if known and self._open_rows(finished):
            yield from self.jobs(finished)
            return
        if known:
            yield from (Job(each, task="test") for each in self.teachers if finished[each.id].test_acc is None)
            yield from self._unread(finished)

    def _unread(self, finished: Finished) -> Iterator[Job]:
        """Confirmed runs that have not read every further test set, since it was asked for later."""
        wanted = {*self._also}
        for config in {each.id: each for each in self._configs.values() if wanted}.values():
            result = finished.get(config.id)
            if config.phase == "confirm" and result and result.status == "complete" and wanted - {*result.shifted}:
                yield Job(config, task="also", also=self._also)

    def _fixed(self, group: Group, finished: Finished) -> tuple[list[Job], bool | None]:
        """Open baseline or confirm runs, and whether all have ended; None while their point is not known yet."""
        own = Group("baseline", group.model, HARD)
        hyper: Hyper = {}
        if group.phase == "confirm" and group.method not in self.sweep.methods and own.key not in self._closed:
            return [], None
        if (decided := self._decided_by(group)) is not None:
            if not self._searches[decided].done:
                return [], None
            winner = self._searches[decided].winner()
            if winner is None:  # no trial of the search came to an end: nothing to confirm
                return [], True
            hyper = winner
        if group.method == "self":  # of a network that went astray there is nothing to learn
            taught = self._configs.get((own.key, 0))
            if taught is None or finished[taught.id].status != "complete":
                return [], True
        for number, seed in enumerate(self._seeds(group)):
            if (group.key, number) not in self._configs:
                self._configs[group.key, number] = self.config(group, hyper, seed)
        configs = [self._configs[group.key, number] for number in range(self.size(group))]
        kept = group.phase == "confirm" or "self" in self.sweep.controls
        keep: frozenset[Literal["weights", "logits"]] = frozenset({"weights"} if kept else ())
        teacher = self._teacher_of(group)
        also = self._also if group.phase == "confirm" else ()
        left = [Job(config, teacher, keep, also=also) for config in configs if config.id not in finished]
        return left, not left

    def _decided_by(self, group: Group) -> str | None:
        """Key of the search whose winner a group's runs share; None where nothing of theirs is searched."""
        method = "kd" if group.method == "self" and "kd" in self.sweep.methods else group.method
        if method not in self.sweep.methods:
            return Group("search", group.model, HARD).key if self.sweep.tuned else None
        return Group("search", group.model, method, group.replicate if self.sweep.repeat_search > 1 else 0).key

    def _seeds(self, group: Group) -> tuple[int, ...]:
        if group.phase != "confirm":
            return (search_seed(self.sweep, group),)
        return self.sweep.confirm_seeds[: self._added.get(group, self.sweep.budget.seeds)]

    def _open_rows(self, finished: Finished) -> bool:
        """Give the rows that are not decided at this look the seeds of the next, and their hard labels with them.

        Asked when every run so far has ended, so that what is decided depends on the results alone.
        """
        looks = self.sweep.looks
        if not looks or any(group.key not in self._closed for group in groups(self.sweep)):
            return False
        methods = self.sweep.methods  # controls keep to the first look's seeds
        every = [group for group in groups(self.sweep) if group.phase == "confirm" and group.method in methods]
        rows = [group for group in every if not group.replicate]
        tests = [crossed_difference(*self._scores(group, finished)).p for group in rows]
        corrected = holm([at_look(p, self.size(group), looks) for group, p in zip(rows, tests, strict=True)])
        more = False
        for group, p in zip(rows, corrected, strict=True):
            later = [look for look in looks if look > self.size(group)]
            if p >= LEVEL and later:  # a row without a test (p is NaN) gets none by more seeds
                for each in (*self._replicates(group), group._replace(method=HARD)):
                    self._added[each] = max(later[0], self._added.get(each, 0))
                    self._closed.discard(each.key)
                more = True
        return more

    def _replicates(self, group: Group) -> list[Group]:
        return [group._replace(replicate=number) for number in range(self.sweep.replicates)]

    def _scores(self, group: Group, finished: Finished) -> tuple[list[list[float]], list[float]]:
        """Test accuracies (fractions), seed by seed, of each replicate of a row and of its hard labels; NaN: failed."""
        sides = []
        for each in (*self._replicates(group), group._replace(method=HARD)):
            configs = (self._configs.get((each.key, k)) for k in range(self.size(group)))
            found = (finished[config.id].test_acc if config else None for config in configs)
            sides.append([math.nan if acc is None else acc for acc in found])
        return sides[:-1], sides[-1]

    def _search_jobs(self, group: Group, finished: Finished) -> Iterator[Job]:
        search = self._searches[group.key]
        for number in search.open:
            yield from self._trial(group, number, finished)
        while len(search.trials) < search.size:
            number, hyper = search.ask()
            config = self.config(group, hyper, search.seed)
            self._configs[group.key, number] = config
            self._asked.setdefault(config.id, []).append((group.key, number))
            yield from self._trial(group, number, finished)

    def _trial(self, group: Group, number: int, finished: Finished) -> Iterator[Job]:
        config, search = self._configs[group.key, number], self._searches[group.key]
        result = finished.get(config.id)
        if result is None:
            yield Job(config, self._teacher_of(group), study=group.key, number=number)
        elif number not in search.ended:  # from before an interruption, or the same point as another trial
            for log in self._epochs(config):
                search.epoch(number, log)
            search.tell(number, result)

    def _epochs(self, config: RunConfig) -> list[EpochLog]:
        return read_epochs(run_folder(self._folder, config.id)) if self._folder else []

    def epoch(self, job: Job, log: EpochLog) -> bool:
        """Prune in the search phase alone; trials that share a run are pruned as its first one."""
        answers = [self._searches[key].epoch(number, log) for key, number in self._asked.get(job.id, [])]
        return bool(answers and answers[0])

    def ended(self, job: Job, result: RunResult) -> None:
        if job.config.phase == "teacher":
            self._check_teacher(job.config, result)
        for key, number in self._asked.get(job.id, []):
            self._searches[key].tell(number, result)

    def _check_teacher(self, config: RunConfig, result: RunResult) -> None:
        """Refuse to distil from a network that failed, or from a teacher of students below its minimum accuracy.

        Raises:
            KdbenchError: naming what was measured and what to do.
        """
        model, least = config.written, self.sweep.teacher_floor if config in self.teachers else 0.0
        if result.status == "failed":
            raise KdbenchError(
                f"the teacher {model} could not be trained: {result.error}; try a lower --set teacher-recipe.lr "
                "under another --name"
            )
        reached = result.val_acc or 0.0
        if reached < least:
            raise KdbenchError(
                f"the teacher {model} reached {reached:.2%} on the validation split, below its floor of "
                f"{least:.2%}; distilling it would measure nothing. {_remedy(self.teacher)}, give better "
                f"weights (--teacher-weights), or accept it with --teacher-floor {max(reached - 0.005, 0):.2f}"
            )

    def _served(self, teacher: RunConfig) -> tuple[RunConfig, ...]:
        """One run for each seed whose views a teacher is asked about; an assistant's own where it teaches one."""
        first = (self.sweep.pair.students[0], self.sweep.methods[0])
        asked = [each for each in groups(self.sweep) if each[1:3] == first and self._teacher_of(each) == teacher]
        found = {seed: self.config(group, {}, seed) for group in asked for seed in self._seeds(group)}
        return (*found.values(), *(config for config, guide in self._lessons.values() if guide == teacher))

    @property
    def passes(self) -> int:
        """Epochs of views that the runs under one teacher see."""
        searches = self.sweep.repeat_search if len(self.teachers) == 1 else 1
        return self.sweep.recipe.epochs * (searches + len(self.sweep.confirm_seeds))

    @property
    def runs(self) -> dict[str, int]:
        """Planned runs by student."""
        found: dict[str, int] = {}
        for group in groups(self.sweep):
            found[group.model] = found.get(group.model, 0) + self.size(group)
        return found

    def size(self, group: Group) -> int:
        """How many runs a group holds in the end, if its search has a winner."""
        return self._searches[group.key].size if group.phase == "search" else len(self._seeds(group))

    def kind(self, config: RunConfig) -> Hashable:
        if config.phase == "teacher":
            return config.id
        return Group(config.phase, config.model, config.condition, config.replicate)

    def planned(self, done: Mapping[Hashable, int]) -> list[Planned]:
        apart = len(self._lessons) // len(self.teachers)
        kinds = [
            Planned("teacher", numbered(each.written, k // apart), each, guide, 1, each.id in done)
            for k, (each, guide) in enumerate(self._lessons.values())
        ]
        for group in groups(self.sweep):
            example, size = self.config(group, {}, self._seeds(group)[0]), self.size(group)
            label, ended = numbered(group.model, group.replicate), min(size, done.get(group, 0))
            kinds.append(Planned(group.phase, label, example, self._teacher_of(group), size, ended))
        return kinds
