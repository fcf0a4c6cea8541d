"""``kdbench status``: how far a sweep is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import typer

from kdbench.cli.common import RESULTS, JsonFlag, OutOption, SweepArgument, find_sweep, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("status")(status)


def status(sweep: SweepArgument, out: OutOption = RESULTS, as_json: JsonFlag = False) -> None:
    """Show how many runs of each phase are done, running, failed or waiting. Reads only; safe while a sweep runs.

    Examples:
        kdbench status digits-resnet50-mobilenetv3-kd

        kdbench status results/mine --json
    """
    folder = find_sweep(sweep, out)
    from kdbench.sweeps.store import read_status

    found = read_status(folder)
    if as_json:
        print_json(found)
        return
    _show(found)


def _show(found: Mapping[str, Any]) -> None:
    """Single values as lines; tables of phases and of the runs under way."""
    tables = {
        name: _rows(value)
        for name, value in found.items()
        if value and isinstance(value, list | Mapping) and all(isinstance(row, Mapping) for row in _items(value))
    }
    for name, value in found.items():
        if name not in tables and value != []:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            sys.stdout.write(f"{name.replace('_', ' ')}: {text}\n")
    for name, rows in tables.items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        sys.stdout.write("\n")
        print_table(name.replace("_", " "), columns, [[row.get(column) for column in columns] for row in rows])


def _items(value: list[Any] | Mapping[str, Any]) -> list[Any]:
    """What a list or mapping holds."""
    return list(value.values()) if isinstance(value, Mapping) else value


def _rows(value: list[Any] | Mapping[str, Any]) -> list[dict[str, Any]]:
    """A list of rows, or a mapping of them whose keys become the first column."""
    return [{"": name, **row} for name, row in value.items()] if isinstance(value, Mapping) else value
