"""The networks of the CIFAR-100 distillation tables, made for 32 x 32 pixels and registered with timm.

Importing this registers them: ``timm.create_model("cifar_resnet20")``. Each has the structure and the number of
parameters of the networks with which the tables of Tian et al. (Contrastive Representation Distillation,
arXiv:1910.10699) were made; ``cifar_`` stands before their name because timm's own ``vgg13`` is another network.
Blocks take (B, ins, H, W) to (B, outs, H / stride, W / stride).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

Row = tuple[Callable[[int, int, int], nn.Module], int, int, int]
"""A stage: what makes a block of (channels in, channels out, stride); channels, blocks, stride of the first."""
STEM, GROUPS = 24, 3
"""Channels of a ShuffleNet's stem; groups of ShuffleNet V1."""

default_cfgs: dict[str, Any] = {}
"""timm's descriptions of the networks registered here, by name."""


def register(make: Callable[..., nn.Module], config: dict[str, Any], nets: dict[str, dict[str, Any]]) -> None:
    """Register ``make(num_classes=, in_chans=, ...)`` with timm, once for each of ``nets``: a name and its arguments.

    Asking for pretrained weights is a RuntimeError: nobody publishes any.
    """
    for name, fixed in nets.items():

        def entry(pretrained: bool = False, name: str = name, fixed: dict[str, Any] = fixed, **options: Any) -> Any:
            built: Any = build_model_with_cfg(make, name, pretrained, **{**fixed, **options})
            built.in_chans = options.get("in_chans", built.default_cfg["input_size"][0])  # for timm's tasks
            return built

        entry.__name__ = entry.__qualname__ = name
        default_cfgs.update(generate_default_cfgs({name: {"crop_pct": 1.0, "classifier": "fc", **config}}))
        register_model(entry)


CIFAR = {
    "num_classes": 100,
    "input_size": (3, 32, 32),
    "mean": (0.5071, 0.4867, 0.4408),
    "std": (0.2675, 0.2565, 0.2761),
    "first_conv": "body.stem.0",
}
"""What timm's description says of them; the normalisation is that of CIFAR-100 in the tables, pixels in [0, 1]."""


class SmallNet(nn.Module):
    """What timm asks of a network with a last linear layer ``fc``: (B, in_chans, S, S) -> logits (B, num_classes)."""

    native_only = True
    """Made for small images: the stem has nothing to shrink, see ``kdbench.models.build.apply_small_stem``."""
    num_features: int
    forward_features: Callable[[Tensor], Tensor]
    forward_head: Callable[[Tensor], Tensor]

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh last layer, or none at all for 0 classes; the pooling is what it is."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class CifarNet(SmallNet):
    """A body, the mean over positions, and one linear layer; S is 32 in the papers."""

    def __init__(self, body: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = num_features
        self.body = body
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features

    def forward_intermediates(self, x: Tensor, intermediates_only: bool = False, **ignored: object) -> Any:
        """(``forward_features``, what each part of ``body`` gives), or the latter alone, as timm has it."""
        maps: list[Tensor] = []
        for part in self.body:
            maps.append(x := part(x))
        return maps if intermediates_only else (x, maps)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)


def conv_bn(ins: int, outs: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution without bias that keeps the size (but for its stride), batch norm, and a ReLU if asked."""
    conv = nn.Conv2d(ins, outs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outs), *([nn.ReLU(inplace=True)] if relu else []))


def stages(stem: nn.Module, ins: int, *rows: Row) -> nn.Sequential:
    """A stem with ``ins`` channels and a stage a row."""
    body = nn.Sequential()
    body.add_module("stem", stem)
    for number, (block, outs, blocks, stride) in enumerate(rows, 1):
        stage = nn.Sequential(block(ins, outs, stride), *(block(outs, outs, 1) for _ in range(blocks - 1)))
        body.add_module(f"stage{number}", stage)
        ins = outs
    return body


def he_init(model: CifarNet, linear_std: float | None = None) -> CifarNet:
    """Convolutions from N(0, 2 / (k² · output channels)), their biases 0 (He et al. 2015, arXiv:1502.01852, sec. 2.2,
    in its backward form, by fan-out); batch norms are 1 and 0 from the start.

    The classifier keeps PyTorch's uniform initialisation, or gets N(0, ``linear_std``²) and zero biases.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)
    return model


class Residual(nn.Module):
    """relu(branch(x) + shortcut(x)); a change of shape is made by a 1 x 1 convolution in the shortcut."""

    def __init__(self, branch: nn.Sequential, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        same = stride == 1 and ins == outs
        self.shortcut = nn.Identity() if same else conv_bn(ins, outs, 1, stride=stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)


def basic(ins: int, outs: int, stride: int) -> Residual:
    """Two 3 x 3 convolutions."""
    branch = nn.Sequential(conv_bn(ins, outs, 3, stride=stride), conv_bn(outs, outs, 3, relu=False))
    return Residual(branch, ins, outs, stride)


def bottleneck(ins: int, outs: int, stride: int) -> Residual:
    """1 x 1 to a quarter of the channels, 3 x 3 with the stride, 1 x 1 back up."""
    mid = outs // 4
    branch = nn.Sequential(conv_bn(ins, mid, 1), conv_bn(mid, mid, 3, stride=stride), conv_bn(mid, outs, 1, relu=False))
    return Residual(branch, ins, outs, stride)


def resnet(n: int, stem: int = 16, width: int = 16, *, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """Three stages of ``n`` basic blocks: 6n + 2 layers (He et al. 2016, arXiv:1512.03385, sec. 4.2).

    Shortcuts that change the shape are 1 x 1 convolutions with batch norm, as the published parameter counts say (the
    paper's option B; its own CIFAR runs use option A, which has no weights).
    """
    rows = ((basic, width, n, 1), (basic, 2 * width, n, 2), (basic, 4 * width, n, 2))
    return he_init(CifarNet(stages(conv_bn(in_chans, stem, 3), stem, *rows), 4 * width, num_classes))


def resnet50(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """ResNet-50 with a 3 x 3 stem of stride 1 and no max-pool: stages of 3, 4, 6, 3 bottlenecks, strides 1, 2, 2, 2."""
    rows = ((bottleneck, 256, 3, 1), (bottleneck, 512, 4, 2), (bottleneck, 1024, 6, 2), (bottleneck, 2048, 3, 2))
    return he_init(CifarNet(stages(conv_bn(in_chans, 64, 3), 64, *rows), 2048, num_classes))


class PreActivation(nn.Module):
    """conv(relu(bn(conv(relu(bn(x)))))) + x; where channels change, a bare 1 x 1 convolution of relu(bn(x)) for x."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(ins), nn.ReLU(inplace=True))
        last = nn.Conv2d(outs, outs, 3, padding=1, bias=False)
        self.branch = nn.Sequential(*conv_bn(ins, outs, 3, stride=stride), last)
        self.shortcut = None if ins == outs else nn.Conv2d(ins, outs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.before(x)
        return torch.add(self.branch(active), x if self.shortcut is None else self.shortcut(active))


def wide_resnet(n: int, width: int, *, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """Zagoruyko & Komodakis 2016, arXiv:1605.07146: norm and ReLU come before a convolution; 6n + 4 layers.

    By fan-out, with PyTorch's classifier weights and zero classifier biases, as the tables' networks.
    """
    rows = ((PreActivation, 16 * width, n, 1), (PreActivation, 32 * width, n, 2), (PreActivation, 64 * width, n, 2))
    body = stages(nn.Conv2d(in_chans, 16, 3, padding=1, bias=False), 16, *rows)
    body.add_module("last", nn.Sequential(nn.BatchNorm2d(64 * width), nn.ReLU(inplace=True)))
    model = he_init(CifarNet(body, 64 * width, num_classes))
    if isinstance(model.fc, nn.Linear):
        nn.init.zeros_(model.fc.bias)
    return model


def vgg(layers: int, *, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """VGG with batch norm (Simonyan & Zisserman 2015, arXiv:1409.1556) and a single linear layer on top.

    Five stages of ``layers`` 3 x 3 convolutions with bias, batch norm and ReLU. The first three end in a max-pool of
    2, on small images the fourth does not: the last map is 4 x 4 of 32. By fan-out, the classifier from N(0, 0.01²).
    """
    body, ins = nn.Sequential(), in_chans
    for stage, outs in enumerate((64, 128, 256, 512, 512), 1):
        stack: list[nn.Module] = []
        for _ in range(layers):
            stack += [nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU(inplace=True)]
            ins = outs
        body.add_module(f"stage{stage}", nn.Sequential(*stack, *([nn.MaxPool2d(2)] if stage <= 3 else [])))
    return he_init(CifarNet(body, ins, num_classes), linear_std=0.01)


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
        out: Tensor = self.branch(x)
        return x + out if self.adds else out


def half_mobilenetv2(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) with half of the channels everywhere but in the last layer.

    Against the paper: the stage of 24 channels has stride 1; the first block has its 1 x 1 convolution although it
    does not expand; activations are ReLU, not ReLU6; channels are halved without rounding to eights. A 32-pixel
    image leaves the last stage as 2 x 2. By fan-out; the classifier from N(0, 0.01²).
    """
    first, others = partial(InvertedResidual, expansion=1), partial(InvertedResidual, expansion=6)
    rows = [(others, 12, 2, 1), (others, 16, 3, 2), (others, 32, 4, 2), (others, 48, 3, 1), (others, 80, 3, 2)]
    body = stages(conv_bn(in_chans, 16, 3, stride=2), 16, (first, 8, 1, 1), *rows, (others, 160, 1, 1))
    body.add_module("last", conv_bn(160, 1280, 1))
    return he_init(CifarNet(body, 1280, num_classes), linear_std=0.01)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """(B, C, H, W): channel j of group g moves to place j * groups + g; the result is channels_last, a copy."""
    rows: Tensor = x.permute(0, 2, 3, 1).unflatten(3, (groups, -1))
    return rows.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)


class UnitV1(nn.Module):
    """Grouped 1 x 1, shuffle, 3 x 3 depthwise, grouped 1 x 1; x is added, or pooled and put beside at stride 2."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        own = outs - ins if stride == 2 else outs
        mid = own // 4
        self.groups = 1 if ins == STEM else GROUPS
        self.reduce = conv_bn(ins, mid, 1, groups=self.groups)
        # the ReLU after the depthwise layer is not in the V1 paper; the networks of the tables have it
        self.expand = nn.Sequential(
            conv_bn(mid, mid, 3, stride=stride, groups=mid), conv_bn(mid, own, 1, groups=GROUPS, relu=False)
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        mid = self.reduce(x)
        out = self.expand(mid if self.groups == 1 else shuffle(mid, self.groups))
        return F.relu(out + x if self.pool is None else torch.cat((out, self.pool(x)), 1), inplace=True)


class UnitV2(nn.Module):
    """Two branches, put beside each other and shuffled; each makes half of the output.

    At stride 1 one half of the channels passes unchanged, at stride 2 both branches see all channels.
    """

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        half, self.down = outs // 2, stride == 2
        self.short = nn.Sequential()
        if self.down:
            self.short.extend([conv_bn(ins, ins, 3, stride=2, groups=ins, relu=False), conv_bn(ins, half, 1)])
        self.branch = nn.Sequential(
            conv_bn(ins if self.down else half, half, 1),
            conv_bn(half, half, 3, stride=stride, groups=half, relu=False),
            conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = (x, x) if self.down else x.chunk(2, dim=1)
        return shuffle(torch.cat((self.short(kept), self.branch(changed)), 1), 2)


def shufflenet_v1(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """ShuffleNet V1 (Zhang et al. 2018, arXiv:1707.01083, table 1) of width 1 at three groups; the last map is 4 x 4.

    It begins, as V2 does here, with a 1 x 1 convolution to 24 channels where the papers have a 3 x 3 of stride 2 and
    a max-pool, and keeps PyTorch's uniform initialisation, as the networks of the CIFAR-100 tables do.
    """
    rows = ((UnitV1, 240, 4, 2), (UnitV1, 480, 8, 2), (UnitV1, 960, 4, 2))
    return CifarNet(stages(conv_bn(in_chans, STEM, 1), STEM, *rows), 960, num_classes)


def shufflenet_v2(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """ShuffleNet V2 (Ma et al. 2018, arXiv:1807.11164, table 5) of width 1, then a 1 x 1 to 1024 channels."""
    body = stages(conv_bn(in_chans, STEM, 1), STEM, (UnitV2, 116, 4, 2), (UnitV2, 232, 8, 2), (UnitV2, 464, 4, 2))
    body.add_module("last", conv_bn(464, 1024, 1))
    return CifarNet(body, 1024, num_classes)


register(resnet, CIFAR, {f"cifar_resnet{6 * n + 2}": {"n": n} for n in (3, 5, 9, 18)})
register(resnet, CIFAR, {f"cifar_resnet{6 * n + 2}x4": {"n": n, "stem": 32, "width": 64} for n in (1, 5)})
register(wide_resnet, CIFAR | {"first_conv": "body.stem"},
         {f"cifar_wrn_{6 * n + 4}_{w}": {"n": n, "width": w} for n, w in ((2, 2), (6, 1), (6, 2))})  # fmt: skip
register(vgg, CIFAR | {"first_conv": "body.stage1.0"}, {"cifar_vgg8": {"layers": 1}, "cifar_vgg13": {"layers": 2}})
register(resnet50, CIFAR, {"cifar_resnet50": {}})
register(half_mobilenetv2, CIFAR, {"cifar_mobilenetv2": {}})
register(shufflenet_v1, CIFAR, {"cifar_shufflev1": {}})
register(shufflenet_v2, CIFAR, {"cifar_shufflev2": {}})
