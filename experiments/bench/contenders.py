"""The loops that are compared. Each trains one student on one data set and counts images.

Peers are written as their own documentation shows them: data through a ``DataLoader``, the teacher in every step.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rounds import Setting
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kdbench.config import DataConfig, Hyper, Recipe, RunConfig
from kdbench.data import ResidentSplit, TaskData, load, resolve_dataset
from kdbench.models import build
from kdbench.teacher import Teacher
from kdbench.train.capture import Recorded
from kdbench.train.loop import Trainer
from kdbench.train.optim import make_optimizer
from kdbench.train.step import REFERENCE, Step, prepare

TEMPERATURE, ALPHA = 4.0, 0.7


Steps = Iterator[int]
"""Trains for ever; yields the images of each step."""


def shape(data: TaskData) -> dict[str, Any]:
    """Arguments of ``build``."""
    return {"classes": data.classes, "channels": data.channels, "input_size": data.input_size, "seed": 0}


def recipe(task: Setting) -> Recipe:
    """The recipe of every contender."""
    fixed: dict[str, Any] = {"lr": 0.01, "warmup_epochs": 0, "precision": "fp32", "epochs": 1000}
    return Recipe(batch_size=task.batch_size, pad=task.pad, **fixed)


def samples(task: Setting) -> TaskData:
    """The data, resident."""
    spec = resolve_dataset(task.dataset)[0]
    return load(spec, which_samples(task), recipe(task), torch.device(task.device))


def which_samples(task: Setting) -> DataConfig:
    """In colour, as timm's task wants them."""
    return DataConfig.model_validate({"name": task.dataset, "limit": task.limit, "channels": 3})


def bare(task: Setting, step: Step) -> Steps:
    """``bare_steps`` of the task's student."""
    yield from bare_steps(task.student, samples(task), recipe(task), step, torch.device(task.device))


def bare_steps(student: str, data: TaskData, recipe: Recipe, step: Step, device: torch.device) -> Steps:
    """Nothing but forward, cross-entropy, backward and update, on one batch that is already there."""
    model, forward = prepare(build(student, **shape(data)).train(), step, device)
    optimizer = make_optimizer(model, recipe, fused=step.fused)
    x = torch.randn(recipe.batch_size, data.channels, data.input_size, data.input_size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(data.classes, (recipe.batch_size,), device=device)

    def whole(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run: Callable[..., Tensor] = Recorded(whole) if step.captured else whole
    while True:
        run(x, y)
        yield recipe.batch_size


def trial(task: Setting, step: Step) -> Steps:
    """Kdbench's own loop, its logit cache warm."""
    with _warm(task) as (data, teacher):
        config = _config(task, {"temperature": TEMPERATURE, "alpha": ALPHA})
        yield from endless(Trainer(config, data, teacher, torch.device(task.device), step))


def endless(trainer: Trainer) -> Steps:
    """Epoch after epoch; yields the images of each step."""
    for epoch in itertools.count(1):
        yield from trainer.steps(epoch)


@contextmanager
def _warm(task: Setting) -> Iterator[tuple[TaskData, Teacher]]:
    """The data, and a teacher whose cache holds every view of them."""
    data = samples(task)
    with tempfile.TemporaryDirectory() as folder:
        teacher = Teacher(
            lambda: build(task.teacher, **shape(data)), torch.device(task.device), data.classes,
            keyed="view", root=Path(folder), teacher_id="bench",
        )  # fmt: skip
        warm_cache(teacher, data)
        yield data, teacher


def _config(task: Setting, hyper: Hyper) -> RunConfig:
    return RunConfig(
        data=which_samples(task), model=task.student, method="kd", hyper=hyper, recipe=recipe(task), seed=0,
        phase="search",
    )  # fmt: skip


def warm_cache(teacher: Teacher, data: TaskData) -> None:
    """Fill every view with made-up logits: reading them costs what reading real ones costs."""
    split = data.train
    assert isinstance(split, ResidentSplit) and split.n_views is not None
    cache, rows = teacher.cache(split, 0, 1), np.arange(len(split), dtype=np.int64)
    values = np.random.default_rng(0).normal(size=(len(split), data.classes)).astype(np.float32)
    for view in range(split.n_views):
        cache.write(rows, np.full_like(rows, view), values)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images one by one through torchvision's transforms: crop, flip, tensor, normalise."""

    def __init__(self, task: Setting, data: TaskData) -> None:
        from torchvision import transforms

        plain = torch.cat([batch.x for batch in data.train.plain()])
        self.labels = data.train.labels.tolist()
        low, high = plain.amin(), plain.amax()
        grey = ((plain - low) / (high - low) * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        self.images = [Image.fromarray(image[..., 0] if data.channels == 1 else image) for image in grey]
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(data.input_size, padding=task.pad),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * data.channels, [0.25] * data.channels),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def _networks(task: Setting, data: TaskData) -> tuple[nn.Module, nn.Module, torch.device]:
    device = torch.device(task.device)
    teacher = build(task.teacher, **shape(data)).to(device).eval().requires_grad_(False)
    return teacher, build(task.student, **shape(data)).to(device).train(), device


def _loader(task: Setting, data: TaskData, **more: Any) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(Pictures(task, data), task.batch_size, drop_last=True, **more)


def tutorial(task: Setting) -> Steps:
    """The loop of PyTorch's distillation tutorial."""
    data = samples(task)
    teacher, student, device = _networks(task, data)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loader = _loader(task, data, shuffle=True)
    while True:
        for inputs, labels in loader:
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            with torch.no_grad():
                teacher_logits = teacher(inputs)
            logits = student(inputs)
            soft = F.softmax(teacher_logits / TEMPERATURE, dim=-1)
            log_probabilities = F.log_softmax(logits / TEMPERATURE, dim=-1)
            distilled = (soft * (soft.log() - log_probabilities)).sum() / logits.size(0) * TEMPERATURE**2
            loss = ALPHA * distilled + (1 - ALPHA) * F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            loss.item()
            yield len(labels)


def timm_task(task: Setting, layout: str) -> Steps:
    """Timm's logit distillation task in its training loop's order of calls; ``channels_last`` is its tuned form."""
    import timm
    from timm.task import LogitDistillationTask

    data = samples(task)
    teacher, student, device = _networks(task, data)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    teacher, student = teacher.to(memory_format=form), student.to(memory_format=form)
    whole = LogitDistillationTask(
        student_model=student, teacher_model=teacher, criterion=nn.CrossEntropyLoss(), loss_type="kl",
        distill_loss_weight=ALPHA, task_loss_weight=1 - ALPHA, temperature=TEMPERATURE, verbose=False,
    ).train()  # fmt: skip
    optimizer = timm.optim.create_optimizer_v2(student, opt="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4)
    loader = _loader(task, data, shuffle=True)
    while True:
        for inputs, labels in loader:
            inputs = inputs.to(device).contiguous(memory_format=form)
            result = whole(inputs, labels.to(device))
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
            yield len(labels)


def torchdistill(task: Setting) -> Steps:
    """Torchdistill's distillation box (``pip install torchdistill``), its KD criterion and its data loaders."""
    from torch.utils.data import RandomSampler
    from torchdistill.core.distillation import get_distillation_box

    data = samples(task)
    teacher, student, device = _networks(task, data)
    loader = {"dataset_id": "train", "sampler": {"class_or_func": RandomSampler, "kwargs": {}}}
    criterion = {
        "key": "WeightedSumLoss",
        "kwargs": {
            "sub_terms": {
                "kd": {
                    "criterion": {
                        "key": "KDLoss",
                        "kwargs": {
                            "student_module_path": ".", "student_module_io": "output",
                            "teacher_module_path": ".", "teacher_module_io": "output",
                            "temperature": TEMPERATURE, "alpha": 1 - ALPHA, "reduction": "batchmean",
                        },
                    },
                    "weight": 1.0,
                }
            }
        },
    }  # fmt: skip
    settings = {
        "num_epochs": 1000,
        "train_data_loader": {**loader, "kwargs": {"batch_size": task.batch_size, "drop_last": True}},
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}},
        "criterion": criterion,
    }
    box = get_distillation_box(teacher, student, {"train": Pictures(task, data)}, settings, device, None, False, 1.0)
    epoch = 0
    while True:
        box.pre_epoch_process(epoch=epoch)
        for inputs, labels, extra in box.train_data_loader:
            inputs, labels = inputs.to(device), labels.to(device)
            loss = box.forward_process(inputs, labels, supp_dict=extra)
            box.post_forward_process(loss=loss)
            loss.item()
            yield len(labels)
        epoch += 1


CONTENDERS: dict[str, Callable[[Setting], Steps]] = {
    "bare plain": lambda task: bare(task, REFERENCE),
    "bare channels_last": lambda task: bare(task, Step(kernels=False, fused=False)),
    "bare kernels": lambda task: bare(task, Step()),
    "bare compiled": lambda task: bare(task, Step(compiled=True)),
    "kdbench trial": lambda task: trial(task, Step(captured=True)),
    "kdbench trial compiled": lambda task: trial(task, Step(compiled=True, captured=True)),
    "tutorial loop": tutorial,
    "timm": lambda task: timm_task(task, "contiguous"),
    "timm channels_last": lambda task: timm_task(task, "channels_last"),
    "torchdistill": torchdistill,
}
"""By name; all fp32."""
