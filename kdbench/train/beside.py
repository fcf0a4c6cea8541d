"""What a run has beside its student where the method asks for it: a second network of its kind, a second view."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from kdbench.config import RunConfig
from kdbench.data import Batch, TaskData
from kdbench.data.augment import strengthened
from kdbench.data.samples import key64
from kdbench.errors import BadInput
from kdbench.methods import Method, Taps
from kdbench.models import build
from kdbench.models.reused import Reused
from kdbench.teacher import Teacher

POLICY = "rand-n2-m10-mstd101"
"""Of strong views: two of timm's operations, each at a magnitude drawn evenly from 0 to 10."""
_STRONG = 8
_PEER = 1_000_003
"""Between the seeds of a student and of its peer."""


def averaged(model: nn.Module, decay: float) -> ModelEmaV3:
    """The moving average; its decay warms up, else a short run's would be mostly the start's random weights."""
    return ModelEmaV3(model, decay=decay, use_warmup=True)


def built(config: RunConfig, data: TaskData, seed: int) -> nn.Module:
    """A student's network with weights drawn from ``seed``."""
    return build(
        config.model, classes=data.classes, channels=data.channels, input_size=data.input_size, stem=config.recipe.stem,
        seed=seed, options=config.recipe.model_options,
    )  # fmt: skip


def blank(data: TaskData, device: torch.device | None = None) -> Tensor:
    """One black image, (1, C, S, S)."""
    return torch.zeros(1, data.channels, data.input_size, data.input_size, device=device)


def with_classifier_of(
    teacher: Teacher, method: Method, student: nn.Module, data: TaskData, device: torch.device
) -> nn.Module:
    """The student around the teacher's classifier, or as it is where it already has that.

    Raises:
        BadInput: as ``reusable``.
    """
    if isinstance(student, Reused):
        return student
    seen = teacher.taps(method.asks | {"pooled"}, blank(data, device))
    channels, side, _ = seen.maps[max(seen.maps)]
    return Reused(student, blank(data), reusable(method, seen), channels, side)


def reusable(method: Method, teacher: Taps) -> nn.Linear:
    """The classifier that a student may be given.

    Raises:
        BadInput: a teacher whose classifier is given more than the mean of its last map, or that has none.
    """
    if not teacher.averaged or not isinstance(teacher.head, nn.Linear):
        raise BadInput(f"method '{method.name}' gives the student its teacher's classifier, which must be one linear "
                       "layer on the mean of the last map; name another teacher, or another method")  # fmt: skip
    return teacher.head


def second(config: RunConfig, method: Method, model: nn.Module, data: TaskData) -> nn.Module | None:
    """The network that stands in the teacher's place: the student's moving average, or a peer."""
    if "peer" in method.needs:
        return built(config, data, config.seed + _PEER)
    if "average" not in method.needs:
        return None
    network: nn.Module = averaged(model, config.hyper["decay"])
    return network.requires_grad_(False)


def strong_views(data: TaskData, seed: int, epoch: int) -> Callable[[Batch], Tensor]:
    """Gives a batch's images once more, (B, C, S, S), after ``POLICY``."""
    salt = key64(_STRONG, seed, epoch)
    return lambda batch: strengthened(batch.x, batch.entries, data.train.shown, POLICY, salt)
