"""Optimiser and learning-rate schedule of a recipe, through timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from kdbench.config import Recipe
from kdbench.data.augment import Drawn
from kdbench.data.samples import Fit
from kdbench.data.views import Look, augment_of
from kdbench.errors import BadInput, unknown

FUSED = ("sgd", "adamw")
"""Optimisers whose update PyTorch has as one pass, which a CUDA graph can hold."""
FLOOR = 1e-3
"""Warm-up starts at this share of the peak rate, and the cosine ends there, unless the recipe says where."""


def make_optimizer(
    model: nn.Module, recipe: Recipe, *, fused: bool = False, part: nn.Module | None = None, delta: float | None = None
) -> torch.optim.Optimizer:
    """SGD (weight decay on every parameter, as the CIFAR papers do) or another of timm's (norms and biases exempt).

    ``fused`` computes the same update in one pass. ``part`` is what else is trained: a method's own parameters.
    ``delta``: of ``TwoMomenta``.

    Raises:
        BadInput: an optimiser that timm does not know, or a recipe that leaves no room for two momenta.
    """
    if delta is not None:
        check_momenta(recipe, delta)
        return TwoMomenta([*model.parameters(), *(part or nn.Module()).parameters()], recipe, delta)
    own, known = recipe.optimizer != "sgd", list_optimizers()
    if recipe.optimizer not in known:
        raise unknown("optimizer", recipe.optimizer, known, "any name of timm.optim.list_optimizers() will do")
    name = recipe.optimizer if own else ("sgd" if recipe.nesterov and recipe.momentum else "momentum")
    more: dict[str, Any] = {"fused": True} if fused and recipe.optimizer in FUSED else {}
    both: list[torch.optim.Optimizer] = [
        create_optimizer_v2(
            of, opt=name, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum,
            filter_bias_and_bn=own, layer_decay=recipe.layer_decay if of is model else None, **more,
        )
        for of in (model, part) if of is not None and any(weight.requires_grad for weight in of.parameters())
    ]  # fmt: skip
    for group in (group for other in both[1:] for group in other.param_groups):
        both[0].add_param_group({"params": group["params"], "weight_decay": group["weight_decay"]})
        for weight in group["params"] if recipe.optimizer == "sgd" and recipe.momentum else ():
            # a step may leave some of the part out, and the fused update wants every momentum or none
            both[0].state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return both[0]


class TwoMomenta(torch.optim.SGD):
    """SGD whose gradients of the labels and of the teacher have a momentum each (DOT, Zhao et al. 2023, ICCV, eq. 8).

    v_task <- (momentum - delta) v_task + g_task + decay w; v_soft <- (momentum + delta) v_soft + g_soft;
    w <- w - lr (v_task + v_soft); no look-ahead of Nesterov's, whatever the recipe says.
    """

    def __init__(self, weights: list[nn.Parameter], recipe: Recipe, delta: float) -> None:
        super().__init__([weight for weight in weights if weight.requires_grad], lr=recipe.lr)
        self._clip = recipe.clip_grad
        self._task, self._soft, self._decay = recipe.momentum - delta, recipe.momentum + delta, recipe.weight_decay

    def learn(self, task: torch.Tensor, soft: torch.Tensor) -> None:
        """The gradients of both parts of the loss: the first into ``grad``, the second into its momentum.

        They are clipped together, by the norm of their sum.
        """
        weights = self.param_groups[0]["params"]
        softs, tasks = (
            torch.autograd.grad(term, weights, retain_graph=term is soft, allow_unused=True, materialize_grads=True)
            for term in (soft, task)
        )
        factor = torch.ones((), device=weights[0].device)
        if self._clip is not None:
            norm = nn.utils.get_total_norm([a + b for a, b in zip(softs, tasks, strict=True)])
            factor = (self._clip / (norm + 1e-6)).clamp(max=1)
        for weight, grad, own in zip(weights, softs, tasks, strict=True):
            held = self.state[weight]
            held["soft"] = held.get("soft", torch.zeros_like(weight)).mul_(self._soft).add_(grad * factor)
            weight.grad = own * factor

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """An update by both momenta."""
        for weight in self.param_groups[0]["params"]:
            held, grad = self.state[weight], 0 if weight.grad is None else weight.grad
            held["task"] = held.get("task", torch.zeros_like(weight)).mul_(self._task).add_(grad)
            weight.grad = held["task"].add_(weight, alpha=self._decay) + held["soft"]
        super().step()


def check_momenta(recipe: Recipe, delta: float) -> None:
    """Refuse, as BadInput, recipes that leave no room for two momenta."""
    why = ""
    if recipe.optimizer != "sgd":
        why = f"recipe.optimizer={recipe.optimizer}"
    elif recipe.accumulate > 1:
        why = f"recipe.accumulate={recipe.accumulate}"
    elif not delta <= recipe.momentum < 1 - delta:
        why = f"delta={delta:g} beside recipe.momentum={recipe.momentum:g}"
    if why:
        raise BadInput(f"dot trains by SGD, a batch a step, momentum - delta and momentum + delta in [0, 1): not {why}")


def frozen(model: nn.Module, groups: int) -> set[str]:
    """Names of the parameters in the first ``groups`` groups of layers (timm's coarse ones).

    Raises:
        BadInput: a network whose groups timm does not know, or that has no more than these.
    """
    if not callable(matcher := getattr(model, "group_matcher", None)):
        raise BadInput(f"recipe.freeze={groups}: {type(model).__name__} does not say which layers belong together")
    found = list(group_parameters(model, matcher(coarse=True)).values())
    if groups >= len(found):
        raise BadInput(
            f"recipe.freeze={groups}: {type(model).__name__} has {len(found)} groups of layers, the last its "
            f"classifier: freeze at most {len(found) - 1}"
        )
    return {name for group in found[:groups] for name in group}


def hold(model: nn.Module, groups: int) -> list[nn.Module]:
    """Take ``frozen`` parameters out of training; the modules to keep in eval mode."""
    names = frozen(model, groups)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in names)
    return [
        module for path, module in model.named_modules()
        if (own := {f"{path}.{name}" for name, _ in module.named_parameters()}) and own <= names
    ]  # fmt: skip


def check_recipe(recipe: Recipe) -> None:
    """Refuse, before anything is trained, an optimiser or an augmentation that timm does not have.

    Raises:
        BadInput: naming it.
    """
    layer, look = nn.Linear(2, 2), Look(32, (0.5,) * 3, (0.5,) * 3)
    optimizer = make_optimizer(layer, recipe)
    try:
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    except RuntimeError as error:
        raise BadInput(f"recipe.optimizer={recipe.optimizer}: not by a plain step: {str(error)[:80]}") from error
    Drawn(Fit(32, 3, "resize"), augment_of(recipe, flip=False), look, 0, None)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> Scheduler:
    """A timm schedule stepped per update: ``step_update(n)`` sets the rate of update n, whatever came before."""
    total = recipe.epochs * steps_per_epoch
    # a warm-up as long as the run would leave the main schedule without a step
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), max(total - 1, 0))
    low, first = (recipe.lr * FLOOR if rate is None else rate for rate in (recipe.min_lr, recipe.warmup_lr))
    shared = {"warmup_t": warmup, "warmup_lr_init": first, "t_in_epochs": False}
    if recipe.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=max(total - warmup, 1), lr_min=low, warmup_prefix=True, **shared)
    # timm applies a milestone at update m - 1; epoch m's last update still has the rate of epoch m
    milestones = [m * steps_per_epoch + 1 for m in sorted(recipe.milestones)] if recipe.schedule == "step" else []
    return MultiStepLRScheduler(optimizer, decay_t=milestones, decay_rate=recipe.gamma, warmup_prefix=False, **shared)


def max_norm_constraint(model: nn.Module, limit: float | None) -> Callable[[], None]:
    """What to call after a step: shrinks the incoming weights of units whose L2 norm exceeds a ``limit``.

    The network names the weights, (units, inputs) each, by ``max_norm_weights`` (Hinton et al. 2012, arXiv:1207.0580).

    Raises:
        BadInput: a network that does not say which weights are meant.
    """
    if limit is None:
        return lambda: None
    if not callable(named := getattr(model, "max_norm_weights", None)):
        raise BadInput(f"recipe.max-norm={limit:g}: {type(model).__name__} does not say which weights it is about")
    weights: tuple[torch.Tensor, ...] = named()

    @torch.no_grad()
    def constrain() -> None:
        for weight in weights:
            norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
            weight.mul_(limit / norms.clamp_min(limit))

    return constrain
