"""``kdbench version``."""

from __future__ import annotations

import sys

import typer

from kdbench import __version__


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("version")(version)


def version() -> None:
    """Print kdbench's version (`kdbench doctor` prints everything's)."""
    sys.stdout.write(f"kdbench {__version__}\n")
