"""Plain distillation, its decoupled and standardised kin and DIST, against other people's code, numbers worked out in
numpy, and what their papers say of them. The rest: ``test_methods.py``."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kdbench.catalog.types import Dimension
from kdbench.config import Hyper
from kdbench.errors import BadInput
from kdbench.methods import METHODS, BatchInfo, Loss, Method, Outputs, as_loss
from kdbench.methods.logits import nontarget_kl, soft_kl, target_kl

ALL = [METHODS.get(name) for name in ("hard", "kd", "kd-ls", "dkd", "dist")]
TAUGHT = [spec for spec in ALL if spec.needs]
KNOBS = [(spec, knob) for spec in ALL for knob in sorted(spec.knobs)]
logit_pairs = hnp.arrays(np.float64, (2, 4, 6), elements=st.floats(-30, 30, width=32))
named = {"argvalues": ALL, "ids": lambda spec: spec.name}


def batch(seed: int = 0, n: int = 8, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, n, classes, generator=draw, dtype=torch.float64)
    return student.requires_grad_(), teacher, torch.randint(classes, (n,), generator=draw)


def middle(spec: Method) -> Hyper:
    """A point inside the method's search space, on top of its fixed values."""

    def point(d: Dimension) -> float:
        return d.choices[0] if d.choices else 0.6 * (d.low or 0.0) + 0.4 * (d.high or 0.0)

    return {**spec.defaults, **{name: point(d) for name, d in spec.space.items()}}


def loss_of(name: str, student, teacher, y, hyper: Hyper, *, label_smoothing: float = 0.0, epoch: int = 1) -> Loss:
    code = METHODS.get(name).build(hyper, None, None)
    where = BatchInfo(epoch=epoch, epochs=20, label_smoothing=label_smoothing)
    return as_loss(code(Outputs(student), None if teacher is None else Outputs(teacher), y, where))


def gradient(name: str, hyper: Hyper, student, teacher, y, *, part: str | None = None, **more) -> torch.Tensor:
    loss = loss_of(name, student, teacher, y, hyper, **more)
    return torch.autograd.grad(loss.parts[part] if part else loss.total, student)[0]


def log_softmax(z: np.ndarray) -> np.ndarray:
    shifted = z - z.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize(("t", "alpha", "smoothing"), [(1.0, 0.5, 0.0), (4.0, 0.9, 0.0), (20.0, 0.1, 0.2)])
def test_kd_equals_a_float64_computation_by_hand(t, alpha, smoothing):
    student, teacher, y = batch()
    s, z, n = student.detach().numpy(), teacher.numpy(), len(y)
    log_q, log_p, log_1 = log_softmax(s / t), log_softmax(z / t), log_softmax(s)
    soft = t**2 * (np.exp(log_p) * (log_p - log_q)).sum() / n
    hard = -((1 - smoothing) * log_1[range(n), y].sum() + smoothing * log_1.mean(1).sum()) / n
    hyper = {"temperature": t, "alpha": alpha}
    total, parts = loss_of("kd", student, teacher, y, hyper, label_smoothing=smoothing)
    assert total.item() == pytest.approx(alpha * soft + (1 - alpha) * hard, rel=1e-12)
    assert [float(parts["soft"]), float(parts["hard"])] == pytest.approx([soft, hard], rel=1e-12)
    dq, d1 = np.exp(log_q) - np.exp(log_p), np.exp(log_1) - (1 - smoothing) * np.eye(7)[y] - smoothing / 7
    by_hand = (alpha * t * dq + (1 - alpha) * d1) / n
    np.testing.assert_allclose(gradient("kd", hyper, student, teacher, y, label_smoothing=smoothing), by_hand, 1e-10)
    free = loss_of("kd", student, teacher, y, {"temperature": t, "soft_weight": 0.9, "hard_weight": 0.1})
    plain = loss_of("hard", student, None, y, {}).total  # CRD's weights: 0.1 CE + 0.9 KL
    assert float(free.total) == pytest.approx(float(0.9 * soft + 0.1 * plain), rel=1e-12)


@pytest.mark.parametrize(("t", "alpha"), [(1.0, 0.3), (5.0, 0.8)])
def test_kd_equals_timms_distillation_task(t, alpha):
    import timm
    from timm.task import LogitDistillationTask

    torch.manual_seed(0)
    student, teacher = (timm.create_model(m, num_classes=9).eval() for m in ("test_resnet", "test_efficientnet"))
    task = LogitDistillationTask(
        student,
        teacher,
        criterion=torch.nn.CrossEntropyLoss(),
        task_loss_weight=1 - alpha,
        temperature=t,
        verbose=False,
    )
    task.eval()
    x, y = torch.randn(6, 3, 64, 64), torch.randint(9, (6,))
    theirs = task(x, y)["loss"]
    guide = teacher(task.teacher.normalize_input(x, task.student_mean, task.student_std))
    ours = loss_of("kd", student(x), guide.detach(), y, {"temperature": t, "alpha": alpha}).total
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    weights = list(student.parameters())
    for a, b in zip(torch.autograd.grad(theirs, weights), torch.autograd.grad(ours, weights), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("method", "hard_only", "soft_only"),
    [
        ("kd", {"alpha": 0.0}, {"alpha": 1.0}),
        ("kd-ls", {"soft_weight": 0.0, "hard_weight": 1.0}, {"soft_weight": 9.0, "hard_weight": 0.0}),
    ],
)
def test_without_soft_targets_it_is_cross_entropy_and_without_labels_it_ignores_them(method, hard_only, soft_only):
    student, teacher, y = batch()
    none, all_soft = ({"temperature": 4.0, **weights} for weights in (hard_only, soft_only))
    expected = F.cross_entropy(student, y)
    assert torch.equal(loss_of(method, student, teacher, y, none).total, expected)
    assert torch.equal(gradient(method, none, student, teacher, y), torch.autograd.grad(expected, student)[0])
    one, other = (gradient(method, all_soft, student, teacher, labels) for labels in (y, (y + 1) % 7))
    assert torch.equal(one, other)


def test_a_high_temperature_matches_logits():
    """Hinton et al. 2015, section 2.1: the gradient tends to (z_s − z_t) / N for logits of mean zero."""
    student, teacher, y = batch()
    gap = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = gap.detach() / 7 / len(y)
    errors = [
        (gradient("kd", {"temperature": t, "alpha": 1.0}, student, teacher, y) - limit).abs().max()
        for t in (10, 100, 1e4)
    ]
    assert errors[2] < 1e-3 * limit.abs().max()
    assert errors[0] > 5 * errors[1] > 25 * errors[2]  # the error falls as 1 / T


def test_dkd_taken_together_is_plain_kd():
    """Zhao et al. 2022, equation 6: KL = target KL + (1 − p_t of the teacher) · non-target KL, a sample at a time."""
    student, teacher, y = batch(n=20)
    for t in (1.0, 4.0):
        for i in range(20):
            s, z, label = student[i : i + 1], teacher[i : i + 1], y[i : i + 1]
            hyper = {"temperature": t, "alpha_t": 1.0, "beta": 1 - float(F.softmax(z / t, 1)[0, label])}
            total, parts = loss_of("dkd", s, z, label, hyper)
            assert float(total - parts["hard"]) == pytest.approx(float(soft_kl(s, z, t)), rel=1e-10)
    assert float(target_kl(student, teacher, y, 4.0)) > 0 < float(nontarget_kl(student, teacher, y, 4.0))


def test_dkd_warms_up_linearly():
    student, teacher, y = batch()
    hyper = {"temperature": 4.0, "beta": 8.0, "warmup": 20.0, "warmup_share": 0.5}  # epochs count where both are given
    soft = []
    for epoch in (1, 10, 20, 30):
        total, parts = loss_of("dkd", student, teacher, y, hyper, epoch=epoch)
        soft.append(float(total - parts["hard"]))
    assert np.array(soft) / soft[-1] == pytest.approx([0.05, 0.5, 1.0, 1.0])


def test_dist_is_pearsons_correlation():
    student, teacher, y = batch()
    p, q = (F.softmax(z.detach() / 2, 1).numpy() for z in (student, teacher))
    inter = 4 * np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = 4 * np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    total, parts = loss_of("dist", student, teacher, y, {"temperature": 2.0, "beta": 3.0, "gamma": 0.5})
    assert [float(parts["inter"]), float(parts["intra"])] == pytest.approx([inter, intra])
    assert float(total) == pytest.approx(float(F.cross_entropy(student, y)) + 3 * inter + 0.5 * intra)


@pytest.mark.parametrize(("spec", "knob"), KNOBS, ids=lambda value: getattr(value, "name", value))
def test_every_knob_changes_loss_and_gradient(spec, knob):
    points, base, (low, high) = batch(), middle(spec), spec.bounds[knob]
    long = {"warmup": 10.0, "warmup_share": 0.9}  # at the first of some epochs
    other = {**base, knob: long.get(knob, base.get(knob, 0.8) * 0.7)}
    assert low <= other[knob] <= high
    assert abs(float(loss_of(spec.name, *points, base).total - loss_of(spec.name, *points, other).total)) > 1e-3
    assert (gradient(spec.name, base, *points) - gradient(spec.name, other, *points)).abs().max() > 1e-5


@pytest.mark.parametrize("spec", **named)
def test_a_loss_reads_what_its_spec_says(spec):
    student, teacher, y = batch()
    if spec.needs:
        one, other = (gradient(spec.name, middle(spec), student, z, y) for z in (teacher, -teacher))
        assert not torch.equal(one, other)
    else:
        assert torch.isfinite(loss_of(spec.name, student, None, y, middle(spec)).total)
    parts = [loss_of(spec.name, student, teacher, y, middle(spec), label_smoothing=s).parts for s in (0.0, 0.1)]
    assert [name for name in parts[0] if not torch.equal(parts[0][name], parts[1][name])] == ["hard"]


@pytest.mark.parametrize("spec", **named)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_for_any_logits(spec, scale):
    """float32 as in training; 0: a head initialised with zeros, 1e4: a network about to diverge."""
    student, teacher, y = (z.detach().float() if z.is_floating_point() else z for z in batch())
    student = (scale * student).requires_grad_()
    for guide in (teacher, scale * teacher):
        loss = loss_of(spec.name, student, guide, y, middle(spec), label_smoothing=0.1)
        assert loss.total.shape == () and torch.isfinite(loss.total)
        assert torch.isfinite(torch.autograd.grad(loss.total, student)[0]).all()


@pytest.mark.parametrize("spec", TAUGHT, ids=lambda spec: spec.name)
def test_nothing_pulls_a_student_that_equals_its_teacher(spec):
    student, _, y = batch()
    points = (student, student.detach(), y)
    for part, value in loss_of(spec.name, *points, middle(spec)).parts.items():
        if part != "hard":
            assert float(value.abs()) < 1e-7
            assert gradient(spec.name, middle(spec), *points, part=part).abs().max() < 1e-7


@settings(max_examples=40, deadline=None)
@given(z=logit_pairs, t=st.floats(1, 20), shift=st.floats(-50, 50))
def test_divergences_are_never_negative_and_shifts_change_nothing(z, t, shift):
    student, teacher = torch.from_numpy(z)
    y = torch.tensor([0, 2, 5, 5])
    for spec in TAUGHT:
        hyper = {**middle(spec), "temperature": t}
        before = loss_of(spec.name, student, teacher, y, hyper).parts
        after = loss_of(spec.name, student + shift, teacher - shift, y, hyper).parts
        for part in before:
            assert float(before[part]) > -1e-9
            # rounding of z + shift reaches rows of (nearly) equal logits magnified when they are standardised
            if spec.name != "kd-ls" or float(torch.from_numpy(z).std(dim=2).min()) > 1e-3:
                assert float(after[part]) == pytest.approx(float(before[part]), rel=1e-5, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0.1, 50), shift=st.floats(-50, 50), t=st.floats(1, 20))
def test_standardised_logits_have_no_scale(scale, shift, t):
    (student, teacher, y), hyper = batch(), {"temperature": t, "soft_weight": 1.0, "hard_weight": 0.0}
    one = loss_of("kd-ls", student, teacher, y, hyper).total
    other = loss_of("kd-ls", scale * student + shift, teacher / scale, y, hyper).total
    assert float(other) == pytest.approx(float(one), rel=1e-4)


def test_a_loss_of_the_last_release_still_serves(monkeypatch):
    def old(student, teacher, targets, hyper, *, label_smoothing=0.0, epoch=1):
        return hyper["alpha"] * F.mse_loss(student, teacher) + epoch * F.cross_entropy(student, targets)

    found = [SimpleNamespace(load=lambda: old)]
    monkeypatch.setattr("kdbench.methods.base.entry_points", lambda group, name: found * (name == "old"))
    Method.model_validate({"name": "old", "fixed": {"alpha": 0.3}}).check()
    with pytest.raises(BadInput, match=r"'greedy' .* fails on a batch"):  # it never said that it reads this
        Method(name="greedy", code=lambda student, teacher, targets, batch: student.pooled.sum()).check()
    with pytest.raises(BadInput, match=r"'new' has no loss: declare it with @kdbench.methods.method"):
        Method(name="new").check()


def test_listing_methods_imports_no_torch():
    code = "import sys; from kdbench.methods import METHODS; METHODS.names(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
