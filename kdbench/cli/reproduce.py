"""``kdbench reproduce``: a paper's table, published beside ours."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from kdbench.api import tracked
from kdbench.cli.common import PAGE_WIDTH, console, show_plan
from kdbench.cli.sweep import DeviceOption, EntityOption, ExecutorOption, ProjectOption, WandbOption
from kdbench.errors import KdbenchError
from kdbench.papers.load import load_paper
from kdbench.papers.plan import Protocol, Request
from kdbench.run.watch import make_observer
from kdbench.sweeps.options import merge, run_options

DAY = 24.0


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("reproduce")(reproduce)


def reproduce(
    ctx: typer.Context,
    paper: Annotated[str, typer.Argument(metavar="PAPER", help="An id of `kdbench ls papers`, or a YAML file.")],
    rows: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only rows whose id matches; may be repeated.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each kind. [dim](the file's)[/dim]")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many epochs, for rehearsals.")] = None,
    limit: Annotated[int | None, typer.Option(min=20, help="At most so many training samples, likewise.")] = None,
    max_hours: Annotated[float, typer.Option(help="Refuse to start what would take longer here.")] = DAY,
    out: Annotated[Path | None, typer.Option(help="Folder with one folder per paper. [dim](results)[/dim]")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of teachers' logits. [dim](~/.cache/kdbench)[/dim]")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N|auto", help="Processes that train. [dim](auto, one a core)[/dim]")
    ] = None,
    executor: ExecutorOption = None,
    device: DeviceOption = None,
    wandb: WandbOption = None,
    wandb_project: ProjectOption = None,
    wandb_entity: EntityOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print runs, hours here and what is missing; run nothing.")
    ] = False,
    table_only: Annotated[
        bool, typer.Option("--table", help="Print the table as far as it goes; run nothing.")
    ] = False,
    record: Annotated[bool, typer.Option("--record", help="Copy table, figures and runs to OUT/records.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line on stdout.")] = False,
) -> None:
    """Run what a published table lacks, and print the paper's numbers beside ours.

    The same command again runs nothing that is there already, and prints the same table.

    Examples:
        kdbench reproduce hinton2015-mnist --dry-run

        kdbench reproduce hinton2015-mnist --rows teacher --rows 'student-*' --seeds 3

        kdbench reproduce cifar100-crd --dry-run
    """
    request = Request(rows=tuple(rows or ()), seeds=seeds, epochs=epochs, limit=limit)
    protocol = Protocol(load_paper(paper), request)
    flags = {"out": out, "cache": cache, "workers": workers, "executor": executor, "device": device}
    flags |= {"wandb": wandb, "wandb-project": wandb_project, "wandb-entity": wandb_entity}
    run = run_options(merge(None, [], flags))
    _ = protocol.cells
    observer = make_observer(quiet=quiet, as_json=as_json and not dry_run)
    refused = None
    try:
        from kdbench.papers.paper_plan import plan_paper, run_paper

        if dry_run:
            planned = plan_paper(protocol, run, observer)
        elif not table_only:
            command = shlex.join(["kdbench", *(ctx.obj or [])])
            tracking = tracked(run.out / protocol.name, protocol.name, run.wandb, observer)
            try:
                run_paper(protocol, run, observer, max_hours=max_hours, command=command, tracking=tracking)
            except KdbenchError as error:  # what there is, is shown all the same
                refused = error
    finally:
        observer.close()
    if dry_run:
        show_plan(planned, as_json=as_json)
        return
    folder = run.out / protocol.name
    _show_table(protocol, folder, "" if refused is None else str(refused), as_json=as_json)
    if refused is not None:
        raise refused
    if record:
        from kdbench.papers.record import make_record

        typer.echo(make_record(protocol, folder, run.out / "records"), err=as_json)


def _show_table(protocol: Protocol, folder: Path, reason: str, *, as_json: bool) -> None:
    """Write the table's files; print it, or its rows as JSON."""
    from kdbench.papers.outcome import write_report

    page = write_report(protocol, folder, reason)
    if as_json:
        line = {"event": "table", **page.as_json()}
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        return
    console(PAGE_WIDTH).print(page)
