"""Find, expand and check a paper's file. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.catalog.datasets import DATASETS
from kdbench.errors import BadInput, readable, unknown
from kdbench.methods import METHODS
from kdbench.papers.schema import PaperFile
from kdbench.sweeps.overrides import config_folders, load_config


def paper_files() -> dict[str, Path]:
    """Every paper's file by id, nearest first: here, in a clone, in an installed package."""
    found: dict[str, Path] = {}
    for folder in config_folders():
        for path in sorted((folder / "papers").glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def load_paper(name: str) -> PaperFile:
    """The paper called ``name``, or the one in the file ``name``.

    Raises:
        BadInput: no such paper, or a file that does not say what it must.
    """
    path = Path(name).expanduser()
    if not (path.suffix == ".yaml" and path.is_file()):
        known = paper_files()
        if name not in known:
            raise unknown("paper", name, known, "`kdbench ls papers` lists them")
        path = known[name]
    held = load_config(path)
    expanded = {**held, "name": path.stem, "runs": [*_each(held.get("runs"))], "cells": [*_each(held.get("cells"))]}
    pairs = expanded.pop("pairs", None)
    if pairs is not None:
        from kdbench.papers.pairs import from_pairs

        runs, cells = from_pairs(pairs, str(path))
        expanded["runs"] += runs
        expanded["cells"] += cells
    try:
        paper = PaperFile.model_validate(expanded)
    except ValidationError as error:
        raise BadInput(f"{path}: {readable(error)}") from error
    _check(paper, path)
    placed = tuple(run.model_copy(update={"weights": _beside(path, run.weights)}) for run in paper.runs)
    return paper.model_copy(update={"runs": placed})


def _beside(path: Path, weights: str | None) -> str | None:
    """A path that starts at the paper's file; names of weights that are published as they are."""
    if weights is None or weights.startswith(("pretrained", "hf-hub:")):
        return weights
    return str(path.parent / Path(weights.removeprefix("local-dir:")).expanduser())


def _each(entries: Any) -> Iterator[Any]:
    """Every entry; one with ``for: {width: [300, 30], T: [1, 2]}`` once for each combination.

    ``{width}`` in its texts is replaced by the value.
    """
    for entry in entries or []:
        if not isinstance(entry, Mapping) or "for" not in entry:
            yield entry
            continue
        axes = entry["for"]
        body = {key: value for key, value in entry.items() if key != "for"}
        for values in product(*axes.values()):
            yield _filled(body, {name: f"{value}" for name, value in zip(axes, values, strict=True)})


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace(f"{{{name}}}", word)
        return value
    if isinstance(value, Mapping):
        return {key: _filled(inner, words) for key, inner in value.items()}
    return [_filled(inner, words) for inner in value] if isinstance(value, list) else value


def _check(paper: PaperFile, path: Path) -> None:
    """Names that the file uses must be names that it, or the catalog, defines."""
    DATASETS.get(paper.dataset)
    names = [run.name for run in paper.runs]
    for kind, listed in (("run", names), ("cell", [cell.id for cell in paper.cells])):
        twice = sorted({name for name in listed if listed.count(name) > 1})
        if twice:
            raise BadInput(f"{path}: two {kind}s are called '{twice[0]}'")
    for run in paper.runs:
        method = METHODS.get(run.method)
        if run.recipe not in paper.recipes:
            raise unknown("recipe", run.recipe, paper.recipes, f"run '{run.name}' in {path}")
        if run.teacher is not None and run.teacher not in names[: names.index(run.name)]:
            raise BadInput(f"{path}: the teacher of '{run.name}', '{run.teacher}', is no run listed before it")
        if run.weights is not None and run.teacher is not None:
            raise BadInput(f"{path}: run '{run.name}' has weights and is not trained: it takes no teacher")
        if bool(method.asks) != (run.teacher is not None):
            raise BadInput(f"{path}: run '{run.name}': the loss '{run.method}' and teacher {run.teacher} do not fit")
        for knob in set(run.hyper) - method.knobs:
            raise unknown("hyper-parameter", knob, method.bounds, f"run '{run.name}' in {path}")
        if paper.recipes[run.recipe].precision == "auto":
            raise BadInput(f"{path}: recipe '{run.recipe}' must say fp32 or bf16: a protocol is the same everywhere")
        try:
            paper.data_config(run)
        except ValidationError as error:
            raise BadInput(f"{path}: run '{run.name}': {readable(error)}") from error
    for cell in paper.cells:
        if cell.run is None and not cell.reason:
            raise BadInput(f"{path}: cell '{cell.id}' names neither a run nor a reason why there is none")
        if cell.run is not None and cell.run not in names:
            raise unknown("run", cell.run, names, f"cell '{cell.id}' in {path}")
