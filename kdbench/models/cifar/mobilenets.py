"""MobileNetV2 at half width (Sandler et al. 2018, arXiv:1801.04381) as the CIFAR-100 tables have it.

Against the paper: the stage of 24 channels has stride 1; the first block has its 1 x 1 convolution although it
does not expand; activations are ReLU, not ReLU6; channels are halved without rounding to eights. A 32-pixel
image leaves the last stage as 2 x 2.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from kdbench.models.cifar.common import CifarNet, configs, conv_bn, create, he_init, register

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels at full width, blocks, stride of the first block."""

LAST = 1280
"""Channels before the classifier, at any width up to 1."""


class InvertedResidual(nn.Module):
    """1 x 1 up, 3 x 3 depthwise, 1 x 1 down without activation; x is added where the shape stays."""

    def __init__(self, ins: int, outs: int, stride: int, expansion: int) -> None:
        super().__init__()
        mid = ins * expansion
        self.branch = nn.Sequential(
            conv_bn(ins, mid, 1), conv_bn(mid, mid, 3, stride=stride, groups=mid), conv_bn(mid, outs, 1, relu=False)
        )
        self.adds = stride == 1 and ins == outs

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H / stride, W / stride)."""
        out: Tensor = self.branch(x)
        return x + out if self.adds else out


def half_mobilenetv2(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """Half of the channels everywhere but in the last layer. By fan-out; the classifier from N(0, 0.01²)."""
    ins = 16
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(in_chans, ins, 3, stride=2))
    for stage, (expansion, full, blocks, stride) in enumerate(STAGES, 1):
        stack: list[nn.Module] = []
        for block in range(blocks):
            stack.append(InvertedResidual(ins, full // 2, 1 if block else stride, expansion))
            ins = full // 2
        parts[f"stage{stage}"] = nn.Sequential(*stack)
    parts["last"] = conv_bn(ins, LAST, 1)
    return he_init(CifarNet(nn.Sequential(parts), LAST, num_classes), linear_std=0.01)


default_cfgs = configs("body.stem.0", "cifar_mobilenetv2")


@register
def cifar_mobilenetv2(pretrained: bool = False, **options: Any) -> nn.Module:
    """The half-width network of the tables."""
    return create(half_mobilenetv2, "cifar_mobilenetv2", pretrained, **options)
