"""Quantisation-aware distillation: some epochs more of a student's own loss, teacher and views, with weights and
activations rounded in each step as its int8 file will round them (Jacob et al. 2018, arXiv:1712.05877).

Rounding lets gradients through (straight-through estimator). Weights: symmetric 8 bits by output channel; what enters a
convolution or matrix product, and what leaves a norm: 8 bits from the least to the largest value, a moving average over
batches. What is left is a network of floats that loses less when it is quantised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdbench.config import EpochLog, RunConfig
from kdbench.errors import BadInput
from kdbench.host import cores, default_cache
from kdbench.models import deployed
from kdbench.run.events import Setting
from kdbench.run.store import WEIGHTS, Run
from kdbench.run.student import open_student
from kdbench.run.worker import Context
from kdbench.train import run_training

RATE = 0.02
"""The peak rate, of the student's own: the network is trained already."""
KEPT = 0.9
"""What the moving averages keep of themselves, a batch."""
PRODUCTS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm2d, nn.LayerNorm)


class _Weight(nn.Module):
    """A weight (out, ...), as 8 bits by output channel hold it."""

    def forward(self, weight: Tensor) -> Tensor:
        most = weight.detach().flatten(1).abs().amax(1).clamp_min(1e-12)
        zero = torch.zeros(len(most), dtype=torch.int32, device=weight.device)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, most / 127, zero, 0, -127, 127)
        return rounded


class _Range:
    """What passes through a place of a network, as 8 bits between moving ends hold it."""

    def __init__(self) -> None:
        self.ends: Tensor | None = None

    def __call__(self, x: Tensor, training: bool) -> Tensor:
        if training:
            seen = torch.stack([x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)]).float()
            self.ends = seen if self.ends is None else KEPT * self.ends + (1 - KEPT) * seen
        if self.ends is None:
            return x
        scale = ((self.ends[1] - self.ends[0]) / 255).clamp_min(1e-12)
        zero = (-self.ends[0] / scale).round().int()
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, 255).to(x.dtype)


def rounded(network: nn.Module) -> Callable[[], None]:
    """Let ``network`` compute as in 8 bits, in place; what is returned ends that, and leaves the trained floats."""
    handles = []
    for module in network.modules():
        place = _Range()
        if isinstance(module, PRODUCTS):
            parametrize.register_parametrization(module, "weight", _Weight())
            handles.append(module.register_forward_pre_hook(
                lambda own, given, place=place: (place(given[0], own.training), *given[1:])
            ))  # fmt: skip
        elif isinstance(module, NORMS):
            handles.append(module.register_forward_hook(
                lambda own, given, out, place=place: place(out, own.training)
            ))  # fmt: skip

    def end() -> None:
        for handle in handles:
            handle.remove()
        for module in network.modules():
            if isinstance(module, PRODUCTS):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)

    return end


def distil(
    run: Run, place: Path, teacher: RunConfig | None, epochs: int, folder: Path, data_path: str | None,
    say: Callable[[str], None],
) -> nn.Module:  # fmt: skip
    """The student of ``run`` (weights in ``place``, its sweep in ``folder``), trained on for its int8 file.

    Deterministic: the run's own seed orders and augments. Nothing reads the test split. In eval mode, on the CPU.

    Raises:
        BadInput: the teacher's weights are not in the cache.
    """
    recipe = run.config.recipe
    held = {"epochs": epochs, "lr": recipe.lr * RATE, "min_lr": None, "warmup_lr": None, "warmup_epochs": 0.0,
            "schedule": "cosine", "ema": None, "stop_at": None, "freeze": None}  # fmt: skip
    config = run.config.model_copy(update={"phase": "search", "recipe": recipe.model_copy(update=held)})
    setting = Setting(folder=folder, cache=default_cache(), device="cpu", threads=torch.get_num_threads(),
                      cores=cores(), data_path=data_path, passes=recipe.epochs)  # fmt: skip
    context = Context(setting, "export")
    if teacher is not None and not (context.weights_of(teacher) / WEIGHTS).is_file():
        raise BadInput(
            f"--qat asks the teacher {teacher.written} again, whose weights are not in {setting.cache}: run the sweep "
            "again, or set KDBENCH_CACHE to where it ran"
        )
    network = deployed(open_student(run, place, data_path).network)
    end = rounded(network)

    def told(log: EpochLog, replayed: bool) -> bool:
        say(f"epoch {log.epoch}/{epochs} in 8 bits: {100 * log.val_acc:.2f}% on validation")
        return False

    data = context.data(config)
    guide = context.teacher(teacher, config, data) if teacher is not None else None
    with tempfile.TemporaryDirectory(prefix="kdbench-") as work:
        run_training(config, data=data, teacher=guide, workdir=Path(work), device=context.device, on_epoch=told,
                     start=network)  # fmt: skip
    end()
    return network.eval()
