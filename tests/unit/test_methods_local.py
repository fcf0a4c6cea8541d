"""Methods of parts of the last map, of all stages, and of transport, each against its formula in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from kdbench.errors import BadInput
from kdbench.methods import METHODS, Outputs
from kdbench.methods.local import margin
from kdbench.methods.transport import sinkhorn
from kdbench.models import build
from kdbench.teacher import asked, taps_of
from tests.unit.test_methods import N, code_of, draw, labels, log_p, loss_of, said, taps

STUDENT, TEACHER, Y = said(taps(10)), said(taps(10, teacher=True), seed=3, scale=4), labels()
HEADS = taps(10).head, taps(10, teacher=True).head


def array(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy()


def cells(side: int) -> list[np.ndarray]:
    """Logits of the cells of a grid over the last maps (2 x 2), (B, cells, classes) of both networks."""
    found = []
    for out, head in zip((STUDENT, TEACHER), HEADS, strict=True):
        m = array(out.maps[3])
        step = m.shape[2] // side
        means = m.reshape(*m.shape[:2], side, step, side, step).mean((3, 5)).reshape(*m.shape[:2], -1)
        found.append(means.transpose(0, 2, 1) @ array(head.weight).T + array(head.bias))
    return found


def test_cat_kd_compares_what_the_weights_say_of_each_place() -> None:
    ours, theirs = (x - array(head.bias) for x, head in zip(cells(2), HEADS, strict=True))
    found = loss_of("cat-kd", STUDENT, TEACHER, Y).parts["attention"]
    assert float(found) == pytest.approx(((ours - theirs) ** 2).mean())


def test_sdd_counts_complementary_parts_twice() -> None:
    t, parts = 3.0, [np.concatenate(each, axis=1) for each in zip(cells(1), cells(2), strict=True)]
    p, q = (log_p(x.reshape(-1, 10) / t) for x in reversed(parts))
    apart = (np.exp(p) * (p - q)).sum(1).reshape(N, 5) * t**2
    right = parts[1].argmax(2) == array(Y)[:, None]
    assert 0 < (right != right[:, :1]).sum() < right.size
    expected = (np.where(right == right[:, :1], 1.0, 2.0) * apart).mean()
    assert float(loss_of("sdd", STUDENT, TEACHER, Y, temperature=t).parts["soft"]) == pytest.approx(expected)


def test_semckd_equations_5_to_8() -> None:
    code, total = code_of("semckd"), 0.0
    stages = (1, 2, 3)

    def embedded(side: str, out: object, stage: int) -> np.ndarray:
        flat = array(out.maps[stage]).reshape(N, -1)  # type: ignore[attr-defined]
        made = array(getattr(code, f"{side}{stage}")(torch.from_numpy(flat @ flat.T)))
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    def pooled(m: torch.Tensor, side: int) -> np.ndarray:
        step = m.shape[2] // side
        return array(m).reshape(*m.shape[:2], side, step, side, step).mean((3, 5))

    for one in stages:
        energy = np.stack([(embedded("query", STUDENT, one) * embedded("key", TEACHER, k)).sum(1) for k in stages], 1)
        share = np.exp(energy) / np.exp(energy).sum(1, keepdims=True)
        for column, other in enumerate(stages):
            side = min(STUDENT.maps[one].shape[2], TEACHER.maps[other].shape[2])
            source = getattr(code, f"regress{one}to{other}")(torch.from_numpy(pooled(STUDENT.maps[one], side)))
            gap = ((array(source) - pooled(TEACHER.maps[other], side)) ** 2).reshape(N, -1).mean(1)
            total += (share[:, column] * gap).sum() / (N * len(stages))
    assert float(loss_of("semckd", STUDENT, TEACHER, Y, code=code).parts["calibrated"]) == pytest.approx(total)


def test_sinkhorn_comes_to_the_cheapest_plan() -> None:
    p, q = (draw(1, 5, seed=k).softmax(1) for k in (1, 2))
    cost = 0.1 * draw(5, 5, seed=3).abs()
    rows, columns = np.kron(np.eye(5), np.ones(5)), np.kron(np.ones(5), np.eye(5))
    held = np.concatenate([array(p)[0], array(q)[0]])
    plan = linprog(array(cost).ravel(), A_eq=np.vstack([rows, columns]), b_eq=held)
    found = [float(sinkhorn(p, q, cost, 0 * p + 0.2, reg, 5000)) for reg in (0.1, 0.05, 0.015)]
    assert found[0] > found[1] > found[2] > 0.999 * plan.fun and found[2] < plan.fun + 0.015


def test_wkd_l_moves_mass_between_the_other_classes() -> None:
    """Class by class as the authors' code has it: rows and columns of the label taken out, ten rounds."""
    t, weights = 4.0, array(HEADS[1].weight)
    rows = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    costs, total, target = 1 - np.exp(-(1 - rows @ rows.T)), 0.0, 0.0
    for k, y in enumerate(Y.tolist()):
        kept = [c for c in range(10) if c != y]
        p, q = (np.exp(log_p(array(out.logits)[k : k + 1, kept] / t))[0] for out in (STUDENT, TEACHER))
        cost = np.maximum(costs[np.ix_(kept, kept)], 0) + 1e-8
        kernel, u = np.exp(-cost / 0.05), np.full(9, 1 / 9)
        for _ in range(10):
            v = q / (kernel.T @ u + 1e-8)
            u = p / (kernel @ v + 1e-8)
        total += (u[:, None] * kernel * v * cost).sum() / N
        target -= np.exp(log_p(array(TEACHER.logits)))[k, y] * log_p(array(STUDENT.logits))[k, y] / N
    found = loss_of("wkd-l", STUDENT, TEACHER, Y, temperature=t)
    assert float(found.parts["transport"]) == pytest.approx(total, rel=1e-5)
    assert float(found.parts["target"]) == pytest.approx(target)
    late = loss_of("wkd-l", STUDENT, TEACHER, Y, temperature=t, epoch=24)
    assert float(late.total) == pytest.approx(float(late.parts["target"] + late.parts["hard"])), "its weight is gone"


def test_wkd_f_compares_means_and_deviations() -> None:
    code = code_of("wkd-f")
    ours, theirs = array(code.project(STUDENT.maps[3])), array(TEACHER.maps[3])

    def gap(of: object) -> float:
        return float(((of(ours) - of(theirs)) ** 2).sum() / N)  # type: ignore[operator]

    expected = 4 * gap(lambda m: m.mean((2, 3))) + gap(lambda m: np.sqrt(m.var((2, 3), ddof=1) + 1e-5))
    found = loss_of("wkd-f", STUDENT, TEACHER, Y, code=code).parts["transport"]
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cat-kd", "sdd"])
def test_a_classifier_of_more_than_the_mean_is_refused(name: str) -> None:
    hyper = METHODS.get(name).defaults
    with pytest.raises(BadInput, match="takes more than the map's mean"):
        METHODS.get(name).build(hyper, replace(taps(10), averaged=False), taps(10, teacher=True))


def test_ofd_s_margin_is_the_mean_of_what_the_relu_cut() -> None:
    rng, mean, std = np.random.default_rng(0), np.array([-1.0, 0.0, 2.0]), np.array([0.5, 1.0, 3.0])
    before = mean + std * rng.standard_normal((400_000, 3))
    after = np.maximum(before, 0)
    found = margin(torch.from_numpy((after > 0).mean(0)), torch.from_numpy(after.mean(0)))
    cut = [before[before[:, k] < 0, k].mean() for k in range(3)]
    np.testing.assert_allclose(found, cut, rtol=0.02)
    always = margin(torch.ones(1), torch.full((1,), 3.0))  # hardly ever negative: -3 σ, and μ is 3.09 σ
    assert float(always) == pytest.approx(-3 * 3.0 / 3.09, rel=1e-3)
    assert float(margin(torch.zeros(1), torch.zeros(1))) == 0  # a dead channel


def test_ofd_counts_what_is_positive_or_above_the_margin() -> None:
    code = code_of("ofd")
    teacher = Outputs(TEACHER.logits, TEACHER.pooled, {k: m.detach().relu() for k, m in TEACHER.maps.items()})
    other = Outputs(TEACHER.logits, TEACHER.pooled, {k: 0.5 * m.roll(1, 0) for k, m in teacher.maps.items()})
    maps: list[dict[int, np.ndarray]] = []
    for taught in (teacher, other):  # the margins are of all batches so far
        total, found = 0.0, float(loss_of("ofd", STUDENT, taught, Y, code=code).parts["margin"])
        maps.append({k: array(m) for k, m in taught.maps.items()})
        for place, stage in enumerate((2, 3)):
            seen = np.concatenate([one[stage] for one in maps])
            moments = [torch.from_numpy(x.mean((0, 2, 3))) for x in ((seen > 0).astype(float), seen)]
            edge = array(margin(*moments))[:, None, None]
            t, s = maps[-1][stage], array(getattr(code, f"connect{place}")(STUDENT.maps[stage]))
            t = np.where(t > 0, t, edge)
            total += (((s - t) ** 2) * ((t > 0) | (s > t))).sum() / N / 2 ** (1 - place)
        assert found == pytest.approx(total)


@pytest.mark.parametrize(
    ("name", "fits"),
    [("cifar_resnet20", True), ("test_resnet", True), ("mobilenetv3_small_050", False), ("convnextv2_atto", False)],
)
def test_what_a_classifier_is_given_is_seen(name: str, fits: bool) -> None:
    network = build(name, classes=10, channels=3, input_size=32, seed=1)
    own = taps_of(asked(network, {"maps", "pooled"}), network, torch.zeros(1, 3, 32, 32))
    assert own.averaged == fits
