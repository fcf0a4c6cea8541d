"""Methods that need a second of something: network, view, head, momentum, or the teacher's second-hand classifier.

What the engine has for them: ``kdbench.train.beside``, ``TwoMomenta`` of ``kdbench.train.optim``, ``models.reused``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kdbench.methods.base import BatchInfo, F, Loss, Outputs, Range, method, torch
from kdbench.methods.logits import SOFTENED, T_BOUNDS, WEIGHT, cross_entropy, mixed, soft_kl
from kdbench.methods.logits_reweighed import SHARE, ramp
from kdbench.methods.maps import MAPS, same_size

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "dml",
    needs=frozenset({"peer"}),
    space={"weight": Range(0.1, 10, log=True)},
    defaults={"weight": 1.0, "temperature": 1.0},
    bounds={"weight": WEIGHT, "temperature": T_BOUNDS},
    paper="Zhang et al. 2018, Deep Mutual Learning, arXiv:1706.00384",
)
def dml(
    student: Outputs, peer: Outputs, targets: Tensor, batch: BatchInfo, *, weight: float, temperature: float = 1.0
) -> Loss:
    """For each of two networks CE + weight · KL(the other ‖ itself) (eq. 4 and 5), both updated at once.

    The peer is the student's network from other weights; the student is what is measured and kept.
    """
    hard, soft = cross_entropy(student, targets, batch), soft_kl(student.logits, peer.logits.detach(), temperature)
    back = soft_kl(peer.logits, student.logits.detach(), temperature)
    total = hard + weight * soft + cross_entropy(peer, targets, batch) + weight * back
    return Loss(total, {"soft": soft, "peer": back, "hard": hard})


@method(
    "mean-teacher",
    needs=frozenset({"average"}),
    space={"weight": Range(1, 1000, log=True)},
    defaults={"weight": 100.0, "decay": 0.999, "rampup_share": 0.2},
    bounds={"weight": WEIGHT, "decay": SHARE, "rampup_share": SHARE},
    paper="Tarvainen, Valpola 2017, Mean teachers are better role models, arXiv:1703.01780",
)
def mean_teacher(
    student: Outputs, average: Outputs, targets: Tensor, batch: BatchInfo, *,
    weight: float, decay: float = 0.999, rampup_share: float = 0.2,
) -> Loss:  # fmt: skip
    """CE + weight · ramp-up · MSE of the probabilities to those of the average of the student's past weights.

    The weight grows as exp(-5 (1 - t)²) over a share of the epochs (appendix B.2: a fifth of the steps). Both see the
    same view, and all labels are known: what differs is the average, and the student's own noise.
    """
    hard = cross_entropy(student, targets, batch)
    apart = F.mse_loss(student.logits.softmax(1), average.logits.detach().softmax(1))
    grown = math.exp(-5 * (1 - ramp(batch, rampup_share)) ** 2)
    return Loss(hard + weight * grown * apart, {"consistency": apart, "hard": hard})


@method(
    "dot",
    momenta=True,
    space={"temperature": Range(1, 20, log=True), "alpha": Range(0, 1)},
    defaults={"delta": 0.075},
    bounds={"temperature": T_BOUNDS, "alpha": (0, 1), "hard_weight": WEIGHT, "soft_weight": WEIGHT, "delta": SHARE},
    paper="Zhao et al. 2023, DOT: A Distillation-Oriented Trainer, arXiv:2307.08436",
)
def dot(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *,
    temperature: float, delta: float = 0.075, **weights: float,
) -> Loss:  # fmt: skip
    """As kd, but its two gradients have a momentum each: the labels' ``delta`` below the recipe's, the teacher's above.

    The authors take 0.075 on CIFAR-100 and Tiny-ImageNet, 0.09 on ImageNet. By SGD alone.
    """
    soft = soft_kl(student.logits, teacher.logits, temperature)
    found = mixed(soft, cross_entropy(student, targets, batch), **weights)
    share = weights.get("hard_weight", 1 - weights.get("alpha", 0.5))
    return Loss(found.total, {**found.parts, "task": share * found.parts["hard"]})


def of_token(student: Outputs) -> Tensor:
    """Logits of the distillation token, (B, classes)."""
    assert student.other is not None
    return student.other


@method("deit-hard", needs=frozenset({"logits", "token"}), pairs="any->vit", space={"alpha": Range(0, 1)},
        bounds={"alpha": SHARE},
        paper="Touvron et al. 2021, Training data-efficient image transformers, arXiv:2012.12877")  # fmt: skip
def deit_hard(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, alpha: float) -> Loss:
    """(1 - alpha) CE of the class token + alpha · CE of the distillation token to what the teacher decides (eq. 3).

    There alpha = 0.5. Once trained, a network says the mean of its two heads.
    """
    said = F.cross_entropy(of_token(student), teacher.logits.argmax(1))
    return mixed(said, cross_entropy(student, targets, batch), alpha)


@method("deit-soft", needs=frozenset({"logits", "token"}), pairs="any->vit", **SOFTENED,
        defaults={"temperature": 3.0, "alpha": 0.1},
        paper="Touvron et al. 2021, Training data-efficient image transformers, arXiv:2012.12877")  # fmt: skip
def deit_soft(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, temperature: float, **weights: float
) -> Loss:
    """As kd, with the soft targets on the distillation token (eq. 2; T = 3 and alpha = 0.1 as there)."""
    return mixed(soft_kl(of_token(student), teacher.logits, temperature), cross_entropy(student, targets, batch),
                 **weights)  # fmt: skip


TEMPERATURES = (3.0, 5.0, 2.0, 6.0)
"""Of MLKD, beside the one that is searched."""


@method(
    "mlkd",
    needs=frozenset({"logits", "views"}),
    space={"temperature": Range(1, 8, log=True), "soft_weight": Range(0.1, 9, log=True)},
    defaults={"temperature": 4.0, "soft_weight": 0.9, "hard_weight": 0.1},
    bounds={"temperature": T_BOUNDS, "soft_weight": WEIGHT, "hard_weight": WEIGHT},
    paper="Jin et al. 2023, Multi-Level Logit Distillation, CVPR 2023",
)
def mlkd(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *,
    temperature: float, soft_weight: float, hard_weight: float = 0.1,
) -> Loss:  # fmt: skip
    """hard_weight · CE of both views + soft_weight · (instances + batch + classes), each summed over five temperatures.

    Instances: T² KL, of the weak view times the share of instances at or below the median confidence, and of the strong
    one (whose last two temperatures the authors' code reads from the weak). Batch and classes: squares between the
    Gram matrices of the weak view's probabilities, over B and K, times the shares of instances and classes at or below
    the median. As the authors' code computes it; its strong view is FixMatch's RandAugment with a cut-out of the same
    image under another crop, here timm's RandAugment after the crop.
    """
    assert student.other is not None and teacher.other is not None
    strong = Outputs(student.other)
    hard = cross_entropy(student, targets, batch) + cross_entropy(strong, targets, batch)
    sure = teacher.logits.softmax(1)
    few, rare = (
        (each <= each.quantile(0.5)).to(sure.dtype).mean() for each in (sure.amax(1).detach(), sure.sum(0).detach())
    )
    instances, rows, classes = [], [], []
    for place, t in enumerate((temperature, *TEMPERATURES)):
        weak = soft_kl(student.logits, teacher.logits, t)
        instances += [few * weak, weak if place > 2 else soft_kl(student.other, teacher.other, t)]
        ours, theirs = ((said.logits / t).softmax(1) for said in (student, teacher))
        rows.append(few * (theirs @ theirs.T - ours @ ours.T).square().sum() / len(ours))
        classes.append(rare * (theirs.T @ theirs - ours.T @ ours).square().sum() / ours.shape[1])
    parts = {"instance": instances, "batch": rows, "class": classes}
    soft = {name: torch.stack(terms).sum() for name, terms in parts.items()}
    return Loss(hard_weight * hard + soft_weight * sum(soft.values()), {**soft, "hard": hard})


@method(
    "simkd",
    needs=MAPS | {"reused"},
    pairs="cnn->cnn",
    space={"weight": Range(0.1, 10, log=True)},
    defaults={"weight": 1.0},
    bounds={"weight": WEIGHT},
    paper="Chen et al. 2022, Knowledge Distillation with the Reused Teacher Classifier, arXiv:2203.14001",
)
def simkd(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, weight: float) -> Loss:
    """Weight · MSE of the projected last map to the teacher's (eq. 3); no labels.

    The student ships with its projector and the teacher's classifier, which its size, cost and file include
    (``kdbench.models.reused``).
    """
    ours, theirs = (said.maps[max(said.maps)] for said in (student, teacher))
    apart = F.mse_loss(*same_size(ours, theirs))
    return Loss(weight * apart, {"map": apart})
