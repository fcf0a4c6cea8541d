"""Methods with parts of their own, each against its formula in float64; what they learn is taken as it stands."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.methods import BatchInfo, Outputs
from tests.unit.test_methods import N, code_of, labels, loss_of, said, taps

STUDENT, TEACHER, Y = said(taps(10)), said(taps(10, teacher=True), seed=3), labels()


def array(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy()


def part(name: str, code: object, key: str) -> float:
    return float(loss_of(name, STUDENT, TEACHER, Y, code=code).parts[key])


def test_itrd_equations_10_and_13() -> None:
    code = code_of("itrd")
    f, g = array(code.embed(STUDENT.pooled)), array(TEACHER.pooled)
    a, b = ((x - x.mean(0)) / x.std(0, ddof=1) for x in (f, g))
    spread = np.log2((np.abs((a * b).mean(0) - 1) ** 3.0).sum())  # power 1.5, squared

    def gram(x: np.ndarray) -> np.ndarray:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return unit @ unit.T

    joint = gram(f) * gram(g)
    mutual = ((gram(f) / np.trace(gram(f))) ** 2).sum() - ((joint / np.trace(joint)) ** 2).sum()
    assert part("itrd", code, "correlation") == pytest.approx(2 * spread, rel=1e-5)
    assert part("itrd", code, "mutual") == pytest.approx(mutual)


def test_fitnet_ickd_and_mgd() -> None:
    fitnet, ickd, mgd = (code_of(name) for name in ("fitnet", "ickd", "mgd"))
    hint = array(fitnet.regress(STUDENT.maps[3])) - array(TEACHER.maps[3])  # the second of the compared stages, 2 and 3
    assert part("fitnet", fitnet, "hint") == pytest.approx((hint**2).mean())

    def rows(m: np.ndarray) -> np.ndarray:
        flat = m.reshape(*m.shape[:2], -1)
        between = flat @ flat.transpose(0, 2, 1)
        return between / np.linalg.norm(between, axis=2, keepdims=True)

    gap = rows(array(ickd.embed(STUDENT.maps[3]))) - rows(array(TEACHER.maps[3]))
    assert part("ickd", ickd, "correlation") == pytest.approx((gap**2).sum() / (TEACHER.maps[3].shape[1] * N**2))
    with torch.random.fork_rng():
        torch.manual_seed(1)  # as loss_of draws what is hidden
        kept = torch.rand(N, TEACHER.maps[3].shape[1])[..., None, None] >= 0.15
        made = array(mgd.generate(mgd.align(STUDENT.maps[3]) * kept))
    assert part("mgd", mgd, "generated") == pytest.approx(((made - array(TEACHER.maps[3])) ** 2).sum() / N)
    assert bool(kept.any()) and not bool(kept.all())


def test_reviewkd_level_by_level() -> None:
    """Levels 2 and 3 (4 x 4, 2 x 2) and the pooled vectors, fused from the deepest on."""
    code = code_of("reviewkd")

    def near(m: np.ndarray, size: int) -> np.ndarray:
        return np.repeat(np.repeat(m, size // m.shape[2], axis=2), size // m.shape[3], axis=3)

    def pooled(m: np.ndarray, size: int) -> np.ndarray:
        step = m.shape[2] // size
        return m.reshape(*m.shape[:2], size, step, size, step).mean((3, 5))

    def squares(a: np.ndarray, b: np.ndarray) -> float:
        levels = [m for m in (4, 2, 1) if m < a.shape[2]]
        terms = [((a - b) ** 2).mean(), *(((pooled(a, n) - pooled(b, n)) ** 2).mean() for n in levels)]
        weights = [0.5**k for k in range(len(terms))]
        return float(np.dot(weights, terms) / sum(weights))

    ours = [STUDENT.maps[2], STUDENT.maps[3], STUDENT.pooled[..., None, None]]
    theirs = [array(TEACHER.maps[2]), array(TEACHER.maps[3]), array(TEACHER.pooled)[..., None, None]]
    total, carried = 0.0, np.zeros(0)
    for level in (2, 1, 0):
        x = array(getattr(code, f"in{level}")(ours[level]))
        if level < 2:
            carried = near(carried, x.shape[2])
            both = torch.from_numpy(np.concatenate([x, carried], axis=1))
            share = array(getattr(code, f"attend{level}")(both))
            x = x * share[:, :1] + carried * share[:, 1:]
        carried = near(x, theirs[level].shape[2])
        total += squares(array(getattr(code, f"out{level}")(torch.from_numpy(carried))), theirs[level])
    found = part("reviewkd", code, "review")
    assert found == pytest.approx(total, rel=1e-6)  # epoch 2 of 24 is past the warm-up of two


def test_crd_remembers_what_it_saw() -> None:
    """Its first batch sets the scale; the memory moves half of the way to each new embedding, and stays of length 1."""
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=3), labels()
    code = code_of("crd", dim=4.0)
    before = code.memory_s.clone()
    loss_of("crd", student, teacher, y, code=code)
    new = F.normalize(0.5 * before[:N] + 0.5 * F.normalize(code.embed_s(student.pooled)))
    torch.testing.assert_close(code.memory_s[:N], new.detach())
    assert torch.equal(code.memory_s[N:], before[N:]) and float(code.scale_s) > 0 < float(code.scale_t)
    twice = BatchInfo(epoch=2, epochs=24, rows=torch.zeros(N, dtype=torch.int64), samples=50)  # one sample, N views
    held = code.memory_s[0].clone()
    code(student, teacher, y, twice)
    first = F.normalize(0.5 * held + 0.5 * F.normalize(code.embed_s(student.pooled))[0], dim=0)
    torch.testing.assert_close(code.memory_s[0], first.detach())


def test_maps_are_their_formulas() -> None:
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=3), labels()
    pairs = [(student.maps[k].detach().numpy(), teacher.maps[k].detach().numpy()) for k in (2, 3)]  # 1 is the stem

    def attention(m: np.ndarray) -> np.ndarray:
        flat = (m**2).mean(1).reshape(len(m), -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        rows = [
            (m / np.linalg.norm(m, axis=2, keepdims=True))
            for m in (a.reshape(*a.shape[:2], -1), b.reshape(*b.shape[:2], -1))
        ]
        return float((np.einsum("bid,bjd->bij", *rows) ** 2).mean())

    at = sum(np.mean((attention(a) - attention(b)) ** 2) for a, b in pairs)
    nst = sum(kernel(b, b) + kernel(a, a) - 2 * kernel(a, b) for a, b in pairs)
    assert float(loss_of("at", student, teacher, y).parts["attention"]) == pytest.approx(at)
    assert float(loss_of("nst", student, teacher, y).parts["mmd"]) == pytest.approx(nst)
    for name, part in (("at", "attention"), ("nst", "mmd")):
        same = Outputs(student.logits, student.pooled, {k: 3 * m for k, m in student.maps.items()})
        assert abs(float(loss_of(name, same, student, y).parts[part])) < 1e-12  # no scale, nothing between equals
    vid = code_of("vid")
    spread = F.softplus(vid.scale0).add(1e-5)
    torch.testing.assert_close(spread, torch.full_like(spread, 5.0))
    gap = (vid.mean1(student.maps[3]) - teacher.maps[3]).square().mean()
    first = (vid.mean0(student.maps[2]) - teacher.maps[2]).square().mean()
    assert float(loss_of("vid", student, teacher, y, code=vid).parts["likelihood"]) == pytest.approx(
        float(0.5 * (gap + first) / 5 + math.log(5.0)), rel=1e-5
    )


def test_ofa_at_eps_one_is_cross_entropy_to_the_teacher() -> None:
    student, teacher, y = said(taps(10)), said(taps(10, teacher=True), seed=3, scale=3), labels()
    code = code_of("ofa", eps=1.0, weight=1.0)
    parts = loss_of("ofa", student, teacher, y, code=code).parts
    expected = -(teacher.logits.softmax(1) * student.logits.log_softmax(1)).sum(1).mean()
    assert float(parts["soft"]) == pytest.approx(float(expected))
    heads = [code.branch1, code.branch2, code.branch3]
    inner = [
        -(teacher.logits.softmax(1) * h(student.maps[k]).log_softmax(1)).sum(1).mean() for k, h in enumerate(heads, 1)
    ]
    assert float(parts["branches"]) == pytest.approx(float(sum(inner)), rel=1e-5)
    sharper = loss_of("ofa", student, teacher, y, eps=2.0, weight=1.0).parts["soft"]  # more weight on the label
    assert float(sharper) != pytest.approx(float(expected))
