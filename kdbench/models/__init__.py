"""Networks: build by timm name, small stem, weights from files, and what they cost.

``build`` (timm plus size rules), ``weights`` (pretrained and local files, ensembles), ``cost`` (parameters,
multiply-accumulates, latency, as deployed), and what papers use that timm lacks: ``cifar`` and ``cifar_mobile`` (the
networks of the CIFAR-100 tables), ``hinton`` (the MNIST networks). Importing this imports torch and timm, and
registers those networks with timm.
"""

from __future__ import annotations

from kdbench.models import cifar, cifar_mobile, hinton
from kdbench.models.build import apply_small_stem, build, known_models
from kdbench.models.cost import Latency, count_macs, count_params, deployed, latencies
from kdbench.models.weights import Ensemble, load_weights, members, weights_digest

__all__ = [
    "Ensemble", "Latency", "apply_small_stem", "build", "cifar", "cifar_mobile", "count_macs", "count_params",
    "deployed", "hinton", "known_models", "latencies", "load_weights", "members", "weights_digest",
]  # fmt: skip
