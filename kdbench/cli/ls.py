"""``kdbench ls``: what the catalog holds. Imports no torch, no timm."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, get_args

import typer

from kdbench.cli.common import console, print_json, print_table
from kdbench.cli.options import JsonFlag


class Listing(NamedTuple):
    """One kind's rows: for the table, and whole for JSON."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    entries: list[dict[str, Any]]
    note: str = ""


class Kind(StrEnum):
    """What can be listed."""

    pairs = "pairs"
    students = "students"
    families = "families"
    ladders = "ladders"  # what families were called
    datasets = "datasets"
    methods = "methods"
    recipes = "recipes"
    papers = "papers"
    sweeps = "sweeps"


def ls(kind: Annotated[Kind | None, typer.Argument(help="What to list.")] = None, as_json: JsonFlag = False) -> None:
    """List pairs, students, families, datasets, methods, recipes, papers, or the named sweeps of experiments/.

    Examples:
        kdbench ls pairs

        kdbench ls datasets --json
    """
    if kind is None:
        counts = {each.value: len(_LISTINGS[each]().rows) for each in Kind if each != Kind.ladders}
        if as_json:
            print_json(counts)
        else:
            print_table("", ("kdbench ls ...", "entries"), list(counts.items()))
        return
    listing = _LISTINGS[kind]()
    if as_json:
        print_json(listing.entries)
        return
    print_table("", listing.columns, listing.rows)
    if listing.note:
        console().print(f"[dim]{listing.note}[/dim]")


def _pairs() -> Listing:
    from kdbench.catalog.pairs import PAIRS

    pairs = list(PAIRS.entries.values())
    rows = [(pair.name, pair.teacher, ", ".join(pair.students)) for pair in pairs]
    note = "--pair TEACHER:STUDENTS also takes any family and any timm name, comma-separated."
    return Listing(("pair", "teacher", "students"), rows, [pair.model_dump(mode="json") for pair in pairs], note)


def _families() -> Listing:
    from kdbench.catalog.families import FAMILIES

    families = list(FAMILIES.entries.values())
    rows = [(family.name, len(family.models), ", ".join(family.models), family.note) for family in families]
    return Listing(("family", "sizes", "models", "note"), rows, [each.model_dump(mode="json") for each in families])


def _students() -> Listing:
    from kdbench.catalog.families import FAMILIES

    rows = [
        (model, family.name, f"{place} of {len(family.models)}")
        for family in FAMILIES.entries.values()
        for place, model in enumerate(family.models, 1)
    ]
    entries = [{"student": model, "family": family, "place": place} for model, family, place in rows]
    return Listing(("student", "family", "size"), rows, entries, "Any other timm model name works as a student too.")


def _datasets() -> Listing:
    from kdbench.catalog.datasets import DATASETS

    specs = list(DATASETS.entries.values())
    rows = [
        (spec.name, spec.classes, "×".join(map(str, spec.shape)), _sizes(spec.sizes), spec.license, spec.source)
        for spec in specs
    ]
    note = "Your own images: --dataset folder:/path (a folder per class) or --dataset hf:NAME."
    columns = ("data set", "classes", "shape", "samples", "licence", "source")
    return Listing(columns, rows, [spec.model_dump(mode="json") for spec in specs], note)


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size:,}" for name, size in sizes.items())


def _methods() -> Listing:
    from kdbench.methods import METHODS

    specs = list(METHODS.entries.values())
    rows = [
        (
            spec.name,
            ", ".join(f"{name} {dimension}" for name, dimension in spec.space.items()),
            ", ".join(sorted(spec.needs - {"logits", "averaged"} or spec.needs))
            + f" ({spec.pairs})" * (spec.pairs != "any->any"),
            spec.paper.rpartition(", ")[2].removeprefix("arXiv:"),
        )
        for spec in specs
    ]
    entries = [{**spec.model_dump(mode="json"), "needs": sorted(spec.needs)} for spec in specs]
    note = "What reads maps or pooled vectors reads logits too. --json has scales, defaults and whole citations."
    return Listing(("method", "searched", "reads", "paper"), rows, entries, note)


def _recipes() -> Listing:
    from kdbench.catalog.datasets import DATASETS
    from kdbench.catalog.recipes import BUDGETS, PRESETS, Role, recipe_for
    from kdbench.config import Recipe

    grouped: dict[tuple[str, str, str], list[str]] = {}
    for preset in BUDGETS:
        for role in get_args(Role):
            for spec in DATASETS.entries.values():
                recipe = recipe_for(role, spec, preset).model_copy(update={"input_size": None})
                grouped.setdefault((preset, role, recipe.model_dump_json()), []).append(spec.name)
    rows: list[tuple[object, ...]] = []
    entries: list[dict[str, object]] = []
    for (preset, role, text), names in grouped.items():
        recipe = type(recipe).model_validate_json(text)
        spending = BUDGETS[preset]
        rows.append(
            (
                preset,
                f"{spending.trials} × {spending.seeds}",
                role,
                recipe.epochs,
                f"{recipe.optimizer} {recipe.lr:g}",
                recipe.batch_size,
                recipe.schedule,
                recipe.stem,
                ", ".join(names),
            )
        )
        values = {**recipe.model_dump(mode="json"), "input_size": "the data set's"}
        entries.append({"budget": spending.model_dump(), "role": role, "datasets": names, "recipe": values})
    for name, published in PRESETS.items():
        recipe = Recipe.model_validate(published.recipe)
        fields = (recipe.epochs, f"{recipe.optimizer} {recipe.lr:g}", recipe.batch_size, recipe.schedule)
        rows.append((f"--recipe {name}", "", "", *fields, "", published.source))
        entries.append({"preset": name, **published.model_dump(mode="json")})
    columns = ("budget", "trials × seeds", "role", "epochs", "lr", "batch", "schedule", "stem", "data sets or source")
    return Listing(
        columns, rows, entries, "Every field can be set: --set recipe.weight-decay=1e-4, teacher-recipe.lr=..."
    )


def _papers() -> Listing:
    from kdbench.papers.load import load_paper, paper_files

    papers = [load_paper(name) for name in paper_files()]
    shown = ("name", "title", "citation", "note", "source", "dataset", "methods", "seeds")
    entries = [{**paper.model_dump(mode="json", include=set(shown)), "rows": len(paper.cells)} for paper in papers]
    rows = [
        (paper.name, paper.title, paper.dataset, ", ".join(paper.methods), len(paper.cells), paper.citation)
        for paper in papers
    ]
    columns = ("paper", "title", "data set", "methods", "numbers", "published")
    return Listing(columns, rows, entries, "kdbench reproduce PAPER runs one; --dry-run says what it would take.")


def _sweeps() -> Listing:
    from kdbench.sweeps.overrides import load_config, named_configs

    found = [(name, str(path), load_config(path)) for name, path in named_configs().items()]
    rows = [(name, file, ", ".join(f"{key}: {value}" for key, value in given.items())) for name, file, given in found]
    entries = [{"name": name, "file": file, "options": given} for name, file, given in found]
    return Listing(("sweep", "file", "options"), rows, entries, "kdbench sweep --config NAME runs one.")


_LISTINGS: dict[Kind, Callable[[], Listing]] = {
    Kind.pairs: _pairs,
    Kind.students: _students,
    Kind.families: _families,
    Kind.ladders: _families,
    Kind.datasets: _datasets,
    Kind.methods: _methods,
    Kind.recipes: _recipes,
    Kind.papers: _papers,
    Kind.sweeps: _sweeps,
}
