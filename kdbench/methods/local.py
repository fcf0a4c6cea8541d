"""Methods that compare parts of the last map, or all stages with all: the teacher runs live for them.

``averaged`` among a method's needs: its networks classify the mean of their last map by one linear layer, so that the
same layer classifies any part of the map.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from kdbench.methods.base import BatchInfo, F, Loss, Outputs, Range, Taps, learned, method, nn, torch
from kdbench.methods.logits import T_BOUNDS, cross_entropy
from kdbench.methods.logits_reweighed import SHARE, WARMUP, divergence, ramp
from kdbench.methods.maps import MAPS, STAGES, same_size
from kdbench.methods.pooled import FREE, guided, weighed

if TYPE_CHECKING:
    from torch import Tensor

AVERAGED = MAPS | {"pooled", "averaged"}


def regions(said: Outputs, head: Any, sizes: tuple[int, ...]) -> Tensor:
    """Logits of the parts of the last map that grids of ``sizes`` a side cut, (B, parts, classes), 1: of all of it.

    Grids finer than the map are left out.
    """
    last = said.maps[max(said.maps)]
    fit = [size for size in sizes if size <= min(last.shape[2:])] or [1]
    means = torch.cat([F.adaptive_avg_pool2d(last, size).flatten(2) for size in fit], 2).transpose(1, 2)
    found: Tensor = head(means.flatten(0, 1)).view(*means.shape[:2], -1)
    return found


@method("cat-kd", needs=AVERAGED, pairs="cnn->cnn", builder=True, **weighed(15, 0.5, 600, side=(2.0, (1, 16))),
        paper="Guo et al. 2023, Class Attention Transfer Based Knowledge Distillation, CVPR 2023")  # fmt: skip
def cat_kd(student: Taps, teacher: Taps, *, side: float = 2.0, **hyper: float) -> Any:
    """MSE of the class activation maps, pooled to ``side`` x ``side`` and each of length 1 (eq. 6).

    A class's map is what the classifier says of it, place by place. Published weights differ by pair: 0.7 to 600.
    """

    def loss(said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        both = [(said, student.head), (taught, teacher.head)]
        size = min(int(side), *(min(out.maps[max(out.maps)].shape[2:]) for out, _ in both))
        ours, theirs = (F.normalize(regions(out, head, (size,)), dim=1) for out, head in both)
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
