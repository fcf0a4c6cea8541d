"""The MNIST networks of Hinton, Vinyals & Dean 2015 (arXiv:1503.02531, section 3), registered with timm.

Two hidden layers of equal width with ReLU on the flattened image: ``hinton_mlp_1200`` is the teacher, with
dropout; 800, 300 and 30 units a layer are the students, without. The paper states neither dropout rates nor
initialisation: the rates are those of the dropout paper on MNIST (Hinton et al. 2012, arXiv:1207.0580), half of
the hidden units and a fifth of the pixels; weights are He normal by fan-in (arXiv:1502.01852), biases 0.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs
from torch import Tensor, nn

from kdbench.models.cifar.common import create, register
from kdbench.models.dropout import CoarseDropout


class HintonMLP(nn.Module):
    """(B, in_chans, S, S) -> logits (B, num_classes) through two hidden layers of ``width`` units.

    Args:
        width: units in each hidden layer.
        num_classes: number of logits; 0 leaves the last hidden layer as output.
        in_chans: colours of the image.
        img_size: S in pixels, or (height, width).
        drop_rate: share of hidden units dropped in training, in both layers.
        input_drop_rate: share of pixels dropped in training.
    """

    native_only = True
    """There is no stem, see ``kdbench.models.stem``."""

    def __init__(
        self,
        width: int,
        *,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: int | tuple[int, int] = 28,
        drop_rate: float = 0.0,
        input_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        height, breadth = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.num_features = self.head_hidden_size = width
        self.drop_input = CoarseDropout(input_drop_rate)
        self.hidden1 = nn.Linear(in_chans * height * breadth, width)
        self.drop1 = CoarseDropout(drop_rate)
        self.hidden2 = nn.Linear(width, width)
        self.drop2 = CoarseDropout(drop_rate)
        for layer in (self.hidden1, self.hidden2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.reset_classifier(num_classes)

    def max_norm_weights(self) -> tuple[Tensor, Tensor]:
        """The weights that a max-norm constraint is about, (units, inputs) each: a row is what enters one unit."""
        return self.hidden1.weight, self.hidden2.weight

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh last layer, or none at all for 0 classes; there is nothing to pool."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if isinstance(self.fc, nn.Linear):
            nn.init.kaiming_normal_(self.fc.weight, nonlinearity="linear")
            nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, S, S) -> the second hidden layer (B, width), before its dropout."""
        first = self.drop1(self.hidden1(self.drop_input(x.flatten(1))).relu())
        out: Tensor = self.hidden2(first).relu()
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, width) -> logits (B, num_classes)."""
        return x if pre_logits else self.fc(self.drop2(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, S, S) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        f"hinton_mlp_{width}": {
            "num_classes": 10,
            "input_size": (1, 28, 28),
            "fixed_input_size": True,  # the first layer has a weight for each pixel
            "crop_pct": 1.0,
            "mean": (0.1307,),
            "std": (0.3081,),
            "first_conv": None,
            "classifier": "fc",
        }
        for width in (30, 300, 800, 1200)
    }
)


@register
def hinton_mlp_1200(pretrained: bool = False, **options: Any) -> nn.Module:
    """784-1200-1200-10 with dropout; ``drop_rate`` and ``input_drop_rate`` change it."""
    rates = {"drop_rate": 0.5, "input_drop_rate": 0.2}
    return create(HintonMLP, "hinton_mlp_1200", pretrained, **{"width": 1200, **rates, **options})


@register
def hinton_mlp_800(pretrained: bool = False, **options: Any) -> nn.Module:
    """784-800-800-10."""
    return create(HintonMLP, "hinton_mlp_800", pretrained, **{"width": 800, **options})


@register
def hinton_mlp_300(pretrained: bool = False, **options: Any) -> nn.Module:
    """784-300-300-10."""
    return create(HintonMLP, "hinton_mlp_300", pretrained, **{"width": 300, **options})


@register
def hinton_mlp_30(pretrained: bool = False, **options: Any) -> nn.Module:
    """784-30-30-10."""
    return create(HintonMLP, "hinton_mlp_30", pretrained, **{"width": 30, **options})
