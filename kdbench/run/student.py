"""A trained student in a user's hands: its network, and how images reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from kdbench.config import CONTROLS, HARD
from kdbench.data import resolve_dataset
from kdbench.data.samples import Fit
from kdbench.data.task import looks_of, network_shape
from kdbench.data.views import normalise
from kdbench.models import build
from kdbench.run.store import WEIGHTS, Run, run_folder
from kdbench.run.weights import with_weights


@dataclass(frozen=True)
class Student:
    """A trained network and how images reach it."""

    network: nn.Module
    """In eval mode, on the CPU; (B, C, S, S) float32 in, logits (B, classes) out."""
    preprocess: Callable[[Image | np.ndarray], Tensor]
    """An image (PIL, or uint8 (H, W) or (H, W, C)) to float32 (1, C, S, S)."""
    run: Run
    """Where it comes from."""

    def predict(self, image: Image | np.ndarray) -> np.ndarray:
        """Class probabilities of one image, (classes,)."""
        with torch.inference_mode():
            probabilities: np.ndarray = self.network(self.preprocess(image)).softmax(1)[0].numpy()
        return probabilities


def best_of(runs: Iterable[Run], name: str, method: str | None, folder: Path) -> Run | None:
    """Of a student's confirm runs whose weights are there the one that is best on validation.

    ``method``: only runs of this loss or control; None: of the methods that distil.
    """
    found = [
        run for run in runs
        if run.config.phase == "confirm" and run.config.model == name and run.result.status == "complete"
        and (run.config.condition == method if method else run.config.condition not in (HARD, *CONTROLS))
        and (run_folder(folder, run.config.id) / WEIGHTS).exists()
    ]  # fmt: skip
    return max(found, key=lambda run: (run.result.val_acc or 0.0, -run.config.seed), default=None)


def open_student(run: Run, place: Path, data_path: str | None = None) -> Student:
    """A run's network with the weights in ``place``, and the preprocessing it was trained with.

    Raises:
        MachineFault: weights that cannot be read.
    """
    config, recipe = run.config, run.config.recipe
    spec, _ = resolve_dataset(data_path or config.data.name)
    cut, look = looks_of(spec, config.data, recipe)
    network = build(
        config.model, **network_shape(spec, config.data, recipe), stem=recipe.stem, seed=0,
        options=recipe.model_options,
    )  # fmt: skip
    image = torch.zeros(1, len(look.mean), look.size, look.size)
    network = with_weights(network, place, run.result.weights, image)
    fit = Fit(cut.size, len(cut.mean), spec.fit, recipe.test_crop)

    def preprocess(image: Image | np.ndarray) -> Tensor:
        pixels = image if not isinstance(image, np.ndarray) else image.reshape(*image.shape[:2], -1)
        return look.show(normalise(torch.from_numpy(fit(pixels).copy())[None], cut.mean, cut.std), cut)

    return Student(network.eval(), preprocess, run)
