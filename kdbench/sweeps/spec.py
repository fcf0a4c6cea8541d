"""From options to a resolved :class:`kdbench.sweeps.types.Sweep`: defaults < preset < YAML < ``--set`` < flags.

Pure but for three look-ups that callers may replace: timm's names, a data set's spec and a weights file's digest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kdbench.catalog.pairs import parse_pair
from kdbench.catalog.recipes import budget, recipe_for
from kdbench.catalog.types import Budget, DatasetSpec, Dimension, Pair
from kdbench.config import DataConfig, Hyper, Recipe
from kdbench.errors import BadInput, unknown
from kdbench.methods import METHODS, Method
from kdbench.sweeps.options import expand, readable
from kdbench.sweeps.types import Sweep

DEFAULTS: Mapping[str, Any] = {"dataset": "digits", "method": "kd", "budget.name": "quick"}
SAMPLERS = ("tpe", "random", "grid", "qmc", "gp")
M = TypeVar("M", bound=BaseModel)

KnownModels = Callable[[], Collection[str]]
ResolveDataset = Callable[..., tuple[DatasetSpec, str | None]]
WeightsDigest = Callable[[str, str], str]


def _known_models() -> Collection[str]:
    """Timm's names; imports timm."""
    from kdbench.models import known_models

    return known_models()


def _resolve_dataset(name: str, *, skip_corrupt: bool = False) -> tuple[DatasetSpec, str | None]:
    """Catalog entries by name; a user's own data is looked at (imports the data layer)."""
    from kdbench.catalog.datasets import DATASETS

    if not name.startswith(("folder:", "hf:")):
        return DATASETS.get(name), None
    from kdbench.data import resolve_dataset

    return resolve_dataset(name, skip_corrupt=skip_corrupt)


def _weights_digest(source: str, name: str) -> str:
    """What identifies a teacher's weights; imports the model layer."""
    from kdbench.models import weights_digest

    return weights_digest(source, name)


def build_sweep(
    options: Mapping[str, Any],
    *,
    known_models: KnownModels = _known_models,
    resolve_dataset: ResolveDataset = _resolve_dataset,
    weights_digest: WeightsDigest = _weights_digest,
) -> Sweep:
    """The sweep that ``options`` ask for; run-time options (``out``, ``workers``, ...) are ignored here.

    ``options`` maps flag names (``epochs``) or dotted keys (``recipe.epochs``) to values as YAML gives them.

    Raises:
        BadInput: for any unknown name or a value that cannot be, naming it.
    """
    asked = {**DEFAULTS, **expand(options, "options")}
    pair_text = asked.get("pair")
    if not isinstance(pair_text, str) or not pair_text.strip():
        raise BadInput("no pair given: name a teacher and its students, for example --pair resnet50:mobilenetv3")
    methods = parse_methods(asked["method"])
    preset = budget(_text("budget", asked["budget.name"]))
    skip = {"skip_corrupt": True} if asked.get("data.skip-corrupt") is True else {}
    spec, digest = resolve_dataset(_text("dataset", asked["dataset"]), **skip)
    pair = parse_pair(pair_text, known_models)
    space, fixed = _space(methods, _section(asked, "space"))
    spending = _model(Budget, preset.model_dump(), _section(asked, "budget"), "budget")
    sampler = _text("sampler", asked.get("sampler", "tpe"))
    _check_sampler(sampler, space)
    weights = asked.get("teacher-weights")
    own = spec.name.startswith("folder:")
    shown = f"folder:{re.split(r'[/:]', spec.name.rstrip('/'))[-1]}" if own else spec.name
    data = {"name": shown, "limit": spending.limit, "digest": digest}
    floor = 0.0 if preset.name == "smoke" else spec.teacher_floor  # smoke checks that everything runs, not accuracy
    values = {
        "name": sweep_name(asked.get("name"), spec.name, pair, methods),
        "pair": pair,
        "data": _model(DataConfig, data, _section(asked, "data"), "data"),
        "data_path": spec.name if own else None,
        "methods": methods,
        "space": space,
        "fixed": fixed,
        "budget": spending,
        "sampler": sampler,
        "recipe": _recipe(recipe_for("student", spec, preset.name), _section(asked, "recipe"), "recipe"),
        "teacher_recipe": _recipe(
            recipe_for("teacher", spec, preset.name), _section(asked, "teacher-recipe"), "teacher-recipe"
        ),
        "teacher_weights": None if weights is None else weights_digest(str(weights), pair.teacher),
        "teacher_floor": floor,
    }
    plain = ("pruner", "teacher-floor", "teacher-seed", "search-seed")
    sweep = _model(Sweep, values, {name.replace("-", "_"): asked[name] for name in plain if name in asked}, "")
    if sweep.recipe.input_size != sweep.teacher_recipe.input_size:
        raise BadInput(
            f"input-size: the students see {sweep.recipe.input_size} pixels, the teacher "
            f"{sweep.teacher_recipe.input_size}; a teacher must see what its students see"
        )
    if min(sweep.recipe.batch_size, sweep.teacher_recipe.batch_size) < 2:
        raise BadInput("batch-size: batch normalisation needs 2 samples a step or more, not 1")
    if sweep.teacher_recipe.teacher_top_k is not None:
        raise BadInput("teacher-recipe.teacher-top-k: the teacher has no teacher; students have recipe.teacher-top-k")
    if not 0 <= sweep.teacher_floor <= 1:
        raise BadInput(f"teacher-floor must lie in [0, 1], not at {sweep.teacher_floor}")
    return sweep


def _text(name: str, value: Any) -> str:
    """``value`` if it is a non-empty string."""
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{name} must be a name, not {value!r}")
    return value.strip()


def _section(asked: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options of one section, without its prefix and with field names for keys."""
    start = f"{name}."
    return {key.removeprefix(start).replace("-", "_"): asked[key] for key in asked if key.startswith(start)}


def _model(kind: type[M], base: Mapping[str, Any], changes: Mapping[str, Any], prefix: str) -> M:
    """``base`` with ``changes``, validated; pydantic's complaints become one line."""
    try:
        return kind.model_validate({**base, **changes})
    except ValidationError as error:
        raise BadInput(readable(error, prefix)) from None


def _recipe(preset: Recipe, changes: dict[str, Any], prefix: str) -> Recipe:
    """``preset`` with ``changes``. With other epochs alone, warm-up and steps keep their share of the run."""
    recipe = _model(Recipe, preset.model_dump(), changes, prefix)
    scale = recipe.epochs / preset.epochs
    follow: dict[str, Any] = {}
    if "warmup_epochs" not in changes and scale < 1:
        follow["warmup_epochs"] = round(recipe.warmup_epochs * scale, 3)
    if "milestones" not in changes and scale != 1:
        follow["milestones"] = tuple(max(1, round(milestone * scale)) for milestone in recipe.milestones)
    return recipe.model_copy(update=follow)


def parse_methods(value: Any) -> tuple[str, ...]:
    """``"kd"``, ``"kd,dkd"`` or a list of names -> the methods compared, in the order given.

    Raises:
        BadInput: for an unknown name, none at all, or ``hard``, which every sweep runs as its baseline.
    """
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise BadInput(f"method must be a name or a list of names, not {value!r}")
    names = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not names:
        raise BadInput("method must name at least one distillation loss (`kdbench ls methods`)")
    for name in names:
        METHODS.get(name)
    if "hard" in names:
        raise BadInput("method 'hard' is the baseline of every sweep: leave it out and name a distillation loss")
    return names


def parse_dimension(text: Any, *, log: bool = False, name: str = "value") -> Dimension:
    """What a sweep may choose: ``"1,2,4,8"`` or a list (these values), ``"1..20"`` (a range), ``4`` (one value).

    Args:
        text: as a flag or YAML gives it.
        log: sample a range on a logarithmic scale.
        name: the hyper-parameter, for messages.

    Raises:
        BadInput: for an empty list, a reversed range, or what is no finite number.
    """
    if isinstance(text, str) and ".." in text:
        low, high = (_number(part, name, text) for part in text.split("..", 1))
        if low > high:
            raise BadInput(f"{name}: the range {text} is reversed, write {high:g}..{low:g}")
        if low == high:
            return Dimension(choices=(low,))
        if log and low <= 0:
            raise BadInput(f"{name}: the range {text} is searched on a logarithmic scale and must start above 0")
        return Dimension(low=low, high=high, log=log)
    parts = text.split(",") if isinstance(text, str) else text if isinstance(text, list | tuple) else [text]
    if not parts or parts == [""]:
        raise BadInput(f"{name}: no value given; write 4, 1,2,4,8 or 1..20")
    return Dimension(choices=tuple(dict.fromkeys(_number(part, name, text) for part in parts)))


def _number(value: Any, name: str, whole: Any) -> float:
    """A finite number, or BadInput that shows all that was given."""
    shown = f" in {whole!r}" if value is not whole else ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadInput(f"{name}: {value!r}{shown} is not a number")
    try:
        number = float(value)
    except ValueError:
        raise BadInput(f"{name}: {value!r}{shown} is not a number; write 4, 1,2,4,8 or 1..20") from None
    if not math.isfinite(number):
        raise BadInput(f"{name}: {value!r}{shown} is not a finite number")
    return number


def _space(methods: tuple[str, ...], asked: Mapping[str, Any]) -> tuple[dict[str, Dimension], Hyper]:
    """What is searched and what is held at one value.

    A method's own range is filed as ``method.name`` where another method of the sweep searches that name over another
    range: no method's search depends on which others are compared. What is asked for holds for all that have the name.
    """
    specs = [METHODS.get(name) for name in methods]
    space: dict[str, Dimension] = {}
    for spec in specs:
        for name, dimension in spec.space.items():
            same = all(other.space.get(name, dimension) == dimension for other in specs)
            space[name if same else f"{spec.name}.{name}"] = dimension
    fixed: Hyper = {}
    known = {name for spec in specs for name in spec.knobs}
    for name, text in asked.items():
        if name not in known:
            raise unknown(f"hyper-parameter of {', '.join(methods)}", name, known, f"known: {', '.join(sorted(known))}")
        replaced = [key for key in space if key.rpartition(".")[2] == name]
        dimension = parse_dimension(text, log=any(space[key].log for key in replaced), name=name)
        _check_bounds(name, dimension, specs)
        for key in replaced:
            del space[key]
        if dimension.choices is not None and len(dimension.choices) == 1:
            fixed[name] = dimension.choices[0]
        else:
            space[name] = dimension
    return space, fixed


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


def _check_sampler(sampler: str, space: Mapping[str, Dimension]) -> None:
    """Refuse an unknown sampler, and a grid over what is not a list."""
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS, "one of " + ", ".join(SAMPLERS))
    ranged = [name for name, dimension in space.items() if dimension.choices is None]
    if sampler == "grid" and ranged:
        name = ranged[0].rpartition(".")[2]
        raise BadInput(f"sampler grid needs lists of values: give {name} as --set space.{name}=1,2,4")


def sweep_name(given: Any, dataset: str, pair: Pair, methods: tuple[str, ...]) -> str:
    """The name given, checked, or one made of data set, teacher, students and methods.

    Raises:
        BadInput: for a name that is not usable as a folder's.
    """
    if given is not None:
        if not isinstance(given, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}", given):
            raise BadInput(
                f"name {given!r} must be letters, digits, '.', '_', '+', '-' and start with one of the first"
            )
        return given
    students = pair.ladder or "+".join(pair.students)
    data = re.split(r"[/\\:]", dataset.rstrip("/\\"))[-1]
    made = "-".join([data, pair.teacher, students, "+".join(methods)])
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", made).strip("-.")[:120]


def spec_difference(old: Sweep, new: Sweep) -> list[str]:
    """What differs between a stored sweep and the one asked for: ``"budget.trials: stored 4, asked 8"``."""
    stored, wanted = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    keys = [key for key in {**stored, **wanted} if stored.get(key) != wanted.get(key)]
    return [f"{key}: stored {stored.get(key, 'nothing')}, asked {wanted.get(key, 'nothing')}" for key in keys]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return flat
