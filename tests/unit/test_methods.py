"""The other methods: every one finite and fair to its batch, and each against its formula written out in float64."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.methods import METHODS, BatchInfo, Loss, Method, Outputs, Taps, as_loss
from kdbench.methods._learned import AngleGap
from kdbench.methods.pooled import angle_gap, turned

CORE = {"hard", "kd", "kd-ls", "dkd", "dist"}
OTHERS = [spec for name, spec in METHODS.entries.items() if name not in CORE and not {"reused", "halves"} & spec.needs]
LOGIT_ONLY = [spec for spec in OTHERS if not {"pooled", "maps", "student-maps", "token", "views"} & spec.needs]
POOLED = [spec for spec in OTHERS if "pooled" in spec.needs and "maps" not in spec.needs]
N, NAMED = 6, operator.attrgetter("name")


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def taps(classes: int, *, teacher: bool = False) -> Taps:
    wide = 5 if teacher else 8
    with torch.random.fork_rng():
        torch.manual_seed(teacher)
        head = torch.nn.Linear(wide, classes).double()
    maps = {1: (4 + 2 * teacher, 8, 8), 2: (6 + 2 * teacher, 4, 4), 3: (wide, 2, 2)}
    return Taps(classes, wide, maps, "cnn", head.requires_grad_(not teacher), 50, N, True)  # fmt: skip


def said(shape: Taps, n: int = N, seed: int = 0, scale: float = 1.0) -> Outputs:
    maps = {k: draw(n, *one, seed=seed + k).requires_grad_() for k, one in shape.maps.items()}
    logits, other = (draw(n, shape.classes, seed=seed + k, scale=scale).requires_grad_() for k in (0, 10))
    return Outputs(logits, draw(n, shape.pooled, seed=seed + 9).requires_grad_(), maps, other)


def middle(spec: Method) -> dict[str, float]:
    low = {name: one.low or 0.0 for name, one in spec.space.items()}
    return {name: low[name] + 0.3 * ((one.high or 0.0) - low[name]) for name, one in spec.space.items()} | {
        name: value for name, value in spec.defaults.items() if name != "negatives"
    }


def code_of(spec: Method | str, classes: int = 10, **hyper: float):
    spec = METHODS.get(spec) if isinstance(spec, str) else spec
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind = spec.pairs.split("->")[1]
        own = replace(taps(classes), kind="cnn" if kind == "any" else kind)
        made = spec.build(middle(spec) | hyper, own, taps(classes, teacher=True))
    return made.double() if isinstance(made, torch.nn.Module) else made


def loss_of(spec, student: Outputs, teacher: Outputs, y: torch.Tensor, *, epoch: int = 2, code=None, **hyper) -> Loss:
    where = BatchInfo(epoch=epoch, epochs=24, rows=torch.arange(len(y)), samples=50)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return as_loss((code or code_of(spec, student.logits.shape[1], **hyper))(student, teacher, y, where))


def labels(n: int = N, classes: int = 10) -> torch.Tensor:
    return torch.arange(n) * 3 % classes


@pytest.mark.parametrize("spec", OTHERS, ids=NAMED)
@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_loss_and_gradient_are_finite_and_read_the_teacher(spec: Method, classes: int) -> None:
    for scale in (0.0, 1.0, 300.0):  # zeros: a head as it begins; 300: a network about to diverge
        student, teacher = said(taps(classes), scale=scale), said(taps(classes, teacher=True), seed=3, scale=5)
        loss = loss_of(spec, student, teacher, labels(classes=classes))
        assert loss.total.shape == () and torch.isfinite(loss.total)
        loss.total.backward()
        grads = [t.grad for t in (student.logits, student.pooled, *student.maps.values()) if t.grad is not None]
        assert grads and all(torch.isfinite(g).all() for g in grads)
    other = loss_of(spec, student, said(taps(classes, teacher=True), seed=5, scale=5), labels(classes=classes))
    assert (not torch.equal(other.total, loss.total)) == bool(spec.needs)


@pytest.mark.parametrize("spec", OTHERS, ids=NAMED)
def test_every_searched_value_changes_the_loss(spec: Method) -> None:
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=3, scale=3), labels()

    def second(**hyper: float) -> float:  # what the first epoch leaves counts too
        code = code_of(spec, **hyper)
        return [float(loss_of(spec, student, teacher, y, epoch=epoch, code=code).total) for epoch in (1, 2)][1]

    with torch.no_grad():
        for name, one in spec.space.items():
            assert second() != pytest.approx(second(**{name: 0.5 * (one.low + one.high)}), rel=1e-6), name


@pytest.mark.parametrize("spec", [spec for spec in LOGIT_ONLY if spec.name != "gkl"], ids=NAMED)
def test_a_batch_twice_is_the_same_loss(spec: Method) -> None:
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=3), labels()
    twice = [Outputs(torch.cat([one.logits] * 2)) for one in (student, teacher)]
    whole, doubled = loss_of(spec, student, teacher, y), loss_of(spec, *twice, torch.cat([y, y]))
    assert float(doubled.total) == pytest.approx(float(whole.total), rel=1e-12)


@pytest.mark.parametrize("spec", LOGIT_ONLY, ids=NAMED)
def test_gradients_are_those_of_finite_differences(spec: Method) -> None:
    teacher, y = said(taps(10, teacher=True), seed=3, scale=3), labels()
    if spec.name == "ctkd":  # its θ climbs: with respect to the logits it is an ordinary function
        spec = spec.model_copy(update={"defaults": {**spec.defaults, "warmup_share": 1.0}})
    code = code_of(spec)

    def total(z: torch.Tensor) -> torch.Tensor:
        return loss_of(spec, Outputs(z), teacher, y, code=code).total

    if spec.name in {"wsld", "dml"}:  # its sample weights are held; what its peer learns from is
        return
    loss_of(spec, said(taps(10)), teacher, y, code=code)  # what a first batch sets is set
    assert torch.autograd.gradcheck(total, (draw(N, 10, seed=8).requires_grad_(),), eps=1e-6, atol=1e-4)


def log_p(z: np.ndarray) -> np.ndarray:
    return z - z.max(1, keepdims=True) - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True))


def kl(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    return (np.exp(log_p(t)) * (log_p(t) - log_p(s))).sum(1)


def without(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([np.delete(row, k) for row, k in zip(z, y, strict=True)])


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(log_p(z))


def formulas(s: np.ndarray, t: np.ndarray, y: np.ndarray, h: dict[str, float]) -> dict[str, float]:
    """What each method adds to (its share of) cross-entropy, of logits (N, K); h its hyper-parameters."""
    h = defaultdict(lambda: 1.0, h)
    rows, temp = range(len(y)), h["temperature"]
    p_t, grow = softmax(t), min(1.0, 2 / (24 * h["warmup_share"]))
    ranked = [t[i] < t[i, y[i]] for i in rows]
    two = [np.array([q[k], 1 - q[k]]) for q, k in zip(softmax(s), y, strict=True)]
    top = [np.array([q.max(), 1 - q.max()]) for q in p_t]
    spread = {"s": s.std(1, ddof=1, keepdims=True), "t": t.std(1, ddof=1, keepdims=True)}
    peak = {"s": s.max(1, keepdims=True), "t": t.max(1, keepdims=True)}
    own = {k: 2 * temp * v / (peak["s"] + peak["t"]) for k, v in peak.items()}
    ce = {"s": -log_p(s)[rows, y], "t": -log_p(t)[rows, y]}
    a, b = h["alpha_ab"], h["beta_ab"]
    p, q = softmax(t / temp), softmax(s / temp)
    apart, flat = t - s, 0.1
    weights = np.full(10, flat ** h["gamma"])
    pairs = sum(weights[i] * weights[j] * (apart[:, i] - apart[:, j]) ** 2 for i in range(10) for j in range(10))
    sure = np.where(np.eye(10)[y] > 0, math.log(0.99 / (0.01 / 9)), 0.0)
    warm = 1 + h["t_range"] / (1 + math.exp(-1))
    return {
        "nkd": float(-np.mean(p_t[rows, y] * log_p(s)[rows, y]) - h["gamma"] * temp**2 * np.mean(
            (softmax(without(t, y) / temp) * log_p(without(s, y) / temp)).sum(1))),
        "ttm": h["weight"] * float(kl(s, t / temp).mean()),
        "wttm": h["weight"] * float(((p_t ** (1 / temp)).sum(1) * kl(s, t / temp)).mean()),
        "normkd": h["alpha"] * float(
            (kl(s / (h["t_norm"] * spread["s"]), t / (h["t_norm"] * spread["t"]))
             * (h["t_norm"] * spread["t"][:, 0]) ** 2).mean()),
        "dtkd": grow * float(h["alpha"] * (kl(s / own["s"], t / own["t"]) * (own["s"] * own["t"])[:, 0]).mean()
                             + h["beta"] * temp**2 * kl(s / temp, t / temp).mean()),
        "rld": grow * float(
            np.mean([(v * np.log(v / u)).sum() for u, v in zip(two, top, strict=True)])
            + h["beta"] * temp**2 * np.mean([kl(s[i : i + 1, m] / temp, t[i : i + 1, m] / temp)[0]
                                             if m.any() else 0 for i, m in enumerate(ranked)])),
        "wsld": h["alpha"] * temp**2 * float(
            np.mean((1 - np.exp(-ce["s"] / ce["t"])) * -(p * log_p(s / temp)).sum(1))),
        "abkd": h["weight"] * float(
            -np.mean((p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)).sum(1)) / (a * b)),
        "logit-mse": h["alpha"] * float(np.mean((s - t) ** 2)),
        "funmatch": temp**2 * float(kl(s / temp, t / temp).mean()),
        "hard-targets": h["alpha"] * float(-log_p(s)[rows, t.argmax(1)].mean()),
        "dml": h["weight"] * temp**2 * float((kl(s / temp, t / temp) + kl(t / temp, s / temp)).mean())
        + float(ce["t"].mean()),
        "mean-teacher": h["weight"] * math.exp(-5 * (1 - min(1, 2 / (24 * h["rampup_share"]))) ** 2)
        * float(((softmax(s) - softmax(t)) ** 2).mean()),
        "dot": h["alpha"] * temp**2 * float(kl(s / temp, t / temp).mean()),
        "tf-kd": h["alpha"] * temp**2 * float(kl(s / temp, sure / temp).mean()),
        "ctkd": h["alpha"] * warm**2 * float(kl(s / warm, t / warm).mean()),
        "gkl": grow * (h["beta"] * 0.25 * float(pairs.sum() / (weights.sum() ** 2 * len(y)))
                       - float((p * log_p(s / temp)).sum(1).mean())),
    }  # fmt: skip


@pytest.mark.parametrize("spec", [one for one in LOGIT_ONLY if one.name != "wkd-l"], ids=NAMED)
def test_it_is_its_formula(spec: Method) -> None:
    student, teacher, y = said(taps(10), scale=2), said(taps(10, teacher=True), seed=3, scale=3), labels()
    s, t = student.logits.detach().numpy(), teacher.logits.detach().numpy()
    hyper = middle(spec)
    loss = loss_of(spec, student, teacher, y)
    share = 0.0 if spec.name == "funmatch" else 1 - hyper["alpha"] if spec.name in MIXED else 1.0
    ours = float(loss.total) - share * float(F.cross_entropy(student.logits, y))
    assert ours == pytest.approx(formulas(s, t, y.numpy(), hyper)[spec.name], rel=1e-6, abs=1e-9)


MIXED = {"dot", "normkd", "logit-mse", "hard-targets", "tf-kd", "ctkd"}


def test_the_temperature_of_ctkd_climbs_as_its_reversal_grows() -> None:
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=3, scale=4), labels()
    code = code_of("ctkd")
    slopes = []
    for epoch in (1, 2, 24):
        (slope,) = torch.autograd.grad(loss_of("ctkd", student, teacher, y, epoch=epoch, code=code).total, code.theta)
        slopes.append(float(slope))
    theta = code.theta.detach().clone().requires_grad_()
    t = 1 + middle(METHODS.get("ctkd"))["t_range"] * theta.sigmoid()
    soft = (
        F.kl_div(F.log_softmax(student.logits / t, 1), F.softmax(teacher.logits / t, 1), reduction="batchmean") * t**2
    )
    (true,) = torch.autograd.grad(middle(METHODS.get("ctkd"))["alpha"] * soft.sum(), theta)
    assert slopes == pytest.approx([0.0, -float(true), -float(true)], rel=1e-5, abs=1e-12)


def test_the_prior_of_gkl_is_what_the_teacher_said_last_epoch() -> None:
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=3, scale=4), labels()
    code = code_of("gkl")
    for epoch in (1, 2):
        loss_of("gkl", student, teacher, y, epoch=epoch, code=code)
    expected = F.softmax(teacher.logits.detach() / 4, 1)
    for label in range(10):
        held = expected[y == label]
        torch.testing.assert_close(code.prior[label], held.mean(0) if len(held) else torch.full((10,), 0.1).double())


@pytest.mark.parametrize(
    ("name", "part"), [("pkt", "likeness"), ("sp", "similarity"), ("rkd", "distance"), ("rkd", "angle")]
)
def test_relations_have_no_scale_and_are_nothing_between_equals(name: str, part: str) -> None:
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=3), labels()
    one = loss_of(name, student, teacher, y).parts[part]
    scaled = Outputs(student.logits, 7 * student.pooled), Outputs(teacher.logits, 0.3 * teacher.pooled)
    assert float(loss_of(name, *scaled, y).parts[part]) == pytest.approx(float(one), rel=1e-5)
    assert abs(float(loss_of(name, teacher, teacher, y).parts[part])) < 1e-12 < float(one)
    turned, _ = torch.linalg.qr(draw(8, 8, seed=4))
    moved = loss_of(name, Outputs(student.logits, student.pooled @ turned), teacher, y)  # so turned, nothing changes
    assert float(moved.parts[part]) == pytest.approx(float(one), rel=1e-6)


def test_pooled_methods_are_their_formulas() -> None:
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=3), labels()
    f, g = student.pooled.detach().numpy(), teacher.pooled.detach().numpy()

    def gram(x: np.ndarray) -> np.ndarray:
        return x @ x.T / np.linalg.norm(x @ x.T, axis=1, keepdims=True)

    def like(x: np.ndarray) -> np.ndarray:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        found = (unit @ unit.T + 1) / 2
        return found / found.sum(1, keepdims=True)

    def far(x: np.ndarray) -> np.ndarray:
        found = np.linalg.norm(x[:, None] - x, axis=2)
        return found / found[found > 0].mean()

    def turn(x: np.ndarray) -> np.ndarray:
        apart = x[None] - x[:, None]
        unit = apart / np.maximum(np.linalg.norm(apart, axis=2, keepdims=True), 1e-12)
        return np.einsum("ijd,ikd->ijk", unit, unit)

    def smooth(x: np.ndarray) -> float:
        return float(np.where(np.abs(x) < 1, 0.5 * x**2, np.abs(x) - 0.5).mean())

    expected = {
        ("sp", "similarity"): np.mean((gram(f) - gram(g)) ** 2),
        ("pkt", "likeness"): np.mean(like(g) * np.log(like(g) / like(f))),
        ("rkd", "distance"): 25 * smooth(far(f) - far(g)),
        ("rkd", "angle"): 50 * smooth(turn(f) - turn(g)),
    }
    for (name, part), value in expected.items():
        assert float(loss_of(name, student, teacher, y).parts[part]) == pytest.approx(value, rel=1e-4), name
    srrl, vkd, cc, srd = (code_of(name) for name in ("srrl", "vkd", "cc", "srd"))
    weight = vkd.project.weight.detach().numpy()
    np.testing.assert_allclose(weight @ weight.T, np.eye(5), atol=1e-6)  # rows stay orthonormal
    normal = (g - g.mean(1, keepdims=True)) / np.sqrt(g.var(1, keepdims=True) + 1e-5)
    assert float(loss_of("vkd", student, teacher, y, code=vkd).parts["feature"]) == pytest.approx(
        smooth(f @ weight.T - normal)
    )
    gap = np.abs((cc.embed_s(student.pooled) - cc.embed_t(teacher.pooled)).detach().numpy())
    assert float(loss_of("cc", student, teacher, y, code=cc).parts["congruence"]) == pytest.approx(
        np.mean([(gap[i] * gap[i + 1]).sum() for i in range(N - 1)])
    )
    connected = srrl.connect(student.pooled).detach()
    told = loss_of("srrl", student, teacher, y, code=srrl).parts
    assert float(told["feature"]) == pytest.approx(float(((connected - teacher.pooled) ** 2).mean()))
    one, other = srd.project(student.pooled).detach(), teacher.pooled.detach()
    white = [(x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + 1e-5) for x in (one, other)]
    value = ((white[0] - white[1]).abs() ** 4).sum().log()
    assert float(loss_of("srd", student, teacher, y, code=srd).parts["feature"]) == pytest.approx(
        float(value), rel=1e-4
    )


@pytest.mark.parametrize(("given", "wanted"), [(7, 4), (4, 7), (5, 5)])
def test_an_orthonormal_projection_is_pytorchs(given: int, wanted: int) -> None:
    layer = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(given, wanted, bias=False).double())
    weight = layer.parametrizations.weight.original
    torch.nn.init.normal_(weight)
    with torch.no_grad():
        weight.diagonal().sign_()
    f, g = draw(3, given).requires_grad_(), draw(3, wanted, seed=1)
    ours, theirs = (
        (found, *torch.autograd.grad((found * g).sum(), (f, weight))) for found in (turned(layer, f), layer(f))
    )
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-10)


def test_weight_decay_does_not_end_a_projection() -> None:
    """PyTorch cuts the signs of its reflections to whole numbers, of which a decayed -0.9999 is 0."""
    layer = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(7, 4, bias=False).double())
    before = turned(layer, f := draw(3, 7))
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(0.9999)
    assert before.abs().sum() > 0 and torch.allclose(turned(layer, f), before, rtol=1e-2)


@pytest.mark.parametrize("rows", [2, 3, 32])
def test_the_gradient_of_angles_by_hand(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where triples are cut into parts that are not of one size, and where two rows are one."""
    monkeypatch.setattr(AngleGap, "ROWS", rows)
    f, g = draw(5, 4).requires_grad_(), draw(5, 3, seed=1)
    g[1] = g[0]

    def cosines(x: torch.Tensor) -> torch.Tensor:
        apart = F.normalize(x[None] - x[:, None], dim=2)
        return apart @ apart.mT

    gap, expected = angle_gap(f, g), F.smooth_l1_loss(cosines(f), cosines(g))
    assert torch.allclose(gap, expected)
    assert torch.allclose(*(torch.autograd.grad(one, f)[0] for one in (3 * gap, 3 * expected)))
