"""What a running sweep tells whoever watches it. No torch, no rich: the command line implements :class:`View`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kdbench.config import EpochLog, Phase, RunConfig, RunResult, Status


@dataclass(frozen=True, kw_only=True)
class TrialEvent:
    """A run that has just started (``status`` None) or ended."""

    phase: Phase
    """Phase it belongs to."""
    trial_id: str
    """The run's ``RunConfig.id``."""
    student: str
    """timm name of the network trained (in the teacher's phase, the teacher)."""
    method: str = "hard"
    """Catalog name of the loss."""
    seed: int = 0
    """Seed of the run."""
    hyper: Mapping[str, float] = field(default_factory=dict)
    """The method's hyper-parameters."""
    epochs: int = 0
    """Epochs to run (at the start), or epochs run (at the end)."""
    attempt: int = 1
    """1 on the first start, 2 after one interruption."""
    status: Status | None = None
    """None at the start; complete, pruned or failed at the end."""
    val_acc: float | None = None
    """Validation accuracy (fraction) after the last epoch."""
    test_acc: float | None = None
    """Test accuracy (fraction); confirm phase only."""
    seconds: float = 0.0
    """Wall-clock seconds of the run."""
    error: str | None = None
    """Why it failed."""


@dataclass(frozen=True, kw_only=True)
class EpochEvent:
    """One epoch of a run that has just ended."""

    phase: Phase
    """Phase of the run."""
    trial_id: str
    """The run's ``RunConfig.id``."""
    student: str
    """timm name of the network trained."""
    epoch: int
    """1-based epoch just finished."""
    epochs: int
    """Epochs of the whole run."""
    val_acc: float
    """Validation accuracy (fraction)."""
    train_loss: float
    """Mean training loss."""
    seconds: float = 0.0
    """Wall-clock seconds of the epoch."""


def trial_event(config: RunConfig, attempt: int = 1, result: RunResult | None = None) -> TrialEvent:
    """The start of a run, or with its result its end."""
    return TrialEvent(
        phase=config.phase,
        trial_id=config.id,
        student=config.model,
        method=config.method,
        seed=config.seed,
        hyper=config.hyper,
        epochs=result.epochs if result else config.recipe.epochs,
        attempt=attempt,
        status=result.status if result else None,
        val_acc=result.val_acc if result else None,
        test_acc=result.test_acc if result else None,
        seconds=result.seconds if result else 0.0,
        error=result.error if result else None,
    )


def epoch_event(config: RunConfig, log: EpochLog) -> EpochEvent:
    """The end of one epoch of a run."""
    return EpochEvent(
        phase=config.phase,
        trial_id=config.id,
        student=config.model,
        epoch=log.epoch,
        epochs=config.recipe.epochs,
        val_acc=log.val_acc,
        train_loss=log.train_loss,
        seconds=log.seconds,
    )


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """Runs of one kind that a sweep would make."""

    phase: Phase
    """Phase they belong to."""
    model: str
    """timm name of the network trained."""
    method: str
    """Catalog name of the loss."""
    runs: int
    """How many."""
    done: int = 0
    """How many of them are there already."""
    epochs: int
    """Epochs of each."""
    params: int = 0
    """Trainable parameters."""
    seconds: float | None = None
    """Estimated wall-clock seconds of the runs still to do, measured on this machine; None: not measured."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What ``kdbench sweep --dry-run`` prints."""

    name: str
    """The sweep."""
    folder: str
    """Where it would write."""
    hardware: str
    """What the estimate was measured on."""
    rows: tuple[PlanRow, ...]
    """In the order of running."""
    workers: int = 1
    """Processes that share the students' runs (the rows' seconds are for one)."""
    notes: tuple[str, ...] = ()
    """Anything else worth reading: the teacher is cached, the bank's size on disk, ..."""

    @property
    def seconds(self) -> float | None:
        """Estimated wall-clock seconds of all that is left, None where any part is unknown."""
        left = [row for row in self.rows if row.runs > row.done]
        if any(row.seconds is None for row in left):
            return None
        # the teacher is prepared before the workers start
        shares = {True: 1, False: self.workers}
        return sum((row.seconds or 0.0) / shares[row.phase == "teacher"] for row in left)


class View(Protocol):
    """Receives what happens, in order. Implementations must be cheap and must never raise."""

    def phase(self, name: str, runs_total: int, runs_done: int) -> None:
        """A phase begins: ``runs_total`` runs, of which ``runs_done`` are there from before."""

    def trial_started(self, event: TrialEvent) -> None:
        """A run begins."""

    def epoch(self, event: EpochEvent) -> None:
        """A run finished an epoch."""

    def trial_finished(self, event: TrialEvent) -> None:
        """A run ended."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Something else that takes long: ``done`` of ``total`` samples, bytes, ... (``total`` 0: unknown)."""

    def note(self, text: str) -> None:
        """One line that a person should read."""

    def close(self) -> None:
        """Nothing more will come; restores the terminal. May be called twice."""


class NullView:
    """Shows nothing: what library callers and tests use."""

    def phase(self, name: str, runs_total: int, runs_done: int) -> None:
        """Ignored."""

    def trial_started(self, event: TrialEvent) -> None:
        """Ignored."""

    def epoch(self, event: EpochEvent) -> None:
        """Ignored."""

    def trial_finished(self, event: TrialEvent) -> None:
        """Ignored."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""

    def close(self) -> None:
        """Ignored."""
