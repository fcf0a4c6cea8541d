"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv:1605.07146): norm and ReLU come before a convolution."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from kdbench.models.cifar.common import CifarNet, configs, create, he_init, register


class PreActivation(nn.Module):
    """conv(relu(bn(conv(relu(bn(x)))))) + x; where channels change, a bare 1 x 1 convolution of relu(bn(x)) for x."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(ins), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(
            nn.Conv2d(ins, outs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outs, outs, 3, padding=1, bias=False),
        )
        self.shortcut = None if ins == outs else nn.Conv2d(ins, outs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H / stride, W / stride)."""
        active = self.before(x)
        out: Tensor = self.branch(active) + (x if self.shortcut is None else self.shortcut(active))
        return out


def wide_resnet(depth: int, width: int, *, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """``depth`` = 6n + 4: a 3 x 3 stem of 16 channels, three stages of n blocks with 16, 32, 64 times ``width``.

    Initialised by fan-out, with PyTorch's classifier weights and zero classifier biases, as the tables' networks.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise ValueError(f"a wide ResNet has 6n + 4 layers, not {depth}")
    ins = 16
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Conv2d(in_chans, ins, 3, padding=1, bias=False))
    for stage, outs in enumerate((16 * width, 32 * width, 64 * width), 1):
        first = PreActivation(ins, outs, 1 if stage == 1 else 2)
        parts[f"stage{stage}"] = nn.Sequential(first, *(PreActivation(outs, outs, 1) for _ in range(blocks - 1)))
        ins = outs
    parts["last"] = nn.Sequential(nn.BatchNorm2d(ins), nn.ReLU(inplace=True))
    model = he_init(CifarNet(nn.Sequential(parts), ins, num_classes))
    if isinstance(model.fc, nn.Linear):
        nn.init.zeros_(model.fc.bias)
    return model


default_cfgs = configs("body.stem", "cifar_wrn_16_2", "cifar_wrn_40_1", "cifar_wrn_40_2")


@register
def cifar_wrn_16_2(pretrained: bool = False, **options: Any) -> nn.Module:
    """16 layers, twice as wide as a CIFAR ResNet."""
    return create(wide_resnet, "cifar_wrn_16_2", pretrained, depth=16, width=2, **options)


@register
def cifar_wrn_40_1(pretrained: bool = False, **options: Any) -> nn.Module:
    """40 layers, as wide as a CIFAR ResNet."""
    return create(wide_resnet, "cifar_wrn_40_1", pretrained, depth=40, width=1, **options)


@register
def cifar_wrn_40_2(pretrained: bool = False, **options: Any) -> nn.Module:
    """40 layers, twice as wide as a CIFAR ResNet."""
    return create(wide_resnet, "cifar_wrn_40_2", pretrained, depth=40, width=2, **options)
