"""A whole sweep, resolved."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field

from kdbench.catalog.types import Budget, Dimension, Pair
from kdbench.config import Control, DataConfig, Frozen, Hyper, Recipe, is_default, unset
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
    max_seeds: int | None = Field(default=None, exclude_if=unset)
    """Seeds are added, up to so many, where a row of the table is not decided; None: the budget's are all."""

    @cached_property
    def id(self) -> str:
        """Identity of the spec: everything but where the data lie and how good a teacher is good enough."""
        return identify(self.model_dump(mode="json", exclude={"data_path", "teacher_floor"}))

    @cached_property
    def confirm_seeds(self) -> tuple[int, ...]:
        """Fresh seeds, disjoint from ``search_seed``: as many as there may be."""
        return tuple(self.search_seed + 1001 + k for k in range(self.max_seeds or self.budget.seeds))

    @property
    def replicates(self) -> int:
        """How often each winner's row is made: under how many teachers, after how many searches."""
        return max(self.teacher_seeds, self.repeat_search)

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which the rows are looked at; none where there is no choice to make."""
        from kdbench.stats import look_numbers

        return look_numbers(self.budget.seeds, self.max_seeds) if self.max_seeds else ()
