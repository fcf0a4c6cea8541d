"""What a plan asks for: jobs, each one training run, and what is kept of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from kdbench.config import EpochLog, Phase, RunConfig, RunResult

Finished = Mapping[str, RunResult]
"""Results by run id, of any status."""


@dataclass(frozen=True)
class Job:
    """One training run that a plan asks for."""

    config: RunConfig
    teacher: RunConfig | None = None
    """The run whose kept weights guide it."""
    keep: frozenset[Literal["weights", "logits"]] = frozenset()
    """What is written beside the result: the network's weights, its logits on validation and test."""
    task: Literal["train", "test", "also"] = "train"
    """``test``: read the test split with the weights that the run kept, once, in the confirm phase; ``also``: those of
    ``also`` that it has not read."""
    also: tuple[str, ...] = ()
    """Further test sets that are read after training (``kdbench.catalog.shifts.parts_of``)."""
    serves: tuple[RunConfig, ...] = ()
    """Of a teacher: one student's run for each seed whose views it will be asked about."""
    label: str = ""
    """What a paper calls the run; shown instead of network and method where given."""
    study: str = field(default="", compare=False)
    """Key of the Optuna study that asked for it (``search/<student>/<method>``), empty where none did."""
    number: int = field(default=-1, compare=False)
    """Trial number in that study."""

    @property
    def id(self) -> str:
        """The run's id."""
        return self.config.id


class Planned(NamedTuple):
    """Runs of one kind, as a dry run shows them."""

    phase: Phase
    label: str
    """What the runs are called: the network's name, or a paper's name for the run."""
    example: RunConfig
    """One of them (searched values may be missing)."""
    teacher: RunConfig | None
    runs: int
    done: int


class Plan(Protocol):
    """Which runs there are: a pure function of the results so far, asked again after every one of them."""

    name: str
    """Folder under ``--out``, and W&B group."""

    @property
    def passes(self) -> int:
        """Epochs of distinct views that a teacher is asked about; 0: by each run on its own."""

    def jobs(self, finished: Finished) -> Iterable[Job]:
        """Jobs that are known and possible by now and not finished, in the order of running.

        A job stays in the list while it runs. One whose teacher has no result yet is left out.
        """

    def kind(self, config: RunConfig) -> Hashable:
        """What ``planned`` counts a run by."""

    def planned(self, done: Mapping[Hashable, int]) -> list[Planned]:
        """All runs that are foreseen, in the order of running; ``done``: how many of each kind are finished."""

    def epoch(self, job: Job, log: EpochLog) -> bool:
        """An epoch of a job ended; True ends the run here (pruned)."""

    def ended(self, job: Job, result: RunResult) -> None:
        """A job ended."""

    def spec(self) -> dict[str, Any]:
        """What manifest.json says was asked for."""
