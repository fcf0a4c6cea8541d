"""Names of losses to functions, third parties' included."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch
from torch import Tensor

from kdbench.catalog.methods import METHODS
from kdbench.errors import BadInput, unknown
from kdbench.methods.base import Loss, LossFunction, hard
from kdbench.methods.dist import dist
from kdbench.methods.dkd import dkd
from kdbench.methods.kd import kd, kd_ls

EXAMPLE = "loss(student, teacher, targets, hyper, *, label_smoothing=0.0, epoch=1) -> kdbench.methods.Loss or a scalar"
GROUP = "kdbench.losses"
_BUILTIN: dict[str, LossFunction] = {"hard": hard, "kd": kd, "kd-ls": kd_ls, "dkd": dkd, "dist": dist}


def loss_function(name: str) -> LossFunction:
    """The loss called ``name``: built in, or an entry point of the group ``kdbench.losses``.

    Raises:
        BadInput: when no loss has that name.
    """
    if name in _BUILTIN:
        return _BUILTIN[name]
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name in points:
        return _checked(name, points[name])
    if name in METHODS:
        raise BadInput(f"the method '{name}' has no loss: register an entry point named '{name}' in the group {GROUP}")
    raise unknown("method", name, [*_BUILTIN, *points], "`kdbench ls methods` lists them")


@lru_cache
def _checked(name: str, point: EntryPoint) -> LossFunction:
    """A third party's loss, tried once on made-up logits before anything is trained; a bare scalar becomes a ``Loss``.

    Raises:
        BadInput: naming the entry point and what it did.
    """
    where = f"the loss '{name}' (entry point {point.value})"
    try:
        given: Any = point.load()
    except (ImportError, AttributeError) as error:
        raise BadInput(f"{where} cannot be loaded: {error}") from error

    def loss(
        student: Tensor,
        teacher: Tensor | None,
        targets: Tensor,
        hyper: Mapping[str, float],
        *,
        label_smoothing: float = 0.0,
        epoch: int = 1,
    ) -> Loss:
        found = given(student, teacher, targets, hyper, label_smoothing=label_smoothing, epoch=epoch)
        return Loss(found, {}) if isinstance(found, Tensor) else found

    spec = METHODS.get(name)
    middle = {key: (dim.choices or (dim.low,))[0] or 1.0 for key, dim in spec.space.items()}
    logits = torch.linspace(-1, 1, 12).view(4, 3)
    try:
        tried = loss(logits, logits.flip(1), torch.tensor([0, 1, 2, 0]), {**spec.fixed, **middle})
        whole = isinstance(tried, Loss) and tried.total.ndim == 0
    except Exception as error:
        raise BadInput(f"{where} fails on a batch of logits: {error}; it is called as {EXAMPLE}") from error
    if not whole:
        raise BadInput(f"{where} returns {tried!r:.60}: it is called as {EXAMPLE}")
    return loss
