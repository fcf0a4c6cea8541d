"""Which student to ship: limits, ties, hard labels, the nearest miss; and the median's interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdbench.deploy.device import interval
from kdbench.deploy.pick import Choice, Limit, Offer, choose, sentences

NOISE = (0.0, 0.002, -0.001, 0.001, -0.002)


def offer(student: str, method: str, acc: float, params: float, noise: Any = None, **costs: float) -> Offer:
    """A student of that validation accuracy, over five seeds that hardly differ."""
    shift = (int(params / 1e6) + len(method)) % 5
    noise = NOISE[shift:] + NOISE[:shift] if noise is None else noise
    val = {1001 + k: acc + each for k, each in enumerate(noise)}
    return Offer(
        student, method, f"{student}-{method}", {}, val, acc - 0.01, acc - 0.02, acc, {"params": params, **costs}
    )


LOOSE = (0.02, -0.02, 0.015, -0.01, -0.005)
SMALL, MIDDLE, LARGE = (offer(name, "kd", acc, size, ms=ms) for name, acc, size, ms in (
    ("small", 0.90, 1e6, 1.0), ("middle", 0.93, 2e6, 2.0), ("large", 0.95, 4e6, 3.0)))  # fmt: skip


def test_the_most_accurate_within_the_limits() -> None:
    offers = [SMALL, MIDDLE, LARGE]
    assert choose(offers, []).chosen is LARGE
    found = choose(offers, [Limit("ms", 2.5)], "ms")
    assert found.chosen is found.best is MIDDLE and not found.tied
    assert found.cheaper is not None and found.cheaper.offer is SMALL
    assert found.cheaper.difference.mean == pytest.approx(-0.03)
    assert found.better is not None and found.better.offer is LARGE
    assert choose(offers, [Limit("acc", 0.94), Limit("params", 5e6)]).chosen is LARGE


def test_of_those_that_tie_the_cheapest() -> None:
    close = offer("close", "kd", 0.931, 1.5e6, LOOSE)
    found = choose([SMALL, MIDDLE, close], [])
    assert found.best is close and found.chosen is close and [each.offer for each in found.tied] == [MIDDLE]
    cheap = offer("cheap", "kd", 0.925, 0.5e6, LOOSE)
    found = choose([SMALL, MIDDLE, cheap], [])
    assert (found.best, found.chosen) == (MIDDLE, cheap)
    assert any("more accurate on validation, +0.50 points" in text for text in sentences(found, [], "s"))


def test_hard_labels_are_named_where_they_are_as_good_and_controls_are_never_shipped() -> None:
    equal, worse = offer("small", "hard", 0.899, 1e6, LOOSE), offer("small", "hard", 0.85, 1e6)
    control = offer("small", "smoothing", 0.99, 1e6)
    found = choose([SMALL, equal, control], [])
    assert found.chosen is SMALL and found.as_good and found.as_json()["hard_labels_as_good"]
    assert any(text.startswith("Hard labels are as good here") for text in sentences(found, [], "s"))
    assert not choose([SMALL, worse], []).as_good
    assert any("Distilling gained +5.00 points" in text for text in sentences(choose([SMALL, worse], []), [], "s"))
    assert choose([SMALL, offer("small", "hard", 0.93, 1e6)], []).chosen.method == "hard"  # type: ignore[union-attr]


def test_the_nearest_miss_and_costs_that_nobody_knows() -> None:
    limits = [Limit("ms", 0.8)]
    found = choose([SMALL, MIDDLE, LARGE], limits)
    assert found.chosen is None and found.missed is SMALL
    assert sentences(found, limits, "s") == ["Nothing fits at most 0.8 ms. Nearest is small (kd): 1 ms."]
    unknown = offer("unknown", "kd", 0.99, 1e5)
    assert choose([SMALL, unknown], [Limit("ms", 2)]).chosen is SMALL
    assert choose([unknown], [Limit("ms", 2)]).missed is unknown and choose([], []) == Choice(None)
    one = offer("one", "kd", 0.91, 3e6, (0.0,))
    assert choose([SMALL, one], []).chosen is SMALL  # one seed tells nothing apart


def test_the_interval_of_a_latency_holds_what_drifts_between_sittings() -> None:
    """1,000 measurements of 5 sittings of 12 rounds: a sitting is off by 5%, a round by a skewed 3%."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        off = 1 + 0.05 * rng.standard_normal(5)
        lo, hi = interval([each * (1 + 0.03 * (rng.exponential(size=12) - np.log(2))) for each in off])
        inside += lo <= 1 <= hi
    assert 930 <= inside <= 975
    assert interval([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]) == (2.0, 2.0)
