"""What a sweep searches: the methods' own ranges, what was asked for, and the tuned part of the recipe. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kdbench.catalog.recipes import preset_of
from kdbench.catalog.types import Dimension
from kdbench.config import Hyper, Recipe
from kdbench.errors import BadInput, readable, unknown
from kdbench.methods import METHODS, Method
from kdbench.sweeps.config import SweepConfig

M = TypeVar("M", bound=BaseModel)


def known_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is not None."""
    return {name: value for name, value in values.items() if value is not None}


def validated(kind: type[M], values: Mapping[str, Any], prefix: str) -> M:
    """``values``, validated; pydantic's complaints become one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput(readable(error, prefix)) from None


def tuned_by(config: SweepConfig) -> tuple[str, ...]:
    """Names of recipe fields, in one order however they were asked for."""
    return tuple(sorted(name.replace("-", "_") for name in config.tune))


def _ranges(config: SweepConfig, recipe: Recipe) -> dict[str, Dimension]:
    """What is searched of the recipe: around its values, or what ``space`` says."""
    decay = recipe.weight_decay or Recipe.model_fields["weight_decay"].default
    usual = {
        "lr": Dimension(low=recipe.lr / 4, high=recipe.lr * 4, log=True),
        "weight_decay": Dimension(low=decay / 10, high=decay * 10, log=True),
        "label_smoothing": Dimension(low=0.0, high=0.2),
    }
    found = {}
    for name in tuned_by(config):
        asked = config.space.get(name, usual[name])
        if asked.choices is not None and len(asked.choices) == 1:
            raise BadInput(f"space.{name}: one value is nothing to tune; set it with --set recipe.{name}={asked}")
        for value in asked.choices or (asked.low, asked.high):
            validated(Recipe, {**recipe.model_dump(), name: value}, "space")
        found[name] = _scaled(name, asked, usual[name].log)
    return found


def _scaled(name: str, dimension: Dimension, log: bool) -> Dimension:
    """A range on the scale of what it takes the place of."""
    log = log and dimension.low is not None
    if log and (dimension.low or 0) <= 0:
        raise BadInput(f"{name}: the range {dimension} is searched on a logarithmic scale and must start above 0")
    return dimension.model_copy(update={"log": log})


def space_for(config: SweepConfig, recipe: Recipe) -> tuple[dict[str, Dimension], Hyper]:
    """What is searched and what is held at one value.

    A method's own range is filed as ``method.name`` where another method of the sweep searches that name over another
    range: no method's search depends on which others are compared. What is asked for holds for all that have the name,
    on the methods' scale.
    """
    specs = [METHODS.get(name) for name in config.method]
    space: dict[str, Dimension] = {}
    for spec in specs:
        for name, dimension in spec.space.items():
            same = all(other.space.get(name) == dimension for other in specs if name in other.knobs)
            space[name if same else f"{spec.name}.{name}"] = dimension
    fixed: Hyper = {}
    tuned = _ranges(config, recipe)
    known = {name for spec in specs for name in spec.knobs}
    published = preset_of(config.recipe.preset).hyper if config.recipe.preset else {}
    asked = known_of({"temperature": config.temperature, "alpha": config.alpha}) | config.space
    if "kd" in config.method:  # a recipe's paper speaks of plain distillation; beside free weights alpha is nothing
        gone = {*asked} | ({"soft_weight", "hard_weight"} if "alpha" in asked else set())
        fixed = {f"kd.{name}": value for name, value in published.items() if name not in gone}
    if both := sorted(known & {*tuned}):
        raise BadInput(f"tune: {both[0]} is also the name of a hyper-parameter of a method here")
    for name, dimension in asked.items():
        if name in tuned:
            continue
        if name not in known:
            some = f"hyper-parameter of {', '.join(config.method)}"
            raise unknown(some, name, known, f"known: {', '.join(sorted(known))}")
        _check_bounds(name, dimension, specs)
        replaced = [key for key in space if key.rpartition(".")[2] == name]
        scaled = _scaled(name, dimension, any(space[key].log for key in replaced))
        for key in replaced:
            del space[key]
        if dimension.choices is not None and len(dimension.choices) == 1:
            fixed[name] = dimension.choices[0]
        else:
            space[name] = scaled
    return space | tuned, fixed


def _check_bounds(name: str, dimension: Dimension, specs: list[Method]) -> None:
    """Refuse values that a method cannot take; temperature must moreover be above 0."""
    values = dimension.choices if dimension.choices is not None else (dimension.low, dimension.high)
    for value in (v for v in values if v is not None):
        if name == "temperature" and value <= 0:
            raise BadInput(f"temperature must be above 0, not {value:g}")
        for spec in specs:
            low, high = spec.bounds.get(name, (-math.inf, math.inf))
            if not low <= value <= high:
                raise BadInput(f"{name} of method '{spec.name}' must lie in [{low:g}, {high:g}], not at {value:g}")
