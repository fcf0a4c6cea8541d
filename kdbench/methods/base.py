"""What every loss is made of: the two terms of Hinton, Vinyals, Dean 2015, and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor


class Loss(NamedTuple):
    """A scalar to minimise and its unweighted parts (scalars, in nats), for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class LossFunction(Protocol):
    """A loss over one batch.

    ``student`` and ``teacher`` are logits, float32, (B, classes); ``targets`` int64, (B,). ``teacher`` is
    None only for losses that read nothing from a teacher. ``epoch`` is 1-based.
    """

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor | None,
        targets: Tensor,
        hyper: Mapping[str, float],
        *,
        label_smoothing: float = 0.0,
        epoch: int = 1,
    ) -> Loss:
        """The loss and its parts for one batch."""
        ...


def soft_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(z_t/T) ‖ softmax(z_s/T)), summed over classes, averaged over the batch.

    The factor T² keeps the gradient's size independent of T (Hinton et al. 2015, section 2).
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def mix(soft: Tensor, hard_term: Tensor, hyper: Mapping[str, float]) -> Tensor:
    """Alpha · soft + (1 − alpha) · hard; ``soft_weight`` and ``hard_weight`` replace either weight.

    The two free weights express conventions such as CRD's 0.1·CE + 0.9·KL (Tian et al. 2020).
    """
    alpha = hyper.get("alpha", 0.5)
    return hyper.get("soft_weight", alpha) * soft + hyper.get("hard_weight", 1.0 - alpha) * hard_term


def soft_cross_entropy_parts(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The (soft, hard) terms of plain distillation for logits (B, classes)."""
    return soft_kl(student, teacher, temperature), F.cross_entropy(student, targets, label_smoothing=label_smoothing)


def hard(
    student: Tensor,
    teacher: Tensor | None,
    targets: Tensor,
    hyper: Mapping[str, float],
    *,
    label_smoothing: float = 0.0,
    epoch: int = 1,
) -> Loss:
    """Cross-entropy on the true labels: the baseline that every distilled student is measured against."""
    term = F.cross_entropy(student, targets, label_smoothing=label_smoothing)
    return Loss(term, {"hard": term})


def require(teacher: Tensor | None, method: str) -> Tensor:
    """The teacher's logits, or a ValueError where a loss that needs them is called without."""
    if teacher is None:
        raise ValueError(f"the loss '{method}' needs the teacher's logits")
    return teacher
