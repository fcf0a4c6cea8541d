"""How long and how networks are trained, by role, data set and budget: the table of starting values.

A preset of ``kdbench.catalog.types.Budget`` says how much a sweep may spend; ``recipe_for`` says how each network
is trained under it. Values are resolved here and then written into the sweep, so that changing this table
never changes a sweep that has begun.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kdbench.catalog.types import Budget, DatasetSpec
from kdbench.config import Frozen, Hyper, Recipe
from kdbench.errors import unknown

Role = Literal["teacher", "student"]

BUDGETS: dict[str, Budget] = {
    "smoke": Budget(name="smoke", trials=2, seeds=2, limit=200),
    "quick": Budget(name="quick", trials=3, seeds=5),
    "standard": Budget(name="standard", trials=20, seeds=5),
    "paper": Budget(name="paper", trials=20, seeds=5),
}
"""Budget presets, from a check that everything runs to what papers report."""


class Preset(Frozen):
    """A published recipe, by name (``--recipe NAME``)."""

    source: str
    """Paper's table or file that each value is from."""
    recipe: dict[str, Any]
    """Fields of ``Recipe``."""
    hyper: Hyper = Field(default_factory=dict)
    """What it fixes of a method's hyper-parameters, for methods that have them."""
    leaves: str
    """What it says that is not done here."""


_MIXED = {"cutmix": 1.0, "interpolation": "bicubic", "views": "resized-crop", "pad": 0}
_RSB: dict[str, Any] = {
    **_MIXED, "batch_size": 2048, "optimizer": "lamb", "weight_decay": 0.02, "schedule": "cosine", "warmup_epochs": 5,
    "warmup_lr": 1e-4, "min_lr": 1e-6, "bce": True, "bce_threshold": 0.2, "mixup": 0.1, "test_crop": 0.95,
    "label_smoothing": 0.0, "clip_grad": None,
}  # fmt: skip
PRESETS: dict[str, Preset] = {
    "rsb-a2": Preset(
        source="arXiv:2110.00476, table 2 (A2); warm-up and final rate, threshold: timm's published A2 arguments",
        recipe={
            **_RSB, "epochs": 300, "lr": 5e-3, "augment": "rand-m7-mstd0.5-inc1", "repeats": 3,
            "model_options": {"drop_path_rate": 0.05},
        },
        leaves="224 pixels",
    ),
    "rsb-a3": Preset(
        source="arXiv:2110.00476, table 2 (A3); warm-up and final rate, threshold: timm's published A3 arguments",
        recipe={**_RSB, "epochs": 100, "lr": 8e-3, "augment": "rand-m6-mstd0.5-inc1"},
        leaves="training at 160 pixels and testing at 224",
    ),
    "deit": Preset(
        source="arXiv:2012.12877, table 9; facebookresearch/deit main.py (rates, average, interpolation)",
        recipe={
            **_MIXED, "epochs": 300, "batch_size": 1024, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05,
            "schedule": "cosine", "warmup_epochs": 5, "warmup_lr": 1e-6, "min_lr": 1e-5, "label_smoothing": 0.1,
            "clip_grad": None, "augment": "rand-m9-mstd0.5-inc1", "erase": 0.25, "mixup": 0.8, "repeats": 3,
            "ema": 0.99996, "model_options": {"drop_path_rate": 0.1},
        },
        leaves="224 pixels; the distillation token; the average's decay from the first update on",
    ),
    "funmatch": Preset(
        # Adam's decay there is not multiplied by the rate, as AdamW's is: 3e-4 / 0.03
        source="arXiv:2106.05237; google-research/big_vision configs/proj/distill/bit_i1k.py (5,000 steps of warm-up)",
        recipe={
            "epochs": 1200, "batch_size": 4096, "optimizer": "adamw", "lr": 0.03, "weight_decay": 0.01,
            "schedule": "cosine", "warmup_epochs": 16, "warmup_lr": 0.0, "min_lr": 0.0, "clip_grad": 1.0,
            "label_smoothing": 0.0, "views": "resized-crop", "pad": 0, "crop_scale": (0.05, 1.0),
            "mixup": 1.0,
        },
        hyper={"temperature": 1.0, "alpha": 1.0},
        leaves="224 pixels; the labels",
    ),
    "usi": Preset(
        source="arXiv:2204.03475; Alibaba-MIIL/Solving_ImageNet train.py (8 GPUs of 128)",
        recipe={
            **_MIXED, "epochs": 300, "batch_size": 1024, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.02,
            "schedule": "cosine", "warmup_epochs": 5, "warmup_lr": 1e-4, "min_lr": 1e-6, "label_smoothing": 0.0,
            "clip_grad": None, "augment": "rand-m7-mstd0.5-inc1", "mixup": 0.8, "repeats": 3, "ema": 0.99996,
            "test_crop": 0.95,
        },
        hyper={"temperature": 1.0, "soft_weight": 5.0, "hard_weight": 1.0, "alpha": 0.5},  # weights replace alpha
        leaves="224 pixels; the average's decay from the first update on",
    ),
    "crd": Preset(
        source="arXiv:1910.10699, section 4.1; HobbitLong/RepDistiller train_student.py",
        recipe={
            "epochs": 240, "batch_size": 64, "optimizer": "sgd", "lr": 0.05, "nesterov": False, "momentum": 0.9,
            "weight_decay": 5e-4, "schedule": "step", "milestones": (150, 180, 210), "gamma": 0.1, "warmup_epochs": 0,
            "label_smoothing": 0.0, "clip_grad": None, "views": "crop", "pad": 4,
        },
        leaves="a rate of 0.01 for MobileNetV2 and the ShuffleNets (--lr 0.01)",
    ),
}  # fmt: skip
"""Recipes by name. The input size, the stem and the precision stay those of the data set and the budget."""

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


def preset_of(name: str) -> Preset:
    """The published recipe called ``name``.

    Raises:
        BadInput: when there is none.
    """
    if name not in PRESETS:
        raise unknown("recipe", name, PRESETS, "one of " + ", ".join(PRESETS))
    return PRESETS[name]


def recipe_for(role: Role, spec: DatasetSpec, budget_name: str, published: str | None = None) -> Recipe:
    """The starting recipe of a teacher or student on ``spec`` under a budget preset, or a published one.

    The data set's own rows come first, then ``large`` or ``small`` by ``spec.input_size``. A published recipe
    holds but for its epochs under ``smoke``.

    Raises:
        BadInput: an unknown budget or published recipe.
    """
    preset = budget(budget_name).name
    large = spec.input_size >= LARGE
    kind = spec.name if (spec.name, preset) in _TABLE else "large" if large else "small"
    both, teacher, student = _TABLE[kind, preset]
    values = {"input_size": spec.input_size, **both, **(teacher if role == "teacher" else student)}
    if large:
        values = {"views": "resized-crop", "pad": 0, **values}
    if published is None:
        return Recipe(**values)
    recipe = Recipe(**values | preset_of(published).recipe)
    if preset != "smoke":
        return recipe
    epochs = values["epochs"]
    return recipe.model_copy(update={"epochs": epochs, **schedule_of(recipe, epochs / recipe.epochs)})


def schedule_of(recipe: Recipe, scale: float) -> dict[str, Any]:
    """Fields of ``recipe`` for ``scale`` times its epochs: steps keep their share, a short run warms up less."""
    milestones = tuple(max(1, round(milestone * scale)) for milestone in recipe.milestones)
    return {"warmup_epochs": round(recipe.warmup_epochs * min(scale, 1), 3), "milestones": milestones}
