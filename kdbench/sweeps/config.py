"""What a sweep is asked to be. The fields are the flags, the keys of a YAML file and the keywords of ``kdbench.sweep``:
name, type, choices, default and help stand here and nowhere else.
"""

from __future__ import annotations

import math
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from kdbench.catalog.types import Dimension
from kdbench.config import Control, DataConfig, Flag, Precision, Recipe, Stem, Tune
from kdbench.errors import BadInput
from kdbench.run.launch import WHERE, RunOptions
from kdbench.sweeps.types import Pruner, Sampler

WHAT, HOW = "What is compared", "How it is trained"
FORMS = "4, 1,2,4,8 or 1..20"
_DATA = DataConfig.model_fields


def parse_dimension(value: Any, name: str = "value") -> Dimension:
    """What a sweep may choose: ``"1,2,4,8"`` or a list (these values), ``"1..20"`` (a range), ``4`` (one value).

    Raises:
        BadInput: for an empty list, a reversed range, or what is no finite number.
    """
    if isinstance(value, Dimension):
        return value
    if isinstance(value, str) and ".." in value:
        low, high = (_number(part, name, value) for part in value.split("..", 1))
        if low > high:
            raise BadInput(f"{name}: the range {value} is reversed, write {high:g}..{low:g}")
        return Dimension(choices=(low,)) if low == high else Dimension(low=low, high=high)
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    if not parts or parts == [""]:
        raise BadInput(f"{name}: no value given; write {FORMS}")
    return Dimension(choices=tuple(dict.fromkeys(_number(part, name, value) for part in parts)))


def _number(value: Any, name: str, whole: Any) -> float:
    """A finite number, or BadInput that shows all that was given."""
    shown = f"{value!r} in {whole!r}" if isinstance(value, str | int | float) and value is not whole else (
        reprlib.repr(value)
    )  # fmt: skip
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise BadInput(f"{name}: {shown} is not a number; write {FORMS}") from None
    if not math.isfinite(number):
        raise BadInput(f"{name}: {shown} is not a finite number")
    return number


def _named(value: Any, info: ValidationInfo) -> Dimension | None:
    return None if value is None else parse_dimension(value, info.field_name or "value")


Tuned = Literal["lr", "weight-decay", "label-smoothing"]
Values = Annotated[Dimension | None, BeforeValidator(_named)]


class Asked(Recipe):
    """A recipe of which only what was set counts."""

    preset: str | None = None
    """A published recipe by name, which the other fields change."""


class SweepConfig(RunOptions):
    """A sweep as asked for, and where it runs; what is None follows the budget, the data set or the method."""

    pair: Annotated[str, Flag(WHAT, "T:S,...", repeated=True)] = ""
    """Teacher and students: families or timm names, comma-separated. A teacher may be an ensemble (A+B), an assistant
    of another (A>B) or stopped early (A@EPOCH). Given again: a series, one sweep for each."""
    dataset: Annotated[str, Flag(WHAT, "NAME")] = "digits"
    """Catalog name, folder:/path or hf:name."""
    method: Annotated[tuple[str, ...], Flag(WHAT, "NAME,...", shown="kd")] = ("kd",)
    """Distillation losses, comma-separated (`kdbench ls methods`); kd+crd: both at once."""
    temperature: Annotated[Values, Flag(WHAT, "VALUES", "1..20, log", ("space.temperature",))] = None
    """4, 1,2,4,8 or 1..20."""
    alpha: Annotated[Values, Flag(WHAT, "VALUES", "0..1", ("space.alpha",))] = None
    """Weight of the soft targets, the same forms."""
    tune: Annotated[tuple[Tuned, ...], Flag(WHAT, "NAME,...", shown="none")] = ()
    """Searched on hard labels as with each method, in as many trials: lr, weight-decay, label-smoothing."""
    controls: Annotated[tuple[Control, ...], Flag(WHAT, "NAME,...", shown="none")] = ()
    """Other explanations of a gain, as rows: smoothing (hard labels, smoothed by 0.1), self (a teacher of the student's
    own kind), compute (hard labels, trained for what distilling cost)."""
    against: Annotated[Path | None, Flag(WHAT, "RECORD")] = None
    """A record or sweep whose finished runs stand beside those of --method; all else is as there."""
    budget: Annotated[str, Flag(WHAT, "PRESET", sets=("budget.name",))] = "quick"
    """Epochs, trials and seeds: smoke, quick, standard or paper (`kdbench ls recipes`)."""
    trials: Annotated[int | None, Flag(WHAT, sets=("budget.trials",))] = None
    """Search trials per student and method."""
    seeds: Annotated[int | None, Flag(WHAT, sets=("budget.seeds",))] = None
    """Fresh seeds of the confirm phase."""
    until: Annotated[Literal["decided"] | None, Flag(WHAT, shown="the seeds are there")] = None
    """decided: add seeds where a row of the table is not; valid under such looking, so each test is stricter."""
    max_seeds: Annotated[int | None, Flag(WHAT, shown="20")] = None
    """Seeds of a row at most, with --until decided."""
    sampler: Annotated[Sampler, Flag(WHAT)] = "tpe"
    """Optuna's sampler."""
    pruner: Annotated[Pruner, Flag(WHAT)] = "median"
    """Optuna's pruner."""
    also_test: Annotated[tuple[str, ...], Flag(WHAT, "NAME,...", shown="none")] = ()
    """Further test sets that winners and hard labels are read on, once: corruptions, folder:/path of the same
    classes."""
    limit: Annotated[int | None, Flag(WHAT, sets=("budget.limit",))] = None
    """Use only this many training samples, for rehearsals."""
    skip_corrupt: Annotated[bool, Flag(WHAT, sets=("data.skip-corrupt",))] = False
    """Leave out images that cannot be decoded."""
    val_fraction: Annotated[float, Flag(WHAT, sets=("data.val-fraction",))] = _DATA["val_fraction"].default
    """Share of the training set held out for selection."""
    split_seed: Annotated[int, Flag(WHAT, sets=("data.split-seed",))] = _DATA["split_seed"].default
    """Seed of that cut."""
    search_seed: Annotated[int, Flag(WHAT)] = 0
    """Seed of baseline and search runs."""
    teacher_seed: Annotated[int, Flag(WHAT)] = 0
    """Seed of the teacher's training."""
    teacher_seeds: Annotated[int, Flag(WHAT)] = 1
    """Teachers of the one recipe, on this many seeds from --teacher-seed on: the winners are confirmed under each."""
    repeat_search: Annotated[int, Flag(WHAT)] = 1
    """Searches, on seeds 2000 apart, each with winners of its own; with --teacher-seeds as many, each under its own."""
    teacher_weights: Annotated[str | None, Flag(WHAT, "PATH[,..]", "train it here")] = None
    """pretrained, a file, a folder or hf-hub:NAME; several: an ensemble."""
    teacher_tune: Annotated[Tune | None, Flag(WHAT, shown="they are used as they are")] = None
    """Train those weights on this data set with a new classifier: it alone (head), or all (full)."""
    student_weights: Annotated[str | None, Flag(WHAT, "PATH", "random ones")] = None
    """Weights that students start from, with new classifiers: pretrained, or as above."""
    teacher_floor: Annotated[float | None, Flag(WHAT, shown="the data set's")] = None
    """Validation accuracy (0 to 1) that the teacher must reach."""
    epochs: Annotated[int | None, Flag(HOW, "N[,..]", sets=("recipe.epochs",))] = None
    """Students' epochs; several: a series, one sweep for each."""
    teacher_epochs: Annotated[int | None, Flag(HOW, sets=("teacher-recipe.epochs",))] = None
    """The teacher's epochs."""
    lr: Annotated[float | None, Flag(HOW, sets=("recipe.lr",))] = None
    """Students' peak learning rate."""
    batch_size: Annotated[int | None, Flag(HOW, sets=("recipe.batch-size",))] = None
    """Students' samples a step."""
    stem: Annotated[Stem | None, Flag(HOW, sets=("recipe.stem", "teacher-recipe.stem"))] = None
    """small: no stride in the stem, for small images."""
    precision: Annotated[
        Precision | None, Flag(HOW, shown="auto", sets=("recipe.precision", "teacher-recipe.precision"))
    ] = None
    """auto: bf16 on recent GPUs."""
    input_size: Annotated[
        int | None, Flag(HOW, shown="the data set's", sets=("recipe.input-size", "teacher-recipe.input-size"))
    ] = None
    """Side length (pixels) of what networks are shown."""
    name: Annotated[str | None, Flag(WHERE, "NAME", "data set, pair and method")] = None
    """Folder and W&B group."""
    recipe: Annotated[Asked, Flag(HOW, "NAME", "the budget's", ("recipe.preset",))] = Asked.model_validate({})
    """Students' recipe, a published one: rsb-a2, rsb-a3, deit, funmatch, usi, crd (`kdbench ls recipes`)."""
    teacher_recipe: Annotated[Asked, Flag(HOW, "NAME", "the budget's", ("teacher-recipe.preset",))] = (
        Asked.model_validate({})
    )
    """The teacher's, likewise."""
    space: dict[str, Dimension] = Field(default_factory=dict)
    """Hyper-parameters other than temperature and alpha, and ranges of what ``tune`` names."""

    @field_validator("pair", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) > 1:
            raise BadInput(f"pair: {len(value)} of them are a series, this is one sweep: name one")
        return next(iter(value), "") if isinstance(value, list | tuple) else value

    @field_validator("method", "tune", "controls", "also_test", mode="before")
    @classmethod
    def _names(cls, value: Any, info: ValidationInfo) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            raise BadInput(f"{info.field_name} must be a name or a list of names, not {reprlib.repr(value)}")
        return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))

    @field_validator("teacher_weights", mode="before")
    @classmethod
    def _files(cls, value: Any) -> Any:
        return ",".join(map(str, value)) if isinstance(value, list) else value

    @field_validator("space", mode="before")
    @classmethod
    def _dimensions(cls, value: dict[str, Any]) -> dict[str, Dimension]:
        return {name: parse_dimension(text, name) for name, text in value.items()}

    def words(self) -> list[str]:
        """The options of a command line that asks for the same."""
        words: list[str] = []
        for field in sorted(self.model_fields_set, key=list(type(self).model_fields).index):
            value = getattr(self, field)
            key = field.replace("_", "-")
            if isinstance(value, Recipe):
                named = {f"{key}.{name.replace('_', '-')}": getattr(value, name) for name in value.model_fields_set}
                words += [word for name in sorted(named) for word in ("--set", f"{name}={_text(named[name])}")]
            elif isinstance(value, dict):
                words += [word for name in value for word in ("--set", f"space.{name}={value[name]}")]
            elif isinstance(value, bool):
                words += [f"--{key}"] if value else []
            elif value is not None:
                words += [f"--{key}", ",".join(value) if isinstance(value, tuple) else str(value)]
        return words


def _text(value: Any) -> str:
    """A recipe's value as ``--set`` reads it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {number:g}" for name, number in value.items()) + "}"
    return str(list(value)) if isinstance(value, tuple) else "null" if value is None else str(value).lower()
