"""Verbs about a sweep that is there: how far it is, its report again, a record of it, its upload."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kdbench.cli.common import PAGE_WIDTH, SPEC_FILE, console, find_sweep, print_json, print_table, show_report
from kdbench.cli.options import RESULTS, JsonFlag, OutOption, SweepArgument, WhyOption
from kdbench.errors import MachineFault
from kdbench.run.words import counted


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
    else:
        show_status(found)


def show_status(found: Mapping[str, Any]) -> None:
    """Single values as lines; tables of phases and of the runs under way."""
    phases, under_way = found["phases"], found["under_way"]
    for name, value in found.items():
        if name not in ("phases", "under_way"):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            sys.stdout.write(f"{name.replace('_', ' ')}: {text}\n")
    for title, rows in (("phases", [{"": name, **row} for name, row in phases.items()]), ("under way", under_way)):
        if rows:
            sys.stdout.write("\n")
            columns = list(rows[0])
            print_table(title, columns, [[row.get(column) for column in columns] for row in rows])


def report(
    sweep: SweepArgument,
    x: Annotated[
        str | None,
        typer.Option(metavar="COST", help="Only the front over it: macs, latency_ms, file_mb[-int8], ort-int8-t4, ..."),
    ] = None,
    out: OutOption = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Write a sweep's (or a record's) tables, figures and HTML page again from its runs, and print the table.

    Of a series' folder its table and figures.

    Examples:
        kdbench report digits-resnet50-mobilenetv3-kd

        kdbench report results/records/fashion-mnist

        kdbench report mine --x ort-int8
    """
    folder = find_sweep(sweep, out, series=x is None)
    if x is None:
        show_report(folder, as_json=as_json)
        return
    from kdbench.report.render import Screen
    from kdbench.result import Result

    grid, paths = Result(folder).over(x)
    if as_json:
        print_json({"files": {name: str(path) for name, path in paths.items()}})
        return
    console(PAGE_WIDTH).print(Screen(grid))
    sys.stdout.writelines(f"{path}\n" for path in paths.values())


def record(
    sweep: SweepArgument,
    out: OutOption = RESULTS,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of records. [dim](OUT/records)[/dim]")] = None,
    why: WhyOption = "",
) -> None:
    """Copy a finished sweep's tables, figures, spec and every run's numbers to a folder that can be committed.

    Of a series each sweep, below one folder.

    Examples:
        kdbench record fashion-mnist

        kdbench record fashion-mnist --to papers/2026/results

        kdbench record fashion-mnist --why "its students were undertrained"
    """
    from kdbench.sweeps.record import make_record

    folder, records = find_sweep(sweep, out, series=True), (to or out / "records").expanduser()
    if (folder / SPEC_FILE).is_file():
        typer.echo(make_record(folder, records, why))
        return
    from kdbench.report.series import sweeps_in, write_series

    for one in sweeps_in(folder):
        typer.echo(make_record(one, records / folder.name, why))
    write_series(records / folder.name)


def sync(
    sweep: SweepArgument,
    out: OutOption = RESULTS,
    project: Annotated[
        str | None, typer.Option("--wandb-project", metavar="NAME", help="W&B project, if not the one recorded.")
    ] = None,
    entity: Annotated[str | None, typer.Option("--wandb-entity", metavar="NAME", help="W&B user or team.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Send the finished runs to W&B that it does not hold, and check that they arrived.

    Examples:
        kdbench sync digits-resnet50-mobilenetv3-kd --wandb-entity my-team
    """
    # a paper's table has no sweep.json, but runs that were recorded offline all the same
    place = out.expanduser() / sweep
    folder = place if (place / "wandb").is_dir() else find_sweep(sweep, out)
    from kdbench.tracking import sync as upload

    found = upload(folder, entity=entity, project=project)
    if as_json:
        print_json({**asdict(found), "ok": found.ok})
    else:
        sys.stdout.write(f"{found}\n")
    if not found.ok:
        first, why = next(iter(found.failed.items()))
        raise MachineFault(f"{counted(len(found.failed), 'run')} did not arrive, {first} for one: {why}")
