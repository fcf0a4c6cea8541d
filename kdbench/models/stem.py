"""The small stem: what lets networks made for 224 pixels see 32."""

from __future__ import annotations

from typing import Any

from torch import nn

from kdbench.errors import BadInput

_STEM_POOLS = ("maxpool", "stem", "stem_pool", "features.pool0")
"""Where timm keeps a stem's max-pool: its own name, or the name of the module it is in."""


def native_only(model: nn.Module) -> bool:
    """Whether ``model`` declares, by an attribute of this name, that it was made for small images."""
    return bool(getattr(model, "native_only", False))


def apply_small_stem(model: nn.Module) -> nn.Module:
    """Change ``model`` (and return it) so that it keeps more of a small image; weights keep their shapes.

    1. The first strided convolution in module order has its stride halved: 2 becomes 1 (ResNet, MobileNet,
       EfficientNet, RegNet, GhostNet, RepVGG, MobileOne, ...), the 4 of a patch stem becomes 2 (ConvNeXt).
       The padding becomes (kernel - stride + 1) // 2, so that an S x S image leaves it as S/stride x S/stride.
       Parallel branches of a re-parameterisable block (RepVGG, MobileOne) are changed together.
    2. A max-pool in the stem is dropped (ResNet).

    The final feature map of a 32-pixel image grows from 1 x 1 to 4 x 4 (ResNet; 16 times the cost) or 2 x 2
    (the others; 4 times). Networks with square patches or a fixed attention size have the same halving made
    by ``build`` instead, because there it changes weights.

    A network that says ``native_only`` was made for small images and is returned as it is.

    Raises:
        BadInput: no convolution with a stride.
    """
    if native_only(model):
        return model
    halve_first_stride(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.MaxPool2d) and name.startswith(_STEM_POOLS):
            model.set_submodule("maxpool" if name.startswith("maxpool") else name, nn.Identity())
            break
    return model


def halve_first_stride(model: nn.Module) -> None:
    """Halve the stride of the first strided convolution and of the branches parallel to it, in place.

    Raises:
        BadInput: there is none.
    """
    convs = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1]
    if not convs:
        raise BadInput(f"{type(model).__name__} has no strided convolution: there is no small stem for it")
    first_name, first = convs[0]
    shape, stride, top = (first.in_channels, first.out_channels), first.stride, first_name.split(".")[0]
    parallel = [
        (name, conv)
        for name, conv in convs
        if name.split(".")[0] == top and (conv.in_channels, conv.out_channels) == shape and conv.stride == stride
    ]
    # channels grow on the way in, so a layer of the same shape stands beside the first, not after it
    for name, conv in parallel if first.in_channels < first.out_channels else convs[:1]:
        _halve(conv)
        _tell_parents(model, name, stride[0], conv.stride[0])


def _halve(conv: nn.Conv2d) -> None:
    conv.stride = tuple(max(1, s // 2) for s in conv.stride)
    if not isinstance(conv.padding, str) and max(conv.padding) + max(conv.kernel_size) > 1:
        conv.padding = tuple((k - s + 1) // 2 for k, s in zip(conv.kernel_size, conv.stride, strict=True))


def _tell_parents(model: nn.Module, name: str, old: int, new: int) -> None:
    """Blocks that fold their branches later (RepVGG, MobileOne) note the stride themselves: keep it true."""
    parts = name.split(".")[:-1]
    for depth in range(1, len(parts) + 1):
        parent: Any = model.get_submodule(".".join(parts[:depth]))
        noted = getattr(parent, "stride", None)
        if noted == old:
            parent.stride = new
        elif noted == (old, old):
            parent.stride = (new, new)
