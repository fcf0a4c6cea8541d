"""The module behind ``kdbench.methods.base.learned``; apart, since it needs torch when it is defined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
