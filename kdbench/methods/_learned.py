"""What needs torch when it is defined: the module behind ``kdbench.methods.base.learned``, a gradient by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Learned(nn.Module):
    """A loss and what it owns: modules and parameters are trained, tensors are kept as buffers."""

    def __init__(self, loss: Callable[..., Any], owned: Mapping[str, nn.Module | Tensor]) -> None:
        super().__init__()
        self.loss = loss
        for name, value in owned.items():
            if isinstance(value, nn.Module | nn.Parameter):
                setattr(self, name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, *given: Any) -> Any:
        return self.loss(self, *given)


class AngleGap(torch.autograd.Function):
    """Mean smooth L1 between cosines at the corners of triples (``kdbench.methods.pooled.corners`` of two networks).

    Of B³ triples a few rows at a time are held, in memory that stays near, and the gradient to the first network's
    three matrices is taken on the way.
    """

    ROWS = 32
    """Of B, at a time, on a CPU; a GPU takes all."""

    @staticmethod
    def forward(
        ctx: Any, gram: Tensor, reach: Tensor, near: Tensor, gram_t: Tensor, reach_t: Tensor, near_t: Tensor
    ) -> Tensor:
        count, loss = len(gram), gram.new_zeros(())
        rows = min(count, AngleGap.ROWS) if gram.device.type == "cpu" else count
        to_gram, to_reach, to_near = (torch.zeros_like(gram) for _ in range(3))
        room = gram.new_empty(3, rows, count, count)
        for first in range(0, count, rows):
            part = slice(first, first + rows)
            ours, gap, slope = room[:, : len(gram[part])]
            for out, g, r, n in ((ours, gram, reach[part], near[part]), (gap, gram_t, reach_t[part], near_t[part])):
                torch.sub(g, r[:, :, None], out=out).sub_(r[:, None]).mul_(n[:, :, None]).mul_(n[:, None])
            torch.clamp(torch.sub(ours, gap, out=gap), -1, 1, out=slope)  # the derivative of smooth L1
            loss += torch.dot(slope.flatten(), gap.flatten()) - torch.dot(slope.flatten(), slope.flatten()) / 2
            own = near[part]
            to_near[part] = 2 * ours.mul_(slope).sum(2) / own.clamp_min(1e-30)
            slope.mul_(own[:, :, None]).mul_(own[:, None])
            to_gram += slope.sum(0)
            to_reach[part] = -2 * slope.sum(2)
        ctx.save_for_backward(*(each / count**3 for each in (to_gram, to_reach, to_near)))
        return loss / count**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(grad * each for each in ctx.saved_tensors), None, None, None
