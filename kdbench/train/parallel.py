"""One run's step in several processes, a device each: every one takes its part of the batch.

Outputs are gathered before the loss, so that a method sees the whole batch whatever it compares in it; batch
normalisation takes the whole batch's statistics; gradients are summed. It is the step of one process up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdbench.config import Recipe
from kdbench.errors import BadInput
from kdbench.methods import Method, Outputs
from kdbench.train.step import Step, draws_noise


class Group:
    """The processes that train one run, ``size`` of them; a group of one does nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def portion(self) -> tuple[int, int]:
        """Which part of how many this process takes of each batch."""
        return self.rank, self.size

    def gather(self, part: Tensor) -> Tensor:
        """The whole batch's, (B, ...), of each process's (B / size, ...); gradients flow to the own part."""
        return part if self.size == 1 else _Gathered.apply(part, self.rank, self.size)

    def outputs(self, said: Outputs) -> Outputs:
        """The whole batch's."""
        if self.size == 1:
            return said
        pooled = None if said.pooled is None else self.gather(said.pooled)
        maps = {stage: self.gather(one) for stage, one in said.maps.items()}
        other = None if said.other is None else self.gather(said.other)
        return Outputs(self.gather(said.logits), pooled, maps, other)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Each process has those of its part of the loss; afterwards all have the whole's."""
        held = [p.grad for p in parameters if p.grad is not None] if self.size > 1 else []
        if held:
            flat = torch.cat([grad.reshape(-1) for grad in held])
            dist.all_reduce(flat)
            for grad, piece in zip(held, flat.split([grad.numel() for grad in held]), strict=True):
                grad.copy_(piece.view(grad.shape))

    def agreed(self, value: bool) -> bool:
        """What the first process says."""
        if self.size == 1:
            return value
        told = torch.tensor([float(value)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.broadcast(told, 0)
        return bool(told.item())

    def normalising(self) -> AbstractContextManager[Any]:
        """Within it batch normalisation takes the statistics of all parts."""
        return _Synchronised(self.size) if self.size > 1 else nullcontext()

    def step(self, step: Step) -> Step:
        """The form of a step that can be taken together: nothing compiled, recorded or fused over layers."""
        off = dict.fromkeys(("kernels", "compiled", "captured"), False)
        return step if self.size == 1 else step.model_copy(update=off)

    def check(self, recipe: Recipe, samples: int, network: nn.Module, method: Method) -> None:
        """Refuse, as BadInput, what would be another run than that of one process."""
        if self.size == 1:
            return
        why, batch = "", min(recipe.batch_size, samples)
        if batch % self.size:
            why = f"batches of {batch} images do not divide by it: choose another recipe.batch-size"
        for name in ("mixup", "cutmix", "repeats"):
            if getattr(recipe, name) not in (0, 1):
                why = f"recipe.{name}={getattr(recipe, name):g} joins images of one batch: leave it out"
        if draws_noise(network):
            why = f"{type(network).__name__} draws noise (dropout, stochastic depth), another on each GPU"
        # of the first the gradient would be the whole batch's, to be summed again; the others are not gathered
        if method.momenta or {"averaged", "average", "peer", "views", "halves"} & method.needs:
            why = f"{method.name} learns from more than gathered outputs: choose another method"
        if why:
            raise BadInput(f"--gpus-per-run {self.size}: {why}")


ALONE = Group()


class _Gathered(torch.autograd.Function):
    """All parts one after the other. Every process computes the same loss of them: each keeps its part's gradient."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, rank: int, size: int) -> Tensor:
        ctx.place = rank, size
        part = part.contiguous()
        found = [torch.empty_like(part) for _ in range(size)]
        dist.all_gather(found, part)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rank, size = ctx.place
        return grad.chunk(size)[rank], None, None


class _Normalised(torch.autograd.Function):
    """Batch normalisation of one part by the whole batch's mean and variance, which it also returns, each (C,).

    The gradient in its usual closed form; sums in float64, as PyTorch has them on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.dims, ctx.shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        ctx.count, ctx.weighted = x.numel() // x.shape[1] * size, (weight is not None, bias is not None)
        given = x.float()
        dist.all_reduce(mean := given.sum(ctx.dims, dtype=torch.float64))
        mean = (mean / ctx.count).float()
        gap = given - mean.view(ctx.shape)
        dist.all_reduce(var := gap.square().sum(ctx.dims, dtype=torch.float64))
        var = (var / ctx.count).float()
        inverse = (var + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        ctx.save_for_backward(gap * inverse.view(ctx.shape), scale)
        ctx.mark_non_differentiable(mean, var)
        found = gap * scale.view(ctx.shape)
        return (found if bias is None else found + bias.view(ctx.shape)).to(x.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        unit, scale = ctx.saved_tensors
        given = grad.float()
        own = torch.stack([(given * unit).sum(ctx.dims, dtype=torch.float64), given.sum(ctx.dims, dtype=torch.float64)])
        dist.all_reduce(whole := own.clone())
        along, level = (each.view(ctx.shape) for each in (whole / ctx.count).float())
        back = ((given - level - unit * along) * scale.view(ctx.shape)).to(grad.dtype)
        weight, bias = (part.float() if there else None for part, there in zip(own, ctx.weighted, strict=True))
        return back, weight, bias, None, None


class _Synchronised(TorchFunctionMode):
    """Takes the calls of batch normalisation, whichever module makes them: timm has several of its own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _normalised(self.size, *args, **kwargs or {}) if func is F.batch_norm else func(*args, **kwargs or {})


def _normalised(
    size: int, x: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """``F.batch_norm`` of one part of ``size``."""
    if not training:
        return F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    found, centre, spread = _Normalised.apply(x, weight, bias, eps, size)
    if mean is not None and var is not None:
        count = x.numel() // x.shape[1] * size
        mean.lerp_(centre.to(mean.dtype), momentum)
        var.lerp_((spread * (count / max(count - 1, 1))).to(var.dtype), momentum)
    return found  # type: ignore[no-any-return]
