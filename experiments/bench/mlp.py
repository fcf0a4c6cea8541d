"""The steps of Hinton's MNIST networks, beside the matrix products that they cannot do without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from contenders import Steps, endless
from rounds import ratio
from torch import Tensor, nn

from kdbench.config import DataConfig, Recipe, RunConfig
from kdbench.data import load, resolve_dataset
from kdbench.models import build
from kdbench.models.hinton import CoarseDropout
from kdbench.train.loop import Trainer
from kdbench.train.step import Step

BATCH, SAMPLES = 128, 1280
NETWORKS = {"hinton_mlp_1200": (784, 1200, 1200, 10), "hinton_mlp_800": (784, 800, 800, 10)}
CPU = torch.device("cpu")
PLAIN, PRODUCTS = "plain PyTorch", "matrix products alone"


def plain(name: str) -> Steps:
    """PyTorch as it comes: forward, cross-entropy, backward and SGD with momentum on one batch that is there."""
    network = build(name, classes=10, channels=1, input_size=28, seed=0).train()
    for label, layer in network.named_children():
        if isinstance(layer, CoarseDropout):
            setattr(network, label, nn.Dropout(layer.p))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    x, y = torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))
    while True:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        yield BATCH


def trial(name: str, step: Step, precision: str) -> Steps:
    """Kdbench's own loop on hard labels, data and all."""
    options: dict[str, Any] = {"lr": 0.01, "warmup_epochs": 0, "precision": precision, "epochs": 1000}
    recipe = Recipe(batch_size=BATCH, pad=0, flip=False, input_size=28, **options)
    samples = DataConfig.model_validate({"name": "digits", "limit": SAMPLES})
    config = RunConfig(data=samples, model=name, method="hard", hyper={}, recipe=recipe, seed=0, phase="baseline")
    data = load(resolve_dataset("digits")[0], samples, recipe, CPU)
    yield from endless(Trainer(config, data, None, CPU, step))


def products(name: str) -> Steps:
    """Forward, gradient of the weights and gradient of the inputs of each layer, into memory that is there.

    The first layer's inputs need no gradient.
    """
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    sizes = NETWORKS[name]
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        x, weight, dy = torch.randn(BATCH, inputs), torch.randn(outputs, inputs), torch.randn(BATCH, outputs)
        calls.append((x, weight.T, torch.empty(BATCH, outputs)))
        calls.append((dy.T, x, torch.empty(outputs, inputs)))
        if layer:
            calls.append((dy, weight, torch.empty(BATCH, inputs)))
    while True:
        for a, b, out in calls:
            torch.mm(a, b, out=out)
        yield BATCH


CONTENDERS: dict[str, Callable[[str], Steps]] = {
    PRODUCTS: products,
    PLAIN: plain,
    "kdbench trial": lambda name: trial(name, Step(), "fp32"),
    "kdbench trial compiled": lambda name: trial(name, Step(compiled=True), "fp32"),
    "kdbench trial bf16": lambda name: trial(name, Step(), "bf16"),
}
"""fp32 but for the last."""


def run_mlp(
    *, threads: int, rounds: int, seconds: float, compiled: bool, progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """Milliseconds a step and their ratios, by network and contender, measured in alternating rounds."""
    torch.set_num_threads(threads)
    wanted = {label: make for label, make in CONTENDERS.items() if compiled or "compiled" not in label}
    found: dict[str, Any] = {}
    for name in NETWORKS:
        running: dict[str, Iterator[int]] = {label: make(name) for label, make in wanted.items()}
        for steps in running.values():
            _milliseconds(steps, 0.0)
        table = []
        for k in range(rounds):
            order = list(running.items())[:: 1 if k % 2 == 0 else -1]
            table.append({label: _milliseconds(steps, seconds) for label, steps in order})
            progress(f"{name}, round", k + 1, rounds)
        times = {label: [row[label] for row in table] for label in wanted}
        others = [label for label in wanted if label != PLAIN]
        ratios = {f"{PLAIN} / {label}": ratio(times[PLAIN], times[label]) for label in others}
        found[name] = {"milliseconds": times, "ratios": ratios}
    return {"threads": threads, "batch": BATCH, "networks": found}


def _milliseconds(steps: Iterator[int], seconds: float) -> float:
    """Of one step: as many as ``seconds`` take, three at least."""
    count, start = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - start < seconds:
        next(steps)
        count += 1
    return 1000 * (time.perf_counter() - start) / count
