"""What a network costs: parameters (exact), multiply-accumulates (counted), latency (measured)."""

from __future__ import annotations

import statistics
import time
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdbench.models.build import build


def count_params(model: nn.Module) -> int:
    """Trainable parameters, each shared tensor once; buffers (running statistics) are not parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@cache
def planned_params(
    name: str, *, classes: int, channels: int, input_size: int, stem: str, options: tuple[tuple[str, float], ...] = ()
) -> int:
    """Trainable parameters of a network that is not there: built without weights, once a process.

    Raises:
        BadInput: what ``build`` refuses.
    """
    with torch.device("meta"):
        model = build(
            name, classes=classes, channels=channels, input_size=input_size, stem=stem, options=dict(options)
        )  # fmt: skip
    return count_params(model)


def _place(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def count_macs(model: nn.Module, channels: int, input_size: int) -> int:
    """Multiply-accumulates of one forward pass of one (channels, input_size, input_size) image.

    ``torch.utils.flop_counter`` counts convolutions, matrix products and attention at two operations a
    multiply-accumulate; norms, activations and poolings are not counted, as is usual in papers. The mode
    (train or eval) of the network is put back.
    """
    x = torch.zeros(1, channels, input_size, input_size, device=_place(model))
    training = model.training
    # the counter has no formula for the CPU's fused attention: the plain products are counted instead
    fused = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    model.eval()
    try:
        for module in fused:
            module.fused_attn = False  # type: ignore[assignment]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]
        model.train(training)
    return int(counter.get_total_flops()) // 2


def latency_ms(
    model: nn.Module, channels: int, input_size: int, device: torch.device, *, repeats: int = 30, warmup: int = 5
) -> float:
    """Median milliseconds of a forward pass of one image in eval mode, after ``warmup`` passes.

    Weights stay float32 and the thread count is the process's own; the network is moved to ``device`` and
    its mode is put back. The number belongs to this machine: compare it only within one table.
    """
    x = torch.zeros(1, channels, input_size, input_size, device=device).contiguous(memory_format=torch.channels_last)
    training = model.training
    model.to(device).eval()
    times: list[float] = []
    try:
        with torch.inference_mode():
            for _ in range(warmup + repeats):
                start = time.perf_counter()
                model(x)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append(time.perf_counter() - start)
    finally:
        model.train(training)
    return 1000 * statistics.median(times[warmup:])
