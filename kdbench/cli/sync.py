"""``kdbench sync``: send a plan's runs to W&B."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from kdbench.cli.common import RESULTS, JsonFlag, OutOption, SweepArgument, find_sweep, print_json
from kdbench.errors import MachineFault


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("sync")(sync)


def sync(
    sweep: SweepArgument,
    out: OutOption = RESULTS,
    project: Annotated[
        str | None, typer.Option("--wandb-project", help="W&B project, if not the one recorded.")
    ] = None,
    entity: Annotated[str | None, typer.Option("--wandb-entity", help="W&B user or team.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Send the finished runs to W&B that it does not hold, and check that they arrived.

    Examples:
        kdbench sync digits-resnet50-mobilenetv3-kd --wandb-entity my-team
    """
    # a paper's table has no sweep.json, but runs that were recorded offline all the same
    folder = out / sweep if (out / sweep / "wandb").is_dir() else find_sweep(sweep, out)
    from kdbench.sweeps.store import row_of
    from kdbench.tracking import sync as upload

    report = upload(folder, row_of, entity=entity, project=project)
    if as_json:
        print_json({**asdict(report), "ok": report.ok})
    else:
        sys.stdout.write(f"{report}\n")
    if not report.ok:
        first, why = next(iter(report.failed.items()))
        raise MachineFault(f"{len(report.failed)} runs did not arrive, {first} for one: {why}")
