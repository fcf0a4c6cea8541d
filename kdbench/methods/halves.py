"""FCFD: a student's maps are good where the teacher can go on from them, and the student where it can from its."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdbench.errors import BadInput
from kdbench.methods.base import BatchInfo, F, Loss, Outputs, Range, Taps, learned, method, nn, torch
from kdbench.methods.logits import T_BOUNDS, cross_entropy, soft_kl
from kdbench.methods.logits_reweighed import SHARE, WARMUP, ramp
from kdbench.methods.maps import MAPS, stages
from kdbench.methods.pooled import FREE

if TYPE_CHECKING:
    from torch import Tensor

PATHS = 2
"""Mixed paths in a step, drawn from all: each joins the halves after one of the compared stages but the last."""


def bridge(given: tuple[int, int, int], wanted: tuple[int, int, int]) -> Any:
    """From a map (C, H, W) to another of the same side, of half or of twice that.

    Raises:
        BadInput: other sides.
    """
    (ins, side, _), (outs, other, _) = given, wanted
    layer: Any
    if side == other:
        layer = nn.Conv2d(ins, outs, 3, padding=1, bias=False)
    elif side == 2 * other:
        layer = nn.Conv2d(ins, outs, 3, stride=2, padding=1)
    elif other == 2 * side:
        layer = nn.ConvTranspose2d(ins, outs, 4, stride=2, padding=1)
    else:
        raise BadInput(f"method 'fcfd' joins maps of one side, or of half or twice that, not {side} and {other} pixels")
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(outs), nn.LeakyReLU(0.1))


@method("fcfd", needs=MAPS | {"halves"}, pairs="cnn->cnn", builder=True,
        space={"weight": Range(0.5, 50, log=True), "temperature": Range(1, 8, log=True)},
        defaults={"weight": 5.0, "temperature": 4.0, "warmup_share": WARMUP},
        bounds={"weight": FREE, "temperature": T_BOUNDS, "warmup_share": SHARE},
        paper="Liu et al. 2023, Function-Consistent Feature Distillation, ICLR 2023")  # fmt: skip
def fcfd(student: Taps, teacher: Taps, *, weight: float, temperature: float, warmup_share: float = WARMUP) -> Any:
    """CE + T² KL of the student + T² KL of mixed paths + weight · warm-up · squares of maps, all to the teacher's.

    Bridges (convolution, BN, leaky ReLU) bring each compared stage's map into the other network. A mixed path is the
    student up to a stage, then the teacher, or the other way round; two of all are drawn each step. Squares: between
    the teacher's map of a stage and the student's bridged one, and what a mixed path shows the teacher there; at the
    last stage also of their means. The weight is the authors' on CIFAR-100 (0.02 on ImageNet, with T = 1). In mixed
    paths their teacher normalises by the batch, here it stays in eval mode.
    """
    places = stages(student, teacher)
    owned: dict[str, Any] = {}
    for place, (one, other) in enumerate(places):
        owned[f"to{place}"] = bridge(student.maps[one], teacher.maps[other])
        if place < len(places) - 1:
            owned[f"from{place}"] = bridge(teacher.maps[other], student.maps[one])
    cuts = [(place, taught) for place in range(len(places) - 1) for taught in (False, True)]
    rests: list[Any] = []

    def gap(shown: Tensor, wanted: Tensor, last: bool) -> Tensor:
        apart = F.mse_loss(shown, wanted)
        one, other = (each.relu().mean((2, 3)) for each in (shown, wanted))
        return apart + F.mse_loss(one, other) if last else apart

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        if not rests and student.rest and teacher.rest:  # now the networks are what they stay
            rests.extend([student.rest(), teacher.rest()])
        wanted = [taught.maps[other] for _, other in places]
        hard, soft = cross_entropy(said, targets, batch), soft_kl(said.logits, taught.logits, temperature)
        mixed, last = torch.zeros_like(soft), len(places) - 1
        bridged = [getattr(own, f"to{place}")(said.maps[one]) for place, (one, _) in enumerate(places)]
        squares = [gap(bridged[place], wanted[place], place == last) for place in range(len(places))]
        for number in torch.randperm(len(cuts))[:PATHS].tolist():
            place, from_teacher = cuts[number]
            one, other = places[place]
            if from_teacher:
                path = rests[0](one, getattr(own, f"from{place}")(wanted[place]))
            else:
                path = rests[1](other, bridged[place])
                later = [(k, path.maps[at]) for k, (_, at) in enumerate(places) if k > place]
                squares += [gap(shown, wanted[k], k == last) for k, shown in later]
            mixed = mixed + soft_kl(path.logits, taught.logits, temperature)
        maps = ramp(batch, warmup_share) * torch.stack(squares).sum()
        return Loss(hard + soft + mixed + weight * maps, {"maps": maps, "mixed": mixed, "soft": soft, "hard": hard})

    return learned(loss, **owned)
