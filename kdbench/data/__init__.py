"""Data sets as the engine sees them: sources of bytes, cuts, deterministic views, batches.

``places`` finds and fetches files; ``readers``, ``folders`` and ``hub`` make samples of them, ``sources`` by name;
``samples`` cuts and fits, ``views`` and ``augment`` augment, ``splits`` makes batches; ``task.load`` puts all
together. The names below are loaded when first used: looking for files (``kdbench doctor``) needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdbench.data.sources import describe_source, resolve_dataset
    from kdbench.data.splits import Batch, ResidentSplit, Split, StreamSplit
    from kdbench.data.task import TaskData, load
    from kdbench.data.views import Augment, Look, augment_for

__all__ = [
    "Augment", "Batch", "Look", "ResidentSplit", "Split", "StreamSplit", "TaskData", "augment_for", "describe_source",
    "load", "resolve_dataset",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    homes = ("sources", "views", "splits", "task")  # the first needs no torch
    if name in __all__:
        for home in homes:
            if hasattr(module := import_module(f"{__name__}.{home}"), name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
