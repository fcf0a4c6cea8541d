"""Leaderboards: rows out of any number of sweeps and members' folders, as files and in W&B.

- ``read``: find submissions (sweeps' folders, records, pulled rows) below any folders.
- ``leaderboard``: merge them into rows, every run counted once, protocols kept apart.
- ``write``, ``screen``, ``records``: as Markdown, HTML and CSV files, on a terminal, as flat records.
- ``publish``, ``pull``: to W&B (Table, artifact, report, view), and a team's runs back from it.

Importing this package imports neither torch nor wandb; names load what they need on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdbench.board._board import Board, Row
    from kdbench.board._cells import records
    from kdbench.board._publish import Published, publish
    from kdbench.board._pull import Pulled, pull
    from kdbench.board._render import screen, write
    from kdbench.board._rows import leaderboard
    from kdbench.board._sources import Submission, read

_HOMES = {
    "Board": "_board",
    "Published": "_publish",
    "Pulled": "_pull",
    "Row": "_board",
    "Submission": "_sources",
    "leaderboard": "_rows",
    "publish": "_publish",
    "pull": "_pull",
    "read": "_sources",
    "records": "_cells",
    "screen": "_render",
    "write": "_render",
}

__all__ = [
    "Board",
    "Published",
    "Pulled",
    "Row",
    "Submission",
    "leaderboard",
    "publish",
    "pull",
    "read",
    "records",
    "screen",
    "write",
]


def __getattr__(name: str) -> object:
    """The public name ``name``, from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
