"""``kdbench sweep`` and ``kdbench reproduce``: run, or go on with, a sweep or a paper's table."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Any

import typer

from kdbench import __version__
from kdbench.api import plan_sweep, run_sweep, tracked
from kdbench.cli.common import PAGE_WIDTH, console, print_json, show_plan, show_plans, show_report
from kdbench.cli.options import LinesFlag, QuietFlag, WhyOption, options_of
from kdbench.errors import KdbenchError
from kdbench.papers.load import load_paper
from kdbench.papers.plan import Protocol, Request
from kdbench.run.launch import WHERE, RunOptions
from kdbench.run.watch import make_observer
from kdbench.series import plan_series, run_series
from kdbench.sweeps.config import SweepConfig
from kdbench.sweeps.overrides import read_run_options
from kdbench.sweeps.series import Sweeps, read_sweeps

DryFlag = Annotated[bool, typer.Option("--dry-run", metavar="", help="Print the plan and an estimate; run nothing.")]


def _say_so(quiet: bool, as_json: bool) -> None:
    """A word before torch and timm are imported, which takes seconds."""
    if not (quiet or as_json):
        sys.stderr.write(f"kdbench {__version__}: reading the plan ...\n")


@options_of(SweepConfig)
def sweep(
    ctx: typer.Context,
    *,
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="YAML file, or the name of one in experiments/.", rich_help_panel=WHERE),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of such a file, after it.", rich_help_panel=WHERE),
    ] = None,
    dry_run: DryFlag = False,
    quiet: QuietFlag = False,
    as_json: LinesFlag = False,
    **flags: Any,
) -> None:
    r"""Train a teacher, search each student size, confirm the winners on fresh seeds, report.

    The same command again goes on where it stopped; finished runs are never repeated.

    Examples:
        kdbench sweep --pair resnet50:mobilenetv3

        kdbench sweep --pair resnet50:mobilenetv3 --dataset fashion-mnist \
            --budget standard --seeds 5

        kdbench sweep --pair resnet50:mobilenetv3_small_050,resnet18 \
            --temperature 1,2,4,8 --alpha 0.5..1

        kdbench sweep --config quick --set budget.trials=4 --dry-run

        kdbench sweep --pair resnet50:resnet18 --pair resnet50+resnet34:resnet18 \
            --pair 'resnet50>resnet34:resnet18'

        kdbench sweep --pair resnet50:resnet18 --epochs 5,15,50
    """
    asked = read_sweeps(config, set_ or [], flags)
    _say_so(quiet, as_json)
    observer, failed = make_observer(quiet=quiet, as_json=as_json and not dry_run), None
    try:
        if dry_run:
            plans = plan_series(asked, observer) if isinstance(asked, Sweeps) else [plan_sweep(asked, observer)]
        elif isinstance(asked, Sweeps):
            folder, failed = asked.folder, run_series(asked, observer)
        else:
            folder = run_sweep(asked, observer, shlex.join(["kdbench", *(ctx.obj or [])]))
    finally:
        observer.close()
    if not dry_run:
        show_report(folder, as_json=as_json)
    elif isinstance(asked, Sweeps):
        show_plans(plans, as_json=as_json)
    else:
        show_plan(plans[0], as_json=as_json)
    if failed is not None:  # what there is, is shown all the same
        raise failed


@options_of(RunOptions, but=("storage",))
def reproduce(
    ctx: typer.Context,
    *,
    paper: Annotated[str, typer.Argument(metavar="PAPER", help="An id of `kdbench ls papers`, or a YAML file.")],
    rows: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only rows whose id matches; may be repeated.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Runs of each kind. [dim](the file's)[/dim]")
    ] = None,
    first_seed: Annotated[
        int | None, typer.Option(min=0, max=2**31, metavar="N", help="Seed of the first run: others replicate.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many epochs, for rehearsals.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=20, metavar="N", help="At most so many training samples, likewise.")
    ] = None,
    max_hours: Annotated[float, typer.Option(metavar="X", help="Refuse to start what would take longer here.")] = 24.0,
    table_only: Annotated[
        bool, typer.Option("--table", metavar="", help="Print the table as far as it goes; run nothing.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", metavar="", help="Copy table, figures and runs to OUT/records.")
    ] = False,
    why: WhyOption = "",
    dry_run: DryFlag = False,
    quiet: QuietFlag = False,
    as_json: LinesFlag = False,
    **flags: Any,
) -> None:
    """Run what a published table lacks, and print the paper's numbers beside ours.

    The same command again runs nothing that is there already, and prints the same table.

    Examples:
        kdbench reproduce hinton2015-mnist --dry-run

        kdbench reproduce hinton2015-mnist --rows teacher --rows 'student-*'

        kdbench reproduce cifar100-crd --dry-run
    """
    request = Request(rows=tuple(rows or ()), seeds=seeds, first_seed=first_seed, epochs=epochs, limit=limit)
    protocol, run = Protocol(load_paper(paper), request), read_run_options(flags)
    folder, _ = run.out / protocol.name, protocol.cells
    if not table_only:
        _say_so(quiet, as_json)
    observer = make_observer(quiet=quiet, as_json=as_json and not dry_run)
    refused = None
    try:
        from kdbench.papers.paper_plan import plan_paper, run_paper

        if dry_run:
            planned = plan_paper(protocol, run, observer)
        elif not table_only:
            command = shlex.join(["kdbench", *(ctx.obj or [])])
            tracking = tracked(folder, protocol.name, run.tracking, observer)
            try:
                run_paper(protocol, run, observer, max_hours=max_hours, command=command, tracking=tracking)
            except KdbenchError as error:  # what there is, is shown all the same
                refused = error
    finally:
        observer.close()
    if dry_run:
        show_plan(planned, as_json=as_json)
        return
    from kdbench.papers.outcome import write_report

    page = write_report(protocol, folder, "" if refused is None else str(refused))
    if as_json:
        print_json({"event": "table", **page.as_json()}, line=True)
    else:
        console(PAGE_WIDTH).print(page)
    if refused is not None:
        raise refused
    if record:
        from kdbench.sweeps.record import copy_record

        ids = [job.config.id for job in protocol.jobs]
        typer.echo(copy_record(folder, run.out / "records" / protocol.name, ids, why), err=as_json)
