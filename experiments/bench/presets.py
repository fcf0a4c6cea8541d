"""What published recipes cost: ``python experiments/bench/presets.py`` trains each on hard labels for a while.

Beside the plain recipe (crop, flip, SGD), and beside a loop of timm's parts (its loader with the same augmentation and
as many worker processes, its mixing, loss and optimiser; no repeats, which it has for several GPUs alone). One process,
all contenders in turn: of the images a second the ratios within a round count. Keep the machine otherwise idle.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from contenders import endless, samples, shape, which_samples
from rounds import Setting
from timm.data import FastCollateMixup, create_loader
from timm.data.auto_augment import NAME_TO_OP
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch.utils.data import Dataset

from kdbench.catalog.recipes import PRESETS
from kdbench.config import Recipe, RunConfig
from kdbench.data import load, resolve_dataset
from kdbench.data.samples import as_picture
from kdbench.data.splits import MAX_WORKERS
from kdbench.errors import KdbenchError
from kdbench.files import atomic_text
from kdbench.host import cores, processor
from kdbench.models import build
from kdbench.train.loop import Trainer
from kdbench.train.step import Step


class Pictures(Dataset[Any]):
    """A resident split's images, as timm's loader takes them."""

    def __init__(self, task: Setting) -> None:
        self.transform: Any = None
        split = samples(task.model_copy(update={"pad": 0})).train
        mean, std = (torch.tensor(each) for each in (split.look.mean, split.look.std))
        pixels = [(b.x.permute(0, 2, 3, 1) * std + mean).mul(255).round().byte() for b in split.plain()]
        self.images = [as_picture(image) for image in torch.cat(pixels).numpy()]
        self.labels = split.labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self.transform(self.images[row]), self.labels[row]


def ours(task: Setting, recipe: Recipe) -> Iterator[int]:
    """The loop of a sweep."""
    device = torch.device(task.device)
    data = load(resolve_dataset(task.dataset)[0], which_samples(task), recipe, device)
    config = RunConfig(
        data=which_samples(task), model=task.student, method="hard", recipe=recipe, seed=0, phase="search"
    )
    return endless(Trainer(config, data, None, device, Step(kernels=task.device == "cpu")))


def timms(task: Setting, r: Recipe) -> Iterator[int]:
    """The same recipe of timm's parts, as its train.py puts them together."""
    device, data = torch.device(task.device), samples(task)
    network = build(task.student, **shape(data), options=r.model_options)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(network, opt=r.optimizer, lr=r.lr, weight_decay=r.weight_decay)
    plain = NAME_TO_OP["PosterizeIncreasing"]  # it asks for 0 bits at times, which newer releases of Pillow refuse
    NAME_TO_OP["PosterizeIncreasing"] = lambda image, bits, **more: plain(image, max(1, bits), **more)
    mixer = None
    if r.mixup or r.cutmix:
        more = {"label_smoothing": r.label_smoothing, "num_classes": data.classes}
        mixer = FastCollateMixup(r.mixup, r.cutmix, switch_prob=r.mix_switch, **more)
    loader = create_loader(
        Pictures(task), (data.channels, data.input_size, data.input_size), r.batch_size, is_training=True,
        re_prob=r.erase, re_mode="pixel", scale=r.crop_scale, ratio=r.crop_ratio, color_jitter=0.0,
        auto_augment=r.augment, interpolation=r.interpolation, mean=data.spec.mean, std=data.spec.std,
        num_workers=max(1, min(MAX_WORKERS, cores())), collate_fn=mixer, device=device, persistent_workers=True,
    )  # fmt: skip
    loss: Any = SoftTargetCrossEntropy() if mixer else LabelSmoothingCrossEntropy(r.label_smoothing)
    if r.bce:
        loss = BinaryCrossEntropy(r.label_smoothing, r.bce_threshold)
    ema = ModelEmaV3(network, decay=r.ema) if r.ema else None
    while True:
        for x, y in loader:
            optimizer.zero_grad()
            loss(network(x.contiguous(memory_format=torch.channels_last)), y).backward()
            optimizer.step()
            if ema is not None:
                ema.update(network)
            yield len(y)


def rate(steps: Iterator[int], seconds: float) -> float:
    """Images a second, over so long at least."""
    since, images = time.perf_counter(), 0
    while (spent := time.perf_counter() - since) < seconds:
        images += next(steps)
    return images / spent


def markdown(found: dict[str, Any]) -> str:
    """The figures as a table."""
    task = found["setting"]

    def ratio(held: list[float] | None) -> str:
        return f"{held[0]:.2f} ({held[1]:.2f} to {held[2]:.2f})" if held else ""

    lines = [
        "# What published recipes cost", "",
        f"{task['student']} on {task['limit']:,} images of {task['dataset']}, hard labels, batches of "
        f"{task['batch_size']}, {found['hardware']}; median of {task['rounds']} rounds in which all take turns, and "
        "the range of the ratios. By timm: a loop of its loader, augmentation, mixing, loss and optimiser.", "",
        "| recipe | images/s | of the plain recipe | of timm's loop |", "|---|--:|--:|--:|",
    ]  # fmt: skip
    for name, row in found["presets"].items():
        lines.append(
            f"| {name} | {row['images_per_second']:,.0f} | {ratio(row['of_plain'])} | {ratio(row['of_timm'])} |"
        )
    return "\n".join(lines) + "\n"


def bench(
    student: Annotated[str, typer.Option(help="timm name.")] = "mobilenetv3_small_100",
    dataset: Annotated[str, typer.Option(help="Catalog name, in memory.")] = "cifar100",
    limit: Annotated[int, typer.Option(help="Training samples.")] = 5_000,
    batch_size: Annotated[int, typer.Option(help="Samples a step, of all.")] = 128,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Of a measurement.")] = 5.0,
    out: Annotated[Path | None, typer.Option(help="Folder of presets.json and presets.md.")] = None,
) -> None:
    """Print, as JSON, each preset's images a second and its ratios to the plain recipe and to timm's loop."""
    fixed: dict[str, Any] = {"batch_size": batch_size, "precision": "fp32", "epochs": 10**6}
    task = Setting(
        student=student,
        dataset=dataset,
        limit=limit,
        batch_size=batch_size,
        device=device,
        rounds=rounds,
        seconds=seconds,
    )
    running = {"plain": ours(task, Recipe(**fixed))}
    for name, preset in PRESETS.items():
        recipe = Recipe.model_validate(preset.recipe | fixed)
        running[name] = ours(task, recipe)
        if recipe.views == "resized-crop":  # timm's loader has no crop from a border
            running[f"{name} by timm"] = timms(task, recipe)
    for steps in running.values():  # warm up
        rate(steps, seconds / 5)
    table = [{name: rate(steps, seconds) for name, steps in running.items()} for _ in range(rounds)]

    def against(name: str, other: str) -> list[float] | None:
        ratios = [row[name] / row[other] for row in table] if other in running else []
        return [statistics.median(ratios), min(ratios), max(ratios)] if ratios else None

    found = {
        name: {
            "images_per_second": statistics.median(row[name] for row in table),
            "of_plain": against(name, "plain"), "of_timm": against(name, f"{name} by timm"),
        } for name in running
    }  # fmt: skip
    figures = {"setting": task.model_dump(), "hardware": f"{processor()}, {cores()} cores, {device}", "presets": found}
    typer.echo(json.dumps(figures, indent=1))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        atomic_text(out / "presets.json", json.dumps(figures, indent=1) + "\n")
        atomic_text(out / "presets.md", markdown(figures))


if __name__ == "__main__":
    try:
        typer.run(bench)
    except KdbenchError as error:
        sys.exit(f"error: {error}")
