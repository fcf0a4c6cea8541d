"""Short measurements, remembered: how long a step takes here, whether to compile it. No part of an identity."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn

from kdbench.files import atomic_text
from kdbench.host import processor
from kdbench.models import build
from kdbench.train.capture import EAGER, Recorded
from kdbench.train.fast_conv import MULTIPLIES_BF16
from kdbench.train.step import REFERENCE, Step, draws_noise, prepare

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

    def network(self, options: Mapping[str, float] | None = None) -> nn.Module:
        """It, freshly initialised."""
        name, classes, channels, size, stem, *_ = self
        return build(name, classes=classes, channels=channels, input_size=size, stem=stem, seed=0, options=options)


def seconds_per_step(shape: Shape, *steps: Step, precision: str = "fp32", repeats: int = 3) -> tuple[float, ...]:
    """Seconds of one training step on random data in each of the forms: the least of alternating rounds.

    Whatever else runs on the machine would otherwise decide between them.
    """
    running = [_stepping(shape, precision, step) for step in steps]
    warm = EAGER + 1 if shape.device.type == "cuda" else 1
    rounds = [[next(each) for each in running] for _ in range(warm + repeats)]
    return tuple(map(min, zip(*rounds[warm:], strict=True)))


def _stepping(shape: Shape, precision: str, step: Step) -> Iterator[float]:
    """Seconds of one training step of a fresh network after the other."""
    device = shape.device
    model, forward = prepare(shape.network().train(), step, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=step.fused)
    x = torch.randn(shape.batch_size, shape.channels, shape.input_size, shape.input_size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(shape.classes, (shape.batch_size,), device=device)

    def whole(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = forward(x)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(logits.float(), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = Recorded(whole) if step.captured else whole
    while True:
        start = time.perf_counter()
        run(x, y)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        yield time.perf_counter() - start


def noted(cache: Path, key: str, measure: Callable[[], float]) -> float:
    """What ``<cache>/tune.json`` holds under ``key``, measured now where it holds nothing or is damaged."""
    path = cache / "tune.json"

    def held() -> dict[str, float]:
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return {}

    if not isinstance(found := held().get(key), int | float):
        found = measure()
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            atomic_text(path, json.dumps({**held(), key: found}, indent=1, sort_keys=True) + "\n")
    return found


def precision_for(device: torch.device) -> Literal["fp32", "bf16"]:
    """By rule, never by a stopwatch, since it is part of a run's identity: bf16 on GPUs from Ampere on, else fp32."""
    return "bf16" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"


def choose_step(
    shape: Shape, *, precision: str, steps: int, cache: Path,
    exact: bool = False, options: Mapping[str, float] | None = None,
) -> Step:  # fmt: skip
    """The usual form of ``steps`` training steps, or ``torch.compile``'s where the time saved pays for compiling.

    Measured once for each shape and machine; without steps not at all. ``exact`` pins PyTorch's own path. A network
    that draws noise is never compiled: it would be another run.
    """
    usual = REFERENCE if exact else Step(kernels=shape.device.type == "cpu", captured=shape.device.type == "cuda")
    device = shape.device
    rounds = precision == "bf16" and device.type == "cpu" and not MULTIPLIES_BF16  # which a compiler would leave out
    if exact or not steps or rounds:
        return usual
    machine = processor() if device.type == "cpu" else torch.cuda.get_device_name(device)
    where = f"{device.type}|{machine}|{torch.get_num_threads()}|torch {torch.__version__}"
    size = f"{shape.classes}x{shape.channels}x{shape.input_size}-{shape.stem}-b{shape.batch_size}"
    kind = f"{shape.name}|{size}|{where}|{precision}" + "|recorded" * usual.captured
    seconds = noted(cache, f"{kind}|seconds", lambda: seconds_per_step(shape, usual, precision=precision)[0])
    if steps * seconds * (1 - 1 / COMPILE_GAIN) < COMPILE_COST or draws_noise(shape.network(options)):
        return usual
    compiled = usual.model_copy(update={"compiled": True})

    def gain() -> float:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
        try:
            eager, other = seconds_per_step(shape, usual, compiled, precision=precision, repeats=5)
        except (RuntimeError, OSError):  # this network, or this machine (no compiler), cannot
            return 0.0
        return eager / other

    return compiled if noted(cache, f"{kind}|compiled gains", gain) >= COMPILE_GAIN else usual
