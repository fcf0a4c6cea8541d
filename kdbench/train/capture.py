"""A training step recorded once as a CUDA graph and replayed: the same kernels, without launching each anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.config import RunConfig
from kdbench.methods import METHODS, BatchInfo, Outputs
from kdbench.train.optim import FUSED

EAGER = 2
"""Calls before one is recorded: they make what is made once (momenta, a library's workspaces)."""


class Recorded:
    """``step(*tensors) -> tensor``, replayed from its third call on with the later calls' values.

    Every call is a real step; shapes must stay. Recording follows PyTorch's "CUDA graphs: whole-network capture": the
    calls before it run on a stream of their own. A step that cannot be recorded (one that reads a value back) goes on
    as it is: ``fault`` then says why.
    """

    def __init__(self, step: Callable[..., Tensor]) -> None:
        self._step, self._calls = step, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: list[Tensor] = []
        self._found: Tensor | None = None
        self.fault: str | None = None

    def __call__(self, *given: Tensor) -> Tensor:
        with torch.cuda.device(given[0].device):  # streams and graphs are the current device's
            return self._run(given)

    def _run(self, given: tuple[Tensor, ...]) -> Tensor:
        self._calls += 1
        self._given = self._given or [value.clone() for value in given]  # laid out alike in every call
        for own, value in zip(self._given, given, strict=True):
            own.copy_(value)
        if self.fault is None and self._calls == EAGER + 1:
            self._record()
        if self._graph is None:
            return self._aside() if self.fault is None else self._step(*self._given)
        self._graph.replay()
        assert self._found is not None
        return self._found.clone()

    def _aside(self) -> Tensor:
        stream, main = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            found = self._step(*self._given)
        main.wait_stream(stream)
        return found

    def _record(self) -> None:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        noise = torch.cuda.default_generators[torch.cuda.current_device()]
        before = noise.clone_state()
        try:
            # a data loader's thread may pin memory meanwhile, which the default would take for a fault
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._found = self._step(*self._given)
        except RuntimeError as error:
            self.fault = str(error.__context__ or error).splitlines()[0]
            torch.cuda.set_stream(stream)  # a graph that fails leaves its own, and a generator that waits for its end
            noise.graphsafe_set_state(before)
        else:
            self._graph = graph


def recordable(config: RunConfig) -> bool:
    """Whether a run's step is one that a graph can hold: not a plug-in's, which may keep state that a replay misses."""
    parts, recipe = [METHODS.get(part) for part in config.method.split("+")], config.recipe
    own = all(getattr(part.code, "__module__", "").startswith("kdbench.") for part in parts)
    whole = all(not {"views", "halves"} & part.needs and not part.momenta for part in parts)
    mixing = recipe.mixup or recipe.cutmix
    return own and whole and recipe.optimizer in FUSED and recipe.accumulate == 1 and not mixing


class Place(BatchInfo):
    """One that knows whether its epoch was read: what is recorded then holds for that epoch alone."""

    timely = False

    def __getattribute__(self, name: str) -> Any:
        if name == "epoch":
            object.__setattr__(self, "timely", True)
        return super().__getattribute__(name)


def tensors_of(said: Outputs | None) -> list[Tensor]:
    """What it is made of, in order."""
    return [] if said is None else [said.logits, *([] if said.pooled is None else [said.pooled]), *said.maps.values()]


def like(one: Outputs | None, tensors: Sequence[Tensor]) -> Outputs | None:
    """The ``tensors`` in the form of ``one``."""
    if one is None:
        return None
    logits, *rest = tensors
    pooled = None if one.pooled is None else rest.pop(0)
    return Outputs(logits, pooled, dict(zip(one.maps, rest, strict=True)))
