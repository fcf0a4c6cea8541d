"""Options from all their sources, merged once: YAML file < ``--set key=value`` < flags or keywords.

``epochs: 3``, ``recipe: {epochs: 3}``, ``--set recipe.epochs=3`` and ``--epochs 3`` are one option. A key that stands
for several (``stem`` for both recipes) gives way, within one source, to the exact one.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

import kdbench
from kdbench.config import Flag
from kdbench.errors import BadInput, MachineFault, readable, suggestion
from kdbench.run.launch import RunOptions
from kdbench.sweeps.config import Asked, SweepConfig

M = TypeVar("M", bound=RunOptions)

GONE = {"pack": "use --workers K, several workers share one GPU"}
"""Options of earlier releases, and what took their place."""
MOST_VALUES, DEEPEST = 100_000, 40
"""What a YAML file may hold, its aliases followed."""

_RECIPE = [name.replace("_", "-") for name in Asked.model_fields]


def flags_of(kind: type[RunOptions]) -> dict[str, Flag]:
    """The fields that are flags, by their names in kebab-case."""
    flags = ((name, flag) for name, field in kind.model_fields.items() for flag in field.metadata)
    return {name.replace("_", "-"): flag for name, flag in flags if isinstance(flag, Flag)}


FLAGS = flags_of(SweepConfig)
_SAME = {flag.sets[0]: name for name, flag in FLAGS.items() if len(flag.sets) == 1}
SECTIONS: dict[str, list[str]] = {"budget": [], "data": [], "recipe": _RECIPE, "teacher-recipe": _RECIPE, "space": []}
"""Keys that may be nested or dotted; the names in ``space`` are checked against the methods."""
for _key in _SAME:
    if (_part := _key.partition("."))[0] in ("budget", "data"):
        SECTIONS[_part[0]].append(_part[2])


def read_config(
    config: str | None = None, sets: Iterable[str] = (), given: Mapping[str, Any] | None = None
) -> SweepConfig:
    """All sources in order of precedence; what is None in ``given`` was not given.

    Raises:
        BadInput: for anything that cannot be read, is not known or cannot be, naming it.
    """
    return asked_for(merge(config, sets, given))


def merge(config: str | None, sets: Iterable[str], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The sources as values of ``SweepConfig``'s fields, not validated."""
    merged: dict[str, Any] = {}
    if config is not None:
        path = find_config(config)
        _lay(merged, load_config(path), str(path))
    for text in sets:
        _lay(merged, dict([_parse_set(text)]), f"--set {text}")
    _lay(merged, {name: value for name, value in (given or {}).items() if value is not None}, "options")
    values: dict[str, Any] = {}
    for key, value in merged.items():
        section, dot, name = key.replace("-", "_").partition(".")
        if dot:
            values.setdefault(section, {})[name] = value
        elif SECTIONS.get(key) is _RECIPE:  # its name
            values.setdefault(section, {})["preset"] = value
        else:
            values[section] = value
    return values


def asked_for(values: Mapping[str, Any]) -> SweepConfig:
    """One sweep, validated."""
    asked = _model(SweepConfig, values)
    if not asked.pair.strip() and asked.against is None:
        raise BadInput("no pair given: name a teacher and its students, for example --pair resnet50:mobilenetv3")
    return asked


def read_run_options(given: Mapping[str, Any]) -> RunOptions:
    """Where a plan of any kind runs: flags or keywords, those that are None not given.

    Raises:
        BadInput: for an unknown one or a value that cannot be.
    """
    values = {name.replace("-", "_"): value for name, value in given.items() if value is not None}
    for name in values:
        if name not in RunOptions.model_fields:
            raise BadInput(f"unknown option '{name}'{_hint(name, RunOptions.model_fields)}")
    return _model(RunOptions, values)


def _model(kind: type[M], values: Mapping[str, Any]) -> M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput(readable(error)) from None


def _lay(merged: dict[str, Any], layer: Mapping[Any, Any], where: str) -> None:
    """Put one source's options over those of the sources before."""
    found = list(_flat(layer, where))
    for key, value in sorted(found, key=lambda pair: pair[0] not in FLAGS):  # the exact ones last
        for exact in FLAGS[key].sets if key in FLAGS else ():
            merged.pop(exact, None)
        merged[key] = value


def _flat(layer: Mapping[Any, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Every option under one name: its flag's where it has one of its own, else its dotted key."""
    for key, value in layer.items():
        name = str(key).replace("_", "-")
        section, dot, rest = name.partition(".")
        if isinstance(value, Mapping) and name in SECTIONS:
            yield from _flat({f"{name}.{inner}": below for inner, below in value.items()}, where)
        elif name in FLAGS and (name not in SECTIONS or isinstance(value, str)):
            yield name, value
        elif name in SECTIONS:
            raise BadInput(f"{where}: {name} must hold 'key: value' lines, not {reprlib.repr(value)}")
        elif name in GONE:
            raise BadInput(f"{where}: {name} is gone: {GONE[name]}")
        elif not dot or section not in SECTIONS:
            raise BadInput(f"{where}: unknown key '{key}'{_hint(name, [*FLAGS, *SECTIONS])}")
        elif section == "space":
            yield _SAME.get(name, f"space.{rest.replace('-', '_')}"), value
        elif rest in SECTIONS[section]:
            yield _SAME.get(name, name), value
        else:
            raise BadInput(f"{where}: unknown key '{name}'{_hint(rest, SECTIONS[section])}")


def _hint(name: str, known: Iterable[str]) -> str:
    """The closest known name, or all of them."""
    names = list(known)
    return suggestion(name, names) or f" (known: {', '.join(names) or 'none'})"


def _parse_set(text: str) -> tuple[str, Any]:
    """``"budget.trials=4"`` -> ``("budget.trials", 4)``; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {text}: write key=value, for example --set budget.trials=4")
    return key.strip(), _yaml(value, f"--set {text}: the value is")


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
        BadInput: when it is not YAML, not a mapping, or holds more than a file written by hand would.
        MachineFault: when it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise MachineFault(f"{path}: cannot be read ({error.strerror})") from error
    loaded = _yaml(text, f"{path}:")
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadInput(f"{path}: expected 'key: value' lines, found a {type(loaded).__name__}")
    strange = next((key for key in loaded if not isinstance(key, str)), None)
    if strange is not None:
        raise BadInput(f"{path}: the key {strange!r} is no name")
    return loaded


def _yaml(text: str, where: str) -> Any:
    """The plain values in ``text``, none nested so deeply or repeated so often that showing it would not end."""
    try:
        loaded = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise BadInput(f"{where} not valid YAML ({place}{error.problem})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise BadInput(f"{where} not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise BadInput(f"{where} nested too deeply") from None
    todo, seen = [(loaded, 0)], 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_VALUES:
            raise BadInput(f"{where} nested too deeply, or aliases of aliases")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        todo += [(item, depth + 1) for item in inner]
    return loaded
