"""kdbench: which small student keeps how much of a teacher's accuracy, and is the gain bigger than the noise?

``python -m kdbench`` is the command line (:mod:`kdbench.cli`); from Python, ``kdbench.sweep``, ``load``, ``reproduce``
and ``leaderboard`` (:mod:`kdbench.api`). Importing this package imports nothing else until one of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdbench.api import leaderboard, load, reproduce, sweep
    from kdbench.result import Result

__version__ = "0.2.0.dev0"

__all__ = ["Result", "__version__", "leaderboard", "load", "reproduce", "sweep"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from kdbench import api

        # the functions must not be hidden by subpackages of their names (kdbench.sweep) that are imported later
        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
