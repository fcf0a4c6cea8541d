"""Methods that compare logits: plain, standardised and decoupled distillation, DIST, and none (hard labels)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdbench.methods.base import BatchInfo, F, Loss, Outputs, Range, method, torch

if TYPE_CHECKING:
    from torch import Tensor

T_BOUNDS = (0.0, 1e4)
WEIGHT = (0.0, 1e3)
SOFTENED = {
    "space": {"temperature": Range(1, 20, log=True), "alpha": Range(0, 1)},
    "bounds": {"temperature": T_BOUNDS, "alpha": (0.0, 1.0), "hard_weight": WEIGHT, "soft_weight": WEIGHT},
}
"""alpha weighs the soft targets (0: the hard-label baseline), 1 - alpha the labels; or two free weights instead."""


def soft_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(z_t/T) ‖ softmax(z_s/T)) of logits (B, classes), summed over classes, averaged over the batch.

    The factor T² keeps the gradient's size independent of T (Hinton et al. 2015, section 2).
    """
    ours, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def cross_entropy(student: Outputs, targets: Tensor, batch: BatchInfo) -> Tensor:
    """The hard term as the recipe says: mixed and smoothed labels; cross-entropy, or binary cross-entropy."""
    wanted = targets if batch.mixed is None else batch.mixed
    if not batch.bce:
        return F.cross_entropy(student.logits, wanted, label_smoothing=batch.label_smoothing)
    classes = student.logits.shape[1]
    wanted = F.one_hot(targets, classes).float() if batch.mixed is None else batch.mixed
    wanted = wanted * (1 - batch.label_smoothing) + batch.label_smoothing / classes
    if batch.bce_threshold is not None:
        wanted = (wanted > batch.bce_threshold).float()
    return F.binary_cross_entropy_with_logits(student.logits, wanted)


def mixed(
    soft: Tensor, hard: Tensor, alpha: float = 0.5, soft_weight: float | None = None, hard_weight: float | None = None
) -> Loss:
    """Alpha · soft + (1 − alpha) · hard; a free weight replaces its share, as in CRD's 0.1 · CE + 0.9 · KL."""
    total = (alpha if soft_weight is None else soft_weight) * soft
    return Loss(total + (1.0 - alpha if hard_weight is None else hard_weight) * hard, {"soft": soft, "hard": hard})


@method("hard", needs=frozenset())
def hard(student: Outputs, teacher: None, targets: Tensor, batch: BatchInfo) -> Loss:
    """Cross-entropy on the true labels: the baseline that every distilled student is measured against."""
    term = cross_entropy(student, targets, batch)
    return Loss(term, {"hard": term})


@method("kd", **SOFTENED, paper="Hinton, Vinyals, Dean 2015, arXiv:1503.02531")
def kd(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, temperature: float, **weights: float
) -> Loss:
    """Alpha · T² · KL(teacher_T ‖ student_T) + (1 − alpha) · CE."""
    soft = soft_kl(student.logits, teacher.logits, temperature)
    return mixed(soft, cross_entropy(student, targets, batch), **weights)


def standardise(logits: Tensor, eps: float = 1e-7) -> Tensor:
    """Each row (B, classes) to mean 0 and (unbiased) standard deviation 1."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (eps + logits.std(dim=1, keepdim=True))


@method(
    "kd-ls",
    space={"temperature": Range(1, 20, log=True), "soft_weight": Range(0.5, 20, log=True)},
    defaults={"hard_weight": 0.1},  # the authors' CE weight on CIFAR-100; their soft weights are 6 to 18
    bounds={"temperature": T_BOUNDS, "hard_weight": WEIGHT, "soft_weight": WEIGHT},
    paper="Sun et al. 2024, Logit Standardization in Knowledge Distillation, arXiv:2403.01427",
)
def kd_ls(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *, temperature: float, **weights: float
) -> Loss:
    """Plain distillation of z-scored logits, so that T alone sets the softness; the hard term sees the raw ones."""
    hard_term = cross_entropy(student, targets, batch)  # first: the order in which gradients add up decides last bits
    soft = soft_kl(standardise(student.logits), standardise(teacher.logits), temperature)
    return mixed(soft, hard_term, **weights)


def target_kl(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T² · KL of the binary split (target class, all others) at T; logits (B, classes), a scalar."""
    ours, theirs = (binary_log(logits / temperature, targets) for logits in (student, teacher))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def nontarget_kl(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T² · KL over the classes other than the target, renormalised among themselves; a scalar."""
    columns = torch.arange(student.shape[1] - 1, device=targets.device)
    others = columns + (columns >= targets[:, None])  # a boolean mask would make a GPU wait for its count
    return soft_kl(student.gather(1, others), teacher.gather(1, others), temperature)


def binary_log(scaled: Tensor, targets: Tensor) -> Tensor:
    """Log [p(target), p(any other)], (B, 2), of logits (B, classes) over their temperature."""
    log_all = F.log_softmax(scaled, dim=1)
    target = log_all.gather(1, targets[:, None])
    others = log_all.masked_fill(F.one_hot(targets, scaled.shape[1]).bool(), float("-inf"))
    return torch.cat([target, others.logsumexp(dim=1, keepdim=True)], dim=1)


@method(
    "dkd",
    space={"temperature": Range(1, 20, log=True), "beta": Range(0.25, 10, log=True)},
    defaults={"alpha_t": 1.0, "beta": 8.0, "warmup_share": 1 / 12},  # 20 of 240 epochs
    bounds={
        "temperature": T_BOUNDS,
        "alpha_t": WEIGHT,
        "beta": WEIGHT,
        "warmup": (0.0, 1e4),
        "warmup_share": (0.0, 1.0),
    },
    paper="Zhao et al. 2022, Decoupled Knowledge Distillation, arXiv:2203.08679",
)
def dkd(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *,
    temperature: float, beta: float, alpha_t: float = 1.0, warmup: float | None = None, warmup_share: float = 0.0,
) -> Loss:  # fmt: skip
    """CE + warm-up · (alpha_t · target KL + beta · non-target KL), equation 7.

    The soft part grows linearly over the first ``warmup`` epochs, or over that share of them all (the authors:
    20 of 240 on CIFAR-100, 1 of 100 on ImageNet).
    """
    hard_term = cross_entropy(student, targets, batch)
    tckd = target_kl(student.logits, teacher.logits, targets, temperature)
    nckd = nontarget_kl(student.logits, teacher.logits, targets, temperature)
    length = warmup_share * batch.epochs if warmup is None else warmup
    ramp = min(1.0, batch.epoch / length) if length > 0 else 1.0
    total = hard_term + ramp * (alpha_t * tckd + beta * nckd)
    return Loss(total, {"target": tckd, "nontarget": nckd, "hard": hard_term})


def correlation_gap(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """1 − Pearson's correlation of matching rows of (rows, columns), averaged over rows."""
    return (1 - F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), dim=1, eps=eps)).mean()


@method(
    "dist",
    space={"beta": Range(0.25, 4, log=True), "gamma": Range(0.25, 4, log=True), "temperature": Range(1, 8, log=True)},
    bounds={"temperature": T_BOUNDS, "beta": WEIGHT, "gamma": WEIGHT, "hard_weight": WEIGHT},
    paper="Huang et al. 2022, Knowledge Distillation from A Stronger Teacher, arXiv:2205.10536",
)
def dist(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *,
    temperature: float, beta: float, gamma: float, hard_weight: float = 1.0,
) -> Loss:  # fmt: skip
    """CE + beta · inter-class + gamma · intra-class correlation gaps of softened outputs.

    Inter-class compares rows (one sample over classes), intra-class columns (one class over the batch);
    both carry T² as the authors' code does (equations 8 to 10).
    """
    ours, theirs = (F.softmax(said.logits / temperature, dim=1) for said in (student, teacher))
    hard_term = cross_entropy(student, targets, batch)
    inter = correlation_gap(ours, theirs) * temperature**2
    intra = correlation_gap(ours.T, theirs.T) * temperature**2
    total = hard_weight * hard_term + beta * inter + gamma * intra
    return Loss(total, {"inter": inter, "intra": intra, "hard": hard_term})
