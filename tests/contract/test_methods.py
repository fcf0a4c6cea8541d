"""Every method trains on real digits in each pairing it claims, and a run of it that was cut goes on bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdbench.methods import METHODS, Method
from kdbench.models import build
from kdbench.models.reused import Reused, fitting
from kdbench.teacher import Teacher
from kdbench.train import checkpoint
from tests.support.training import DEVICE, RECIPE, WITH_TOKEN, config_of, same, train

RECIPE = RECIPE.model_copy(update={"epochs": 2, "input_size": 16, "lr": 0.01, "clip_grad": 1.0})
OF_KIND = {"cnn": "test_resnet", "vit": "test_vit"}


def pairings(spec: Method) -> list[tuple[str, str]]:
    """A teacher's and a student's kind; those that look inside meet each kind of student that they claim."""
    teachers, students = (list(OF_KIND) if kind == "any" else [kind] for kind in spec.pairs.split("->"))
    inside = {"pooled", "maps", "student-maps"} & spec.needs
    taught_by = teachers[-1] if inside and len(students) == 1 else teachers[0]
    return [(taught_by, one) for one in students[: 2 if inside else 1]]


EVERY = [*METHODS.entries.values(), METHODS.get("kd+crd"), METHODS.get("dkd+vid")]
CASES = [pytest.param(spec, *pair, id=f"{spec.name}-{'-'.join(pair)}") for spec in EVERY for pair in pairings(spec)]


@pytest.mark.parametrize(("spec", "teacher", "student"), CASES)
def test_it_trains_and_goes_on_where_it_was_cut(
    spec: Method, teacher: str, student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL", 0)
    network = build(OF_KIND[teacher], classes=10, channels=1, input_size=16, seed=1)
    guide = Teacher(lambda: network, DEVICE, 10, keyed="view", root=tmp_path / "cache", teacher_id="teacher")
    hyper = {name: one.low or 0.5 for name, one in spec.space.items()} | spec.defaults
    name, options = WITH_TOKEN if "token" in spec.needs else (OF_KIND[student], {})
    config = config_of(RECIPE.model_copy(update={"model_options": options}), model=name, method=spec.name, hyper=hyper)

    def cut(log: object, replayed: bool) -> bool:
        raise KeyboardInterrupt

    whole = train(config, tmp_path / "whole", guide if spec.asks else None)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", guide if spec.asks else None, cut)
    assert same(whole, train(config, tmp_path / "parts", guide if spec.asks else None))
    plain = build(name, classes=10, channels=1, input_size=16, seed=3, options=options)
    plain = fitting(plain, whole.model.state_dict(), torch.zeros(1, 1, 16, 16))
    assert isinstance(plain, Reused) == ("reused" in spec.needs)
    assert whole.model.state_dict().keys() == plain.state_dict().keys()
    assert whole.result.params == sum(p.numel() for p in plain.parameters())
    parameters = zip(whole.model.parameters(), plain.to(DEVICE).parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in parameters)
