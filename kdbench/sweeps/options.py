"""Options of a sweep from all their sources, merged: YAML file < ``--set key=value`` < flags.

Whatever its source, an option ends as one dotted key (``--epochs``, ``epochs:`` and ``--set recipe.epochs=`` are all
``recipe.epochs``), so that a later layer replaces exactly what it names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import ValidationError

import kdbench
from kdbench.config import Recipe
from kdbench.errors import BadInput, MachineFault, suggestion
from kdbench.host import default_cache
from kdbench.run.launch import RunOptions, WandbOptions

Options = dict[str, Any]
"""Dotted keys to values as YAML gives them."""

# Flag name -> the dotted keys it sets. What is not here is set by its dotted key alone.
FLAGS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("pair", "dataset", "method", "name", "sampler", "pruner")},
    **{name: (name,) for name in ("teacher-weights", "teacher-floor", "teacher-seed", "search-seed")},
    "budget": ("budget.name",),
    "trials": ("budget.trials",),
    "seeds": ("budget.seeds",),
    "limit": ("budget.limit",),
    "val-fraction": ("data.val-fraction",),
    "split-seed": ("data.split-seed",),
    "skip-corrupt": ("data.skip-corrupt",),
    "epochs": ("recipe.epochs",),
    "lr": ("recipe.lr",),
    "batch-size": ("recipe.batch-size",),
    "teacher-epochs": ("teacher-recipe.epochs",),
    "stem": ("recipe.stem", "teacher-recipe.stem"),
    "precision": ("recipe.precision", "teacher-recipe.precision"),
    "input-size": ("recipe.input-size", "teacher-recipe.input-size"),
    "temperature": ("space.temperature",),
    "alpha": ("space.alpha",),
}
RUN_FLAGS = (
    "out", "cache", "storage", "workers", "executor", "device", "wandb", "wandb-project", "wandb-entity", "exact"
)  # fmt: skip

GONE = {"pack": "use --workers K, several workers share one GPU"}
"""Options of earlier releases, and what took their place."""

_RECIPE = tuple(name.replace("_", "-") for name in Recipe.model_fields)
SECTIONS: dict[str, tuple[str, ...]] = {
    "budget": ("name", "trials", "seeds", "limit"),
    "data": ("val-fraction", "split-seed", "skip-corrupt"),
    "recipe": _RECIPE,
    "teacher-recipe": _RECIPE,
    "space": (),  # any hyper-parameter: its name is checked against the methods
}


def run_options(options: Mapping[str, Any]) -> RunOptions:
    """The run-time half of merged ``options``.

    Raises:
        BadInput: for a number of workers below 1, or an unknown W&B mode or device.
    """
    given = {name.replace("-", "_"): options[name] for name in RUN_FLAGS if options.get(name) is not None}
    for name in ("out", "cache"):
        if name in given:
            given[name] = Path(str(given[name])).expanduser()
    workers = given.get("workers", "auto")
    if isinstance(workers, str) and workers.lstrip("-").isdigit():
        workers = int(workers)
    if workers != "auto" and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise BadInput(f"workers must be auto or a whole number of at least 1, not {workers}")
    if given.get("executor", "local") not in ("local", "ray"):
        raise BadInput(f"unknown executor '{given['executor']}' (local or ray)")
    switched = "disabled" if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true") else "offline"
    mode = given.pop("wandb", None) or os.environ.get("WANDB_MODE") or switched
    if mode not in ("offline", "online", "disabled"):
        raise BadInput(f"unknown W&B mode '{mode}' (offline, online or disabled)")
    storage = given.get("storage")
    if storage is not None and "://" not in str(storage):
        raise BadInput(
            f"storage '{storage}' is no database URL: write sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
        )
    if not isinstance(given.get("exact", False), bool):
        raise BadInput(f"exact must be true or false, not {given['exact']}")
    project = given.pop("wandb_project", None) or os.environ.get("WANDB_PROJECT") or "kdbench"
    entity = given.pop("wandb_entity", None)
    tracking = WandbOptions(mode=cast(Literal["offline"], mode), project=str(project), entity=entity)
    return RunOptions(**{"cache": default_cache(), **given, "workers": workers, "wandb": tracking})


def expand(layer: Mapping[str, Any], where: str) -> Options:
    """One source's options under their dotted keys; sections (``recipe: {lr: 0.1}``) may be nested.

    Raises:
        BadInput: for an unknown key, naming ``where`` and the closest known one.
    """
    broad: Options = {}
    exact: Options = {}
    for key, value in layer.items():
        name = str(key).replace("_", "-")
        section, dot, rest = name.partition(".")
        if isinstance(value, Mapping) and name in SECTIONS:
            for inner, inner_value in value.items():
                exact[_checked(name, str(inner), where)] = inner_value
        elif name in FLAGS:
            broad.update(dict.fromkeys(FLAGS[name], value))
        elif name in RUN_FLAGS:
            exact[name] = value
        elif dot and section in SECTIONS:
            exact[_checked(section, rest, where)] = value
        elif name in GONE:
            raise BadInput(f"{where}: {name} is gone: {GONE[name]}")
        else:
            raise BadInput(f"{where}: unknown key '{key}'{_hint(name, [*FLAGS, *RUN_FLAGS, *SECTIONS])}")
    return {**broad, **exact}


def _hint(name: str, known: Iterable[str]) -> str:
    """The closest known name, or all of them."""
    names = list(known)
    return suggestion(name, names) or f" (known: {', '.join(names) or 'none'})"


def _checked(section: str, name: str, where: str) -> str:
    """``section.name`` if the section has it. Names of hyper-parameters keep their underscores."""
    if section == "space":
        return f"space.{name.replace('-', '_')}"
    name = name.replace("_", "-")
    if name not in SECTIONS[section]:
        raise BadInput(f"{where}: unknown key '{section}.{name}'{_hint(name, SECTIONS[section])}")
    return f"{section}.{name}"


def merge(config: str | None, sets: Iterable[str], flags: Mapping[str, Any]) -> Options:
    """All sources in order of precedence; flags that are None were not given.

    Raises:
        BadInput: for anything that cannot be read or is not known.
    """
    merged: Options = {}
    if config is not None:
        path = find_config(config)
        merged.update(expand(load_config(path), str(path)))
    for text in sets:
        merged.update(expand(dict([parse_set(text)]), f"--set {text}"))
    merged.update(expand({name: value for name, value in flags.items() if value is not None}, "options"))
    if isinstance(files := merged.get("teacher-weights"), list):
        merged["teacher-weights"] = ",".join(map(str, files))
    return merged


def parse_set(text: str) -> tuple[str, Any]:
    """``"budget.trials=4"`` -> ``("budget.trials", 4)``; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {text}: write key=value, for example --set budget.trials=4")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise BadInput(f"--set {text}: the value is not YAML ({_yaml_problem(error)})") from None


def config_folders() -> list[Path]:
    """Where named sweeps are looked for: here, in a clone, in an installed package."""
    package = Path(kdbench.__file__).parent
    return [Path("experiments"), package.parent / "experiments", package / "experiments"]


def named_configs() -> dict[str, Path]:
    """Every named sweep found, nearest first."""
    found: dict[str, Path] = {}
    for folder in config_folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find_config(config: str) -> Path:
    """The file that ``config`` (a path, or the name of a sweep in experiments/) means.

    Raises:
        BadInput: when there is none.
    """
    path = Path(config).expanduser()
    if path.is_file():
        return path
    named = named_configs()
    if path.name in (config, f"{config}.yaml") and path.stem in named:
        return named[path.stem]
    raise BadInput(f"no config file '{config}'{_hint(path.stem, named)}")


def load_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file (an empty file is an empty mapping).

    Raises:
        BadInput: when it is not YAML, or not a mapping.
        MachineFault: when it cannot be read.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not valid YAML ({_yaml_problem(error)})") from None
    except OSError as error:
        raise MachineFault(f"{path}: cannot be read ({error.strerror})") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadInput(f"{path}: expected 'key: value' lines, found a {type(loaded).__name__}")
    return loaded


def _yaml_problem(error: yaml.YAMLError) -> str:
    """One line: what is wrong and on which line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def readable(error: ValidationError, prefix: str = "") -> str:
    """A pydantic error as one line: where, what is wrong, and the value, for every problem found."""
    problems = []
    for item in error.errors(include_url=False):
        place = ".".join([*([prefix] if prefix else []), *(str(part).replace("_", "-") for part in item["loc"])])
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        shown = "" if isinstance(item["input"], dict | list | tuple) else f", not {item['input']!r}"
        problems.append(f"{place}: {message}{shown}" if place else f"{message}{shown}")
    return "; ".join(problems)
