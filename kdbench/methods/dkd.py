"""Decoupled distillation (Zhao et al. 2022): target and non-target classes weighted apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.base import Loss, require


def target_kl(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T² · KL of the binary split (target class, all others) at T; logits (B, classes), a scalar."""
    split_student = _binary_log(student / temperature, targets)
    split_teacher = _binary_log(teacher / temperature, targets)
    return F.kl_div(split_student, split_teacher, reduction="batchmean", log_target=True) * temperature**2


def nontarget_kl(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T² · KL over the classes other than the target, renormalised among themselves; a scalar."""
    columns = torch.arange(student.shape[1] - 1, device=targets.device)
    others = columns + (columns >= targets[:, None])  # a boolean mask would make a GPU wait for its count
    log_student = F.log_softmax(student.gather(1, others) / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.gather(1, others) / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def _binary_log(scaled: Tensor, targets: Tensor) -> Tensor:
    """Log [p(target), p(any other)], (B, 2), without leaving log space."""
    log_all = F.log_softmax(scaled, dim=1)
    target = log_all.gather(1, targets[:, None])
    others = log_all.masked_fill(F.one_hot(targets, scaled.shape[1]).bool(), float("-inf"))
    return torch.cat([target, others.logsumexp(dim=1, keepdim=True)], dim=1)


def dkd(
    student: Tensor,
    teacher: Tensor | None,
    targets: Tensor,
    hyper: Mapping[str, float],
    *,
    label_smoothing: float = 0.0,
    epoch: int = 1,
) -> Loss:
    """CE + warm-up · (alpha_t · target KL + beta · non-target KL), Zhao et al. 2022, equation 7.

    The soft part grows linearly over the first ``warmup`` epochs (the authors': 20).
    """
    teacher = require(teacher, "dkd")
    temperature = hyper["temperature"]
    hard_term = F.cross_entropy(student, targets, label_smoothing=label_smoothing)
    tckd = target_kl(student, teacher, targets, temperature)
    nckd = nontarget_kl(student, teacher, targets, temperature)
    soft = hyper.get("alpha_t", 1.0) * tckd + hyper["beta"] * nckd
    ramp = min(1.0, epoch / hyper["warmup"]) if hyper.get("warmup", 0) > 0 else 1.0
    return Loss(hard_term + ramp * soft, {"target": tckd, "nontarget": nckd, "hard": hard_term})
