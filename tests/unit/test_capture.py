"""Steps recorded as CUDA graphs, where there is a GPU (``KDBENCH_TEST_DEVICE=cuda``)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdbench.methods import METHODS
from kdbench.models import build
from kdbench.teacher import Teacher
from kdbench.train import Step, capture
from kdbench.train.loop import Trainer
from tests.support.training import DEVICE, RECIPE, WITH_TOKEN, config_of, data_for, live, same, train

pytestmark = pytest.mark.skipif(DEVICE.type != "cuda", reason="KDBENCH_TEST_DEVICE names no GPU")
CAPTURED = Step(captured=True)
RECIPE = RECIPE.model_copy(update={"epochs": 3, "input_size": 16, "lr": 0.01})
NOT_RECORDED = {"vkd"}
"""Methods that read a value back within a step: the matrix exponential does, of vectors of one length."""


@pytest.mark.parametrize("more", [
    {}, {"precision": "bf16"}, {"optimizer": "adamw"}, {"clip_grad": 1.0, "schedule": "step", "milestones": [1, 2]},
    {"ema": 0.9}, {"model_options": {"drop_rate": 0.3}},
])  # fmt: skip
def test_a_replay_is_the_step_that_was_recorded(
    tmp_path: Path, more: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, noise of a dropout and rates of a schedule included."""
    config = config_of(type(RECIPE).model_validate(RECIPE.model_dump() | more))
    replayed = train(config, tmp_path / "replayed", live(), step=CAPTURED)
    monkeypatch.setattr(capture, "EAGER", 10**6)
    assert same(replayed, train(config, tmp_path / "eager", live(), step=CAPTURED))


@pytest.mark.parametrize("name", list(METHODS.entries))
def test_which_methods_are_recorded(name: str, tmp_path: Path) -> None:
    spec = METHODS.get(name)
    kinds = ["cnn" if kind == "any" else kind for kind in spec.pairs.split("->")]
    teacher, student = ({"cnn": "test_resnet", "vit": "test_vit"}[kind] for kind in kinds)
    network = build(teacher, classes=10, channels=1, input_size=16, seed=1)
    guide = Teacher(lambda: network, DEVICE, 10, keyed="view", root=tmp_path, teacher_id="teacher")
    hyper = {name: one.low or 0.5 for name, one in spec.space.items()} | spec.defaults
    student, options = WITH_TOKEN if "token" in spec.needs else (student, {})
    recipe = RECIPE.model_copy(update={"model_options": options})
    config = config_of(recipe, model=student, method=name, hyper=hyper)
    trainer = Trainer(config, data_for(RECIPE), guide if spec.asks else None, DEVICE, CAPTURED)
    for epoch in (1, 2):
        trainer.epoch(epoch, None)
    if not capture.recordable(config):
        assert name in {"dot", "mlkd", "fcfd"} and trainer.recorded is None
        return
    assert trainer.recorded is not None
    assert (trainer.recorded.fault is not None) == (name in NOT_RECORDED), trainer.recorded.fault


def test_a_step_that_reads_a_value_back_goes_on_as_it_is() -> None:
    weight = torch.zeros((), device=DEVICE)

    def step(x: torch.Tensor) -> torch.Tensor:
        weight.add_(x.sum().item())
        return weight.clone()

    run = capture.Recorded(step)
    assert [float(run(torch.ones(2, device=DEVICE))) for _ in range(5)] == [2, 4, 6, 8, 10]
    assert run.fault
    assert float(torch.randn(4, device=DEVICE).abs().sum()) > 0
