"""The MNIST networks of Hinton, Vinyals & Dean 2015 (arXiv:1503.02531, section 3), registered with timm.

Two hidden layers of equal width with ReLU on the flattened image: ``hinton_mlp_1200`` is the teacher, with
dropout; 800, 300 and 30 units a layer are the students, without. The paper states neither dropout rates nor
initialisation: the rates are those of the dropout paper on MNIST (Hinton et al. 2012, arXiv:1207.0580), half of
the hidden units and a fifth of the pixels; weights are He normal by fan-in (arXiv:1502.01852), biases 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.cifar import SmallNet, register

LEVELS = 2**16


class CoarseDropout(nn.Dropout):
    """``nn.Dropout`` that draws 16 random bits an element on a CPU, a quarter of what PyTorch draws.

    The share dropped is ``p`` to the nearest 1/65,536; what is kept is scaled for that share.
    """

    def forward(self, x: Tensor) -> Tensor:
        level = round(self.p * LEVELS)
        if not self.training or level == 0:
            return x
        if x.device.type != "cpu" or level == LEVELS:
            return F.dropout(x, self.p, training=True)
        bits = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),)).view(torch.int16)[: x.numel()]
        kept = (bits >= level - LEVELS // 2).view(x.shape)
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - level))


class HintonMLP(SmallNet):
    """(B, in_chans, S, S) -> logits (B, num_classes) through two hidden layers of ``width`` units.

    ``img_size`` is S or (height, width); ``drop_rate`` the share of hidden units dropped in training, in both layers,
    ``input_drop_rate`` that of pixels.
    """

    def __init__(
        self, width: int, *, num_classes: int = 10, in_chans: int = 1, img_size: int | tuple[int, int] = 28,
        drop_rate: float = 0.0, input_drop_rate: float = 0.0,
    ) -> None:  # fmt: skip
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

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        super().reset_classifier(num_classes)
        if isinstance(self.fc, nn.Linear):
            nn.init.kaiming_normal_(self.fc.weight, nonlinearity="linear")
            nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """The second hidden layer (B, width), before its dropout."""
        first = self.drop1(F.relu(self.hidden1(self.drop_input(x.flatten(1)))))
        return F.relu(self.hidden2(first))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x if pre_logits else self.fc(self.drop2(x))


MNIST = {
    "num_classes": 10,
    "input_size": (1, 28, 28),
    "fixed_input_size": True,  # the first layer has a weight for each pixel
    "mean": (0.1307,),
    "std": (0.3081,),
    "first_conv": None,
}

register(HintonMLP, MNIST, {f"hinton_mlp_{width}": {"width": width} for width in (30, 60, 120, 300, 800)})
register(HintonMLP, MNIST, {"hinton_mlp_1200": {"width": 1200, "drop_rate": 0.5, "input_drop_rate": 0.2}})
