"""Wasserstein distances in place of the Kullback-Leibler divergence (Lv et al. 2024, arXiv:2412.08139)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kdbench.errors import BadInput
from kdbench.methods.base import BatchInfo, F, Loss, Outputs, Range, Taps, learned, method, nn, torch
from kdbench.methods.logits import T_BOUNDS, WEIGHT, cross_entropy
from kdbench.methods.logits_reweighed import SHARE
from kdbench.methods.maps import MAPS, channels, pairs
from kdbench.methods.pooled import FREE, guided, weighed

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "Lv et al. 2024, Wasserstein Distance Rivals Kullback-Leibler Divergence, arXiv:2412.08139"
DECAY = 0.625
"""Share of the epochs after which the weight falls to 0 as a cosine (150 of 240)."""


def decayed(batch: BatchInfo, since: float) -> float:
    """What is left of the weight in this epoch."""
    done = (batch.epoch / batch.epochs - since) / max(1 - since, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))


def sinkhorn(ours: Tensor, theirs: Tensor, cost: Tensor, start: Tensor, reg: float, rounds: int) -> Tensor:
    """Cost of the entropic plan between distributions (B, C), by so many rounds of scaling from ``start``, (B,)."""
    kernel, u, v = torch.exp(-cost / reg), start, start
    for _ in range(rounds):
        v = theirs / (u @ kernel + 1e-8)
        u = ours / (v @ kernel.T + 1e-8)
    return (u * (v @ (kernel * cost).T)).sum(1)


@method("wkd-l", builder=True,
        space={"temperature": Range(1, 8, log=True), "weight": Range(20, 1000, log=True)},
        defaults={"temperature": 8.0, "weight": 600.0, "reg": 0.05, "rounds": 10.0, "sharpen": 1.0,
                  "decay_from": DECAY},
        bounds={"temperature": T_BOUNDS, "weight": FREE, "reg": (1e-3, 1e3), "rounds": (1, 100), "sharpen": WEIGHT,
                "decay_from": SHARE}, paper=PAPER)  # fmt: skip
def wkd_l(
    student: Taps, teacher: Taps, *, temperature: float = 8.0, weight: float = 600.0, reg: float = 0.05,
    rounds: float = 10.0, sharpen: float = 1.0, decay_from: float = DECAY,
) -> Any:  # fmt: skip
    """CE - p_t(y) log p_s(y) + weight · W(p_s, p_t) at T without the label's class, after some rounds of Sinkhorn.

    Moving mass between classes costs 1 - exp(-sharpen · (1 - cosine of the teacher's weights for them)); the authors'
    other choice, the alignment of the classes' features (CKA), needs a pass over the training images.
    """
    if not isinstance(weights := getattr(teacher.head, "weight", None), torch.Tensor):
        raise BadInput("method 'wkd-l' needs a teacher whose classifier is one linear layer")
    rows = F.normalize(weights.detach().flatten(1).float(), dim=1)
    cost = 1 - torch.exp(-sharpen * (1 - rows @ rows.T))

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        label, own_class = F.one_hot(targets, said.logits.shape[1]).bool(), targets[:, None]
        likely = taught.logits.softmax(1).gather(1, own_class)
        target = -(likely * said.logits.log_softmax(1).gather(1, own_class)).mean()
        ours, theirs = ((out.logits / temperature).masked_fill(label, -torch.inf).softmax(1) for out in (said, taught))
        start = (~label).to(ours) / max(1, label.shape[1] - 1)
        apart = sinkhorn(ours, theirs, own.cost.to(ours).relu() + 1e-8, start, reg, int(rounds)).mean()
        hard = cross_entropy(said, targets, batch)
        total = hard + target + decayed(batch, decay_from) * weight * apart
        return Loss(total, {"transport": apart, "target": target, "hard": hard})

    return learned(loss, cost=cost)


@method("wkd-f", needs=MAPS, pairs="cnn->cnn", builder=True,
        **weighed(0.08, 0.002, 1, ratio=(4.0, FREE), decay_from=(DECAY, SHARE)), paper=PAPER)  # fmt: skip
def wkd_f(student: Taps, teacher: Taps, *, ratio: float = 4.0, decay_from: float = DECAY, **hyper: float) -> Any:
    """Squared Wasserstein distance of Gaussians (diagonal) fitted to the places of the last maps, the student's through
    a 1 x 1 convolution, BN and ReLU: ratio · squared gaps of the means + those of the deviations, over B (eq. 10).
    """
    ours, theirs = channels(student, teacher)[-1]

    def moments(f: Tensor) -> tuple[Tensor, Tensor]:
        spread = f.var((2, 3), correction=min(1, f[0, 0].numel() - 1))
        return f.mean((2, 3)), (spread + 1e-5).sqrt()

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        one, other = pairs(said, taught)[-1]
        (m, s), (mt, st) = moments(own.project(one)), moments(other)
        gap = (ratio * (m - mt).square().sum() + (s - st).square().sum()) / len(m)
        return guided(said, taught, targets, batch, hyper, transport=decayed(batch, decay_from) * gap)

    return learned(loss, project=nn.Sequential(nn.Conv2d(ours, theirs, 1), nn.BatchNorm2d(theirs), nn.ReLU()))
