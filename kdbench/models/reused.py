"""A student with the teacher's classifier (SimKD): what is trained, counted and shipped is the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSIFIER, SIDE = "classifier", "side"


class _Classifier(nn.Linear):
    """One that is counted as the student's, and that no loss reaches."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.detach(), None if self.bias is None else self.bias.detach())


class Reused(nn.Module):
    """``body``'s last map, projected to the teacher's, averaged, and classified by the teacher's classifier.

    The projector is the authors' bottleneck (1 x 1, 3 x 3, 1 x 1 convolutions with half of the teacher's channels
    between them); a map larger than the teacher's, ``side`` pixels, is pooled to that first. What of the body only its
    own head used is dropped. Calls are timm's: ``forward_features``, ``forward_head``, ``forward_intermediates``.
    """

    def __init__(self, body: nn.Module, image: Tensor, classifier: nn.Linear, channels: int, side: int) -> None:
        super().__init__()
        self.body = body
        given = _without_head(body, image)
        middle = channels // 2
        self.projector = nn.Sequential(
            nn.Conv2d(given, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(inplace=True),
            nn.Conv2d(middle, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(inplace=True),
            nn.Conv2d(middle, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.classifier = _Classifier(classifier.in_features, classifier.out_features, classifier.bias is not None)
        self.classifier.load_state_dict({name: one.cpu() for name, one in classifier.state_dict().items()})
        self.register_buffer(SIDE, torch.tensor(side))
        self._side = side

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W), in the teacher's channels."""
        last = _last_map(self.body, x)
        if last.shape[-1] > self._side:
            last = F.adaptive_avg_pool2d(last, self._side)
        projected: Tensor = self.projector(last)
        return projected

    def forward_intermediates(self, x: Tensor, **_: Any) -> tuple[Tensor, list[Tensor]]:
        """The features, which are the only map there is."""
        features = self.forward_features(x)
        return features, [features]

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The teacher's."""
        return self.classifier


def fitting(network: nn.Module, state: Mapping[str, Tensor], image: Tensor) -> nn.Module:
    """The network that trained weights belong to: ``network`` as built, or with a reused classifier around it.

    ``image``: zeros of the images' shape (1, C, S, S).
    """
    if SIDE not in state:
        return network
    classes, channels = state[f"{CLASSIFIER}.weight"].shape[:2]
    head = nn.Linear(channels, classes, bias=f"{CLASSIFIER}.bias" in state)
    return Reused(network, image, head, channels, int(state[SIDE]))


def _last_map(body: Any, x: Tensor) -> Tensor:
    maps: list[Tensor] = body.forward_intermediates(x, norm=False, output_fmt="NCHW", intermediates_only=True)
    return maps[-1]


@torch.no_grad()
def _without_head(body: nn.Module, image: Tensor) -> int:
    """Take out of the body what its last map does not come from; the channels of that map."""
    seen: set[nn.Module] = set()
    hooks = [each.register_forward_hook(lambda module, *_: seen.add(module)) for each in body.modules()]
    training = body.training
    last = _last_map(body.eval(), image)
    body.train(training)
    for hook in hooks:
        hook.remove()
    for name, child in body.named_children():
        if not seen.intersection(child.modules()):
            setattr(body, name, nn.Identity())
    return last.shape[1]
