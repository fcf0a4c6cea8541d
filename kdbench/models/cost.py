"""What a network costs as it is deployed: parameters (exact), multiply-accumulates (counted), latency (measured)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from timm.utils.model import reparameterize_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Latency(NamedTuple):
    """Milliseconds of a forward pass of one image: the median of the passes, and their 10th and 90th percentiles."""

    ms: float
    p10: float
    p90: float


def deployed(model: nn.Module) -> nn.Module:
    """What ships of a network: a copy with its branches (RepVGG, MobileOne, LeViT's norms, ...) folded, or itself."""
    folds = ("fuse", "reparameterize", "switch_to_deploy")  # timm's layers have one of these methods
    if not any(hasattr(module, fold) for module in model.modules() for fold in folds):
        return model
    folded: nn.Module = reparameterize_model(model)
    return folded.requires_grad_()  # timm detaches what it folds


def count_params(model: nn.Module) -> int:
    """Trainable parameters as deployed, each shared tensor once; buffers (running statistics) are not parameters."""
    return sum(p.numel() for p in deployed(model).parameters() if p.requires_grad)


def count_macs(model: nn.Module, channels: int, input_size: int) -> int:
    """Multiply-accumulates of one forward pass of one (channels, input_size, input_size) image, as deployed.

    Convolutions, matrix products and attention; norms, activations and poolings are not counted, as is usual in papers.
    """
    training, network = model.training, deployed(model).eval()
    place = next((p.device for p in network.parameters()), torch.device("cpu"))
    # the counter has no formula for the CPU's fused attention: the plain products are counted instead
    fused = [module for module in network.modules() if getattr(module, "fused_attn", False)]
    try:
        for module in fused:
            module.fused_attn = False  # type: ignore[assignment]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, channels, input_size, input_size, device=place))
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]
        model.train(training)
    return int(counter.get_total_flops()) // 2


def latencies(
    models: Mapping[str, nn.Module], inputs: Mapping[str, tuple[int, int]], device: torch.device, *,
    rounds: int = 30, warmup: int = 5,
) -> dict[str, Latency]:  # fmt: skip
    """How long each network takes for one image in eval mode, as deployed, by its name; ``inputs``: (channels, pixels
    of a side) of what it sees.

    Every round times each network once, so that whatever else the machine does meets all of them alike; ``warmup``
    rounds do not count. float32, channels_last, the process's threads. Compare the numbers only within one table. The
    networks given are moved to ``device`` and left in eval mode.
    """
    images = {
        name: torch.zeros(1, c, side, side, device=device).contiguous(memory_format=torch.channels_last)
        for name, (c, side) in inputs.items()
    }
    ready = {
        name: deployed(model).to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        for name, model in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for _ in range(warmup + rounds):
            for name, network in ready.items():
                start = time.perf_counter()
                network(images[name])
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times[name].append(1000 * (time.perf_counter() - start))
    found = {name: np.percentile(each[warmup:], [50, 10, 90]) for name, each in times.items()}
    return {name: Latency(*(round(float(value), 4) for value in each)) for name, each in found.items()}
