"""Methods that read feature maps of stages, (B, C, H, W): the teacher runs live for them.

Stages are paired from the last backwards; where two maps of a pair differ in size, the larger is pooled to the smaller.
Each method adds weight · term to the cross-entropy, and kd where ``kd_weight`` asks for it. Defaults are the published
settings on CIFAR-100 (of mdistiller's ports, whose stages leave the stem out, as here).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kdbench.methods.base import BatchInfo, F, Loss, Need, Outputs, Range, Taps, learned, method, nn, torch
from kdbench.methods.logits import T_BOUNDS, WEIGHT, cross_entropy
from kdbench.methods.logits_reweighed import WARMUP, ramp
from kdbench.methods.pooled import guided, weighed

if TYPE_CHECKING:
    from torch import Tensor

MAPS: frozenset[Need] = frozenset({"logits", "maps"})
STAGES = 4
"""So many, from the last backwards, are compared; the first of a network that has fewer is its stem."""


def stages(student: Taps | Outputs, teacher: Taps | Outputs) -> list[tuple[int, int]]:
    """Numbers of the stages that are compared, (student's, teacher's), the earliest first."""
    ours, theirs = sorted(student.maps), sorted(teacher.maps)
    count = min(STAGES, max(1, min(len(ours), len(theirs)) - 1))
    return list(zip(ours[-count:], theirs[-count:], strict=True))


def pairs(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    """Maps of the compared stages, each pair of one size."""
    return [same_size(student.maps[ours], teacher.maps[theirs]) for ours, theirs in stages(student, teacher)]


def same_size(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """The larger map pooled to the smaller."""
    size = (min(ours.shape[2], theirs.shape[2]), min(ours.shape[3], theirs.shape[3]))
    return F.adaptive_avg_pool2d(ours, size), F.adaptive_avg_pool2d(theirs, size)


def channels(student: Taps, teacher: Taps) -> list[tuple[int, int]]:
    """Channels of the compared stages."""
    return [(student.maps[ours][0], teacher.maps[theirs][0]) for ours, theirs in stages(student, teacher)]


def total(terms: list[Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(terms).sum()


@method("fitnet", needs=MAPS, pairs="cnn->cnn", builder=True, **weighed(100, 1, 1000),
        paper="Romero et al. 2015, FitNets, arXiv:1412.6550")  # fmt: skip
def fitnet(student: Taps, teacher: Taps, **hyper: float) -> Any:
    """MSE of a regressor's (1 x 1 convolution, BN, ReLU) map to the teacher's, at the second compared stage.

    In one stage with the labels, as mdistiller has it; the paper trains the hint first.
    """
    place = min(1, len(stages(student, teacher)) - 1)
    ours, theirs = channels(student, teacher)[place]
    regress = nn.Sequential(nn.Conv2d(ours, theirs, 1), nn.BatchNorm2d(theirs), nn.ReLU())

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        one, other = pairs(said, taught)[place]
        return guided(said, taught, targets, batch, hyper, hint=F.mse_loss(own.regress(one), other))

    return learned(loss, regress=regress)


@method("at", needs=MAPS, pairs="cnn->cnn", **weighed(1000, 100, 10000),
        paper="Zagoruyko and Komodakis 2017, Attention Transfer, arXiv:1612.03928")  # fmt: skip
def at(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, **hyper: float) -> Loss:
    """Mean squared gap between attention maps (mean over channels of the squares, of length 1), over stages."""
    gaps = []
    for both in pairs(student, teacher):
        ours, theirs = (F.normalize(one.square().mean(1).flatten(1)) for one in both)
        gaps.append(F.mse_loss(ours, theirs))
    return guided(student, teacher, targets, batch, hyper, attention=total(gaps))


@method("nst", needs=MAPS, pairs="cnn->cnn", **weighed(50, 5, 500),
        paper="Huang and Wang 2017, Neuron Selectivity Transfer, arXiv:1707.01219")  # fmt: skip
def nst(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, **hyper: float) -> Loss:
    """Squared MMD between channels' normalised activation patterns, polynomial kernel (a · b)² (eq. 4 to 6)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.transpose(1, 2)).square().mean()

    gaps = []
    for both in pairs(student, teacher):
        ours, theirs = (F.normalize(one.flatten(2), dim=2) for one in both)
        gaps.append(kernel(theirs, theirs) + kernel(ours, ours) - 2 * kernel(ours, theirs))
    return guided(student, teacher, targets, batch, hyper, mmd=total(gaps))


@method("vid", needs=MAPS, pairs="cnn->cnn", builder=True, **weighed(1, 0.1, 10, variance=(5.0, (1e-3, 100))),
        paper="Ahn et al. 2019, Variational Information Distillation, arXiv:1904.05835")  # fmt: skip
def vid(student: Taps, teacher: Taps, *, variance: float = 5.0, **hyper: float) -> Any:
    """Negative log-likelihood of the teacher's maps under Gaussians of regressed mean, one variance a channel (eq. 4).

    The variances are trained; mdistiller leaves them out of its optimiser.
    """
    owned: dict[str, Any] = {}
    for place, (ours, theirs) in enumerate(channels(student, teacher)):
        layers = [nn.Conv2d(a, theirs, 1, bias=False) for a in (ours, theirs, theirs)]
        owned[f"mean{place}"] = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        owned[f"scale{place}"] = nn.Parameter(torch.full((theirs,), math.log(math.expm1(variance - 1e-5))))

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        terms = []
        for place, (one, other) in enumerate(pairs(said, taught)):
            spread = F.softplus(getattr(own, f"scale{place}")).add(1e-5)[None, :, None, None]
            gap = getattr(own, f"mean{place}")(one) - other
            terms.append(0.5 * (gap.square() / spread + spread.log()).mean())
        return guided(said, taught, targets, batch, hyper, likelihood=total(terms))

    return learned(loss, **owned)


@method("ickd", needs=MAPS, pairs="cnn->cnn", builder=True, **weighed(2.5, 0.25, 25),
        paper="Liu et al. 2021, Exploring Inter-Channel Correlation, arXiv:2202.03680")  # fmt: skip
def ickd(student: Taps, teacher: Taps, **hyper: float) -> Any:
    """Gap between the correlations of channels (rows of length 1) of the last maps, summed, over C · B²."""
    ours, theirs = channels(student, teacher)[-1]
    embed = nn.Sequential(nn.Conv2d(ours, theirs, 1), nn.BatchNorm2d(theirs))

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        one, other = pairs(said, taught)[-1]
        grams = [F.normalize(f @ f.transpose(1, 2), dim=2) for f in (own.embed(one).flatten(2), other.flatten(2))]
        gap = (grams[0] - grams[1]).square().sum() / (other.shape[1] * len(other) ** 2)
        return guided(said, taught, targets, batch, hyper, correlation=gap)

    return learned(loss, embed=embed)


@method("mgd", needs=MAPS, pairs="cnn->cnn", builder=True, **weighed(7e-5, 7e-6, 7e-4, masked=(0.15, (0.0, 0.95))),
        paper="Yang et al. 2022, Masked Generative Distillation, arXiv:2205.01529")  # fmt: skip
def mgd(student: Taps, teacher: Taps, *, masked: float = 0.15, **hyper: float) -> Any:
    """The teacher's last map generated from the student's with a share of its channels hidden: squares, over B.

    Published (with that weight) for ImageNet.
    """
    ours, theirs = channels(student, teacher)[-1]
    convs = [nn.Conv2d(theirs, theirs, 3, padding=1) for _ in range(2)]

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        one, other = pairs(said, taught)[-1]
        one = own.align(one)
        kept = torch.rand(one.shape[:2], device=one.device)[..., None, None] >= masked
        gap = F.mse_loss(own.generate(one * kept), other, reduction="sum") / len(other)
        return guided(said, taught, targets, batch, hyper, generated=gap)

    generate = nn.Sequential(convs[0], nn.ReLU(), convs[1])
    return learned(loss, align=nn.Conv2d(ours, theirs, 1), generate=generate)


@method("reviewkd", needs=MAPS | {"pooled"}, pairs="cnn->cnn", builder=True,
        **weighed(5, 0.5, 10, warmup_share=(WARMUP, (0.0, 1.0))),
        paper="Chen et al. 2021, Distilling Knowledge via Knowledge Review, arXiv:2104.09044")  # fmt: skip
def reviewkd(student: Taps, teacher: Taps, *, warmup_share: float = WARMUP, **hyper: float) -> Any:
    """Each of the student's levels, fused with the deeper ones by attention, against the teacher's: pyramid of MSEs.

    Levels are the compared stages and the pooled vector; the weight grows over ``warmup_share`` of the epochs.
    """
    widths = [*channels(student, teacher), (student.pooled, teacher.pooled)]
    middle = min(512, widths[-1][0])
    owned: dict[str, Any] = {}
    for level, (ours, theirs) in enumerate(widths):
        owned[f"in{level}"] = nn.Sequential(nn.Conv2d(ours, middle, 1, bias=False), nn.BatchNorm2d(middle))
        out = nn.Conv2d(middle, theirs, 3, padding=1, bias=False)
        owned[f"out{level}"] = nn.Sequential(out, nn.BatchNorm2d(theirs))
        if level < len(widths) - 1:
            owned[f"attend{level}"] = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        assert said.pooled is not None and taught.pooled is not None
        chosen = stages(said, taught)
        ours = [*(said.maps[one] for one, _ in chosen), said.pooled.flatten(1)[..., None, None]]
        theirs = [*(taught.maps[other] for _, other in chosen), taught.pooled.flatten(1)[..., None, None]]
        terms, carried = [], ours[-1]
        for level in range(len(ours) - 1, -1, -1):
            x = getattr(own, f"in{level}")(ours[level])
            if level < len(ours) - 1:
                carried = F.interpolate(carried, x.shape[2:], mode="nearest")
                share = getattr(own, f"attend{level}")(torch.cat([x, carried], 1))
                x = x * share[:, :1] + carried * share[:, 1:]
            carried = F.interpolate(x, theirs[level].shape[2:], mode="nearest")
            terms.append(pyramid(getattr(own, f"out{level}")(carried), theirs[level]))
        review = ramp(batch, warmup_share) * total(terms)
        return guided(said, taught, targets, batch, hyper, review=review)

    return learned(loss, **owned)


def pyramid(ours: Tensor, theirs: Tensor) -> Tensor:
    """MSE of the maps and of their 4 x 4, 2 x 2 and 1 x 1 poolings where those are smaller; weights halve (eq. 5)."""
    sizes = [size for size in (4, 2, 1) if size < ours.shape[2]]
    terms = [F.mse_loss(ours, theirs)]
    terms += [F.mse_loss(F.adaptive_avg_pool2d(ours, n), F.adaptive_avg_pool2d(theirs, n)) for n in sizes]
    weights = [0.5**k for k in range(len(terms))]
    return sum((w * term for w, term in zip(weights, terms, strict=True)), torch.zeros_like(terms[0])) / sum(weights)


@method("ofa", needs=frozenset({"logits", "student-maps"}), pairs="any->cnn", builder=True,
        space={"eps": Range(0.5, 2), "weight": Range(0.1, 10, log=True)},
        defaults={"eps": 1.0, "weight": 1.0, "temperature": 1.0},
        bounds={"eps": (0.1, 4), "weight": WEIGHT, "temperature": T_BOUNDS},
        paper="Hao et al. 2023, One-for-All, arXiv:2310.19444")  # fmt: skip
def ofa(student: Taps, teacher: Taps, *, eps: float, weight: float, temperature: float = 1.0) -> Any:
    """CE + weight · the adapted loss (eq. 6) of the student's logits and of a branch at each of its stages.

    Σ −((p_t + 1_y)^eps − 1_y) log p_s: the teacher needs no maps, whatever it is made of. A branch halves its map by
    separable convolutions as often as the later stages do, then pools and classifies.
    """
    compared = sorted(student.maps)[-STAGES:]
    widest = max(student.maps[stage][0] for stage in compared)
    owned: dict[str, Any] = {}
    for after, stage in enumerate(reversed(compared)):
        width = student.maps[stage][0]
        widths = [min(widest, width * 2**k) for k in range(after)] + [widest]
        layers = [separable(a, b) for a, b in pairwise(widths)] if after else [nn.Conv2d(width, widest, 1)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widest, student.classes)]
        owned[f"branch{stage}"] = nn.Sequential(*layers)

    def adapted(logits: Tensor, taught: Tensor, targets: Tensor) -> Tensor:
        label = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        wanted = ((taught / temperature).softmax(1) + label) ** eps - label
        return -(wanted * F.log_softmax(logits / temperature, 1)).sum(1).mean()

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        branches = [getattr(own, f"branch{stage}")(said.maps[stage]) for stage in compared]
        soft = adapted(said.logits, taught.logits, targets)
        inner = total([adapted(logits, taught.logits, targets) for logits in branches])
        hard = cross_entropy(said, targets, batch)
        return Loss(hard + weight * (soft + inner), {"soft": soft, "branches": inner, "hard": hard})

    return learned(loss, **owned)


def separable(width: int, wider: int) -> nn.Module:
    """Depthwise and pointwise twice, the first at stride 2 (OFA-KD's SepConv)."""

    def block(a: int, b: int, stride: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(a, a, 3, stride, 1, groups=a, bias=False)
        return [depthwise, nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    return nn.Sequential(*block(width, width, 2), *block(width, wider, 1))
