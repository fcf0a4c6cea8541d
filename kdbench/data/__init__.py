"""Data sets as the engine sees them: sources of bytes, cuts, deterministic views, batches.

``places``, ``idx``, ``cifar``, ``folders``, ``hub`` and ``sources`` find and check bytes; ``splits`` cuts lists of
labels; ``views`` is the augmentation; ``resident`` and ``stream`` are the two kinds of split; ``task.load`` puts them
together. The names below are loaded when first used: looking for files (``kdbench doctor``) needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdbench.data.base import Batch as Batch
    from kdbench.data.base import Split as Split
    from kdbench.data.resident import ResidentSplit as ResidentSplit
    from kdbench.data.resolve import describe_source as describe_source
    from kdbench.data.resolve import resolve_dataset as resolve_dataset
    from kdbench.data.stream import StreamSplit as StreamSplit
    from kdbench.data.task import TaskData as TaskData
    from kdbench.data.task import load as load
    from kdbench.data.views import Augment as Augment
    from kdbench.data.views import augment_for as augment_for

_HOME = {
    "Batch": "base",
    "Split": "base",
    "ResidentSplit": "resident",
    "StreamSplit": "stream",
    "describe_source": "resolve",
    "resolve_dataset": "resolve",
    "TaskData": "task",
    "load": "task",
    "Augment": "views",
    "augment_for": "views",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
