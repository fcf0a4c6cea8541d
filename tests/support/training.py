"""Short training runs for tests: the digits, small networks, a teacher that is watched."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from kdbench.config import DataConfig, Recipe, RunConfig
from kdbench.data import TaskData, load, resolve_dataset
from kdbench.teacher import Keyed, Teacher
from kdbench.train import RunOutcome, Step, run_training
from kdbench.train.step import repeatable

DEVICE = torch.device(os.environ.get("KDBENCH_TEST_DEVICE", "cpu"))
"""Where the engine's tests train."""
repeatable(DEVICE)
DIGITS = DataConfig(name="digits", limit=200)
RECIPE = Recipe(epochs=1, batch_size=64, lr=0.05, pad=1, warmup_epochs=0, precision="fp32")
WITH_TOKEN = ("deit_tiny_distilled_patch16_224", {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2})
"""A student with a distillation token, and the options that make it small."""
STEPS = 3
"""Full batches of 64 among 200 samples."""
KD = {"temperature": 4.0, "alpha": 0.7}


@lru_cache
def _shown(recipe_json: str) -> TaskData:
    torch.set_num_threads(1)
    return load(resolve_dataset("digits")[0], DIGITS, Recipe.model_validate_json(recipe_json), DEVICE)


def data_for(recipe: Recipe) -> TaskData:
    """What a recipe shows, once for all recipes that show the same."""
    seen = ("input_size", "test_crop", "flip", "pad", "views", "batch_size", "augment", "erase", "repeats", "mixup")
    seen += ("cutmix", "mix_switch", "crop_scale", "crop_ratio", "interpolation", "network_size")
    seen += ("network_interpolation", "mean", "std")
    return _shown(Recipe(**{name: getattr(recipe, name) for name in seen}).model_dump_json())


def data_of(
    pad: int = 1, flip: bool | None = None, size: int | None = None, views: str = "crop", **shown: object
) -> TaskData:  # fmt: skip
    return data_for(RECIPE.model_copy(update={"pad": pad, "flip": flip, "input_size": size, "views": views, **shown}))


class Watched(nn.Module):
    """A teacher with dropout and batch norm that notes in which mode, and on how many images, it was run."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.body = self.made()
        self.dropout = nn.Dropout(0.5)
        self.images, self.modes = 0, set()

    def made(self) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        self.modes.add((self.training, torch.is_grad_enabled(), next(self.parameters()).requires_grad))
        return 20 * self.dropout(self.body(x))


def live(network: nn.Module | None = None) -> Teacher:
    return Teacher(lambda: network or Watched(), DEVICE, 10)


def cached(root: Path, network: nn.Module | None = None, keyed: Keyed = "view") -> Teacher:
    return Teacher(lambda: network or Watched(), DEVICE, 10, keyed=keyed, root=root, teacher_id="teacher")


def config_of(recipe: Recipe = RECIPE, **more) -> RunConfig:
    values = {"data": DIGITS, "model": "test_resnet", "method": "kd", "hyper": KD, "seed": 3, "phase": "search"} | more
    return RunConfig(recipe=recipe, **values | ({"hyper": {}} if values["method"] == "hard" else {}))


def train(config: RunConfig, workdir: Path, teacher=None, on_epoch=None, step: Step | None = None) -> RunOutcome:
    step = step or Step(captured=DEVICE.type == "cuda")
    return run_training(
        config, data=data_for(config.recipe), teacher=teacher, workdir=workdir, device=DEVICE, on_epoch=on_epoch,
        step=step,
    )  # fmt: skip


def numbers(outcome: RunOutcome) -> list[dict[str, object]]:
    """All that was measured, without the clock."""
    logs = [log.model_dump(exclude={"seconds"}) for log in outcome.logs]
    return [*logs, outcome.result.model_dump(exclude={"seconds", "attempts"})]


def same(a: RunOutcome, b: RunOutcome) -> bool:
    weights = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return numbers(a) == numbers(b) and all(torch.equal(x, y) for x, y in weights)
