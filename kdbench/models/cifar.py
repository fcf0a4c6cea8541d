"""The networks of the CIFAR-100 distillation tables, made for 32 x 32 pixels and registered with timm.

Here the residual networks and VGGs; ``cifar_mobile`` has the others. Importing them registers them, so that
``timm.create_model("cifar_resnet20")`` works. Each has the structure and the number of parameters of the networks
with which the tables of Tian et al. (Contrastive Representation Distillation, arXiv:1910.10699) were made;
``cifar_`` before the tables' name in lower case is the name here, because timm's own ``vgg13`` and ``resnet50``
are other networks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

Unit = Callable[[int, int, int], nn.Module]
"""(channels in, channels out, stride) -> one block."""

default_cfgs: dict[str, Any] = {}
"""timm's descriptions of the networks registered here, by name."""


def register(make: Callable[..., nn.Module], config: dict[str, Any], nets: dict[str, dict[str, Any]]) -> None:
    """Register ``make(num_classes=, in_chans=, ...)`` with timm, once for each of ``nets``: a name and its arguments.

    ``config`` describes them all for timm. Asking for pretrained weights is a RuntimeError: nobody publishes any.
    """
    for name, fixed in nets.items():

        def entry(
            pretrained: bool = False, name: str = name, fixed: dict[str, Any] = fixed, **options: Any
        ) -> nn.Module:
            built: Any = build_model_with_cfg(make, name, pretrained, **{**fixed, **options})
            built.in_chans = options.get(
                "in_chans", built.default_cfg["input_size"][0]
            )  # timm's training tasks read it
            model: nn.Module = built
            return model

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


class CifarNet(nn.Module):
    """A body, the mean over positions, and one linear layer: (B, in_chans, S, S) -> logits (B, num_classes).

    The parts of ``body`` have names (``stem``, ``stage1``, ...), so that a hook can find them. S is 32 in the
    papers; other sizes work as long as the strides leave a pixel.
    """

    native_only = True
    """Made for small images: the stem has nothing to shrink, see ``kdbench.models.build.apply_small_stem``."""

    def __init__(self, body: OrderedDict[str, nn.Module], num_features: int, num_classes: int) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = num_features
        self.body = nn.Sequential(body)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh linear layer, or none at all for 0 classes; the pooling is always the mean."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, S, S) -> the last feature map (B, num_features, h, w)."""
        features: Tensor = self.body(x)
        return features

    def forward_intermediates(self, x: Tensor, **ignored: object) -> tuple[Tensor, list[Tensor]]:
        """``forward_features``, and what each part of ``body`` gives."""
        maps: list[Tensor] = []
        for part in self.body:
            maps.append(x := part(x))
        return x, maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, h, w) -> logits (B, num_classes), or the pooled features (B, num_features)."""
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, S, S) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


def conv_bn(ins: int, outs: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution without bias that keeps the size (but for its stride), batch norm, and a ReLU if asked."""
    conv = nn.Conv2d(ins, outs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outs), *([nn.ReLU(inplace=True)] if relu else []))


def stages(
    stem: nn.Module, ins: int, rows: Iterable[tuple[Unit, int, int, int]]
) -> tuple[OrderedDict[str, nn.Module], int]:
    """A stem with ``ins`` channels and a stage a row (unit, channels, units, stride of the first): body, channels."""
    body: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    for number, (unit, outs, units, stride) in enumerate(rows, 1):
        first = unit(ins, outs, stride)
        body[f"stage{number}"] = nn.Sequential(first, *(unit(outs, outs, 1) for _ in range(units - 1)))
        ins = outs
    return body, ins


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


def _blocks(depth: int, rest: int, kind: str) -> int:
    """Blocks a stage of ``depth`` = 6n + ``rest`` layers."""
    blocks, over = divmod(depth - rest, 6)
    if over or blocks < 1:
        raise ValueError(f"a {kind} ResNet has 6n + {rest} layers, not {depth}")
    return blocks


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
    branch = nn.Sequential(conv_bn(ins, outs, 3, stride=stride), conv_bn(outs, outs, 3, relu=False))
    return Residual(branch, ins, outs, stride)


def bottleneck(ins: int, outs: int, stride: int) -> Residual:
    """1 x 1 to a quarter of the channels, 3 x 3 with the stride, 1 x 1 back up."""
    mid = outs // 4
    branch = nn.Sequential(conv_bn(ins, mid, 1), conv_bn(mid, mid, 3, stride=stride), conv_bn(mid, outs, 1, relu=False))
    return Residual(branch, ins, outs, stride)


def resnet(depth: int, stem: int = 16, width: int = 16, *, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """Three stages of n basic blocks, ``depth`` = 6n + 2 (He et al. 2016, arXiv:1512.03385, sec. 4.2).

    A 3 x 3 stem, then ``width`` channels, twice and four times as many; strides 1, 2, 2. Shortcuts that change the
    shape are 1 x 1 convolutions with batch norm (the paper's option B; its own CIFAR runs use option A, which has no
    weights), and the published parameter counts say so.
    """
    n = _blocks(depth, 2, "CIFAR")
    rows = ((basic, width, n, 1), (basic, 2 * width, n, 2), (basic, 4 * width, n, 2))
    return he_init(CifarNet(*stages(conv_bn(in_chans, stem, 3), stem, rows), num_classes))


def resnet50(*, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """ResNet-50 with a 3 x 3 stem of stride 1 and no max-pool: stages of 3, 4, 6, 3 bottlenecks, strides 1, 2, 2, 2."""
    rows = ((bottleneck, 256, 3, 1), (bottleneck, 512, 4, 2), (bottleneck, 1024, 6, 2), (bottleneck, 2048, 3, 2))
    return he_init(CifarNet(*stages(conv_bn(in_chans, 64, 3), 64, rows), num_classes))


class PreActivation(nn.Module):
    """conv(relu(bn(conv(relu(bn(x)))))) + x; where channels change, a bare 1 x 1 convolution of relu(bn(x)) for x."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(ins), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(
            *conv_bn(ins, outs, 3, stride=stride), nn.Conv2d(outs, outs, 3, padding=1, bias=False)
        )
        self.shortcut = None if ins == outs else nn.Conv2d(ins, outs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H / stride, W / stride)."""
        active = self.before(x)
        out: Tensor = self.branch(active) + (x if self.shortcut is None else self.shortcut(active))
        return out


def wide_resnet(depth: int, width: int, *, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """Zagoruyko & Komodakis 2016, arXiv:1605.07146: norm and ReLU come before a convolution; ``depth`` = 6n + 4.

    A 3 x 3 stem of 16 channels, three stages of n blocks with 16, 32, 64 times ``width``. Initialised by fan-out, with
    PyTorch's classifier weights and zero classifier biases, as the tables' networks.
    """
    n = _blocks(depth, 4, "wide")
    rows = ((PreActivation, 16 * width, n, 1), (PreActivation, 32 * width, n, 2), (PreActivation, 64 * width, n, 2))
    body, outs = stages(nn.Conv2d(in_chans, 16, 3, padding=1, bias=False), 16, rows)
    body["last"] = nn.Sequential(nn.BatchNorm2d(outs), nn.ReLU(inplace=True))
    model = he_init(CifarNet(body, outs, num_classes))
    if isinstance(model.fc, nn.Linear):
        nn.init.zeros_(model.fc.bias)
    return model


def vgg(layers: int, *, num_classes: int = 100, in_chans: int = 3) -> CifarNet:
    """VGG with batch norm (Simonyan & Zisserman 2015, arXiv:1409.1556) and a single linear layer on top.

    Five stages of ``layers`` 3 x 3 convolutions with bias, batch norm and ReLU. The first three end in a max-pool of
    2, on small images the fourth does not: the last map is 4 x 4 of 32. By fan-out, the classifier from N(0, 0.01²).
    """
    body: OrderedDict[str, nn.Module] = OrderedDict()
    ins = in_chans
    for stage, outs in enumerate((64, 128, 256, 512, 512), 1):
        stack: list[nn.Module] = []
        for _ in range(layers):
            stack += [nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU(inplace=True)]
            ins = outs
        body[f"stage{stage}"] = nn.Sequential(*stack, *([nn.MaxPool2d(2)] if stage <= 3 else []))
    return he_init(CifarNet(body, ins, num_classes), linear_std=0.01)


register(resnet, CIFAR, {f"cifar_resnet{depth}": {"depth": depth} for depth in (20, 32, 56, 110)})
register(resnet, CIFAR, {f"cifar_resnet{depth}x4": {"depth": depth, "stem": 32, "width": 64} for depth in (8, 32)})
register(resnet50, CIFAR, {"cifar_resnet50": {}})
register(wide_resnet, CIFAR | {"first_conv": "body.stem"},
         {f"cifar_wrn_{d}_{w}": {"depth": d, "width": w} for d, w in ((16, 2), (40, 1), (40, 2))})  # fmt: skip
register(vgg, CIFAR | {"first_conv": "body.stage1.0"}, {"cifar_vgg8": {"layers": 1}, "cifar_vgg13": {"layers": 2}})
