"""Methods that read logits and weigh or soften them anew: by class, by sample, or by a temperature that is learned.

Each docstring gives the formula as the authors' code has it, and what differs here. z are logits (B, classes), p their
softmax, s the student's, t the teacher's, y the label. Defaults are the published settings, on CIFAR-100 unless said.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kdbench.methods.base import BatchInfo, F, Loss, Outputs, Range, Taps, learned, method, nn, torch
from kdbench.methods.logits import SOFTENED, T_BOUNDS, WEIGHT, binary_log, cross_entropy, mixed, soft_kl

if TYPE_CHECKING:
    from torch import Tensor

SOFTNESS = Range(1, 20, log=True)
SHARE = (0.0, 1.0)
WARMUP = 1 / 12
"""Share of the epochs over which mdistiller's methods grow: 20 of 240."""


def ramp(batch: BatchInfo, share: float) -> float:
    """Linear from 0 to 1 over that share of the epochs."""
    return min(1.0, batch.epoch / (share * batch.epochs)) if share > 0 else 1.0


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(p_t ‖ p_s) of logits in nats, sample by sample, (B,)."""
    theirs = F.log_softmax(teacher, dim=1)
    return (theirs.exp() * (theirs - F.log_softmax(student, dim=1))).sum(1)


def beside(hard: Tensor, weight: float, **terms: Tensor) -> Loss:
    """Cross-entropy + weight · the sum of the terms, which are logged under their names."""
    return Loss(hard + weight * sum(terms.values(), torch.zeros_like(hard)), {**terms, "hard": hard})


@method(
    "nkd", space={"temperature": Range(1, 4, log=True), "gamma": Range(0.5, 4, log=True)}, defaults={"gamma": 1.5},
    bounds={"temperature": T_BOUNDS, "gamma": WEIGHT}, paper="Yang et al. 2023, arXiv:2303.13005",
)  # fmt: skip
def nkd(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, temperature: float, gamma: float = 1.5
) -> Loss:
    """Normalised: CE − p_t(y) log p_s(y) − gamma T² Σ p̂_t log p̂_s, p̂ over the classes other than y at T (eq. 6)."""
    hard = cross_entropy(student, targets, batch)
    said = student.logits.log_softmax(1).gather(1, targets[:, None])
    target = -(teacher.logits.softmax(1).gather(1, targets[:, None]) * said).mean()
    own = F.one_hot(targets, student.logits.shape[1]).bool()
    ours, theirs = ((out.logits / temperature).masked_fill(own, float("-inf")) for out in (student, teacher))
    rest = -gamma * temperature**2 * (theirs.softmax(1) * ours.log_softmax(1).masked_fill(own, 0)).sum(1).mean()
    return beside(hard, 1.0, target=target, nontarget=rest)


@method(
    "ttm", space={"temperature": SOFTNESS, "weight": Range(1, 100, log=True)}, defaults={"weight": 45.0},
    bounds={"temperature": T_BOUNDS, "weight": WEIGHT}, paper="Zheng and Yang 2024, arXiv:2403.11427",
)  # fmt: skip
def ttm(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, temperature: float, weight: float
) -> Loss:
    """Transformed teacher matching: CE + weight · KL(softmax(z_t / T) ‖ p_s), no temperature on the student."""
    soft = divergence(student.logits, teacher.logits / temperature).mean()
    return beside(cross_entropy(student, targets, batch), weight, soft=soft)


@method(
    "wttm", space={"temperature": SOFTNESS, "weight": Range(1, 100, log=True)}, defaults={"weight": 4.0},
    bounds={"temperature": T_BOUNDS, "weight": WEIGHT}, paper="Zheng and Yang 2024, arXiv:2403.11427",
)  # fmt: skip
def wttm(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, temperature: float, weight: float
) -> Loss:
    """``ttm`` with each sample weighed by Σ p_t^(1/T): more where the teacher is unsure."""
    power = teacher.logits.log_softmax(1) / temperature
    soft = (power.exp().sum(1) * divergence(student.logits, power)).mean()
    return beside(cross_entropy(student, targets, batch), weight, soft=soft)


@method(
    "normkd", space={"t_norm": Range(0.5, 4, log=True), "alpha": Range(0, 1)},
    bounds={"t_norm": T_BOUNDS, "alpha": SHARE, "hard_weight": WEIGHT, "soft_weight": WEIGHT},
    paper="Chi et al. 2023, arXiv:2308.00520",
)  # fmt: skip
def normkd(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, t_norm: float, **weights: float
) -> Loss:
    """Plain distillation, each sample of each network at its own T = t_norm · std(z); × T_t² (published t_norm: 2)."""
    ours, theirs = (t_norm * out.logits.std(1, keepdim=True) + 1e-7 for out in (student, teacher))
    soft = (divergence(student.logits / ours, teacher.logits / theirs) * theirs[:, 0] ** 2).mean()
    return mixed(soft, cross_entropy(student, targets, batch), **weights)


@method(
    "dtkd", space={"temperature": Range(1, 8, log=True), "alpha": Range(0.5, 8, log=True)},
    defaults={"alpha": 3.0, "beta": 1.0, "warmup_share": WARMUP},
    bounds={"temperature": T_BOUNDS, "alpha": WEIGHT, "beta": WEIGHT, "warmup_share": SHARE},
    paper="Wei and Bai 2024, arXiv:2404.12711",
)  # fmt: skip
def dtkd(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *,
    temperature: float, alpha: float, beta: float = 1.0, warmup_share: float = 0.0,
) -> Loss:  # fmt: skip
    """CE + warm-up · (alpha · T_s T_t KL at T_s, T_t + beta · T² KL at T), T_i = 2 T max z_i / (max z_s + max z_t).

    The maxima are held above 0.01: the authors' temperatures would be negative where a network's logits all are.
    """
    ours, theirs = (out.logits.amax(1, keepdim=True).clamp_min(0.01) for out in (student, teacher))
    t_s, t_t = (2 * temperature * top / (ours + theirs) for top in (ours, theirs))
    dynamic = (divergence(student.logits / t_s, teacher.logits / t_t) * (t_s * t_t)[:, 0]).mean()
    hard, plain = cross_entropy(student, targets, batch), soft_kl(student.logits, teacher.logits, temperature)
    return beside(hard, ramp(batch, warmup_share), dynamic=alpha * dynamic, plain=beta * plain)


@method(
    "rld", space={"temperature": Range(1, 8, log=True), "beta": Range(0.25, 10, log=True)},
    defaults={"alpha_t": 1.0, "target_temperature": 1.0, "beta": 8.0, "warmup_share": WARMUP},
    bounds={
        "temperature": T_BOUNDS, "target_temperature": T_BOUNDS, "alpha_t": WEIGHT, "beta": WEIGHT,
        "warmup_share": SHARE,
    },
    paper="Sun et al. 2024, Knowledge Distillation with Refined Logits, arXiv:2408.07703",
)  # fmt: skip
def rld(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, temperature: float, beta: float,
    alpha_t: float = 1.0, target_temperature: float = 1.0, warmup_share: float = 0.0,
) -> Loss:  # fmt: skip
    """CE + warm-up · (alpha_t · sample confidence + beta · masked correlation).

    Confidence: KL of [top, rest], of the teacher's top class against the student's label. Correlation: KL over the
    classes that the teacher ranks below the label, so that its mistakes are not taught.
    """
    hot = target_temperature
    ours = binary_log(student.logits / hot, targets)
    theirs = binary_log(teacher.logits / hot, teacher.logits.argmax(1))
    confidence = hot**2 * (theirs.exp() * (theirs - ours)).sum(1).mean()
    above = teacher.logits >= teacher.logits.gather(1, targets[:, None])
    masked = [(out.logits / temperature).masked_fill(above, -1e9) for out in (student, teacher)]
    correlation = temperature**2 * divergence(masked[0], masked[1]).mean()
    hard = cross_entropy(student, targets, batch)
    return beside(hard, ramp(batch, warmup_share), confidence=alpha_t * confidence, correlation=beta * correlation)


@method(
    "wsld", space={"temperature": Range(1, 8, log=True), "alpha": Range(0.5, 5, log=True)}, defaults={"alpha": 2.5},
    bounds={"temperature": T_BOUNDS, "alpha": WEIGHT}, paper="Zhou et al. 2021, arXiv:2102.00650",
)  # fmt: skip
def wsld(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, temperature: float, alpha: float = 2.5
) -> Loss:
    """CE + alpha T² · mean of w · CE(p_t at T, p_s at T), w = 1 − exp(−CE_s / CE_t) of each sample (eq. 12)."""
    with torch.no_grad():
        ours, theirs = (F.cross_entropy(out.logits, targets, reduction="none") for out in (student, teacher))
        weight = 1 - torch.exp(-ours / (theirs + 1e-7))
    said = F.log_softmax(student.logits / temperature, 1)
    soft = -(weight * ((teacher.logits / temperature).softmax(1) * said).sum(1)).mean() * temperature**2
    return beside(cross_entropy(student, targets, batch), alpha, soft=soft)


@method(
    "abkd", space={"alpha_ab": Range(0.2, 1.2), "beta_ab": Range(0.1, 1), "weight": Range(1, 100, log=True)},
    defaults={"alpha_ab": 0.8, "beta_ab": 0.3, "weight": 32.0, "temperature": 4.0},
    bounds={"alpha_ab": (0.01, 4), "beta_ab": (0.01, 4), "weight": WEIGHT, "temperature": T_BOUNDS},
    paper="Wang et al. 2025, ABKD, arXiv:2505.04560",
)  # fmt: skip
def abkd(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *,
    alpha_ab: float, beta_ab: float, weight: float, temperature: float = 4.0,
) -> Loss:  # fmt: skip
    """CE + weight · the α-β-divergence of softened outputs (eq. 5), which is KL at α → 1, β → 0; no T²."""
    ours, theirs = (F.log_softmax(out.logits / temperature, 1) for out in (student, teacher))
    a, b, both = alpha_ab, beta_ab, alpha_ab + beta_ab
    cross = (a * theirs + b * ours).exp()
    apart = cross - a / both * (both * theirs).exp() - b / both * (both * ours).exp()
    soft = -apart.sum(1).mean() / (a * b)
    return beside(cross_entropy(student, targets, batch), weight, soft=soft)


@method(
    "logit-mse", space={"alpha": Range(0, 1)}, bounds={"alpha": SHARE, "hard_weight": WEIGHT, "soft_weight": WEIGHT},
    paper="Kim et al. 2021, arXiv:2105.08919",
)  # fmt: skip
def logit_mse(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, **weights: float) -> Loss:
    """Alpha · mean squared difference of logits + (1 − alpha) · CE: plain distillation's limit at high T."""
    return mixed(F.mse_loss(student.logits, teacher.logits), cross_entropy(student, targets, batch), **weights)


@method(
    "funmatch", space={"temperature": Range(1, 10, log=True)}, bounds={"temperature": T_BOUNDS},
    paper="Beyer et al. 2022, A good teacher is patient and consistent, arXiv:2106.05237",
)  # fmt: skip
def funmatch(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, temperature: float) -> Loss:
    """Function matching: T² · KL alone, no labels. The paper's views and patience are the recipe's."""
    soft = soft_kl(student.logits, teacher.logits, temperature)
    return Loss(soft, {"soft": soft})


@method(
    "hard-targets", space={"alpha": Range(0, 1)},
    bounds={"alpha": SHARE, "hard_weight": WEIGHT, "soft_weight": WEIGHT},
    paper="Touvron et al. 2021, DeiT, arXiv:2012.12877",
)  # fmt: skip
def hard_targets(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, **weights: float) -> Loss:
    """Alpha · CE to the teacher's top class + (1 − alpha) · CE (eq. 3; published: 1/2 each, on a token of its own)."""
    taught = F.cross_entropy(student.logits, teacher.logits.argmax(1))
    return mixed(taught, cross_entropy(student, targets, batch), **weights)


@method(
    "tf-kd", needs=frozenset(), **(SOFTENED | {"space": {"temperature": Range(1, 40, log=True), "alpha": Range(0, 1)}}),
    paper="Yuan et al. 2020, Revisiting Knowledge Distillation via Label Smoothing, arXiv:1909.11723",
)  # fmt: skip
def tf_kd(
    student: Outputs, teacher: None, targets: Tensor, batch: BatchInfo, *, temperature: float, **weights: float
) -> Loss:
    """Teacher-free: the teacher is 0.99 on the label, the rest evenly (eq. 8, 9); published T 20, alpha 0.1 to 0.95."""
    classes = student.logits.shape[1]
    sure = math.log(0.99 * (classes - 1) / 0.01)
    virtual = sure * F.one_hot(targets, classes).to(student.logits.dtype)
    soft = soft_kl(student.logits, virtual, temperature)
    return mixed(soft, cross_entropy(student, targets, batch), **weights)


@method(
    "ctkd", builder=True, space={"alpha": Range(0, 1), "t_range": Range(5, 40, log=True)},
    defaults={"t_range": 20.0, "warmup_share": 1 / 24},
    bounds={"alpha": SHARE, "t_range": T_BOUNDS, "warmup_share": SHARE, "hard_weight": WEIGHT, "soft_weight": WEIGHT},
    paper="Li et al. 2023, Curriculum Temperature, arXiv:2211.16231",
)  # fmt: skip
def ctkd(student: Taps, teacher: Taps, *, t_range: float = 20.0, warmup_share: float = 1 / 24, **weights: float) -> Any:
    """Plain distillation at T = 1 + t_range · sigmoid(θ), one θ that climbs the loss while the student descends it.

    The reversal grows from 0 to 1 by a cosine over ``warmup_share`` of the epochs (published: 10 of 240).
    """

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        done = min(1.0, (batch.epoch - 1) / (warmup_share * batch.epochs)) if warmup_share > 0 else 1.0
        reversal = (1 - math.cos(math.pi * done)) / 2
        theta = own.theta.detach() * (1 + reversal) - reversal * own.theta  # its value, and minus its gradient
        temperature = 1 + t_range * theta.sigmoid()
        soft = (divergence(said.logits / temperature, taught.logits / temperature).mean() * temperature**2).squeeze()
        found = mixed(soft, cross_entropy(said, targets, batch), **weights)
        return Loss(found.total, {**found.parts, "temperature": temperature.squeeze()})

    return learned(loss, theta=nn.Parameter(torch.ones(1)))


@method(
    "gkl", builder=True,
    space={"temperature": Range(1, 8, log=True), "beta": Range(0.5, 20, log=True), "gamma": Range(0.02, 0.5, log=True)},
    defaults={"beta": 8.0, "gamma": 0.2, "prior_temperature": 4.0, "warmup_share": WARMUP},
    bounds={
        "temperature": T_BOUNDS, "beta": WEIGHT, "gamma": SHARE, "prior_temperature": T_BOUNDS, "warmup_share": SHARE,
    },
    paper="Cui et al. 2025, Generalized Kullback-Leibler Divergence Loss, arXiv:2503.08038",
)  # fmt: skip
def gkl(
    student: Taps, teacher: Taps, *,
    temperature: float, beta: float, gamma: float, prior_temperature: float = 4.0, warmup_share: float = WARMUP,
) -> Any:  # fmt: skip
    """CE + warm-up · (CE(p_t at T, p_s at T) + beta · the weighted squares of pairwise logit differences).

    A pair of classes weighs w_i w_j, w = prior^gamma of the label's class: what the teacher said of that class (at
    ``prior_temperature``) over the last epoch, evenly before. Σ w_i w_j (d_i − d_j)² is 2 (Σw Σw d² − (Σw d)²), so that
    no (classes, classes) array a sample is made.
    """

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        with torch.no_grad():
            fresh = own.epoch != batch.epoch  # what was summed becomes the prior; a class not seen keeps its old one
            seen = own.sums.sum(1, keepdim=True)
            own.prior.copy_(torch.where(fresh & (seen > 0), own.sums / seen.clamp_min(1e-12), own.prior))
            own.sums.mul_(~fresh)
            own.epoch.fill_(batch.epoch)
            own.sums.index_add_(0, targets, (taught.logits / prior_temperature).softmax(1))
            weight = own.prior[targets] ** gamma
        apart = taught.logits - said.logits
        total, first, second = weight.sum(1), (weight * apart).sum(1), (weight * apart**2).sum(1)
        pairs = 0.5 * (total * second - first**2).sum() / (total**2).sum()
        ours = F.log_softmax(said.logits / temperature, 1)
        soft = -((taught.logits / temperature).softmax(1) * ours).sum(1).mean()
        return beside(cross_entropy(said, targets, batch), ramp(batch, warmup_share), pairs=beta * pairs, soft=soft)

    even = torch.full((teacher.classes, teacher.classes), 1 / teacher.classes)
    return learned(loss, prior=even, sums=torch.zeros_like(even), epoch=torch.zeros((), dtype=torch.int64))
