"""A paper's protocol as trial configs: which runs the selected rows need, which are there, what the rest would cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from kdbench.config import Recipe, RunConfig
from kdbench.errors import BadInput
from kdbench.methods import METHODS
from kdbench.papers.schema import Cell, PaperFile, RunSpec

if TYPE_CHECKING:
    from kdbench.models import Given


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for: rows and seeds, and for rehearsals fewer epochs or samples. None: the file's."""

    rows: tuple[str, ...] = ()
    """Globs over the cells' ids; none: all."""
    seeds: int | None = None
    """Runs of each kind."""
    first_seed: int | None = None
    """The first of them: others than the file's are a replication of its runs."""
    epochs: int | None = None
    """At most so many epochs; milestones move in proportion."""
    limit: int | None = None
    """At most so many training samples."""

    @property
    def suffix(self) -> str:
        """A rehearsal has a folder of its own, so that its table never replaces the real one."""
        return (f"-e{self.epochs}" if self.epochs else "") + (f"-n{self.limit}" if self.limit else "")


@dataclass(frozen=True)
class Job:
    """One training run of the table."""

    run: RunSpec
    config: RunConfig
    teacher: RunConfig | None
    keep_logits: bool


@dataclass(frozen=True)
class Protocol:
    """A paper and a request: everything that follows from them is a pure function."""

    paper: PaperFile
    request: Request = field(default_factory=Request)

    @property
    def name(self) -> str:
        """Folder under --out, and W&B group; a replication's is its own too."""
        return self.paper.name + (f"-s{self.first_seed}" if self.replicates else "") + self.request.suffix

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The selected cells.

        Raises:
            BadInput: when a glob matches none.
        """
        ids = [cell.id for cell in self.paper.cells]
        for glob in self.request.rows:
            if not any(fnmatchcase(name, glob) for name in ids):
                raise BadInput(f"--rows {glob} matches no row of {self.paper.name} (rows: {', '.join(ids)})")
        wanted = self.request.rows or ("*",)
        return tuple(cell for cell in self.paper.cells if any(fnmatchcase(cell.id, glob) for glob in wanted))

    @cached_property
    def runs(self) -> tuple[RunSpec, ...]:
        """The runs behind the selected cells and their teachers, teachers first."""
        needed: set[str] = set()
        todo = [cell.run for cell in self.cells if cell.run is not None]
        while todo:
            name = todo.pop()
            needed.add(name)
            teacher = self.paper.run(name).teacher
            if teacher is not None and teacher not in needed:
                todo.append(teacher)
        found = [run for run in self.paper.runs if run.name in needed]
        teachers = {run.teacher for run in found}
        return tuple(sorted(found, key=lambda run: run.name not in teachers))

    def recipe(self, run: RunSpec) -> Recipe:
        """The run's recipe, shortened for a rehearsal."""
        recipe = self.paper.recipes[run.recipe]
        epochs = min(recipe.epochs, self.request.epochs or recipe.epochs)
        if epochs == recipe.epochs:
            return recipe
        marks = tuple(max(1, round(mark * epochs / recipe.epochs)) for mark in recipe.milestones)
        return recipe.model_copy(update={"epochs": epochs, "milestones": marks})

    def seed_count(self, run: RunSpec) -> int:
        """How often a run is made. A teacher that all students share is made as often as its own cells ask for."""
        count = self.request.seeds or self.paper.seeds
        return 1 if run.weights is not None else min(count, run.seeds or count)

    @property
    def first_seed(self) -> int:
        """Seed of the first run of each kind."""
        asked = self.request.first_seed
        return self.paper.first_seed if asked is None else asked

    @property
    def replicates(self) -> bool:
        """Whether the seeds are others than the paper's file says."""
        return self.first_seed != self.paper.first_seed

    def config(self, run: RunSpec, k: int) -> RunConfig:
        """The k-th run (0-based) of a kind."""
        teacher, given = self.teacher_config(run, k), self.given.get(run.name)
        data = self.paper.data_config(run)
        if self.request.limit is not None:
            data = data.model_copy(update={"limit": self.request.limit})
        return RunConfig(
            data=data,
            model=run.model,
            teacher=teacher.model if teacher else None,
            teacher_id=teacher.id if teacher else given.digest if given else None,
            method=run.method,
            method_version=METHODS.get(run.method).version,
            hyper=run.hyper,
            recipe=self.recipe(run).model_copy(update=given.recipe if given else {}),
            seed=self.first_seed + k,
            phase=run.phase,
        )

    def teacher_config(self, run: RunSpec, k: int) -> RunConfig | None:
        """The run that teaches the k-th run of a kind."""
        if run.teacher is None:
            return None
        teacher = self.paper.run(run.teacher)
        return self.config(teacher, k if self.paper.teachers == "each" and teacher.weights is None else 0)

    @cached_property
    def given(self) -> dict[str, Given]:
        """What is known of weights that the paper names, by run."""
        from kdbench.models import describe  # imports torch and timm

        return {run.name: describe(run.weights, run.model) for run in self.runs if run.weights is not None}

    @property
    def sources(self) -> dict[str, str]:
        """Where those weights are, by what identifies them."""
        return {given.digest: self.paper.run(name).weights or "" for name, given in self.given.items()}

    @cached_property
    def teacher_ids(self) -> frozenset[str]:
        """Runs that teach some run of the paper, selected or not: their weights are kept."""
        configs = (self.teacher_config(run, k) for run in self.paper.runs for k in range(self.seed_count(run)))
        return frozenset(config.id for config in configs if config is not None)

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Every training run that the selected cells need, each once, teachers before their students."""
        found: dict[str, Job] = {}
        for run in self.runs:
            logits = any(cell.run == run.name and (cell.of_classes or cell.bias) for cell in self.paper.cells)
            for k in self._seeds(run):
                job = Job(run, self.config(run, k), self.teacher_config(run, k), logits)
                before = found.get(job.config.id)
                if before is None or (logits and not before.keep_logits):
                    found[job.config.id] = job
        return tuple(found.values())

    def _seeds(self, run: RunSpec) -> Iterator[int]:
        """Seeds that a cell shows, or that a student needs."""
        shown = any(cell.run == run.name for cell in self.cells)
        count = self.seed_count(run) if shown else 0
        for student in self.runs:
            if student.teacher == run.name:
                each = self.paper.teachers == "each" and run.weights is None
                count = max(count, self.seed_count(student) if each else 1)
        yield from range(count)
