"""Who watches: the terminal, JSON lines, W&B and the mirror of the Optuna study all implement one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kdbench.config import EpochLog, Phase, RunConfig, RunResult
from kdbench.files import identify


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the whole is."""

    phases: dict[Phase, tuple[int, int]] = field(default_factory=dict)
    """(ended, planned) runs by phase, in the order of running."""
    seconds_left: float | None = None
    """Estimated wall-clock seconds of all that is left; None while nothing is known."""


class Observer(Protocol):
    """Told what happens, in order, in the coordinator's process. Must be cheap and must never raise."""

    def progress(self, state: Progress) -> None:
        """At the start, and after every run that ended."""

    def start(self, config: RunConfig, attempt: int, label: str) -> None:
        """A run begins (attempt 1), or begins again after an interruption (2, ...)."""

    def epoch(self, config: RunConfig, log: EpochLog, again: bool = False) -> None:
        """A run finished an epoch, or did so before this start (``again``): W&B's new record holds it too."""

    def end(self, config: RunConfig, result: RunResult) -> None:
        """A run ended: complete, pruned or failed. A teacher ends twice: the second time with its test accuracy."""

    def message(self, text: str, done: int = 0, total: int = 0) -> None:
        """One line for a person; with ``total``, ``done`` of it: long work that is no run."""

    def close(self) -> None:
        """Nothing more will come. May be called twice."""


def wandb_id(run_id: str, name: str, attempt: int) -> str:
    """``<run id>-<attempt>-<4 digits of the plan's name>``: what W&B calls an attempt at a run.

    The plan is in it because two plans may hold the same run, and within a W&B project ids are unique for ever.
    """
    return f"{run_id}-{attempt}-{identify(name)[:4]}"


class Observers:
    """Several observers as one."""

    def __init__(self, members: Sequence[Observer] = ()) -> None:
        self.members = list(members)

    def progress(self, state: Progress) -> None:
        for member in self.members:
            member.progress(state)

    def start(self, config: RunConfig, attempt: int, label: str = "") -> None:
        for member in self.members:
            member.start(config, attempt, label)

    def epoch(self, config: RunConfig, log: EpochLog, again: bool = False) -> None:
        for member in self.members:
            member.epoch(config, log, again)

    def end(self, config: RunConfig, result: RunResult) -> None:
        for member in self.members:
            member.end(config, result)

    def message(self, text: str, done: int = 0, total: int = 0) -> None:
        for member in self.members:
            member.message(text, done, total)

    def close(self) -> None:
        for member in self.members:
            member.close()
