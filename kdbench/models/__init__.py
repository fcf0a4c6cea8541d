"""Networks: build by timm name, small stem, weights from files, and what they cost.

What papers use that timm lacks (``cifar``: the networks of the CIFAR-100 tables, ``hinton``: the MNIST networks) is
registered with timm by importing this, which imports torch and timm.
"""

from __future__ import annotations

from kdbench.models import cifar, hinton
from kdbench.models.build import apply_small_stem, build, known_models
from kdbench.models.cost import Latency, count_macs, count_params, deployed, latencies
from kdbench.models.weights import Ensemble, load_weights, members, weights_digest

__all__ = [
    "Ensemble", "Latency", "apply_small_stem", "build", "cifar", "count_macs", "count_params", "deployed", "hinton",
    "known_models", "latencies", "load_weights", "members", "weights_digest",
]  # fmt: skip
