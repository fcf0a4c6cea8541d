"""How a training step is computed on this machine: the same function to rounding, at different speeds."""

from __future__ import annotations

import json
import logging
import os
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdbench.config import Frozen
from kdbench.files import atomic_text
from kdbench.host import processor
from kdbench.train.fast_conv import optimise

MANIFEST = "manifest.json"
"""In a run's folder: the step that it was begun with, and on what."""


class Step(Frozen):
    """One way to compute a network's training step. No part of a run's identity: only rounding depends on it."""

    layout: Literal["channels_last", "contiguous"] = "channels_last"
    """Memory format of images and feature maps."""
    kernels: bool = True
    """The convolutions of ``kdbench.train.fast_conv`` (on a CPU)."""
    compiled: bool = False
    """``torch.compile``."""
    fused: bool = True
    """The optimiser's fused update: one pass over the weights instead of one an operation."""
    captured: bool = False
    """On a GPU: the whole step replayed as one CUDA graph (``kdbench.train.capture``), where it can be recorded."""


_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
REFERENCE = Step(layout="contiguous", kernels=False, compiled=False, fused=False)
"""PyTorch's own path and nothing else."""


def prepare(network: nn.Module, step: Step, device: torch.device) -> tuple[nn.Module, Callable[[Tensor], Any]]:
    """(the network on the device, which evaluation calls; what a training step calls, with one shape of batch)."""
    network = network.to(device, memory_format=_FORMATS[step.layout])  # type: ignore[call-overload]
    if step.layout == "contiguous":
        network.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))
    if step.kernels:
        network = optimise(network, device)
    return network, compiled(network, step)


def compiled(module: nn.Module, step: Step) -> Callable[..., Any]:
    """The module in the step's form; never one that draws noise, since the compiler draws its own: another run."""
    if not step.compiled or draws_noise(module):
        return module
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA on machines without
    forward: Callable[..., Any] = torch.compile(module, dynamic=False)
    return forward


def draws_noise(network: nn.Module) -> bool:
    """Whether training draws random numbers inside the network: dropout or stochastic depth that is switched on."""
    rates = (getattr(m, name, 0) for m in network.modules() for name in ("p", "drop_prob", "drop_rate", "rate"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def repeatable(device: torch.device) -> None:
    """Let the same run twice be the same numbers in this process: on a GPU by kernels that add in one order."""
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cuda.enable_mem_efficient_sdp(False)  # its gradient is not, unless all else must be
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")


def describe_hardware(device: torch.device) -> str:
    """What a run was measured on, in one line: device, model, threads."""
    if device.type == "cuda":
        return f"cuda:{torch.cuda.get_device_name(device)}"
    return f"{device.type}:{platform.machine()}:{torch.get_num_threads()} threads"


def note_step(workdir: Path, step: Step, device: torch.device) -> None:
    """Write a run's manifest."""
    about = {"hardware": describe_hardware(device), "processor": processor(), "torch": torch.__version__}
    atomic_text(workdir / MANIFEST, json.dumps({"step": step.model_dump(), **about}, indent=1) + "\n")
