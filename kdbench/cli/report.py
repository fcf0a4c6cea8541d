"""``kdbench report``: tables and pictures again from what is stored."""

from __future__ import annotations

import typer

from kdbench.cli.common import RESULTS, JsonFlag, OutOption, SweepArgument, find_sweep, show_report


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("report")(report)


def report(sweep: SweepArgument, out: OutOption = RESULTS, as_json: JsonFlag = False) -> None:
    """Write a sweep's (or a record's) tables, figures and HTML page again from its runs, and print the table.

    Examples:
        kdbench report digits-resnet50-mobilenetv3-kd

        kdbench report results/records/fashion-mnist
    """
    show_report(find_sweep(sweep, out), as_json=as_json)
