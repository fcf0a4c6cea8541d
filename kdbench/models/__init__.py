"""Networks: build by timm name, small stem, weights from files, and what they cost.

What papers use that timm lacks (``cifar``: the networks of the CIFAR-100 tables, ``hinton``: the MNIST networks) is
registered with timm by importing this, which imports torch and timm.
"""

from __future__ import annotations

from kdbench.models import cifar, hinton
from kdbench.models.build import apply_small_stem, build, known_models
from kdbench.models.cost import Latency, count_macs, count_params, deployed, latencies
from kdbench.models.given import Given, describe, weights_digest
from kdbench.models.weights import Ensemble, head_names, in_order, load_start, load_weights, members, several_in

__all__ = [
    "Ensemble", "Given", "Latency", "apply_small_stem", "build", "cifar", "count_macs", "count_params", "deployed",
    "describe", "head_names", "hinton", "in_order", "known_models", "latencies", "load_start", "load_weights",
    "members", "several_in", "weights_digest",
]  # fmt: skip
