"""The MobileNetV2 and the ShuffleNets of the CIFAR-100 tables, see ``kdbench.models.cifar``."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from kdbench.models.cifar import CIFAR, CifarNet, conv_bn, he_init, register, stages

STEM = 24
"""Channels of a ShuffleNet's stem."""
GROUPS = 3
"""Of ShuffleNet V1."""


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
    """MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) with half of the channels everywhere but in the last layer.

    Against the paper: the stage of 24 channels has stride 1; the first block has its 1 x 1 convolution although it
    does not expand; activations are ReLU, not ReLU6; channels are halved without rounding to eights. A 32-pixel
    image leaves the last stage as 2 x 2. By fan-out; the classifier from N(0, 0.01²).
    """
    first, others = partial(InvertedResidual, expansion=1), partial(InvertedResidual, expansion=6)
    rows = [(first, 8, 1, 1), (others, 12, 2, 1), (others, 16, 3, 2), (others, 32, 4, 2)]
    rows += [(others, 48, 3, 1), (others, 80, 3, 2), (others, 160, 1, 1)]
    body, ins = stages(conv_bn(in_chans, 16, 3, stride=2), 16, rows)
    body["last"] = conv_bn(ins, 1280, 1)
    return he_init(CifarNet(body, 1280, num_classes), linear_std=0.01)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """(B, C, H, W): channel j of group g moves to place j * groups + g, so that groups meet in the next layer.

    The result is channels_last whatever ``x`` was, at the price of one copy.
    """
    rows: Tensor = x.permute(0, 2, 3, 1).unflatten(3, (groups, -1))
    return rows.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)


class UnitV1(nn.Module):
    """Grouped 1 x 1, shuffle, 3 x 3 depthwise, grouped 1 x 1; x is added, or pooled and put beside at stride 2.

    The bottleneck has a quarter of the branch's output channels. The first 1 x 1 on the 24 channels of the stem
    is not grouped.
    """

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        own = outs - ins if stride == 2 else outs
        mid = own // 4
        self.groups = 1 if ins == STEM else GROUPS
        self.reduce = conv_bn(ins, mid, 1, groups=self.groups)
        # The ReLU after the depthwise layer is not in the V1 paper; the networks of the tables have it.
        self.expand = nn.Sequential(
            conv_bn(mid, mid, 3, stride=stride, groups=mid), conv_bn(mid, own, 1, groups=GROUPS, relu=False)
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H / stride, W / stride)."""
        mid = self.reduce(x)
        out: Tensor = self.expand(mid if self.groups == 1 else shuffle(mid, self.groups))
        out = self.relu(out + x if self.pool is None else torch.cat((out, self.pool(x)), 1))
        return out


class UnitV2(nn.Module):
    """Two branches, put beside each other and shuffled; each makes half of the output by 1 x 1 and depthwise layers.

    At stride 1 one half of the channels passes and the other goes through 1 x 1, 3 x 3 depthwise, 1 x 1; at stride 2
    both branches see all channels.
    """

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        half = outs // 2
        down = stride == 2
        self.short = (
            nn.Sequential(conv_bn(ins, ins, 3, stride=2, groups=ins, relu=False), conv_bn(ins, half, 1))
            if down
            else nn.Identity()
        )
        self.branch = nn.Sequential(
            conv_bn(ins if down else half, half, 1),
            conv_bn(half, half, 3, stride=stride, groups=half, relu=False),
            conv_bn(half, half, 1),
        )
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H / stride, W / stride)."""
        kept, changed = (x, x) if self.down else x.chunk(2, dim=1)
        return shuffle(torch.cat((self.short(kept), self.branch(changed)), 1), 2)


def shufflenet_v1(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """ShuffleNet V1 (Zhang et al. 2018, arXiv:1707.01083, table 1) of width 1 at three groups; the last map is 4 x 4.

    It begins, as V2 does here, with a 1 x 1 convolution to 24 channels where the papers have a 3 x 3 of stride 2 and
    a max-pool, and keeps PyTorch's uniform initialisation, as the networks of the CIFAR-100 tables do.
    """
    rows = ((UnitV1, 240, 4, 2), (UnitV1, 480, 8, 2), (UnitV1, 960, 4, 2))
    return CifarNet(*stages(conv_bn(in_chans, STEM, 1), STEM, rows), num_classes)


def shufflenet_v2(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """ShuffleNet V2 (Ma et al. 2018, arXiv:1807.11164, table 5) of width 1, then a 1 x 1 to 1024 channels."""
    rows = ((UnitV2, 116, 4, 2), (UnitV2, 232, 8, 2), (UnitV2, 464, 4, 2))
    body, ins = stages(conv_bn(in_chans, STEM, 1), STEM, rows)
    body["last"] = conv_bn(ins, 1024, 1)
    return CifarNet(body, 1024, num_classes)


register(half_mobilenetv2, CIFAR, {"cifar_mobilenetv2": {}})
register(shufflenet_v1, CIFAR, {"cifar_shufflev1": {}})
register(shufflenet_v2, CIFAR, {"cifar_shufflev2": {}})
