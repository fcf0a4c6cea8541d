"""Several runs side by side in one process, a step each in turn; each computes what it computes alone.

Runs of one seed ask for the same batches, which are then rendered once, and for the same teacher's logits. On a
GPU every run has a stream of its own, so that small networks overlap.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import nullcontext
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from kdbench.data import ResidentSplit, Split
from kdbench.host import PACK_VARIABLE, whole_number

PATIENCE = 1.0
"""Seconds between looks for another run while a place is free."""

Result = TypeVar("Result")
Turns: TypeAlias = Generator[int, None, Result]
"""Work that yields after every step (the number of its images), and returns what it made."""


def pack_size() -> int:
    """Runs that go on side by side in this process.

    Raises:
        BadInput: when the variable is not a whole number of at least 1.
    """
    return whole_number(PACK_VARIABLE) or 1


def share_batches(split: Split) -> None:
    """Let the runs of this process that ask for the same batches take them from each other."""
    if isinstance(split, ResidentSplit):
        split.share = pack_size() if pack_size() > 1 else 0


def finish(run: Turns[Result]) -> Result:
    """What a run returns, all of its steps taken here and now."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            result: Result = end.value
            return result


class Pack:
    """Runs in progress. Noise (dropout, stochastic depth) is drawn from a state that each run keeps for itself."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._places = pack_size()
        self._members: list[_Member] = []
        self._holder: _Member | None = None

    def __len__(self) -> int:
        return len(self._members)

    @property
    def full(self) -> bool:
        """Whether every place is taken."""
        return len(self) >= self._places

    def add(self, run: Turns[Any]) -> None:
        """Let a run take part: it takes its first step now, so that runs begun together stay in step."""
        self._members.append(_Member(run, self._device, streams=self._places > 1))
        self._step(self._members[-1])

    def advance(self) -> None:
        """Turns until a run ends; while a place is free, for a second at most."""
        members, until = len(self), time.monotonic() + PATIENCE
        while len(self) == members and (self.full or time.monotonic() < until):
            self.turn()

    def turn(self) -> int:
        """One step of every run; the number of their images. Those that end leave.

        Raises:
            Exception: what a run raised; it has left, the others can go on.
        """
        return sum([self._step(member) for member in list(self._members)])

    def _step(self, member: _Member) -> int:
        self._hand_over(member)
        try:
            return member.step()
        except StopIteration:
            self._leave(member)
            return 0
        except BaseException:
            self._leave(member)
            raise

    def close(self) -> None:
        """Stop what is still going on: each run sees ``GeneratorExit``."""
        while self._members:
            member = self._members[-1]
            self._leave(member)
            member.run.close()

    def _hand_over(self, member: _Member) -> None:
        """Put away the random state of the run that had the turn, and bring this one's back."""
        if self._holder is member:
            return
        if self._holder is not None:
            self._holder.noise = _noise(self._device)
        if member.noise is not None:
            _set_noise(self._device, member.noise)
        self._holder = member

    def _leave(self, member: _Member) -> None:
        self._members.remove(member)
        if self._holder is member:
            self._holder = None


class _Member:
    """A run, its stream on a GPU, and its random state while others have the turn."""

    def __init__(self, run: Turns[Any], device: torch.device, *, streams: bool) -> None:
        self.run = run
        self.noise: tuple[Tensor, ...] | None = None
        self._stream = torch.cuda.Stream(device) if streams and device.type == "cuda" else None
        if self._stream is not None:  # what is on the device already was put there by the usual stream
            self._stream.wait_stream(torch.cuda.default_stream(device))

    def step(self) -> int:
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            return next(self.run)


def _noise(device: torch.device) -> tuple[Tensor, ...]:
    states = (torch.get_rng_state(),)
    return (*states, torch.cuda.get_rng_state(device)) if device.type == "cuda" else states


def _set_noise(device: torch.device, states: tuple[Tensor, ...]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
