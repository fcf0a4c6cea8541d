"""A teacher that does not fit beside its students: it stays in main memory, and its blocks visit the device in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

SHARE = 0.5
"""Of a GPU's free memory that a teacher's weights may take; the rest is its students' and what both compute."""


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, or visiting it block by block where it is a GPU whose memory it would crowd."""
    network.to(memory_format=torch.channels_last)
    if device.type == "cuda" and bytes_of(network) > SHARE * torch.cuda.mem_get_info(device)[0]:
        return visiting(network, lambda home: home.to(device, non_blocking=True))
    return network.to(device)


def bytes_of(network: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(one.nbytes for one in chain(network.parameters(), network.buffers()))


def visiting(network: nn.Module, there: Callable[[Tensor], Tensor]) -> nn.Module:
    """``network``, whose blocks take what ``there`` makes of their tensors while they compute, then their own again.

    What the network and its containers have beside their blocks (a position embedding) is there for good.
    """
    for block, whole in _blocks(network):
        own = [*block.parameters(recurse=whole), *block.buffers(recurse=whole)]
        homes: list[Tensor] = []
        if not whole:
            for one in own:
                one.data = there(one.data)
            continue

        def leave(module: nn.Module, given: Any, own: list[Tensor] = own, homes: list[Tensor] = homes) -> None:
            homes[:] = [one.data for one in own]
            for one, home in zip(own, homes, strict=True):
                one.data = there(home)

        def back(*_: Any, own: list[Tensor] = own, homes: list[Tensor] = homes) -> None:
            for one, home in zip(own, homes, strict=True):
                one.data = home

        block.register_forward_pre_hook(leave)
        block.register_forward_hook(back, always_call=True)
    return network


def _blocks(module: nn.Module, top: bool = True) -> Iterator[tuple[nn.Module, bool]]:
    """(module, whether all below it goes along): containers and the network itself are opened, others are not."""
    if top or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        yield module, False
        for child in module.children():
            yield from _blocks(child, top=False)
    else:
        yield module, True
