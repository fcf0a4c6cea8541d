"""``kdbench record``: keep a finished sweep's tables and figures, small enough to commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli.common import RESULTS, OutOption, SweepArgument, find_sweep


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("record")(record)


def record(
    sweep: SweepArgument,
    out: OutOption = RESULTS,
    to: Annotated[Path | None, typer.Option(help="Folder of records. [dim](OUT/records)[/dim]")] = None,
) -> None:
    """Copy a finished sweep's tables, figures, spec and every run's numbers to a folder that can be committed.

    Examples:
        kdbench record fashion-mnist

        kdbench record fashion-mnist --to papers/2026/results
    """
    from kdbench.sweeps.record import make_record

    typer.echo(make_record(find_sweep(sweep, out), to or out / "records"))
