"""``kdbench bench``: the benchmark programs of a clone, ``experiments/bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer

import kdbench
from kdbench.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("bench", context_settings=anything)(bench)


def bench(ctx: typer.Context) -> None:
    """Measure trials and sweeps beside other distillation loops: `python experiments/bench/run.py` of a clone.

    Examples:
        kdbench bench --help

        kdbench bench --pair resnet50:resnet18 --rounds 3 --no-compile
    """
    program = Path(kdbench.__file__).parent.parent / "experiments" / "bench" / "run.py"
    if not program.is_file():
        raise BadInput("the benchmark is not part of an installed package: run experiments/bench/run.py of a clone")
    code = subprocess.run([sys.executable, str(program), *ctx.args], check=False).returncode
    if code:
        raise typer.Exit(code)
