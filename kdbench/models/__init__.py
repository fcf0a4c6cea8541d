"""Networks: build by timm name, small stem, weights from files, and what they cost.

``build`` (timm plus size rules), ``stem`` (small inputs), ``weights`` (pretrained and local files),
``cost`` (parameters, multiply-accumulates, latency), and what papers use that timm lacks: ``cifar`` (the networks
of the CIFAR-100 tables) and ``hinton`` (the MNIST networks). Importing this imports torch and timm, and registers
those networks with timm.
"""

from __future__ import annotations

from kdbench.models import cifar, hinton
from kdbench.models.build import build, known_models
from kdbench.models.cost import count_macs, count_params, latency_ms
from kdbench.models.ensemble import Ensemble
from kdbench.models.stem import apply_small_stem
from kdbench.models.weights import load_weights, members, weights_digest

__all__ = [
    "Ensemble",
    "apply_small_stem",
    "build",
    "cifar",
    "count_macs",
    "count_params",
    "hinton",
    "known_models",
    "latency_ms",
    "load_weights",
    "members",
    "weights_digest",
]
