"""A prepared teacher's words on the validation split, for pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdbench.config import EpochLog
from kdbench.errors import KdbenchError
from kdbench.sweep.context import Context, pick_device
from kdbench.sweep.events import View, epoch_event
from kdbench.sweep.machine import limit_threads
from kdbench.sweep.measure import measured_precisions
from kdbench.sweep.options import default_cache
from kdbench.sweep.types import Sweep
from kdbench.teacher import TeacherCard
from kdbench.train import Hooks


class Words(NamedTuple):
    """What a teacher says of the validation split, and the images picked from it."""

    logits: NDArray[np.float64]
    """(n, classes)."""
    images: NDArray[np.uint8]
    """(len(shown), H, W) grey or (len(shown), H, W, 3)."""
    shown: list[int]
    """Rows of ``logits`` that ``images`` are of."""
    teacher: TeacherCard
    """Who spoke."""


def teacher_on_validation(
    sweep: Sweep, pick: Callable[[NDArray[np.float64], NDArray[np.int64]], list[int]], view: View
) -> Words:
    """Prepare the sweep's teacher (from the cache, or by training it) and ask it about the validation split.

    Raises:
        KdbenchError: a teacher below its floor, or one that gets no sample right.
    """
    limit_threads()
    device = pick_device("auto")
    context = Context(sweep, cache=default_cache(), device=device)
    sweep = sweep.model_copy(update={"precisions": measured_precisions(context, 1)})
    context = Context(sweep, cache=default_cache(), device=device)

    def on_epoch(log: EpochLog, replayed: bool) -> bool:
        view.epoch(epoch_event(context.teacher_config, log))
        return False

    card, _ = context.prepare_teacher(Hooks(on_epoch=on_epoch))
    split = context.data.val
    logits = context.teacher.plain(split).double().cpu().numpy()
    shown = pick(logits, split.labels.cpu().numpy())
    if not shown:
        raise KdbenchError(f"the teacher {sweep.pair.teacher} gets no validation image of '{sweep.data.name}' right")
    pixels = np.concatenate([batch.x.cpu().numpy() for batch in split.plain()])[shown].transpose(0, 2, 3, 1)
    low, high = pixels.min(axis=(1, 2, 3), keepdims=True), pixels.max(axis=(1, 2, 3), keepdims=True)
    images = (255 * (pixels - low) / np.maximum(high - low, 1e-9)).astype(np.uint8)
    return Words(logits, images[..., 0] if images.shape[3] == 1 else images, shown, card)
