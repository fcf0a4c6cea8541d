"""ResNets for CIFAR: three stages of basic blocks (He et al. 2016, arXiv:1512.03385, sec. 4.2), and a ResNet-50.

``cifar_resnetD`` has D = 6n + 2 layers of 16, 32, 64 channels; ``x4`` four times as many, after a stem of 32.
Shortcuts that change the shape are 1 x 1 convolutions with batch norm (the paper's option B; its own CIFAR runs
use option A, which has no weights), and the published parameter counts say so.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from kdbench.models.cifar.common import CifarNet, configs, conv_bn, create, he_init, register


class Residual(nn.Module):
    """relu(branch(x) + shortcut(x)); a change of shape is made by a 1 x 1 convolution in the shortcut."""

    def __init__(self, branch: nn.Sequential, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        same = stride == 1 and ins == outs
        self.shortcut = nn.Identity() if same else conv_bn(ins, outs, 1, stride=stride, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H / stride, W / stride)."""
        out: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return out


def basic(ins: int, outs: int, stride: int) -> Residual:
    """Two 3 x 3 convolutions."""
    return Residual(
        nn.Sequential(conv_bn(ins, outs, 3, stride=stride), conv_bn(outs, outs, 3, relu=False)), ins, outs, stride
    )


def bottleneck(ins: int, outs: int, stride: int) -> Residual:
    """1 x 1 to a quarter of the channels, 3 x 3 with the stride, 1 x 1 back up."""
    mid = outs // 4
    branch = nn.Sequential(conv_bn(ins, mid, 1), conv_bn(mid, mid, 3, stride=stride), conv_bn(mid, outs, 1, relu=False))
    return Residual(branch, ins, outs, stride)


def resnet(depth: int, stem: int = 16, width: int = 16, *, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """``depth`` = 6n + 2: a 3 x 3 stem, then three stages of n basic blocks with ``width`` channels, twice and
    four times as many; strides 1, 2, 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"a CIFAR ResNet has 6n + 2 layers, not {depth}")
    ins = stem
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(in_chans, ins, 3))
    for stage, outs in enumerate((width, 2 * width, 4 * width), 1):
        first = basic(ins, outs, 1 if stage == 1 else 2)
        parts[f"stage{stage}"] = nn.Sequential(first, *(basic(outs, outs, 1) for _ in range(blocks - 1)))
        ins = outs
    return he_init(CifarNet(nn.Sequential(parts), ins, num_classes))


def resnet50(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """ResNet-50 with a 3 x 3 stem of stride 1 and no max-pool: stages of 3, 4, 6, 3 bottlenecks, strides 1, 2, 2, 2."""
    ins = 64
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(in_chans, ins, 3))
    for stage, (outs, blocks) in enumerate(((256, 3), (512, 4), (1024, 6), (2048, 3)), 1):
        first = bottleneck(ins, outs, 1 if stage == 1 else 2)
        parts[f"stage{stage}"] = nn.Sequential(first, *(bottleneck(outs, outs, 1) for _ in range(blocks - 1)))
        ins = outs
    return he_init(CifarNet(nn.Sequential(parts), ins, num_classes))


default_cfgs = configs(
    "body.stem.0",
    "cifar_resnet8x4",
    "cifar_resnet20",
    "cifar_resnet32",
    "cifar_resnet32x4",
    "cifar_resnet56",
    "cifar_resnet110",
    "cifar_resnet50",
)


@register
def cifar_resnet20(pretrained: bool = False, **options: Any) -> nn.Module:
    """20 layers of 16, 32, 64 channels."""
    return create(resnet, "cifar_resnet20", pretrained, depth=20, **options)


@register
def cifar_resnet32(pretrained: bool = False, **options: Any) -> nn.Module:
    """32 layers of 16, 32, 64 channels."""
    return create(resnet, "cifar_resnet32", pretrained, depth=32, **options)


@register
def cifar_resnet56(pretrained: bool = False, **options: Any) -> nn.Module:
    """56 layers of 16, 32, 64 channels."""
    return create(resnet, "cifar_resnet56", pretrained, depth=56, **options)


@register
def cifar_resnet110(pretrained: bool = False, **options: Any) -> nn.Module:
    """110 layers of 16, 32, 64 channels."""
    return create(resnet, "cifar_resnet110", pretrained, depth=110, **options)


@register
def cifar_resnet8x4(pretrained: bool = False, **options: Any) -> nn.Module:
    """8 layers of 64, 128, 256 channels."""
    return create(resnet, "cifar_resnet8x4", pretrained, depth=8, stem=32, width=64, **options)


@register
def cifar_resnet32x4(pretrained: bool = False, **options: Any) -> nn.Module:
    """32 layers of 64, 128, 256 channels."""
    return create(resnet, "cifar_resnet32x4", pretrained, depth=32, stem=32, width=64, **options)


@register
def cifar_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 for 32 pixels."""
    return create(resnet50, "cifar_resnet50", pretrained, **options)
