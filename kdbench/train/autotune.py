"""Short measurements, remembered: which form of a step is faster here, how long one takes. No part of an identity."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from filelock import FileLock

from kdbench.files import atomic_text
from kdbench.host import processor
from kdbench.models import build
from kdbench.train.step import Step, draws_noise, prepare, usual_step

WORTH_IT = 1.15
"""Our kernels are given up only where PyTorch's are faster by more than this."""
LONG = 120.0
"""Seconds of planned training below which no form of the step is worth a measurement: the usual one is taken."""
COMPILE_COST = 90.0
"""Seconds that compiling one network's step may take, several times over, before it pays."""
COMPILE_GAIN = 1.05
"""Least speed-up for which a step is compiled."""


class Shape(NamedTuple):
    """One network as it is trained: all that its speed depends on beside the machine."""

    name: str
    classes: int
    channels: int
    input_size: int
    stem: str
    batch_size: int
    device: torch.device

    @property
    def key(self) -> str:
        """Names the measurement in the cache, machine and threads included."""
        machine = processor() if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)
        shape = f"{self.classes}x{self.channels}x{self.input_size}-{self.stem}-b{self.batch_size}"
        return f"{self.name}|{shape}|{self.device.type}|{machine}|{torch.get_num_threads()}|torch {torch.__version__}"


def seconds_per_step(shape: Shape, *, precision: str = "fp32", repeats: int = 3) -> float:
    """Median seconds of one training step of a network on random data, after a warm-up."""
    once = _stepper(shape, precision, Step())
    _timed(once)
    return statistics.median(_timed(once) for _ in range(repeats))


def compare(shape: Shape, ways: Mapping[str, tuple[str, Step]], rounds: int = 5) -> dict[str, float]:
    """Seconds of a training step in each of the named (precision, form) ways: the least of alternating rounds.

    Alternating and least, because whatever else runs on the machine would otherwise decide between them.
    """
    steppers = {name: _stepper(shape, *way) for name, way in ways.items()}
    for once in steppers.values():
        _timed(once)
    table = [{name: _timed(once) for name, once in steppers.items()} for _ in range(rounds)]
    return {name: min(row[name] for row in table) for name in ways}


def _timed(once: Callable[[], None]) -> float:
    start = time.perf_counter()
    once()
    return time.perf_counter() - start


def _stepper(shape: Shape, precision: str, step: Step) -> Callable[[], None]:
    """One training step of a fresh network on random data, done when the call returns."""
    name, device = shape.name, shape.device
    model = build(
        name, classes=shape.classes, channels=shape.channels, input_size=shape.input_size, stem=shape.stem, seed=0
    )
    model, forward = prepare(model.train(), step, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=step.fused)
    x = torch.randn(shape.batch_size, shape.channels, shape.input_size, shape.input_size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(shape.classes, (shape.batch_size,), device=device)

    def once() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = forward(x)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits.float(), y).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return once


class Notes:
    """``<cache>/tune.json``: what was measured for each shape; a damaged file is an empty one."""

    def __init__(self, cache: Path) -> None:
        self._path = cache / "tune.json"

    def read(self, key: str) -> dict[str, Any]:
        """What is known of ``key``."""
        found = self._all().get(key)
        return found if isinstance(found, dict) else {}

    def add(self, key: str, **facts: Any) -> None:
        """Note more of ``key``."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._path}.lock"):
            held = self._all()
            held[key] = {**self.read(key), **facts}
            atomic_text(self._path, json.dumps(held, indent=1, sort_keys=True) + "\n")

    def _all(self) -> dict[str, Any]:
        try:
            held = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}


def precision_for(device: torch.device) -> Literal["fp32", "bf16"]:
    """By rule, never by a stopwatch, since it is part of a run's identity: bf16 on GPUs from Ampere on, else fp32."""
    return "bf16" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"


def choose_step(
    shape: Shape,
    *,
    precision: str,
    steps: int,
    cache: Path,
    exact: bool = False,
    options: Mapping[str, float] | None = None,
) -> Step:
    """The fastest form of ``steps`` training steps of a network here, the cost of finding it included.

    Short plans take the usual form unmeasured; longer ones check that the kernels pay, and the longest try
    ``torch.compile``. Measured once for each shape and machine.
    """
    usual = usual_step(shape.device, exact=exact)
    if exact:
        return usual
    notes, kind = Notes(cache), f"{shape.key}|{precision}"
    known = notes.read(kind)
    if "usual" not in known:
        known["usual"] = seconds_per_step(shape, precision=precision)
        notes.add(kind, usual=known["usual"])
    planned = steps * known["usual"]
    if planned < LONG:
        return usual
    plain = usual.model_copy(update={"kernels": False})
    if shape.device.type != "cpu":
        known["kernels"] = False  # they are for the CPU
    elif "kernels" not in known:
        times = compare(shape, {"on": (precision, usual), "off": (precision, plain)})
        known["kernels"] = times["on"] <= WORTH_IT * times["off"]
        notes.add(kind, kernels=known["kernels"], times=times)
    best = usual if known["kernels"] else plain
    if planned * (1 - 1 / COMPILE_GAIN) < COMPILE_COST:
        return best
    if draws_noise(build(shape.name, classes=shape.classes, channels=shape.channels, input_size=shape.input_size,
                         stem=shape.stem, options=options)):  # fmt: skip
        return best  # the compiler draws noise of its own: it would be another run
    compiled = best.model_copy(update={"compiled": True})
    if "compiled" not in known:
        known["compiled"] = _compiling_pays(shape, precision, best, compiled, cache)
        notes.add(kind, compiled=known["compiled"])
    return compiled if known["compiled"] else best


def _compiling_pays(shape: Shape, precision: str, eager: Step, compiled: Step, cache: Path) -> bool:
    """Never where this network, or this machine (no compiler), cannot compile."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    try:
        times = compare(shape, {"eager": (precision, eager), "compiled": (precision, compiled)})
    except (RuntimeError, OSError):
        return False
    return times["compiled"] * COMPILE_GAIN <= times["eager"]
