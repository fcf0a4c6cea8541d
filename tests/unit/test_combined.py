"""Methods combined by name: the first one's loss, the terms of the others, one hard term; what does not combine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdbench.errors import BadInput
from kdbench.methods import METHODS, BatchInfo, as_loss
from kdbench.sweeps.plan import fixed_of, space_of
from tests.support.sweeps import spec
from tests.unit.test_methods import labels, loss_of, said, taps


def test_the_terms_of_the_second_join_the_loss_of_the_first() -> None:
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=1), labels()
    combined = METHODS.get("kd+rkd+sp")
    hyper = {"temperature": 3.0, "alpha": 0.7, "rkd_weight": 2.0, "sp_weight": 300.0}
    code = combined.build({**combined.defaults, **hyper}, taps(10), taps(10, teacher=True))
    found = as_loss(code(student, teacher, y, BatchInfo()))
    kd = loss_of("kd", student, teacher, y, temperature=3.0, alpha=0.7)
    rkd, sp = loss_of("rkd", student, teacher, y, weight=2.0), loss_of("sp", student, teacher, y, weight=300.0)
    torch.testing.assert_close(found.total, kd.total + rkd.total - rkd.parts["hard"] + sp.total - sp.parts["hard"])
    assert {"soft", "hard", "rkd.distance", "rkd.angle"} < set(found.parts)
    assert combined.needs == {"logits", "pooled"} and combined.pairs == "any->any"
    assert METHODS.get("kd+at").pairs == "cnn->cnn" and METHODS.get("kd+at") is METHODS.get("kd+at")


def test_what_the_second_learns_is_trained_and_kept() -> None:
    combined = METHODS.get("dkd+srrl")
    made = combined.build({**combined.defaults, "temperature": 4.0}, taps(10), taps(10, teacher=True))
    alone = METHODS.get("srrl").build(METHODS.get("srrl").defaults, taps(10), taps(10, teacher=True))
    assert isinstance(made, nn.Module)
    assert sorted(p.shape for p in made.parameters()) == sorted(p.shape for p in alone.parameters())  # type: ignore[attr-defined]


def test_a_sweep_searches_each_part_s_own_space() -> None:
    sweep = spec(method="kd,kd+crd", space__crd_tau=0.1)
    assert set(space_of(sweep, "kd+crd")) == {"temperature", "alpha", "crd_weight"}
    assert space_of(sweep, "kd") == {k: v for k, v in space_of(sweep, "kd+crd").items() if k != "crd_weight"}
    assert space_of(sweep, "kd+crd")["crd_weight"] == METHODS.get("crd").space["weight"]
    assert fixed_of(sweep, "kd+crd")["crd_tau"] == 0.1 and "crd_tau" not in fixed_of(sweep, "kd")


@pytest.mark.parametrize(("name", "why"), [
    ("kd+dkd", "hard term of its own"), ("crd+crd", "names one twice"), ("hard+crd", "asks no teacher"),
    ("kd+nope", "unknown method"), ("kd+", "unknown method"),
])  # fmt: skip
def test_what_does_not_combine_is_said(name: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        METHODS.get(name)
