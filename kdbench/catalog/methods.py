"""Distillation losses as names, search spaces and bounds; the losses themselves are in ``kdbench.methods``."""

from __future__ import annotations

from kdbench.catalog.registry import Registry
from kdbench.catalog.types import Dimension, MethodSpec

TEMPERATURE = Dimension(low=1.0, high=20.0, log=True)
"""Softening of logits, searched on a logarithmic scale."""
ALPHA = Dimension(low=0.0, high=1.0)
"""Weight of the soft targets; 0 is the hard-label baseline."""
_T = (0.0, 1e4)
_UNIT = (0.0, 1.0)
_WEIGHT = (0.0, 1e3)
_MIX = {"temperature": _T, "alpha": _UNIT, "hard_weight": _WEIGHT, "soft_weight": _WEIGHT}
"""alpha and 1 - alpha, or two free weights instead (CRD's convention: soft_weight 0.9, hard_weight 0.1)."""

BUILTIN: tuple[MethodSpec, ...] = (
    MethodSpec(name="hard", needs=frozenset()),
    MethodSpec(
        name="kd",
        space={"temperature": TEMPERATURE, "alpha": ALPHA},
        bounds=_MIX,
        paper="Hinton, Vinyals, Dean 2015, arXiv:1503.02531",
    ),
    MethodSpec(
        name="kd-ls",
        space={"temperature": TEMPERATURE, "alpha": ALPHA},
        bounds=_MIX,
        paper="Sun et al. 2024, Logit Standardization in Knowledge Distillation, arXiv:2403.01427",
    ),
    MethodSpec(
        name="dkd",
        space={"temperature": TEMPERATURE, "beta": Dimension(low=1.0, high=10.0, log=True)},
        fixed={"alpha_t": 1.0, "beta": 8.0},
        bounds={"temperature": _T, "alpha_t": _WEIGHT, "beta": _WEIGHT, "warmup": (0.0, 1e4)},
        paper="Zhao et al. 2022, Decoupled Knowledge Distillation, arXiv:2203.08679",
    ),
    MethodSpec(
        name="dist",
        space={
            "beta": Dimension(low=0.25, high=4.0, log=True),
            "gamma": Dimension(low=0.25, high=4.0, log=True),
            "temperature": Dimension(low=1.0, high=8.0, log=True),
        },
        bounds={"temperature": _T, "beta": _WEIGHT, "gamma": _WEIGHT, "hard_weight": _WEIGHT},
        paper="Huang et al. 2022, Knowledge Distillation from A Stronger Teacher, arXiv:2205.10536",
    ),
)

METHODS: Registry[MethodSpec] = Registry("method", {m.name: m for m in BUILTIN}, "kdbench.methods", MethodSpec)
