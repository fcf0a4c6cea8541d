"""Dropout whose noise is cheap on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16


class CoarseDropout(nn.Dropout):
    """``nn.Dropout`` that draws 16 random bits an element on a CPU, a quarter of what PyTorch draws.

    The share dropped is ``p`` to the nearest 1/65,536, and what is kept is scaled for that share, so that the mean
    is that of the input. On other devices it is PyTorch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the same shape and type."""
        level = round(self.p * LEVELS)
        if not self.training or level == 0:
            return x
        if x.device.type != "cpu" or level == LEVELS:
            return F.dropout(x, self.p, training=True)
        bits = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),)).view(torch.int16)[: x.numel()]
        kept = (bits >= level - LEVELS // 2).view(x.shape)
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - level))
