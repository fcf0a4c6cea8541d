"""Methods with a second network, view, head, momentum or classifier: formulas, limits, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kdbench.data.augment import strengthened
from kdbench.data.views import Look
from kdbench.errors import BadInput
from kdbench.methods import METHODS, Outputs
from kdbench.models import build, count_params
from kdbench.models.reused import Reused, fitting
from kdbench.sweeps.run import check_inputs
from kdbench.train import Step
from kdbench.train.beside import POLICY
from kdbench.train.loop import Trainer
from kdbench.train.optim import TwoMomenta
from tests.support.sweeps import spec
from tests.support.training import DEVICE, RECIPE, config_of, data_for, live, numbers, train
from tests.unit.test_methods import N, draw, kl, labels, log_p, loss_of, said, softmax, taps

STUDENT, TEACHER, Y = said(taps(10), scale=2), said(taps(10, teacher=True), seed=3, scale=4), labels()
IMAGE = torch.zeros(1, 3, 32, 32)


def array(x: torch.Tensor | None) -> np.ndarray:
    assert x is not None
    return x.detach().numpy()


def ce(z: np.ndarray, y: np.ndarray) -> float:
    return float(-log_p(z)[range(len(y)), y].mean())


def test_the_teacher_speaks_to_the_token_and_the_labels_to_the_class() -> None:
    s, token, t, y = array(STUDENT.logits), array(STUDENT.other), array(TEACHER.logits), array(Y)
    hard = loss_of("deit-hard", STUDENT, TEACHER, Y, alpha=0.3)
    assert float(hard.total) == pytest.approx(0.7 * ce(s, y) + 0.3 * ce(token, t.argmax(1)))
    soft = loss_of("deit-soft", STUDENT, TEACHER, Y, alpha=0.3, temperature=2.0)
    assert float(soft.total) == pytest.approx(0.7 * ce(s, y) + 0.3 * 4 * kl(token / 2, t / 2).mean())


def test_mlkd_as_its_authors_compute_it() -> None:
    weak = {"s": array(STUDENT.logits), "t": array(TEACHER.logits)}
    strong = {"s": array(STUDENT.other), "t": array(TEACHER.other)}
    sure = softmax(weak["t"])
    few = np.mean(sure.max(1) <= np.percentile(sure.max(1), 50))
    rare = np.mean(sure.sum(0) <= np.percentile(sure.sum(0), 50))
    total = 0.1 * (ce(weak["s"], array(Y)) + ce(strong["s"], array(Y)))
    for place, t in enumerate((4.0, 3.0, 5.0, 2.0, 6.0)):
        apart = t**2 * kl(weak["s"] / t, weak["t"] / t).mean()
        total += 0.9 * few * apart
        total += 0.9 * (apart if place > 2 else t**2 * kl(strong["s"] / t, strong["t"] / t).mean())
        p, q = softmax(weak["s"] / t), softmax(weak["t"] / t)
        total += 0.9 * few * ((q @ q.T - p @ p.T) ** 2).sum() / N
        total += 0.9 * rare * ((q.T @ q - p.T @ p) ** 2).sum() / 10
    assert float(loss_of("mlkd", STUDENT, TEACHER, Y).total.detach()) == pytest.approx(total)
    assert float(loss_of("mlkd", TEACHER, TEACHER, Y).parts["class"]) == 0


def test_a_strong_view_is_its_entry_s() -> None:
    look, x = Look(16, (0.5,), (0.25,)), draw(4, 1, 16, 16).float().clamp(-2, 2)
    same = (strengthened(x, torch.arange(4), look, POLICY, 7) for _ in range(2))
    first, again = same
    assert torch.equal(first, again) and first.shape == x.shape
    assert torch.equal(strengthened(x[2:], torch.arange(2, 4), look, POLICY, 7), first[2:])
    assert not torch.equal(strengthened(x, torch.arange(4), look, POLICY, 8), first)
    assert first.min() >= -2 and first.max() <= 2
    plain = strengthened(x, torch.arange(4), look, "rand-n1-m0-p0.0", 7)
    assert torch.allclose(plain, x, atol=2.1 / 255 / 0.25), "but for 8 bits"


@pytest.mark.parametrize("delta", [0.0, 0.075])
def test_two_momenta_by_hand(delta: float) -> None:
    """With delta = 0 they are SGD's one."""
    weight, twin = (torch.nn.Parameter(draw(5)) for _ in range(2))
    recipe = RECIPE.model_copy(update={"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True})
    ours, sgd = TwoMomenta([weight], recipe, delta), torch.optim.SGD([twin], lr=0.1, momentum=0.9, weight_decay=0.01)
    w, task, soft = weight.detach().clone(), torch.zeros(5), torch.zeros(5)
    for step in range(4):
        a, b = draw(5, seed=step), draw(5, seed=step + 9)
        ours.zero_grad()
        ours.learn((weight * a).sum(), (weight**2 * b).sum())
        ours.step()
        sgd.zero_grad()
        ((twin * a).sum() + (twin**2 * b).sum()).backward()
        sgd.step()
        task, soft = (0.9 - delta) * task + a + 0.01 * w, (0.9 + delta) * soft + 2 * b * w
        w = w - 0.1 * (task + soft)
        assert torch.allclose(weight, w)
    assert torch.allclose(weight, twin) == (delta == 0)


def test_two_momenta_are_clipped_together() -> None:
    weight = torch.nn.Parameter(draw(5))
    recipe = RECIPE.model_copy(update={"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_grad": 0.5})
    before, a, b = weight.detach().clone(), draw(5, seed=1), 100 * draw(5, seed=2)
    ours = TwoMomenta([weight], recipe, 0.0)
    ours.learn((weight * a).sum(), (weight * b).sum())
    ours.step()
    assert torch.allclose(before - weight, 0.5 * (a + b) / (a + b).norm(), rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "hyper", "other", "as_other"),
    [
        ("dml", {"weight": 0.0, "temperature": 1.0}, "hard", {}),
        ("mean-teacher", {"weight": 0.0, "decay": 0.9, "rampup_share": 0.2}, "hard", {}),
        ("dot", {"temperature": 4.0, "alpha": 0.7, "delta": 0.0}, "kd", {"temperature": 4.0, "alpha": 0.7}),
    ],
)
def test_at_its_limit_it_is_the_other_run(
    method: str, hyper: dict[str, float], other: str, as_other: dict[str, float], tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 2, "nesterov": False, "lr": 0.01})
    configs = {
        "one": config_of(recipe, method=method, hyper=hyper),
        "two": config_of(recipe, method=other, hyper=as_other),
        "three": config_of(recipe, method=method, hyper=hyper | {next(iter(hyper)): 5.0}),
    }
    one, two, three = (
        numbers(train(config, tmp_path / name, live() if METHODS.get(config.method).asks else None))
        for name, config in configs.items()
    )
    near = 0.0 if other == "hard" else 3e-4  # two backward passes round otherwise than one
    assert [log["val_loss"] for log in one[:2]] == pytest.approx([log["val_loss"] for log in two[:2]], rel=near)
    assert one[1]["val_loss"] != pytest.approx(three[1]["val_loss"], rel=near)


def test_a_mean_teacher_is_the_average_of_the_student() -> None:
    """Of decay 0 the student itself; a peer is trained on its own."""
    hyper = {"weight": 1.0, "decay": 0.0, "rampup_share": 0.0}
    config = config_of(RECIPE, method="mean-teacher", hyper=hyper)
    trainer = Trainer(config, data_for(RECIPE), None, DEVICE, Step())
    trainer.train(1)
    kept = trainer.second.module.state_dict().items()  # type: ignore[union-attr]
    own = trainer.model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in kept)
    other = Trainer(config_of(RECIPE, method="dml", hyper={"weight": 1.0}), data_for(RECIPE), None, DEVICE, Step())
    before = [weight.clone() for weight in other.second.parameters()]  # type: ignore[union-attr]
    other.train(1)
    assert not any(map(torch.equal, before, other.second.parameters()))  # type: ignore[union-attr]
    assert len(trainer.optimizer.param_groups[0]["params"]) == len([*trainer.model.parameters()])
    assert len(trainer.optimizer.param_groups) == 1 and len(other.optimizer.param_groups) == 2


def test_what_a_teacher_keeps_of_its_logits_is_no_matter_of_a_peer(tmp_path: Path) -> None:
    runs = [config_of(RECIPE.model_copy(update={"teacher_top_k": k}), method="dml", hyper={"weight": 1.0})
            for k in (None, 2)]  # fmt: skip
    one, two = (numbers(train(config, tmp_path / str(k))) for k, config in enumerate(runs))
    assert one[0] == two[0]


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "mobilenetv2_050", "cifar_resnet20"])
def test_a_reused_classifier_says_what_the_teacher_does_of_its_map(name: str) -> None:
    teacher, body = torch.nn.Linear(40, 7), build(name, classes=7, channels=3, input_size=32, seed=1)
    whole = count_params(body)
    network = Reused(body, IMAGE, teacher, 40, 1).eval()
    features, maps = network.forward_intermediates(draw(2, 3, 32, 32).float())
    assert features.shape == (2, 40, 1, 1) and torch.equal(maps[-1], features), "pooled to the teacher's side"
    assert torch.equal(network.forward_head(features), teacher(features[..., 0, 0]))
    assert network.classifier is not teacher
    own = sum(p.numel() for p in network.body.parameters())
    assert own < whole - 7 * 7, "its own classifier is gone"
    network(draw(2, 3, 32, 32).float()).sum().backward()
    lost = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert lost == ["classifier.weight", "classifier.bias"], "all else is trained, and that is not"
    assert count_params(network) == own + sum(p.numel() for p in network.projector.parameters()) + 41 * 7
    again = fitting(build(name, classes=7, channels=3, input_size=32, seed=2), network.state_dict(), IMAGE)
    again.load_state_dict(network.state_dict())
    x = draw(2, 3, 32, 32, seed=4).float()
    assert torch.equal(again.eval()(x), network(x))
    assert fitting(body, body.state_dict(), IMAGE) is body


def test_simkd_compares_the_last_maps_alone() -> None:
    ours = Outputs(STUDENT.logits, maps={1: draw(N, 5, 2, 2)})
    found = loss_of(METHODS.get("simkd"), ours, TEACHER, Y, weight=2.0, code=None)
    assert float(found.total) == pytest.approx(2 * ((array(ours.maps[1]) - array(TEACHER.maps[3])) ** 2).mean())
    assert not float(loss_of("simkd", replace(ours, maps={1: TEACHER.maps[3]}), TEACHER, Y).total.detach())


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"pair": "test_efficientnet:test_resnet", "method": "simkd"}, "takes|must be one linear layer"),
        ({"pair": "test_resnet:test_vit", "method": "simkd"}, "made for cnn->cnn"),
        ({"pair": "test_resnet:test_vit", "method": "deit-hard"}, "no distillation token"),
        ({"pair": "test_resnet:cifar_resnet20", "method": "fcfd"}, "not 32 and 4 pixels"),
        (
            {"pair": "test_resnet:test_resnet", "method": "dot", "recipe__optimizer": "adamw"},
            "not recipe.optimizer=adamw",
        ),
        ({"pair": "test_resnet:test_resnet", "method": "dot", "recipe__momentum": 0.95}, "beside recipe.momentum"),
        ({"pair": "test_resnet:test_resnet", "method": "dot", "space__delta": "0.05,0.2"}, "delta=0.2 beside"),
        ({"pair": "test_resnet:test_resnet", "method": "simkd", "recipe__max_norm": 3.0}, "ships its student with ano"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    asked: dict[str, object], why: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=why):
        check_inputs(spec(**asked), tmp_path, {})
