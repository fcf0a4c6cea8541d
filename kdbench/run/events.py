"""What a worker tells the coordinator of a job, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.config import EpochLog, RunResult


@dataclass(frozen=True)
class Started:
    """A run begins, or begins again."""

    id: str
    attempt: int


@dataclass(frozen=True)
class Epoch:
    """An epoch ended (after an interruption, those before it once more); the answer True ends the run here."""

    id: str
    log: EpochLog
    again: bool = False
    """From before this start."""


@dataclass(frozen=True)
class Note:
    """A line for a person, or with ``total`` how far long work is."""

    text: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Ended:
    """The run has its result, in its folder already."""

    id: str
    result: RunResult


@dataclass(frozen=True)
class Broken:
    """The job could not be done: its worker died, or something was raised that is no outcome of a run."""

    id: str
    error: Exception
    died: bool = False
    """Whether the worker is gone: then the job is tried again."""


Event = Started | Epoch | Note | Ended | Broken
Handle = Callable[[Event], bool]
"""Takes an event; the answer matters to an ``Epoch`` alone."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and with what jobs run; the same for every worker of a plan, and part of no run's identity."""

    folder: Path
    """The plan's folder."""
    cache: Path
    """Folder of the teachers and their logits."""
    device: str = "auto"
    threads: int = 1
    """CPU threads of each worker."""
    cores: int = 1
    """CPU threads of a job that has the machine for itself."""
    exact: bool = False
    """PyTorch's own path alone."""
    data_path: str | None = None
    """``folder:/path`` of a user's own images on this machine."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where given weights are, by what identifies them."""
    passes: int = 0
    """Epochs of views that the plan's students see; 0: those of each run alone."""
    runs: dict[str, int] | None = None
    """Planned runs by network, where the form of their steps may be measured."""
    gpus_per_run: int = 1
    """Processes that train one run together, a device each."""
    worker: int = 0
    """Which of this machine's workers it is for, from 0."""
    rank: int = 0
    """Which of a run's processes."""
    tracked: str | None = None
    """The plan's name where W&B records its runs: part of their ids there."""
