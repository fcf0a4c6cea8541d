"""Methods that read the pooled vectors before the classifiers, (B, D): cached like logits, in 16 bits.

f are pooled vectors, s the student's, t the teacher's. Each adds weight · term to the cross-entropy, and kd, if wanted,
with ``kd_weight`` at ``kd_temperature``. Defaults are the published settings on CIFAR-100.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kdbench.methods.base import BatchInfo, F, Loss, Need, Outputs, Range, Taps, learned, method, nn, torch
from kdbench.methods.logits import T_BOUNDS, cross_entropy, soft_kl
from kdbench.methods.logits_reweighed import beside

if TYPE_CHECKING:
    from torch import Tensor

POOLED: frozenset[Need] = frozenset({"logits", "pooled"})
FREE = (0.0, 1e6)


def weighed(published: float, low: float, high: float, **more: tuple[float, tuple[float, float]]) -> dict[str, Any]:
    """Declaration of a method whose weight is searched from low to high; ``more`` has (default, bounds) by name."""
    with_kd = {"kd_weight": (0.0, FREE), "kd_temperature": (4.0, T_BOUNDS)} | more
    return {
        "space": {"weight": Range(low, high, log=True)},
        "defaults": {"weight": published} | {name: default for name, (default, _) in with_kd.items()},
        "bounds": {"weight": FREE} | {name: bounds for name, (_, bounds) in with_kd.items()},
    }


def guided(
    said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo, hyper: dict[str, float], **terms: Tensor
) -> Loss:
    """CE + weight · terms, + kd_weight · T² KL where that is asked for."""
    found = beside(cross_entropy(said, targets, batch), hyper["weight"], **terms)
    if not hyper["kd_weight"]:
        return found
    soft = soft_kl(said.logits, taught.logits, hyper["kd_temperature"])
    return Loss(found.total + hyper["kd_weight"] * soft, {**found.parts, "soft": soft})


def vectors(said: Outputs, taught: Outputs) -> tuple[Tensor, Tensor]:
    """Both pooled vectors, flat."""
    assert said.pooled is not None and taught.pooled is not None
    return said.pooled.flatten(1), taught.pooled.flatten(1)


def distances(f: Tensor) -> Tensor:
    """Euclidean between rows, (B, B), over their mean; 0 on the diagonal."""
    square = f.square().sum(1)
    apart = (square[:, None] + square - 2 * f @ f.T).clamp_min(1e-12).sqrt()
    apart = apart * (1 - torch.eye(len(f), device=f.device))
    return apart / (apart.sum() / (len(f) * (len(f) - 1))).clamp_min(1e-12)


def corners(f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the angles between rows come from, (B, B) each: their inner products g; g_ij - g_ii / 2; 1 / distance.

    By the law of cosines the cosine at the first of three rows is (g_jk - r_ij - r_ik) n_ij n_ik, so that no difference
    of rows is made for each pair; 0 where two of them are one.
    """
    own = f.double() - f.double().mean(0)  # distances cancel in less
    gram = own @ own.T
    square = gram.diagonal()
    near = (square[:, None] + square - 2 * gram).clamp_min(1e-12).rsqrt() * (1 - torch.eye(len(f), device=f.device))
    return gram.to(f.dtype), (gram - square[:, None] / 2).to(f.dtype), near.to(f.dtype)


def angle_gap(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean smooth L1 between the cosines of all triples of rows of both."""
    gap: Tensor = import_module("kdbench.methods._learned").AngleGap.apply(*corners(ours), *corners(theirs))
    return gap


@method("rkd", needs=POOLED, **weighed(1, 0.1, 10, distance=(25.0, FREE), angle=(50.0, FREE)),
        paper="Park et al. 2019, Relational Knowledge Distillation, arXiv:1904.05068")  # fmt: skip
def rkd(
    student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, *,
    distance: float = 25.0, angle: float = 50.0, **hyper: float,
) -> Loss:  # fmt: skip
    """Smooth L1 between distances of pairs and angles of triples in the batch (eq. 5 to 8)."""
    ours, theirs = vectors(student, teacher)
    far = distance * F.smooth_l1_loss(distances(ours), distances(theirs))
    turn = angle * angle_gap(ours, theirs)
    return guided(student, teacher, targets, batch, hyper, distance=far, angle=turn)


def likeness(f: Tensor) -> Tensor:
    """Cosine similarities scaled to [0, 1], each row a distribution, (B, B)."""
    unit = f / (f.norm(dim=1, keepdim=True) + 1e-7)
    similar: Tensor = (unit @ unit.T + 1) / 2
    return similar / similar.sum(1, keepdim=True)


@method("pkt", needs=POOLED, **weighed(3e4, 1e3, 1e5),
        paper="Passalis and Tefas 2018, Probabilistic Knowledge Transfer, arXiv:1803.10837")  # fmt: skip
def pkt(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, **hyper: float) -> Loss:
    """Mean over pairs of p_t log(p_t / p_s), p the likeness of samples (eq. 6 with the cosine kernel)."""
    ours, theirs = (likeness(f) for f in vectors(student, teacher))
    gap = (theirs * ((theirs + 1e-7) / (ours + 1e-7)).log()).mean()
    return guided(student, teacher, targets, batch, hyper, likeness=gap)


@method("sp", needs=POOLED, **weighed(3e3, 1e2, 1e4),
        paper="Tung and Mori 2019, Similarity-Preserving Knowledge Distillation, arXiv:1907.09682")  # fmt: skip
def sp(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, **hyper: float) -> Loss:
    """Mean square of the gap between Gram matrices with rows of length 1 (eq. 4); of pooled vectors, not of maps."""
    ours, theirs = (F.normalize(f @ f.T, dim=1) for f in vectors(student, teacher))
    return guided(student, teacher, targets, batch, hyper, similarity=F.mse_loss(ours, theirs))


@method("cc", needs=POOLED, builder=True, **weighed(0.02, 2e-3, 0.2, dim=(128.0, (1, 4096))),
        paper="Peng et al. 2019, Correlation Congruence, arXiv:1904.01802")  # fmt: skip
def cc(student: Taps, teacher: Taps, *, dim: float = 128.0, **hyper: float) -> Any:
    """Embeddings of neighbours in the batch agree in their gap to the teacher's: mean Σ |d_i| |d_(i+1)|."""

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        ours, theirs = vectors(said, taught)
        gap = (own.embed_s(ours) - own.embed_t(theirs)).abs()
        return guided(said, taught, targets, batch, hyper, congruence=(gap[:-1] * gap[1:]).sum(1).mean())

    return learned(
        loss, embed_s=nn.Linear(student.pooled, int(dim)), embed_t=nn.Linear(teacher.pooled, int(dim))
    )  # fmt: skip


@method("itrd", needs=POOLED, builder=True, **weighed(1, 0.1, 10, correlation=(2.0, FREE), power=(1.5, (0.5, 4))),
        paper="Miles et al. 2022, Information Theoretic Representation Distillation, arXiv:2112.00459")  # fmt: skip
def itrd(student: Taps, teacher: Taps, *, correlation: float = 2.0, power: float = 1.5, **hyper: float) -> Any:
    """Correlation · log2 Σ_d |corr_d − 1|^(2 power) + the mutual-information term of Gram matrices (eq. 10, 13)."""

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        ours, theirs = vectors(said, taught)
        ours = own.embed(ours)
        one, other = ((f - f.mean(0)) / (f.std(0) + 1e-7) for f in (ours, theirs))
        agree = (one * other).mean(0)
        spread = ((agree - 1).abs() ** (2 * power)).sum().log2()
        grams = [F.normalize(f) @ F.normalize(f).T for f in (ours, theirs)]
        joint = grams[0] * grams[1]
        parts = [gram / gram.diagonal().sum() for gram in (grams[0], joint)]  # the gradient of a trace stalls a GPU
        mutual = (parts[0] ** 2 - parts[1] ** 2).sum()
        return guided(said, taught, targets, batch, hyper, correlation=correlation * spread, mutual=mutual)

    return learned(loss, embed=nn.Linear(student.pooled, teacher.pooled))


@method("srd", needs=POOLED, builder=True,
        **weighed(2, 0.2, 10, exponent=(4.0, (1, 8))) | {"defaults": {"weight": 2.0, "exponent": 4.0, "kd_weight": 1.0,
                                                                     "kd_temperature": 1.0}},
        paper="Miles and Mikolajczyk 2024, The Role of the Projector, arXiv:2303.11098")  # fmt: skip
def srd(student: Taps, teacher: Taps, *, exponent: float = 4.0, **hyper: float) -> Any:
    """Weight · log Σ |projected f_s − f_t|^exponent, both batch-normalised; with KL at T = 1 as published."""

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        ours, theirs = vectors(said, taught)
        gap = (own.norm_s(own.project(ours)) - own.norm_t(theirs)).abs()
        return guided(said, taught, targets, batch, hyper, feature=((gap + 1e-7) ** exponent).sum().log())

    norms = [nn.BatchNorm1d(teacher.pooled, affine=False) for _ in range(2)]
    return learned(loss, project=nn.Linear(student.pooled, teacher.pooled), norm_s=norms[0], norm_t=norms[1])


def turned(layer: Any, f: Tensor) -> Tensor:
    """``layer(f)`` of a linear layer under PyTorch's ``orthogonal``, (B, in) to (B, out), by a few matrix products.

    Its map is k reflections one after the other, of whose product PyTorch takes the gradient one by one. That product
    is I - V T V', T's inverse being the upper triangle of V'V with half its diagonal (Joffrain et al. 2006, UT
    transform), and is applied to the batch without being formed. Signs stay what they are: PyTorch cuts them to whole
    numbers, which weight decay soon makes 0, and the projection with them.
    """
    kept = layer.parametrizations.weight
    x: Tensor = kept.original
    base: Tensor = kept[0].base
    if x.shape[0] == x.shape[1]:  # there the map is another: the matrix exponential
        said: Tensor = layer(f)
        return said
    wide = x.shape[0] < x.shape[1]
    tall = x.mT if wide else x
    n, k = tall.shape
    signs, v = tall.diagonal().detach().sign(), tall.tril(-1) + torch.eye(n, k, dtype=x.dtype, device=x.device)
    gram = v.mT @ v
    inner = gram.triu(1) + (gram.diagonal() / 2).diag()
    if wide:  # f base (I - V T V')[:, :k] signs
        g = f @ base
        cut: Tensor = torch.linalg.solve_triangular(inner, g @ v, upper=True, left=False) @ v[:k].mT
        return (g[:, :k] - cut) * signs
    g = f * signs  # f signs (I - V T' V')[:k] base'
    cut = torch.linalg.solve_triangular(inner.mT, g @ v[:k], upper=False, left=False) @ v.mT
    return (F.pad(g, (0, n - k)) - cut) @ base.mT


@method("vkd", needs=POOLED, builder=True, version=2,
        **weighed(1, 0.1, 10) | {"defaults": {"weight": 1.0, "kd_weight": 1.0, "kd_temperature": 1.0}},
        paper="Miles et al. 2024, VkD, arXiv:2403.06213")  # fmt: skip
def vkd(student: Taps, teacher: Taps, **hyper: float) -> Any:
    """Smooth L1 between f_s through a projection with orthonormal rows or columns and layer-normalised f_t; and KL."""

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        ours, theirs = vectors(said, taught)
        gap = F.smooth_l1_loss(turned(own.project, ours), F.layer_norm(theirs, theirs.shape[1:]))
        return guided(said, taught, targets, batch, hyper, feature=gap)

    project = nn.Linear(student.pooled, teacher.pooled, bias=False)
    return learned(loss, project=nn.utils.parametrizations.orthogonal(project))


@method("srrl", needs=POOLED, builder=True, **weighed(1, 0.1, 10, regression=(1.0, FREE)),
        paper="Yang et al. 2021, Softmax Regression Representation Learning, ICLR 2021")  # fmt: skip
def srrl(student: Taps, teacher: Taps, *, regression: float = 1.0, **hyper: float) -> Any:
    """MSE of a connector's output to f_t, and of what the teacher's own classifier says of it to the teacher's z."""
    head: Any = teacher.head

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        ours, theirs = vectors(said, taught)
        ours = own.connect(ours)
        told = regression * F.mse_loss(head(ours), taught.logits)
        return guided(said, taught, targets, batch, hyper, feature=F.mse_loss(ours, theirs), regression=told)

    wide = teacher.pooled
    return learned(loss, connect=nn.Sequential(nn.Linear(student.pooled, wide), nn.BatchNorm1d(wide), nn.ReLU()))


@method("crd", needs=POOLED | {"sample-index"}, builder=True,
        **weighed(0.8, 0.08, 8, dim=(128.0, (1, 4096)), negatives=(16384.0, (1, 1e6)), tau=(0.07, (1e-3, 10)),
                  momentum=(0.5, (0, 1))),
        paper="Tian et al. 2020, Contrastive Representation Distillation, arXiv:1910.10699")  # fmt: skip
def crd(
    student: Taps, teacher: Taps, *,
    dim: float = 128.0, negatives: float = 16384.0, tau: float = 0.07, momentum: float = 0.5, **hyper: float,
) -> Any:  # fmt: skip
    """NCE of each network's embedding against a memory of the other's, one entry a training sample (eq. 17 to 19).

    Negatives are drawn from the whole split; the authors leave the sample's own class out.
    """
    size, wide = student.samples, int(dim)

    def score(own: Any, f: Tensor, memory: Tensor, drawn: Tensor, name: str) -> Tensor:
        likely: Tensor = (f @ memory.T).gather(1, drawn).div(tau).exp()
        scale = getattr(own, name)
        if own.training:  # set once, by the first batch
            scale.copy_(torch.where(scale == 0, likely.detach().mean() * size, scale))
        likely = likely / scale.clamp_min(1e-12)
        noise = (drawn.shape[1] - 1) / size
        right = (likely[:, :1] / (likely[:, :1] + noise + 1e-7)).log()
        wrong = (noise / (likely[:, 1:] + noise + 1e-7)).log()
        return -(right.sum() + wrong.sum()) / len(f)

    def loss(own: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
        assert batch.rows is not None
        ours, theirs = vectors(said, taught)
        ours, theirs = F.normalize(own.embed_s(ours)), F.normalize(own.embed_t(theirs))
        drawn = torch.randint(size, (len(ours), min(int(negatives), size)), device=ours.device)
        drawn = torch.cat([batch.rows[:, None].to(ours.device), drawn], 1)
        memories = (own.memory_s, own.memory_t)
        term = score(own, ours, memories[1].clone(), drawn, "scale_s")
        term = term + score(own, theirs, memories[0].clone(), drawn, "scale_t")
        with torch.no_grad():
            rows = drawn[:, 0]
            first = (rows[:, None] == rows).int().argmax(1)  # of repeated samples one view counts, the same every time
            for memory, new in zip(memories, (ours, theirs), strict=True):
                memory[rows] = F.normalize(momentum * memory[rows] + (1 - momentum) * new[first])
        return guided(said, taught, targets, batch, hyper, contrast=term)

    bound = 1 / math.sqrt(wide / 3)
    memories = [(2 * torch.rand(size, wide) - 1) * bound for _ in range(2)]
    return learned(
        loss, embed_s=nn.Linear(student.pooled, wide), embed_t=nn.Linear(teacher.pooled, wide),
        memory_s=memories[0], memory_t=memories[1], scale_s=torch.zeros(()), scale_t=torch.zeros(()),
    )  # fmt: skip
