"""Relation matching (Huang et al. 2022): correlation instead of divergence."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.base import Loss, require


def correlation_gap(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """1 − Pearson's correlation of matching rows of (rows, columns), averaged over rows."""
    return (1 - F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), dim=1, eps=eps)).mean()


def dist(
    student: Tensor,
    teacher: Tensor | None,
    targets: Tensor,
    hyper: Mapping[str, float],
    *,
    label_smoothing: float = 0.0,
    epoch: int = 1,
) -> Loss:
    """CE + beta · inter-class + gamma · intra-class correlation gaps of softened outputs.

    Inter-class compares rows (one sample over classes), intra-class columns (one class over the batch);
    both carry T² as the authors' code does (Huang et al. 2022, equations 8 to 10).
    """
    temperature = hyper["temperature"]
    soft_student = F.softmax(student / temperature, dim=1)
    soft_teacher = F.softmax(require(teacher, "dist") / temperature, dim=1)
    hard_term = F.cross_entropy(student, targets, label_smoothing=label_smoothing)
    inter = correlation_gap(soft_student, soft_teacher) * temperature**2
    intra = correlation_gap(soft_student.T, soft_teacher.T) * temperature**2
    total = hyper.get("hard_weight", 1.0) * hard_term + hyper["beta"] * inter + hyper["gamma"] * intra
    return Loss(total, {"inter": inter, "intra": intra, "hard": hard_term})
