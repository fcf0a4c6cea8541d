"""Networks: build by timm name, small stem, weights from files, and what they cost.

``build`` (timm plus size rules), ``stem`` (small inputs), ``weights`` (pretrained and local files),
``cost`` (parameters, multiply-accumulates, latency). Importing this imports torch; timm comes on first use.
"""

from __future__ import annotations

from kdbench.models.build import build, known_models
from kdbench.models.cost import count_macs, count_params, latency_ms
from kdbench.models.stem import apply_small_stem
from kdbench.models.weights import load_weights, weights_digest

__all__ = [
    "apply_small_stem",
    "build",
    "count_macs",
    "count_params",
    "known_models",
    "latency_ms",
    "load_weights",
    "weights_digest",
]
