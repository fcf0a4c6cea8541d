"""How a training step is computed on this machine: the same function to rounding, at different speeds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from kdbench.config import Frozen
from kdbench.files import atomic_text
from kdbench.host import EXACT_VARIABLE, processor
from kdbench.train.fast_conv import optimise
from kdbench.train.hardware import describe_hardware
from kdbench.train.pack import pack_size

MANIFEST = "manifest.json"
"""In a run's folder: the step that it was begun with, and on what."""


class Step(Frozen):
    """One way to compute a network's training step. No part of a run's identity: only rounding depends on it."""

    layout: Literal["channels_last", "contiguous"] = "channels_last"
    """Memory format of images and feature maps."""
    kernels: bool = True
    """The convolutions of ``kdbench.train.fast_conv`` (on a CPU)."""
    compiled: bool = False
    """``torch.compile``; on a GPU with CUDA graphs (``reduce-overhead``), unless trials run side by side."""
    fused: bool = True
    """The optimiser's fused update: one pass over the weights instead of one an operation."""


REFERENCE = Step(layout="contiguous", kernels=False, compiled=False, fused=False)
"""PyTorch's own path and nothing else."""


def exact_asked() -> bool:
    """Whether the reference path is pinned."""
    return os.environ.get(EXACT_VARIABLE) == "1"


def usual_step(device: torch.device) -> Step:
    """What is taken unmeasured."""
    return REFERENCE if exact_asked() else Step(kernels=device.type == "cpu")


def prepare(network: nn.Module, step: Step, device: torch.device) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """(the network on the device, what a training step calls): both share their weights.

    Evaluation calls the network itself, so that a compiled step meets one shape of batch only.
    """
    if step.layout == "channels_last":
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        network = network.to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        network.register_forward_pre_hook(_contiguous)
    if step.kernels:
        network = optimise(network, device)
    if not step.compiled:
        return network, network
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA on machines without
    # the compiler's CUDA graphs share a pool of memory, so they must not run on several streams at once
    graphs = device.type == "cuda" and pack_size() == 1
    forward: Callable[[Tensor], Tensor] = torch.compile(
        network, mode="reduce-overhead" if graphs else "default", dynamic=False
    )
    return network, forward


def answering(network: nn.Module, device: torch.device) -> nn.Module:
    """A network that is only asked, such as a teacher: with our kernels, unless the reference path is pinned."""
    return network if exact_asked() else optimise(network, device)


def _contiguous(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(), *args[1:])


def begun_with(workdir: Path) -> Step | None:
    """The step of the attempt that left its manifest in a run's folder."""
    try:
        return Step.model_validate(json.loads((workdir / MANIFEST).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):  # none, or damaged: then choose again
        return None


def note_step(workdir: Path, step: Step, device: torch.device) -> None:
    """Write a run's manifest."""
    about: dict[str, str | int] = {
        "hardware": describe_hardware(device),
        "processor": processor(),
        "torch": torch.__version__,
    }
    about |= {"pack": pack_size()} if pack_size() > 1 else {}
    atomic_text(workdir / MANIFEST, json.dumps({"step": step.model_dump(), **about}, indent=1) + "\n")
