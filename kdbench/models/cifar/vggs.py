"""VGG with batch norm for 32 pixels (Simonyan & Zisserman 2015, arXiv:1409.1556) and a single linear layer on top."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from kdbench.models.cifar.common import CifarNet, configs, create, he_init, register

CHANNELS = (64, 128, 256, 512, 512)
"""Of the five stages. The first three end in a max-pool of 2; on small images the fourth does not."""


def vgg(layers: int, *, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """Five stages of ``layers`` 3 x 3 convolutions with bias, batch norm and ReLU; the last map is 4 x 4 of 32.

    Initialised by fan-out, the classifier from N(0, 0.01²).
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    ins = in_chans
    for stage, outs in enumerate(CHANNELS, 1):
        stack: list[nn.Module] = []
        for _ in range(layers):
            stack += [nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU(inplace=True)]
            ins = outs
        if stage <= 3:
            stack.append(nn.MaxPool2d(2))
        parts[f"stage{stage}"] = nn.Sequential(*stack)
    return he_init(CifarNet(nn.Sequential(parts), ins, num_classes), linear_std=0.01)


default_cfgs = configs("body.stage1.0", "cifar_vgg8", "cifar_vgg13")


@register
def cifar_vgg8(pretrained: bool = False, **options: Any) -> nn.Module:
    """One convolution a stage."""
    return create(vgg, "cifar_vgg8", pretrained, layers=1, **options)


@register
def cifar_vgg13(pretrained: bool = False, **options: Any) -> nn.Module:
    """Two convolutions a stage."""
    return create(vgg, "cifar_vgg13", pretrained, layers=2, **options)
