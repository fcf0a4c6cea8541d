"""What the CIFAR families share: body, pooling and classifier; initialisation; registration with timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

Entry = Callable[..., nn.Module]

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
"""Normalisation of CIFAR-100 in the distillation tables, a value a colour of pixels in [0, 1]."""


class CifarNet(nn.Module):
    """A body, the mean over positions, and one linear layer: (B, in_chans, S, S) -> logits (B, num_classes).

    The parts of ``body`` have names (``stem``, ``stage1``, ...), so that a hook can find them. S is 32 in the
    papers; other sizes work as long as the strides leave a pixel.
    """

    native_only = True
    """Made for small images: the stem has nothing to shrink, see ``kdbench.models.stem``."""

    def __init__(self, body: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = num_features
        self.body = body
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


def configs(first_conv: str, *names: str) -> dict[str, Any]:
    """Descriptions, for timm, of networks for CIFAR-100, without pretrained weights."""
    common = {
        "num_classes": 100,
        "input_size": (3, 32, 32),
        "crop_pct": 1.0,
        "mean": MEAN,
        "std": STD,
        "first_conv": first_conv,
        "classifier": "fc",
    }
    found: dict[str, Any] = generate_default_cfgs({name: dict(common) for name in names})
    return found


def register(entry: Entry) -> Entry:
    """``timm.models.register_model``, typed."""
    register_model(entry)
    return entry


def create(make: Callable[..., nn.Module], name: str, pretrained: bool, **options: Any) -> nn.Module:
    """What an entry point returns: ``make(num_classes=, in_chans=, ...)`` with timm's description attached.

    Raises:
        RuntimeError: ``pretrained``, because nobody publishes weights in this layout.
    """
    built: Any = build_model_with_cfg(make, name, pretrained, **options)
    built.in_chans = options.get("in_chans", built.default_cfg["input_size"][0])  # timm's training tasks read it
    model: nn.Module = built
    return model
