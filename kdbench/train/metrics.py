"""What is measured of a network on a split, from its logits alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.data import Split


class Scores(NamedTuple):
    """Fractions and nats over one split."""

    acc: float
    nll: float
    ece: float
    top5: float | None
    kl: float | None
    agreement: float | None


def reliability(logits: Tensor, labels: Tensor, bins: int = 15) -> tuple[tuple[int, float, int], ...]:
    """(samples, sum of their confidences, how many are right) in equal-width bins of the top probability.

    Guo et al. 2017, section 2. ``logits`` (N, classes), ``labels`` int64 (N,); bin b holds ((b-1)/bins, b/bins].
    """
    confidence, predicted = F.softmax(logits.double(), dim=1).max(dim=1)
    which = (confidence * bins).ceil().long().clamp(1, bins) - 1
    right = predicted == labels
    table = torch.zeros(3, bins, dtype=torch.float64, device=logits.device)
    for row, values in zip(table, (torch.ones_like(confidence), confidence, right.double()), strict=True):
        row.index_add_(0, which, values)
    return tuple((int(n), total, int(good)) for n, total, good in table.T.tolist())


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Σ_b (n_b/n) · |accuracy_b − confidence_b| over the bins of ``reliability`` (Guo et al. 2017, equation 3)."""
    return sum(abs(good - total) for _, total, good in reliability(logits, labels, bins)) / len(labels)


def calibration_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """The T in [1/20, 20] with the least negative log-likelihood of ``logits / T`` (N, classes), on held-out samples.

    Guo et al. 2017, section 4.2. None where every sample is right: the likelihood then has its maximum at T = 0.
    """
    from scipy.optimize import minimize_scalar  # a quarter of a second, and only confirm runs need it

    logits = logits.double()
    if bool((logits.argmax(dim=1) == labels).all()):
        return None

    def nll(log_t: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_t), labels))

    found = minimize_scalar(nll, bounds=(-math.log(20), math.log(20)), method="bounded", options={"xatol": 1e-6})
    return math.exp(min(0.0, float(found.x), key=nll))


def scaled(logits: Tensor, labels: Tensor, temperature: float | None) -> dict[str, float]:
    """Fields of ``RunResult`` on logits (N, classes) that a temperature divides; empty without one."""
    if temperature is None:
        return {}
    after = logits.double() / temperature
    return {
        "calibration_temperature": temperature, "scaled_nll": float(F.cross_entropy(after, labels)),
        "scaled_ece": expected_calibration_error(after, labels),
    }  # fmt: skip


def score(logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> Scores:
    """All measures of logits (N, classes) against labels (N,) and, where given, the teacher's logits."""
    logits = logits.float()
    predicted = logits.argmax(dim=1)
    top5 = kl = agreement = None
    if logits.shape[1] > 10:
        top5 = float((logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1).double().mean())
    if teacher is not None:
        log_p, log_q = F.log_softmax(teacher, dim=1), F.log_softmax(logits, dim=1)
        kl = float(F.kl_div(log_q, log_p, reduction="batchmean", log_target=True))
        agreement = float((predicted == teacher.argmax(dim=1)).double().mean())
    acc, nll = float((predicted == labels).double().mean()), float(F.cross_entropy(logits, labels))
    return Scores(acc, nll, expected_calibration_error(logits, labels), top5, kl, agreement)


@torch.no_grad()
def collect_logits(model: nn.Module, split: Split, batch_size: int = 512) -> tuple[Tensor, Tensor]:
    """(logits (N, classes) float32, labels (N,)) of a network in eval mode; its mode is put back."""
    was_training = model.training
    try:
        logits = torch.cat([model.eval()(batch.x).float() for batch in split.plain(batch_size)])
    finally:
        model.train(was_training)
    return logits, split.labels
