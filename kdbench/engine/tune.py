"""Short measurements that a plan rests on: which precision is faster here, and how long a step takes."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from kdbench.engine.kernels import optimise
from kdbench.fsio import atomic_text
from kdbench.models import build

WORTH_IT = 1.15
"""bf16 is chosen only where it is at least this much faster: it costs accuracy in the last digits."""


def seconds_per_step(
    name: str,
    *,
    classes: int,
    channels: int,
    input_size: int,
    stem: str,
    batch_size: int,
    device: torch.device,
    precision: str = "fp32",
    train: bool = True,
    repeats: int = 3,
) -> float:
    """Median seconds of one step (training, or forward only) of a network on random data, after a warm-up."""
    model = build(name, classes=classes, channels=channels, input_size=input_size, stem=stem, seed=0)
    model = model.to(device, memory_format=torch.channels_last).train(train)  # type: ignore[call-overload]
    model = optimise(model, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x = torch.randn(batch_size, channels, input_size, input_size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(classes, (batch_size,), device=device)

    def step() -> None:
        with (
            torch.set_grad_enabled(train),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"),
        ):
            logits = model(x)
        if train:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits.float(), y).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times = []
    for index in range(repeats + 1):
        start = time.perf_counter()
        step()
        if index:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _remembered(path: Path) -> dict[str, Literal["fp32", "bf16"]]:
    """Earlier answers; a damaged file is an empty one, since measuring again costs seconds."""
    try:
        held: dict[str, Literal["fp32", "bf16"]] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return held


def choose_precision(
    name: str,
    *,
    cache: Path,
    remember: bool = True,
    classes: int,
    channels: int,
    input_size: int,
    stem: str,
    batch_size: int,
    device: torch.device,
) -> Literal["fp32", "bf16"]:
    """The faster precision for training ``name`` here, remembered in ``<cache>/tune.json`` (unless told not to).

    The answer goes into the run's config, so that a rerun elsewhere is the same run.
    """
    shape = f"{classes}x{channels}x{input_size}-{stem}-b{batch_size}"
    key = f"{name}|{shape}|{device.type}|{torch.get_num_threads()}"
    path = cache / "tune.json"
    known = _remembered(path)
    if key not in known:
        common = {"classes": classes, "channels": channels, "input_size": input_size, "stem": stem}
        times = {
            p: seconds_per_step(name, batch_size=batch_size, device=device, precision=p, **common)  # type: ignore[arg-type]
            for p in ("fp32", "bf16")
        }
        known[key] = "bf16" if times["fp32"] / times["bf16"] >= WORTH_IT else "fp32"
        if remember:
            atomic_text(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
    return known[key]
