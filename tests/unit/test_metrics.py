"""What is measured of logits, against hand values and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.train import expected_calibration_error, score
from kdbench.train.metrics import calibration_temperature, scaled


def test_calibration_error_by_hand_and_by_a_plain_loop():
    confidences = torch.tensor([0.95, 0.95, 0.65, 0.62])  # bins (14, 15], (14, 15], (9, 10], (9, 10] of 15
    logits = torch.stack([confidences.log(), (1 - confidences).log()], 1)
    labels = torch.tensor([0, 1, 0, 0])
    assert expected_calibration_error(logits, labels) == pytest.approx(0.5 * (0.95 - 0.5) + 0.5 * (1 - 0.635))
    draw = torch.Generator().manual_seed(0)
    logits, labels = 4 * torch.randn(500, 12, generator=draw), torch.randint(12, (500,), generator=draw)
    confidence, predicted = (v.numpy() for v in logits.double().softmax(1).max(1))
    expected = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs((predicted == labels.numpy())[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(logits, labels) == pytest.approx(expected, rel=1e-9)


def test_scores_by_hand():
    logits = torch.zeros(4, 11).index_put_((torch.arange(4), torch.tensor([0, 1, 2, 3])), torch.tensor(6.0))
    logits += 0.1 * torch.arange(11, 0, -1)  # ties broken: class 0 before class 10
    labels, teacher = torch.tensor([0, 1, 3, 10]), torch.roll(logits, 1, dims=0)
    s = score(logits, labels, teacher)
    z, t = logits.double().numpy(), teacher.double().numpy()
    p, q = (np.exp(a) / np.exp(a).sum(1, keepdims=True) for a in (t, z))
    assert (s.acc, s.top5, s.agreement) == (0.5, 0.75, 0.0)
    assert s.nll == pytest.approx(-np.log(q[range(4), labels]).mean())
    assert s.kl == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-5)
    itself = score(logits[:, :10], labels.clamp(max=9), logits[:, :10])
    assert (itself.top5, itself.agreement) == (None, 1.0) and itself.kl == pytest.approx(0, abs=1e-6)
    assert score(logits, labels)[4:] == (None, None)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_temperature_scaling_finds_by_what_calibrated_logits_were_multiplied(factor):
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(50_000, 10, generator=draw)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    found = calibration_temperature(factor * logits, labels)
    assert found == pytest.approx(factor, rel=0.02)
    after, nll = scaled(factor * logits, labels, found), float(F.cross_entropy(logits.double(), labels))
    assert after["scaled_ece"] < 0.01 and after["scaled_nll"] == pytest.approx(nll, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_temperature_scaling_never_costs_likelihood_on_validation(scale):
    draw = torch.Generator().manual_seed(1)
    logits, labels = scale * torch.randn(64, 5, generator=draw), torch.randint(5, (64,), generator=draw)
    found = calibration_temperature(logits, labels)
    assert scaled(logits, labels, found)["scaled_nll"] <= float(F.cross_entropy(logits.double(), labels))
    assert calibration_temperature(logits, logits.argmax(1)) is None and scaled(logits, labels, None) == {}
