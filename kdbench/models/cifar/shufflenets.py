"""ShuffleNet V1 (Zhang et al. 2018, arXiv:1707.01083) and V2 (Ma et al. 2018, arXiv:1807.11164) for 32 pixels.

Both begin with a 1 x 1 convolution to 24 channels where the papers have a 3 x 3 of stride 2 and a max-pool, and
keep PyTorch's uniform initialisation, as the networks of the CIFAR-100 tables do.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.models.cifar.common import CifarNet, configs, conv_bn, create, register

STEM = 24
GROUPS = 3
V1_STAGES = ((240, 4), (480, 8), (960, 4))
"""Channels and units of each stage at three groups (table 1 of the paper)."""
V2_STAGES = ((116, 4), (232, 8), (464, 4))
"""The same at width 1 (table 5 of the paper)."""
V2_LAST = 1024


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
    """One half of the channels passes, the other goes through 1 x 1, 3 x 3 depthwise, 1 x 1; then a shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn(half, half, 1), conv_bn(half, half, 3, groups=half, relu=False), conv_bn(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        kept, changed = x.chunk(2, dim=1)
        return shuffle(torch.cat((kept, self.branch(changed)), 1), 2)


class DownV2(nn.Module):
    """The unit of stride 2: both branches see all channels, each makes half of the output."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        half = outs // 2
        self.short = nn.Sequential(conv_bn(ins, ins, 3, stride=2, groups=ins, relu=False), conv_bn(ins, half, 1))
        self.branch = nn.Sequential(
            conv_bn(ins, half, 1),
            conv_bn(half, half, 3, stride=2, groups=half, relu=False),
            conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H / 2, W / 2)."""
        return shuffle(torch.cat((self.short(x), self.branch(x)), 1), 2)


def shufflenet_v1(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """Width 1 at three groups; the last map is 960 x 4 x 4 of 32 pixels."""
    ins = STEM
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(in_chans, ins, 1))
    for stage, (outs, units) in enumerate(V1_STAGES, 1):
        parts[f"stage{stage}"] = nn.Sequential(UnitV1(ins, outs, 2), *(UnitV1(outs, outs, 1) for _ in range(units - 1)))
        ins = outs
    return CifarNet(nn.Sequential(parts), ins, num_classes)


def shufflenet_v2(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """Width 1, then a 1 x 1 convolution to 1024 channels; the last map is 4 x 4 of 32 pixels."""
    ins = STEM
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(in_chans, ins, 1))
    for stage, (outs, units) in enumerate(V2_STAGES, 1):
        parts[f"stage{stage}"] = nn.Sequential(DownV2(ins, outs), *(UnitV2(outs) for _ in range(units - 1)))
        ins = outs
    parts["last"] = conv_bn(ins, V2_LAST, 1)
    return CifarNet(nn.Sequential(parts), V2_LAST, num_classes)


default_cfgs = configs("body.stem.0", "cifar_shufflev1", "cifar_shufflev2")


@register
def cifar_shufflev1(pretrained: bool = False, **options: Any) -> nn.Module:
    """ShuffleNet V1 of the tables."""
    return create(shufflenet_v1, "cifar_shufflev1", pretrained, **options)


@register
def cifar_shufflev2(pretrained: bool = False, **options: Any) -> nn.Module:
    """ShuffleNet V2 of the tables."""
    return create(shufflenet_v2, "cifar_shufflev2", pretrained, **options)
