"""Methods that compare parts of the last map, or all stages with all: the teacher runs live for them.

``averaged`` among a method's needs: its networks classify the mean of their last map by one linear layer, so that the
same layer classifies any part of the map.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

from kdbench.methods.base import BatchInfo, F, Loss, Outputs, Range, Taps, learned, method, nn, torch
from kdbench.methods.logits import T_BOUNDS, cross_entropy
from kdbench.methods.logits_reweighed import SHARE, WARMUP, divergence, ramp
from kdbench.methods.maps import MAPS, STAGES, channels, pairs, same_size, total
from kdbench.methods.pooled import FREE, guided, weighed

if TYPE_CHECKING:
    from torch import Tensor

AVERAGED = MAPS | {"pooled", "averaged"}


def regions(said: Outputs, head: Any, sizes: tuple[int, ...], *, bias: bool = True) -> Tensor:
    """Logits of the parts of the last map that grids of ``sizes`` a side cut, (B, parts, classes), 1: of all of it."""
    last = said.maps[max(said.maps)]
    means = torch.cat([F.adaptive_avg_pool2d(last, size).flatten(2) for size in sizes], 2).transpose(1, 2)
    return F.linear(means, head.weight.flatten(1), head.bias if bias else None)


@method("cat-kd", needs=AVERAGED, pairs="cnn->cnn", builder=True, **weighed(15, 0.5, 600, side=(2.0, (1, 16))),
        paper="Guo et al. 2023, Class Attention Transfer Based Knowledge Distillation, arXiv:2304.12777")  # fmt: skip
def cat_kd(student: Taps, teacher: Taps, *, side: float = 2.0, **hyper: float) -> Any:
    """MSE of the class activation maps, pooled to ``side`` x ``side``.

    A class's map is what the classifier's weights say of it, place by place. The paper brings maps to length 1 (eq. 6),
    the authors' settings for CAT-KD, whose weights these are (0.7 to 600 by pair), do not.
    """

    def loss(said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        both = [(said, student.head), (taught, teacher.head)]
        size = min(int(side), *(min(out.maps[max(out.maps)].shape[2:]) for out, _ in both))
        ours, theirs = (regions(out, head, (size,), bias=False) for out, head in both)
        return guided(said, taught, targets, batch, hyper, attention=F.mse_loss(ours, theirs))

    return loss


@method("sdd", needs=AVERAGED, pairs="cnn->cnn", builder=True,
        space={"temperature": Range(1, 8, log=True), "alpha": Range(0.5, 1)},
        defaults={"temperature": 4.0, "alpha": 0.9, "complement": 2.0, "warmup_share": WARMUP},
        bounds={"temperature": T_BOUNDS, "alpha": (0, 1), "complement": FREE, "warmup_share": SHARE},
        paper="Wei et al. 2024, Scaled Decoupled Distillation, arXiv:2403.13512")  # fmt: skip
def sdd(
    student: Taps, teacher: Taps, *, temperature: float = 4.0, alpha: float = 0.9, complement: float = 2.0,
    warmup_share: float = 0.0,
) -> Any:  # fmt: skip
    """(1 - alpha) CE + alpha · warm-up · mean over the parts of 1 x 1, 2 x 2 and 4 x 4 grids of T² KL of their logits.

    Parts on which the teacher is right where on the whole image it is wrong, or the other way round, count
    ``complement`` times (eq. 8). On kd; the authors also have it on DKD and NKD.
    """

    def loss(said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        depth = min(min(out.maps[max(out.maps)].shape[2:]) for out in (said, taught))
        sizes = tuple(size for size in (1, 2, 4) if size <= depth)
        ours, theirs = regions(said, student.head, sizes), regions(taught, teacher.head, sizes)
        apart = divergence((ours / temperature).flatten(0, 1), (theirs / temperature).flatten(0, 1))
        right = theirs.argmax(2) == targets[:, None]
        factor = torch.where(right == right[:, :1], 1.0, complement)
        soft = (factor * apart.view_as(factor)).mean() * temperature**2
        hard = cross_entropy(said, targets, batch)
        total = (1 - alpha) * hard + alpha * ramp(batch, warmup_share) * soft
        return Loss(total, {"soft": soft, "hard": hard})

    return loss


@method("semckd", needs=MAPS, pairs="cnn->cnn", builder=True, **weighed(400, 40, 4000, kd_weight=(1.0, FREE)),
        paper="Chen et al. 2021, Cross-Layer Distillation with Semantic Calibration, arXiv:2012.03236")  # fmt: skip
def semckd(student: Taps, teacher: Taps, **hyper: float) -> Any:
    """MSE of regressed maps of every stage of the student to every stage of the teacher's, by learned attention.

    An image's attention: softmax over the teacher's stages of query · key, which are embeddings of its row of the
    batch's similarities at that stage (eq. 5 to 8). So it depends on the batch size; smaller batches are filled with 0.
    """
    ours, theirs = (sorted(each.maps)[-STAGES:] for each in (student, teacher))
    wide = max(4, student.batch)
    owned: dict[str, Any] = {}
    for side, places in (("query", ours), ("key", theirs)):
        for place in places:
            owned[f"{side}{place}"] = nn.Sequential(
                nn.Linear(wide, 2 * (wide // 4)), nn.ReLU(), nn.Linear(2 * (wide // 4), wide // 4)
            )
    for one, other in product(ours, theirs):
        given, wanted = student.maps[one][0], teacher.maps[other][0]
        middle = 2 * wanted
        owned[f"regress{one}to{other}"] = nn.Sequential(
            nn.Conv2d(given, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
            nn.Conv2d(middle, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
            nn.Conv2d(middle, wanted, 1, bias=False),
        )  # fmt: skip

    def embedded(own: Any, side: str, places: list[int], maps: Any) -> Tensor:
        rows = []
        for place in places:
            flat = maps[place].flatten(1)
            alike = F.pad(flat @ flat.T, (0, wide - len(flat)))
            rows.append(F.normalize(getattr(own, f"{side}{place}")(alike)))
        return torch.stack(rows, 1)

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        queries, keys = embedded(own, "query", ours, said.maps), embedded(own, "key", theirs, taught.maps)
        share = (queries @ keys.transpose(1, 2)).softmax(2)
        gaps = []
        for one, other in product(ours, theirs):
            source, target = same_size(said.maps[one], taught.maps[other])
            gap = getattr(own, f"regress{one}to{other}")(source) - target
            gaps.append(gap.square().flatten(1).mean(1))
        apart = torch.stack(gaps, 1).view_as(share)
        return guided(said, taught, targets, batch, hyper, calibrated=(share * apart).sum(2).mean())

    return learned(loss, **owned)


def margin(share: Tensor, level: Tensor) -> Tensor:
    """Mean of the negative responses of channels, (C,), that are Gaussian before their ReLU.

    ``share`` is how often they are positive, ``level`` the mean after the ReLU: σ (z Φ(z) + φ(z)) with z = μ / σ and
    Φ(z) = share. −3 σ where hardly any are negative, as the authors have it.
    """
    held = share.clamp(1e-3, 1 - 1e-3)
    z = torch.special.ndtri(held)
    density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
    spread = level / (z * held + density)
    below: Tensor = spread * torch.where(share < 1 - 1e-3, z - density / (1 - held), -3.0)
    return below


@method("ofd", needs=MAPS, pairs="cnn->cnn", builder=True, **weighed(1e-3, 1e-4, 1e-2),
        paper="Heo et al. 2019, A Comprehensive Overhaul of Feature Distillation, arXiv:1904.01866")  # fmt: skip
def ofd(student: Taps, teacher: Taps, **hyper: float) -> Any:
    """Squares between the student's maps (1 x 1 convolution, BN) and the teacher's with a margin for what is negative.

    They count where the target is positive or the student lies above it; summed over a map, averaged over the
    batch, halved for each stage before the last. The paper reads maps before the ReLU and takes a channel's margin from
    the batch norm before it. A network's stages are given here after their ReLU, which leaves zeros: the margin stands
    for those, from the moments of what is positive over the batches so far (``margin``). Of stages without a ReLU
    negative responses are there, and are kept above the margin.
    """
    widths = channels(student, teacher)
    owned: dict[str, Any] = {"seen": torch.zeros(())}
    for place, (ours, theirs) in enumerate(widths):
        owned[f"connect{place}"] = nn.Sequential(nn.Conv2d(ours, theirs, 1, bias=False), nn.BatchNorm2d(theirs))
        owned[f"moments{place}"] = torch.zeros(2, theirs)

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        own.seen.add_(1)
        terms = []
        for place, (one, other) in enumerate(pairs(said, taught)):
            with torch.no_grad():
                kept = getattr(own, f"moments{place}")
                now = torch.stack([(other > 0).to(other.dtype).mean((0, 2, 3)), other.relu().mean((0, 2, 3))])
                kept.add_((now - kept) / own.seen)
                edge = margin(kept[0], kept[1])[:, None, None]
                wanted = torch.where(other == 0, edge, other.maximum(edge))
            ours = getattr(own, f"connect{place}")(one)
            counts = (ours > wanted) | (wanted > 0)
            terms.append(((ours - wanted).square() * counts).sum((1, 2, 3)).mean() / 2 ** (len(widths) - 1 - place))
        return guided(said, taught, targets, batch, hyper, margin=total(terms))

    return learned(loss, **owned)
