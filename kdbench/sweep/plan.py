"""What a sweep runs, as pure functions of its spec: phases, slots, configs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from kdbench.catalog.methods import METHODS
from kdbench.catalog.types import Dimension
from kdbench.config import Hyper, Phase, Recipe, RunConfig
from kdbench.files import identify
from kdbench.sweep.types import Sweep

ADAPTIVE = ("tpe", "gp")


@dataclass(frozen=True)
class Lane:
    """One Optuna study of a sweep: the runs of one phase for one network and one loss."""

    phase: Phase
    model: str
    method: str

    @property
    def key(self) -> str:
        """``search/mobilenetv3_small_050/kd``."""
        return f"{self.phase}/{self.model}/{self.method}"


def lanes(sweep: Sweep) -> Iterator[Lane]:
    """All studies, in the order in which their runs are taken."""
    yield Lane("teacher", sweep.pair.teacher, "hard")
    students = sweep.pair.students
    yield from (Lane("baseline", student, "hard") for student in students)
    yield from (Lane("search", student, method) for student in students for method in sweep.methods)
    yield from (Lane("confirm", student, method) for student in students for method in ("hard", *sweep.methods))


def slots(sweep: Sweep, lane: Lane) -> int:
    """How many runs a lane holds. The teacher's second slot is the reading of its test accuracy."""
    if lane.phase == "search":
        return search_slots(sweep, lane.method)
    return {"teacher": 2, "baseline": 1, "confirm": sweep.budget.seeds}[lane.phase]


def search_slots(sweep: Sweep, method: str) -> int:
    """``budget.trials``, or fewer where the space does not hold so many points."""
    axes = [dim.choices for dim in space_of(sweep, method).values()]
    if any(choices is None for choices in axes):
        return sweep.budget.trials
    return min(sweep.budget.trials, math.prod(len(choices or ()) for choices in axes))


def seed_of(sweep: Sweep, lane: Lane, slot: int) -> int:
    """One common seed for baseline and search, fresh ones in confirm: the same for every size and method."""
    if lane.phase == "teacher":
        return sweep.teacher_seed
    return sweep.confirm_seeds[slot] if lane.phase == "confirm" else sweep.search_seed


def space_of(sweep: Sweep, method: str) -> dict[str, Dimension]:
    """The part of the sweep's search space that a method has, in a fixed order."""
    spec = METHODS.get(method)
    known = {*spec.space, *spec.fixed, *spec.bounds}
    return {name: sweep.space[name] for name in sorted(sweep.space) if name in known}


def fixed_of(sweep: Sweep, method: str) -> Hyper:
    """Hyper-parameters that the search leaves alone."""
    spec = METHODS.get(method)
    known = {*spec.space, *spec.fixed, *spec.bounds}
    held = {**spec.fixed, **{name: value for name, value in sweep.fixed.items() if name in known}}
    return {name: value for name, value in held.items() if name not in space_of(sweep, method)}


def startup(sweep: Sweep) -> int:
    """Leading search slots of an adaptive sampler that are a space-filling design instead of its guesses."""
    return min(10, max(3, sweep.budget.trials // 2))


def drawn_point(sweep: Sweep, lane: Lane, slot: int) -> Hyper | None:
    """The point of a search slot where it does not depend on other trials; None where the sampler must decide.

    ``random`` draws independently, ``qmc`` and the start of ``tpe`` and ``gp`` follow a scrambled Sobol
    sequence, ``grid`` walks the product of the choices in an order shuffled once. All depend on the spec
    alone, so an interrupted sweep goes on with the very same points.
    """
    space = space_of(sweep, lane.method)
    if not space:
        return {}
    if sweep.sampler in ADAPTIVE and slot >= startup(sweep):
        return None
    seed = int(identify([sweep.search_seed, lane.key, sweep.sampler]), 16)
    if sweep.sampler == "grid":
        return _grid_point(space, slot, seed)
    if sweep.sampler == "random":
        unit = np.random.default_rng([seed, slot]).random(len(space))
    else:
        unit = qmc.Sobol(len(space), scramble=True, rng=np.random.default_rng(seed)).random(2 ** (slot.bit_length()))[
            slot
        ]
    return {name: _scaled(dim, float(u)) for (name, dim), u in zip(space.items(), unit, strict=True)}


def _scaled(dim: Dimension, unit: float) -> float:
    """A number of [0, 1) as a value of the dimension."""
    if dim.choices is not None:
        return dim.choices[min(int(unit * len(dim.choices)), len(dim.choices) - 1)]
    assert dim.low is not None and dim.high is not None
    if dim.log:
        value = dim.low * (dim.high / dim.low) ** unit
    else:
        value = dim.low + (dim.high - dim.low) * unit
    return float(min(max(value, dim.low), dim.high))


def _grid_point(space: dict[str, Dimension], slot: int, seed: int) -> Hyper:
    axes = [dim.choices or () for dim in space.values()]
    cells = int(np.prod([len(axis) for axis in axes]))
    cell = int(np.random.default_rng(seed).permutation(cells)[slot % cells])
    index = np.unravel_index(cell, [len(axis) for axis in axes])
    return {name: axis[int(i)] for name, axis, i in zip(space, axes, index, strict=True)}


def with_precision(sweep: Sweep, model: str, recipe: Recipe) -> Recipe:
    """The recipe with the precision that was measured for this network."""
    if recipe.precision != "auto":
        return recipe
    return recipe.model_copy(update={"precision": sweep.precisions.get(model, "fp32")})


def teacher_config(sweep: Sweep) -> RunConfig:
    """The run that trains the teacher (or, with given weights, that names them)."""
    return RunConfig(
        data=sweep.data,
        model=sweep.pair.teacher,
        teacher_id=sweep.teacher_weights,
        method="hard",
        recipe=with_precision(sweep, sweep.pair.teacher, sweep.teacher_recipe),
        seed=sweep.teacher_seed,
        phase="teacher",
    )


def trial_config(sweep: Sweep, lane: Lane, slot: int, hyper: Hyper) -> RunConfig:
    """One student's run."""
    return RunConfig(
        data=sweep.data,
        model=lane.model,
        teacher=sweep.pair.teacher,
        teacher_id=teacher_config(sweep).id,
        method=lane.method,
        hyper={**fixed_of(sweep, lane.method), **hyper} if lane.method != "hard" else {},
        recipe=with_precision(sweep, lane.model, sweep.recipe),
        seed=seed_of(sweep, lane, slot),
        phase=lane.phase,
    )
