"""Distillation on softened logits: plain, and on standardised logits."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kdbench.methods.base import Loss, mix, require, soft_cross_entropy_parts, soft_kl


def kd(
    student: Tensor,
    teacher: Tensor | None,
    targets: Tensor,
    hyper: Mapping[str, float],
    *,
    label_smoothing: float = 0.0,
    epoch: int = 1,
) -> Loss:
    """Alpha · T² · KL(teacher_T ‖ student_T) + (1 − alpha) · CE (Hinton, Vinyals, Dean 2015)."""
    soft, hard_term = soft_cross_entropy_parts(
        student, require(teacher, "kd"), targets, hyper["temperature"], label_smoothing
    )
    return Loss(mix(soft, hard_term, hyper), {"soft": soft, "hard": hard_term})


def standardise(logits: Tensor, eps: float = 1e-7) -> Tensor:
    """Each row (B, classes) to mean 0 and (unbiased) standard deviation 1."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (eps + logits.std(dim=1, keepdim=True))


def kd_ls(
    student: Tensor,
    teacher: Tensor | None,
    targets: Tensor,
    hyper: Mapping[str, float],
    *,
    label_smoothing: float = 0.0,
    epoch: int = 1,
) -> Loss:
    """Plain distillation of z-scored logits; the hard term sees the raw ones (Sun et al. 2024).

    Standardising frees the student from the teacher's scale of logits, so T alone sets the softness.
    """
    teacher = require(teacher, "kd-ls")
    _, hard_term = soft_cross_entropy_parts(student, teacher, targets, 1.0, label_smoothing)
    soft = soft_kl(standardise(student), standardise(teacher), hyper["temperature"])
    return Loss(mix(soft, hard_term, hyper), {"soft": soft, "hard": hard_term})
