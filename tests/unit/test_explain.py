"""The figure that explains temperature: its numbers by scipy, its samples, a real teacher."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from kdbench.report.temperature import entropy, soften, telling_samples
from tests.support.helpers import Cli

LOGITS = np.random.default_rng(0).normal(0, 6, (50, 10))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 1e4])
def test_soft_targets_and_their_entropy_are_scipy_s(temperature: float) -> None:
    soft = soften(LOGITS, temperature)
    np.testing.assert_allclose(soft, softmax(LOGITS / temperature, axis=1), rtol=1e-12)
    np.testing.assert_allclose(entropy(soft), scipy_entropy(soft, base=2, axis=1), rtol=1e-9)
    if temperature == 1e4:
        np.testing.assert_allclose(entropy(soft), np.log2(10), rtol=1e-6)


def test_the_samples_shown_are_right_of_different_classes_and_the_surest_comes_first() -> None:
    labels = LOGITS.argmax(axis=1)
    labels[:20] = (labels[:20] + 1) % 10
    shown = telling_samples(LOGITS, labels, 4)
    assert len(shown) == 4 == len(set(labels[shown])) and min(shown) >= 20
    bits = entropy(soften(LOGITS, 4.0))
    assert bits[shown[0]] == bits[20:].min() and list(bits[shown[1:]]) == sorted(bits[shown[1:]], reverse=True)
    assert telling_samples(LOGITS, (LOGITS.argmax(axis=1) + 1) % 10, 4) == []


def test_a_real_teacher_is_prepared_once_and_drawn(bench: Path, cli: Cli) -> None:
    words = ["explain", "temperature", "--teacher", "test_resnet", "--budget", "smoke", "--out", "pictures", "--quiet"]
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
    card = next((bench / "cache/teachers").glob("*/result.json"))
    drawn = {path.name: path.stat().st_size for path in (bench / "pictures").iterdir()}
    about = json.loads((bench / "pictures/temperature.json").read_text())
    assert about["teacher"]["id"] == card.parent.name and about["command"].startswith("kdbench explain temperature")
    del drawn["temperature.json"]
    assert set(drawn) == {"temperature.png", "temperature.svg", "temperature.pdf"} and min(drawn.values()) > 5_000
    before = card.stat().st_mtime_ns
    assert cli(*words).code == 0 and card.stat().st_mtime_ns == before
    assert cli("explain", "temperature", "--teacher", "no_such_net").code == 2
