"""Several networks of one kind as one teacher."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """(B, ...) -> logits (B, C): the mean of the members' logits.

    Its softmax is the geometric mean of the members' predictions, normalised: one of the two ways in which Hinton,
    Vinyals & Dean 2015 (section 2) make the soft targets of an ensemble.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Every member sees the same images."""
        return torch.stack([member(x) for member in self.members]).mean(0)
