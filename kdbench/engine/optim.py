"""Optimiser and learning-rate schedule of a recipe, through timm."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from kdbench.schema import Recipe

FLOOR = 1e-3
"""Warm-up starts at this share of the peak rate, and the cosine ends there."""


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD (weight decay on every parameter, as the CIFAR papers do) or AdamW (norms and biases exempt)."""
    name = "adamw" if recipe.optimizer == "adamw" else ("sgd" if recipe.nesterov and recipe.momentum else "momentum")
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt=name,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        filter_bias_and_bn=recipe.optimizer == "adamw",
    )
    return optimizer


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> Scheduler:
    """A timm schedule stepped per update: ``step_update(n)`` sets the rate of update n, whatever came before."""
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    total = recipe.epochs * steps_per_epoch
    # a warm-up as long as the run would leave the main schedule without a step
    warmup = min(warmup, max(total - 1, 0))
    shared = {"warmup_t": warmup, "warmup_lr_init": recipe.lr * FLOOR, "t_in_epochs": False}
    if recipe.schedule == "cosine":
        return CosineLRScheduler(
            optimizer, t_initial=max(total - warmup, 1), lr_min=recipe.lr * FLOOR, warmup_prefix=True, **shared
        )
    # timm applies a milestone at update m - 1; epoch m's last update still has the rate of epoch m
    milestones = [m * steps_per_epoch + 1 for m in sorted(recipe.milestones)] if recipe.schedule == "step" else []
    return MultiStepLRScheduler(optimizer, decay_t=milestones, decay_rate=recipe.gamma, warmup_prefix=False, **shared)
