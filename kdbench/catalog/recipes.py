"""How long and how networks are trained, by role, data set and budget: the table of starting values.

A preset of ``kdbench.catalog.types.Budget`` says how much a sweep may spend; ``recipe_for`` says how each network
is trained under it. Values are resolved here and then written into the sweep, so that changing this table
never changes a sweep that has begun.
"""

from __future__ import annotations

from typing import Any, Literal

from kdbench.catalog.types import Budget, DatasetSpec
from kdbench.config import Recipe
from kdbench.errors import unknown

Role = Literal["teacher", "student"]

BUDGETS: dict[str, Budget] = {
    "smoke": Budget(name="smoke", trials=2, seeds=2, limit=200),
    "quick": Budget(name="quick", trials=3, seeds=5),
    "standard": Budget(name="standard", trials=20, seeds=5),
    "paper": Budget(name="paper", trials=20, seeds=5),
}
"""Budget presets, from a check that everything runs to what papers report."""

LARGE = 96
"""From this input size (pixels) on, images are large: RandomResizedCrop views and the native stem."""


def _steps(*milestones: int) -> dict[str, Any]:
    return {"schedule": "step", "milestones": milestones}


# (kind of data, budget) -> values for both roles, then what differs for the teacher and the student.
# "small": 28-32 pixel images without an entry of their own; "large": LARGE pixels and more.
_Row = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
_TABLE: dict[tuple[str, str], _Row] = {
    ("digits", "smoke"): ({"batch_size": 32, "lr": 0.05, "pad": 2, "warmup_epochs": 0}, {"epochs": 2}, {"epochs": 1}),
    # 12 pixels keep all of 8 and cost a seventh of 32; with clipped gradients so high a rate is safe, and 100 steps of
    # it reach the plateau, where a rate of 0.1 leaves the large ones at 80%: results/records/digits-.../history.md.
    ("digits", "quick"): (
        {"input_size": 12, "clip_grad": 1.0},
        {"epochs": 10, "batch_size": 64, "lr": 0.2, "pad": 1},
        {"epochs": 10, "batch_size": 128, "lr": 0.8, "pad": 0},
    ),
    ("digits", "standard"): ({"batch_size": 64, "pad": 2}, {"epochs": 60, "lr": 0.05}, {"epochs": 60, "lr": 0.1}),
    ("digits", "paper"): ({"batch_size": 64, "pad": 2}, {"epochs": 120, "lr": 0.05}, {"epochs": 120, "lr": 0.1}),
    # students this brief need no crops; with mirror images alone the teacher's logit cache has two views a sample
    ("fashion-mnist", "quick"): (
        {"lr": 0.1},
        {"epochs": 15, "pad": 2},
        {"epochs": 2, "pad": 0, "warmup_epochs": 0.5, "clip_grad": 1.0},
    ),
    ("small", "smoke"): ({"batch_size": 32, "lr": 0.05, "warmup_epochs": 0}, {"epochs": 2}, {"epochs": 1}),
    ("small", "quick"): ({"lr": 0.1}, {"epochs": 12}, {"epochs": 4}),
    ("small", "standard"): ({"lr": 0.1, "stem": "small", "warmup_epochs": 5}, {"epochs": 120}, {"epochs": 120}),
    ("small", "paper"): (
        {"batch_size": 64, "lr": 0.05, "stem": "small", "warmup_epochs": 0} | _steps(150, 180, 210),
        {"epochs": 240},
        {"epochs": 240},
    ),
    ("large", "smoke"): ({"batch_size": 16, "lr": 0.02, "warmup_epochs": 0}, {"epochs": 2}, {"epochs": 1}),
    ("large", "quick"): ({"batch_size": 64, "lr": 0.05}, {"epochs": 12}, {"epochs": 4}),
    ("large", "standard"): ({"batch_size": 128, "lr": 0.1, "warmup_epochs": 5}, {"epochs": 60}, {"epochs": 60}),
    ("large", "paper"): (
        {"batch_size": 256, "lr": 0.1, "weight_decay": 1e-4, "warmup_epochs": 0} | _steps(30, 60, 90),
        {"epochs": 100},
        {"epochs": 100},
    ),
}


def budget(name: str) -> Budget:
    """The preset called ``name``.

    Raises:
        BadInput: when there is none.
    """
    if name not in BUDGETS:
        raise unknown("budget", name, BUDGETS, "one of " + ", ".join(BUDGETS))
    return BUDGETS[name]


def recipe_for(role: Role, spec: DatasetSpec, budget_name: str) -> Recipe:
    """The starting recipe of a teacher or student on ``spec`` under a budget preset.

    The data set's own rows come first, then ``large`` or ``small`` by ``spec.input_size``.

    Raises:
        BadInput: an unknown budget.
    """
    preset = budget(budget_name).name
    large = spec.input_size >= LARGE
    kind = spec.name if (spec.name, preset) in _TABLE else "large" if large else "small"
    both, teacher, student = _TABLE[kind, preset]
    values = {"input_size": spec.input_size, **both, **(teacher if role == "teacher" else student)}
    if large:
        values = {"views": "resized-crop", "pad": 0, **values}
    return Recipe(**values)


def schedule_of(recipe: Recipe, scale: float) -> dict[str, Any]:
    """Fields of ``recipe`` for ``scale`` times its epochs: steps keep their share, a short run warms up less."""
    milestones = tuple(max(1, round(milestone * scale)) for milestone in recipe.milestones)
    return {"warmup_epochs": round(recipe.warmup_epochs * min(scale, 1), 3), "milestones": milestones}
