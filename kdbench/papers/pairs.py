"""The usual table of this field, pairs × methods, from its short form to runs and cells.

.. code-block:: yaml

    pairs:
      recipes: {default: step, MobileNetV2: slow}      # a network's recipe; default for the rest
      methods:
        kd: {method: kd, hyper: {temperature: 4, soft_weight: 0.9, hard_weight: 0.1}}
        crd: {reason: no such loss here}
      rows:
        - {teacher: wrn_40_2, student: wrn_16_2, published: {teacher: 75.61, student: 73.26, kd: 74.92, crd: 75.48},
           hyper: {kd: {temperature: 2}}, reported: mean of 5 runs}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, ValidationError

from kdbench.catalog.pairs import CIFAR_NETS, cifar_model
from kdbench.config import Frozen, Hyper
from kdbench.errors import BadInput, readable, unknown

HARD = ("teacher", "student")
"""Columns of networks trained on hard labels alone."""


class MethodColumn(Frozen):
    """A column of the table: a loss, or a reason why it is never run."""

    method: str | None = None
    """Catalog name of the loss."""
    hyper: Hyper = Field(default_factory=dict)
    """Its hyper-parameters, the same for all rows but for what a row says."""
    reason: str = ""
    """Why the column is never run here."""


class PairRow(Frozen):
    """One pair and its published numbers."""

    teacher: str
    """Name in the tables (``resnet32x4``) or timm name."""
    student: str
    """Likewise."""
    published: dict[str, float | None]
    """Percent by column: teacher, student, and the methods; null where ours stands alone."""
    hyper: dict[str, Hyper] = Field(default_factory=dict)
    """What this pair's hyper-parameters differ in, by column."""
    reported: str = ""
    """How the numbers were reported, where it differs from the other rows."""
    seeds: int | None = Field(None, ge=1)
    """Runs of this pair's distilled student, where fewer than the paper's."""


class PairTable(Frozen):
    """The short form, whole."""

    recipes: dict[str, str]
    """Recipe by network; ``default`` for the rest."""
    methods: dict[str, MethodColumn]
    """Columns in their order."""
    rows: tuple[PairRow, ...]
    """Pairs in their order."""
    reported: str = ""
    """How the numbers were reported."""
    weights: dict[str, str] = Field(default_factory=dict)
    """Teachers that are not trained here, by network: the authors' own weights, see ``RunSpec.weights``."""
    teacher_seeds: int = Field(1, ge=1)
    """Runs of a network that only teaches: one, since all its students learn from the first."""


def from_pairs(held: Any, where: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Runs and cells, as a paper's file would spell them out.

    Raises:
        BadInput: a short form that does not say what it must.
    """
    try:
        table = PairTable.model_validate(held)
    except ValidationError as error:
        raise BadInput(f"{where}: {readable(error, 'pairs')}") from error
    for row in table.rows:
        for column in {*row.published, *row.hyper} - {*HARD, *table.methods}:
            raise unknown("column", column, table.methods, f"pairs.methods in {where}")
    nets = dict.fromkeys([row.teacher for row in table.rows] + [row.student for row in table.rows])
    students = {row.student for row in table.rows}
    teachers = {row.teacher for row in table.rows}
    if strange := sorted(table.weights.keys() - teachers):
        raise unknown("teacher", strange[0], teachers, f"pairs.weights in {where}")
    runs: list[dict[str, Any]] = [
        {"name": f"hard-{net}", "model": model_of(net), "recipe": _recipe(table, net)}
        | ({} if net in students else {"seeds": table.teacher_seeds})
        for net in nets
        if net in students or net not in table.weights
    ]
    runs += [
        {"name": f"given-{net}", "model": model_of(net), "recipe": _recipe(table, net), "weights": weights}
        for net, weights in table.weights.items()
    ]
    runs += [run for row in table.rows for run in _taught(table, row)]
    return runs, [cell for row in table.rows for cell in _cells(table, row)]


def model_of(name: str) -> str:
    """The timm name of a network as the tables call it."""
    return cifar_model(name) if name in CIFAR_NETS else name


def _recipe(table: PairTable, net: str) -> str:
    return table.recipes.get(net, table.recipes.get("default", "default"))


def _teacher(table: PairTable, row: PairRow) -> str:
    return f"{'given' if row.teacher in table.weights else 'hard'}-{row.teacher}"


def _taught(table: PairTable, row: PairRow) -> Iterator[dict[str, Any]]:
    for column, spec in table.methods.items():
        if spec.method is not None and column in row.published:
            yield {
                "name": f"{column}-{row.teacher}-{row.student}",
                "model": model_of(row.student),
                "recipe": _recipe(table, row.student),
                "teacher": _teacher(table, row),
                "method": spec.method,
                "hyper": {**spec.hyper, **row.hyper.get(column, {})},
                "seeds": row.seeds,
            }


def _cells(table: PairTable, row: PairRow) -> Iterator[dict[str, Any]]:
    pair = f"{row.teacher}:{row.student}"
    for column, value in row.published.items():
        cell: dict[str, Any] = {
            "id": f"{pair}:{column}",
            "group": pair,
            "column": column,
            "what": {"teacher": row.teacher, "student": f"{row.student} on hard labels"}.get(column, row.student),
            "published": value,
            "reported": row.reported or table.reported,
        }
        if column in HARD:
            cell["run"] = _teacher(table, row) if column == "teacher" else f"hard-{row.student}"
        elif (spec := table.methods[column]).method is not None:
            cell["run"] = f"{column}-{row.teacher}-{row.student}"
        else:
            cell["reason"] = spec.reason
        yield cell
