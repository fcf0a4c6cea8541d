"""``kdbench leaderboard``: merge sweeps and members' results into one table, publish it to W&B, pull runs back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kdbench.cli.common import PAGE_WIDTH, console, print_json
from kdbench.cli.options import RESULTS, JsonFlag
from kdbench.run.words import counted

_SHOW = "show"
PathsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RESULTS",
        help="Folders of sweeps, records or pulled rows, or folders above them; NAME=FOLDER says who ran them. "
        "[dim](results)[/dim]",
        show_default=False,
    ),
]
ProjectOption = Annotated[str, typer.Option(metavar="NAME", help="W&B project.")]
EntityOption = Annotated[str | None, typer.Option(metavar="NAME", help="W&B user or team. [dim](the key's own)[/dim]")]


class _ShowByDefault(TyperGroup):
    """``kdbench leaderboard results`` is ``kdbench leaderboard show results``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [_SHOW, *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the verb and its own verbs to ``app``."""
    group = typer.Typer(
        cls=_ShowByDefault, help=_HELP, subcommand_metavar="[RESULTS... | check | publish | pull] [OPTIONS]"
    )
    group.command(_SHOW)(show)
    group.command("check")(check)
    group.command("publish")(publish)
    group.command("pull")(pull)
    app.add_typer(group, name="leaderboard", rich_help_panel=None)


_HELP = """Merge any number of sweeps and members' results into one table: accuracy with its interval, gain, verdict,
    Pareto front, who ran it. Every run counts once; different protocols are not ranked against each other.

    Examples:
        kdbench leaderboard results --out results/leaderboard

        kdbench leaderboard results alice=members/alice bob=members/bob

        kdbench leaderboard check members/bob/fashion-mnist

        kdbench leaderboard publish --entity my-team --project kd

        kdbench leaderboard pull --entity my-team --project kd
    """


_X = "What fronts are over: macs, latency_ms, file_mb, ort-int8, ... (`kdbench report --x`). [dim](params)[/dim]"


def show(
    results: PathsArgument = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for leaderboard.md, .html and .csv.")] = None,
    x: Annotated[str | None, typer.Option("--x", metavar="COST", help=_X)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print the leaderboard of all sweeps in and below RESULTS (what `kdbench leaderboard RESULTS` does).

    Examples:
        kdbench leaderboard results --out results/leaderboard

        kdbench leaderboard results alice=members/alice bob=members/bob

        kdbench leaderboard results --x ort-int8
    """
    from kdbench.board.costs import costs_of
    from kdbench.board.leaderboard import leaderboard
    from kdbench.board.pages import records, screen, write
    from kdbench.board.submissions import read

    found = read(results or [RESULTS])
    board = leaderboard(found) if x is None else leaderboard(found, *costs_of(found, x))
    paths = write(board, out) if out is not None else {}
    if as_json:
        print_json({"rows": records(board), "protocols": board.protocols, "notes": board.notes, "files": paths})
        return
    page = console(PAGE_WIDTH)
    page.print(screen(board))
    if paths:
        page.print(f"\nLeaderboard: {paths['leaderboard.html']}", soft_wrap=True)


def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A sweep's folder or a record.", show_default=False)],
    as_json: JsonFlag = False,
) -> None:
    """Recompute a submission from its runs: ids, results, tables. Exit 1 and what differs, where something does.

    Examples:
        kdbench leaderboard check results/records/fashion-mnist
    """
    from kdbench.board.check import check as examine

    runs, faults = examine(folder)
    if as_json:
        print_json({"runs": runs, "faults": faults, "ok": not faults})
    else:
        sys.stdout.write(
            "".join(f"{fault}\n" for fault in faults)
            or f"consistent: ids, results and tables are those of {counted(runs, 'run')}; nothing was trained again\n"
        )
    if faults:
        raise typer.Exit(1)


def publish(
    results: PathsArgument = None,
    project: ProjectOption = "kdbench",
    entity: EntityOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Put the leaderboard of RESULTS in W&B: a table, an artifact, a report and a saved view.

    Publishing again updates them; nothing is made twice.

    Examples:
        kdbench leaderboard publish --entity my-team --project kd

        kdbench leaderboard publish results members/alice --entity my-team --project kd
    """
    from kdbench.board.leaderboard import leaderboard
    from kdbench.board.publish import publish as send
    from kdbench.board.submissions import read

    done = send(leaderboard(read(results or [RESULTS])), entity=entity, project=project)
    if as_json:
        print_json(done._asdict())
    else:
        sys.stdout.write(f"{done}\n")


def pull(
    project: ProjectOption = "kdbench",
    entity: EntityOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for what is pulled.", show_default=True)] = RESULTS
    / "pulled",
    as_json: JsonFlag = False,
) -> None:
    """Bring a team's runs back from W&B, into a folder that `kdbench leaderboard` reads.

    Examples:
        kdbench leaderboard pull --entity my-team --project kd

        kdbench leaderboard results        # then: local and pulled rows, every run once
    """
    from kdbench.board.pull import pull as fetch

    done = fetch(entity=entity, project=project, out=out)
    if as_json:
        print_json(done._asdict())
    else:
        sys.stdout.write(f"{done}\n")
