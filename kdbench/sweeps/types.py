"""A whole sweep, resolved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from kdbench.catalog.types import Budget, Dimension, Pair
from kdbench.config import Control, DataConfig, Frozen, Hyper, Recipe, Tune, is_default, unset
from kdbench.errors import BadInput
from kdbench.files import identify

Sampler = Literal["tpe", "random", "grid", "qmc", "gp"]
Pruner = Literal["median", "none"]


class Sweep(Frozen):
    """Everything a sweep is, resolved: what YAML and flags add up to. Its hash guards resumption."""

    name: str
    """Folder under the output directory, and W&B group."""
    pair: Pair
    """Teacher and students."""
    data: DataConfig
    """The samples."""
    data_path: str | None = None
    """``folder:/path`` of a user's own images on this machine; part of no identity (``data.digest`` is)."""
    methods: tuple[str, ...] = ("kd",)
    """Distillation losses compared."""
    space: dict[str, Dimension]
    """What is searched; names that a method lacks are ignored for it."""
    fixed: Hyper = Field(default_factory=dict)
    """Hyper-parameters held at one value."""
    budget: Budget
    """Trials, seeds."""
    sampler: Sampler = "tpe"
    """Optuna sampler."""
    pruner: Pruner = "median"
    """Optuna pruner."""
    recipe: Recipe
    """Students' recipe, the same for baseline, search and confirm."""
    precisions: dict[str, Literal["fp32", "bf16"]] = Field(default_factory=dict)
    """Measured precision per model, where the recipe says ``auto``."""
    tuned: tuple[str, ...] = Field(default=(), exclude_if=is_default(()))
    """Fields of the students' recipe that are searched as well, over their ranges in ``space``: on hard labels too."""
    controls: tuple[Control, ...] = Field(default=(), exclude_if=is_default(()))
    """What is confirmed beside the methods."""
    compute_epochs: dict[str, int] = Field(default_factory=dict, exclude_if=is_default({}))
    """Epochs of the control ``compute`` by student, counted in multiply-accumulates."""
    teacher_recipe: Recipe
    """The teacher's recipe."""
    teacher_weights: str | None = None
    """``pretrained:<timm tag>`` or ``file:<sha256 prefix>``, of an ensemble's members with commas; None trains it."""
    teacher_tune: Tune | None = Field(default=None, exclude_if=unset)
    """How those weights are trained, under a new classifier; None: not at all."""
    student_weights: dict[str, str] = Field(default_factory=dict, exclude_if=is_default({}))
    """What identifies the weights that students start from, by student."""
    student_recipes: dict[str, Recipe] = Field(default_factory=dict, exclude_if=is_default({}))
    """Recipes of students whose weights are used in another way than ``recipe`` says."""
    teacher_floor: float = 0.0
    """Validation accuracy (fraction) that the teacher must reach."""
    teacher_seed: int = 0
    """Seed of the teacher's training."""
    search_seed: int = 0
    """Common seed of baseline and search runs."""
    teacher_seeds: int = Field(default=1, ge=1, exclude_if=is_default(1))
    """Teachers, on ``teacher_seed`` and those after it."""
    repeat_search: int = Field(default=1, ge=1, exclude_if=is_default(1))
    """Searches, on ``search_seed`` and every 2000th after it; with several teachers one each."""
    also_test: tuple[str, ...] = Field(default=(), exclude_if=is_default(()))
    """Further test sets that confirmed runs are read on: ``corruptions``, ``folder:NAME@digest``."""
    max_seeds: int | None = Field(default=None, exclude_if=unset)
    """Seeds are added, up to so many, where a row of the table is not decided; None: the budget's are all."""

    @cached_property
    def id(self) -> str:
        """Identity of the spec: everything but where the data lie, how good a teacher is good enough, and what else is
        read at the end.
        """
        return identify(self.model_dump(mode="json", exclude={"data_path", "teacher_floor", "also_test"}))

    @cached_property
    def confirm_seeds(self) -> tuple[int, ...]:
        """Fresh seeds, disjoint from ``search_seed``: as many as there may be."""
        return tuple(self.search_seed + 1001 + k for k in range(self.max_seeds or self.budget.seeds))

    def recipe_of(self, model: str) -> Recipe:
        """A student's recipe."""
        return self.student_recipes.get(model, self.recipe)

    @property
    def replicates(self) -> int:
        """How often each winner's row is made: under how many teachers, after how many searches."""
        return max(self.teacher_seeds, self.repeat_search)

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which the rows are looked at; none where there is no choice to make."""
        from kdbench.stats import look_numbers

        return look_numbers(self.budget.seeds, self.max_seeds) if self.max_seeds else ()


def sweep_name(given: str | None, dataset: str, pair: Pair, methods: tuple[str, ...]) -> str:
    """The name given, checked, or one made of data set, teacher, students and methods.

    Raises:
        BadInput: for a name that is not usable as a folder's.
    """
    if given is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}", given):
            raise BadInput(
                f"name {given!r} must be letters, digits, '.', '_', '+', '-' and start with one of the first"
            )
        if given == "records":
            raise BadInput("name 'records' is the folder that `kdbench record` writes to: choose another")
        return given
    students = pair.ladder or "+".join(pair.students)
    data = re.split(r"[/\\:]", dataset.rstrip("/\\"))[-1]
    made = "-".join([data, pair.teacher, students, "+".join(methods)])
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", made).strip("-.")[:120]


def spec_difference(old: Sweep, new: Sweep) -> list[str]:
    """What differs between a stored sweep and the one asked for: ``"budget.trials: stored 4, asked 8"``."""
    stored, wanted = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    keys = [key for key in {**stored, **wanted} if stored.get(key) != wanted.get(key)]

    def told(held: Mapping[str, Any], key: str) -> Any:
        return held.get(key, "nothing" if "." in key else "the default")

    return [f"{key}: stored {told(stored, key)}, asked {told(wanted, key)}" for key in keys]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return flat
