"""What a leaderboard is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kdbench.board._protocol import Protocol
from kdbench.config import Hyper
from kdbench.report._cells import Row as Words


class Latency(NamedTuple):
    """Milliseconds of one batch-1 forward, and what it was measured on."""

    ms: float
    hardware: str


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard; accuracies and gains are fractions, NaN where unknown."""

    dataset: str
    protocol: str
    """Letter within the data set."""
    rank: int
    """1 is the highest mean test accuracy among the rows of the same data set and protocol."""
    teacher: str
    student: str
    method: str
    hyper: Hyper
    params: float
    macs: float
    latency: tuple[Latency, ...]
    """One entry a hardware it was measured on."""
    test_acc: float
    test_acc_lo: float
    test_acc_hi: float
    gain: float
    gain_lo: float
    gain_hi: float
    p_holm: float
    on_front: bool
    p_on_front: float
    teacher_acc: float
    by: tuple[str, ...]
    when: str
    """Day of the latest of its sweeps, ``2026-11-22``, or empty."""
    sweeps: tuple[str, ...]
    scores: Mapping[int, float]
    """Test accuracy by seed."""
    trial_ids: Mapping[int, str]
    wandb_runs: Mapping[int, str]
    """W&B run by seed, where there is one."""
    words: Words
    """The numbers as a person reads them, and the verdict on the gain (of no meaning for hard labels)."""

    @property
    def place(self) -> str:
        """``A1``: protocol and rank."""
        return f"{self.protocol}{self.rank}"


@dataclass(frozen=True)
class Board:
    """A whole leaderboard."""

    rows: tuple[Row, ...]
    """By data set, protocol, rank."""
    protocols: Mapping[str, Mapping[str, Protocol]]
    """By data set and letter."""
    notes: tuple[str, ...]
    """One sentence for each thing that was left out or reconciled."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets by name."""
        return tuple(self.protocols)
