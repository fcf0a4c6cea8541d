"""From what was asked for to a resolved :class:`kdbench.sweeps.types.Sweep`: presets filled in, names checked.

Pure but for three look-ups that callers may replace: timm's names, a data set's spec and a weights file's digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from kdbench.catalog.pairs import parse_pair
from kdbench.catalog.recipes import Role, budget, recipe_for, schedule_of
from kdbench.catalog.shifts import ALL as CORRUPTED
from kdbench.catalog.teachers import networks_of
from kdbench.catalog.types import Budget, DatasetSpec, Dimension, Pair
from kdbench.config import CONTROLS, DataConfig, Recipe
from kdbench.errors import BadInput
from kdbench.methods import METHODS
from kdbench.sweeps.config import SweepConfig
from kdbench.sweeps.space import known_of, space_for, tuned_by, validated
from kdbench.sweeps.teachers import check_teacher, stopped
from kdbench.sweeps.types import Sweep, sweep_name

if TYPE_CHECKING:
    from kdbench.models import Given

M = TypeVar("M", bound=BaseModel)
MOST_SEEDS = 20
"""How far ``--until decided`` adds seeds unless told."""

KnownModels = Callable[[], Collection[str]]
ResolveDataset = Callable[..., tuple[DatasetSpec, str | None]]
Describe = Callable[[str, str], "Given"]
START_LR = 0.1
"""Training that starts from weights moves them less: the recipe's rate times this, unless the rate is asked for."""


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


def _describe(source: str, name: str) -> Given:
    """What is known of weights; imports the model layer."""
    from kdbench.models import describe

    return describe(source, name)


def _check_recipe(recipe: Recipe) -> None:
    """Whether timm has what it names; imports timm."""
    from kdbench.train.optim import check_recipe

    check_recipe(recipe)


def build_sweep(
    config: SweepConfig,
    *,
    known_models: KnownModels = _known_models,
    resolve_dataset: ResolveDataset = _resolve_dataset,
    describe: Describe = _describe,
) -> Sweep:
    """The sweep that ``config`` asks for.

    Raises:
        BadInput: for any unknown name or a value that cannot be, naming it.
    """
    check_methods(config.method)
    preset = budget(config.budget)
    spec, digest = resolve_dataset(config.dataset.strip(), skip_corrupt=config.skip_corrupt)
    pair = parse_pair(config.pair, known_models, tags=config.student_weights is not None)
    pair, weights = stopped(pair, config.teacher_recipe.stop_at), config.teacher_weights
    given = None if weights is None else describe(weights, networks_of(pair.teacher)[0].model)
    starts = _starts(config, pair, describe)
    recipe = _recipe(config, spec, "student", START_LR if starts else 1.0)
    space, fixed = space_for(config, recipe)
    _check_replicates(config, space)
    ranged = [name for name, dimension in space.items() if dimension.choices is None]
    if config.sampler == "grid" and ranged:
        name = ranged[0].rpartition(".")[2]
        raise BadInput(f"sampler grid needs lists of values: give {name} as --set space.{name}=1,2,4")
    limit = preset.limit if config.limit is None else config.limit
    spent = {"trials": config.trials, "seeds": config.seeds, "limit": limit}
    own = spec.name.startswith("folder:")
    shown = f"folder:{re.split(r'[/:]', spec.name.rstrip('/'))[-1]}" if own else spec.name
    about = {name: getattr(config, name) for name in ("val_fraction", "split_seed", "skip_corrupt")}
    floor = 0.0 if preset.name == "smoke" else spec.teacher_floor  # smoke checks that everything runs, not accuracy
    sweep = Sweep(
        name=sweep_name(config.name, spec.name, pair, config.method),
        pair=pair,
        data=validated(DataConfig, {**about, "name": shown, "limit": limit, "digest": digest}, "data"),
        data_path=spec.name if own else None,
        methods=config.method,
        space=space,
        fixed=fixed,
        budget=validated(Budget, {**preset.model_dump(), **known_of(spent)}, "budget"),
        sampler=config.sampler,
        pruner=config.pruner,
        recipe=recipe,
        tuned=tuned_by(config),
        controls=tuple(name for name in CONTROLS if name in config.controls),
        teacher_recipe=_teachers(config, spec, recipe, given),
        teacher_weights=given.digest if given else None,
        teacher_tune=config.teacher_tune,
        student_weights={student: start.digest for student, start in starts.items()},
        student_recipes=_students(config, spec, recipe, starts),
        teacher_floor=floor if config.teacher_floor is None else config.teacher_floor,
        teacher_seed=config.teacher_seed,
        search_seed=config.search_seed,
        also_test=_others(config, spec),
        max_seeds=_max_seeds(config, preset.seeds),
        teacher_seeds=config.teacher_seeds,
        repeat_search=config.repeat_search,
    )
    check_teacher(sweep)
    for each in (sweep.recipe, sweep.teacher_recipe):
        if each.optimizer not in ("sgd", "adamw") or each.augment is not None:
            _check_recipe(each)
    if (sweep.recipe.freeze and not starts) or (sweep.teacher_recipe.freeze and config.teacher_tune != "full"):
        raise BadInput(
            "freeze: what starts at random must be trained; name --student-weights, or --teacher-weights with "
            "--teacher-tune full, or leave it out"
        )
    if min(sweep.recipe.batch_size, sweep.teacher_recipe.batch_size) < 2:
        raise BadInput("batch-size: batch normalisation needs 2 samples a step or more, not 1")
    if "smoothing" in sweep.controls and ("label_smoothing" in sweep.tuned or recipe.label_smoothing):
        has = "tunes label smoothing" if "label_smoothing" in sweep.tuned else "has label smoothing in its recipe"
        raise BadInput(f"controls: 'smoothing' says nothing where the baseline itself {has}: leave it out")
    return sweep


def sources_of(config: SweepConfig, sweep: Sweep) -> dict[str, str]:
    """Where the weights and further test sets are that a sweep was given, by what identifies them."""
    found = dict.fromkeys(sweep.student_weights.values(), config.student_weights)
    found |= {sweep.teacher_weights: config.teacher_weights} if sweep.teacher_weights else {}
    found |= dict(zip(sweep.also_test, config.also_test, strict=True))
    return {digest: source for digest, source in found.items() if source is not None}


def _others(config: SweepConfig, spec: DatasetSpec) -> tuple[str, ...]:
    """What identifies the further test sets; looks into folders."""
    from kdbench.data.sources import other_test

    return tuple(name if name == CORRUPTED else other_test(spec, name)[0] for name in config.also_test)


def _max_seeds(config: SweepConfig, usual: int) -> int | None:
    """How far seeds may be added, None where they are not."""
    if config.until is None:
        if config.max_seeds is not None:
            raise BadInput("max-seeds bounds --until decided: give both, or --seeds alone")
        return None
    first = usual if config.seeds is None else config.seeds
    most = MOST_SEEDS if config.max_seeds is None else config.max_seeds
    if first < 2:
        raise BadInput(f"seeds: until decided needs 2 at least to look at, not {first}")
    if most <= first:
        raise BadInput(f"max-seeds: {most} leaves none to add to the {first} of --seeds")
    return most


def _check_replicates(config: SweepConfig, space: Mapping[str, Dimension]) -> None:
    """Refuse teachers or searches among which nothing differs, or that do not pair."""
    teachers, searches = config.teacher_seeds, config.repeat_search
    for name, count in (("teacher-seeds", teachers), ("repeat-search", searches)):
        if count < 1:
            raise BadInput(f"{name} must be 1 or more, not {count}")
    if 1 < teachers != searches > 1:
        raise BadInput(
            f"teacher-seeds {teachers}, repeat-search {searches}: each teacher gets a search of its own, so give the "
            "same number of both, or one of them alone"
        )
    if teachers > 1 and config.teacher_weights is not None and config.teacher_tune is None:
        raise BadInput(f"teacher-seeds {teachers}: teacher-weights are one teacher's; leave either out or tune them")
    if searches > 1 and config.tune:
        raise BadInput(f"repeat-search {searches}: a search that --tune makes on hard labels is one; leave either out")
    if searches > 1 and not space:
        raise BadInput(f"repeat-search {searches}: nothing is searched here, each value is given; leave it out")


def _starts(config: SweepConfig, pair: Pair, describe: Describe) -> dict[str, Given]:
    """What students start from."""
    if config.teacher_tune is not None and (config.teacher_weights is None or "," in config.teacher_weights):
        raise BadInput("teacher-tune says how one network's given weights are trained: name them by --teacher-weights")
    source = config.student_weights
    if source is None:
        return {}
    if "," in source and not Path(source).expanduser().is_file():
        raise BadInput(f"student-weights '{source}': a student starts from the weights of one network: give one file")
    if len(pair.students) > 1 and not source.startswith("pretrained"):
        raise BadInput(f"student-weights '{source}': there are {len(pair.students)} students: name one, or pretrained")
    return {student: describe(source, student) for student in pair.students}


def _teachers(config: SweepConfig, spec: DatasetSpec, students: Recipe, given: Given | None) -> Recipe:
    """The teacher's recipe. It sees the views that its students see, at the size and as its weights want them."""
    recipe = _recipe(config, spec, "teacher", START_LR if config.teacher_tune == "full" else 1.0)
    own: dict[str, Any] = {"network_size": recipe.network_size or recipe.input_size}
    if given is not None:
        own |= {"stem": config.stem or "native", **given.recipe}
    asked = {name: getattr(recipe, name) for name in config.teacher_recipe.model_fields_set if name in own}
    if "input_size" in config.teacher_recipe.model_fields_set:
        asked.setdefault("network_size", recipe.input_size)
    own |= {**asked, "input_size": students.input_size, "stop_at": None}
    return _fitted(recipe.model_copy(update=own), spec)


def _students(config: SweepConfig, spec: DatasetSpec, recipe: Recipe, starts: Mapping[str, Given]) -> dict[str, Recipe]:
    """Recipes of students whose weights want other values than ``recipe`` has; sizes are a choice of the sweep."""
    kept = {"network_size", "stem", *config.recipe.model_fields_set}
    changes = {name: {k: v for k, v in given.recipe.items() if k not in kept} for name, given in starts.items()}
    recipes = {name: _fitted(recipe.model_copy(update=change), spec) for name, change in changes.items()}
    return {name: own for name, own in recipes.items() if own != recipe}


def _fitted(recipe: Recipe, spec: DatasetSpec) -> Recipe:
    """``recipe`` with what says the same as leaving it out left out."""
    plain = (recipe.mean, recipe.std) == (spec.mean, spec.std)
    same: dict[str, Any] = {"mean": None, "std": None} if plain else {}
    if recipe.network_size in (None, recipe.input_size or spec.input_size):
        same |= {"network_size": None, "network_interpolation": "bilinear"}
    return recipe.model_copy(update=same)


def _recipe(config: SweepConfig, spec: DatasetSpec, role: Role, pace: float = 1.0) -> Recipe:
    """The preset with what was asked for; its rate times ``pace`` where none is asked for. With other epochs alone,
    warm-up and steps keep their share of the run.
    """
    asked = config.recipe if role == "student" else config.teacher_recipe
    preset = recipe_for(role, spec, config.budget, asked.preset)
    mine = {"epochs": config.epochs, "lr": config.lr, "batch_size": config.batch_size}
    both = {"stem": config.stem, "precision": config.precision, "input_size": config.input_size}
    changes = known_of({**both, **(mine if role == "student" else {"epochs": config.teacher_epochs})})
    changes |= {name: getattr(asked, name) for name in asked.model_fields_set - {"preset"}}
    held = {**preset.model_dump(), "lr": round(preset.lr * pace, 12), **changes}
    recipe = validated(Recipe, held, "recipe" if role == "student" else "teacher-recipe")
    follow = schedule_of(recipe, recipe.epochs / preset.epochs)
    return recipe.model_copy(update={name: value for name, value in follow.items() if name not in changes})


def check_methods(names: tuple[str, ...]) -> None:
    """Refuse an unknown name, none at all, or ``hard``, which every sweep runs as its baseline."""
    if not names:
        raise BadInput("method must name at least one distillation loss (`kdbench ls methods`)")
    for name in names:
        METHODS.get(name)
    if "hard" in names:
        raise BadInput("method 'hard' is the baseline of every sweep: leave it out and name a distillation loss")
    if taken := sorted({*names} & {*CONTROLS}):
        raise BadInput(f"method '{taken[0]}' has the name of a control (--controls): register it under another one")
