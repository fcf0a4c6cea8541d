"""A prepared teacher's predictions on the validation split, for pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdbench.config import RunResult
from kdbench.errors import KdbenchError
from kdbench.host import default_cache
from kdbench.run.devices import pick_device
from kdbench.run.events import Epoch, Event, Note, Setting
from kdbench.run.job import Job
from kdbench.run.launch import default_threads
from kdbench.run.machine import limit_threads
from kdbench.run.observers import Observer
from kdbench.run.store import read_result, run_folder
from kdbench.run.worker import Context
from kdbench.sweeps.plan import SweepPlan
from kdbench.sweeps.run import resolved
from kdbench.sweeps.types import Sweep


class Predictions(NamedTuple):
    """What a teacher predicts on the validation split, and the images picked from it."""

    logits: NDArray[np.float64]
    """(n, classes)."""
    images: NDArray[np.uint8]
    """(len(shown), H, W) grey or (len(shown), H, W, 3)."""
    shown: list[int]
    """Rows of ``logits`` that ``images`` are of."""
    teacher: RunResult
    """Whose they are."""


def teacher_on_validation(
    sweep: Sweep, pick: Callable[[NDArray[np.float64], NDArray[np.int64]], list[int]], observer: Observer
) -> Predictions:
    """Prepare the sweep's teacher (from the cache, or by training it) and ask it about the validation split.

    Raises:
        KdbenchError: a teacher below its floor, or one that gets no sample right.
    """
    limit_threads()
    device = pick_device("auto")
    with tempfile.TemporaryDirectory() as aside:
        sweep = resolved(sweep, Path(aside) / "none", device)
        threads = default_threads()
        setting = Setting(
            folder=Path(aside), cache=default_cache(), device=str(device), threads=threads, cores=threads
        )  # fmt: skip
        plan, context = SweepPlan(sweep), Context(setting, "explain")

        def tell(event: Event) -> bool:
            if isinstance(event, Epoch):
                observer.epoch(plan.teacher, event.log)
            elif isinstance(event, Note):
                observer.message(event.text, event.done, event.total)
            return False

        job = Job(plan.teacher, keep=frozenset({"weights"}))
        context.execute(job, tell)
        result = read_result(run_folder(setting.folder, plan.teacher.id))
        assert result is not None
        plan.ended(job, result)
        data = context.data(plan.teacher)
        logits = context.teacher(plan.teacher, plan.teacher, data).plain(data.val).double().cpu().numpy()
    shown = pick(logits, data.val.labels.cpu().numpy())
    if not shown:
        raise KdbenchError(f"the teacher {sweep.pair.teacher} gets no validation image of '{sweep.data.name}' right")
    pixels = np.concatenate([batch.x.cpu().numpy() for batch in data.val.plain()])[shown].transpose(0, 2, 3, 1)
    low, high = pixels.min(axis=(1, 2, 3), keepdims=True), pixels.max(axis=(1, 2, 3), keepdims=True)
    images = (255 * (pixels - low) / np.maximum(high - low, 1e-9)).astype(np.uint8)
    return Predictions(logits, images[..., 0] if images.shape[3] == 1 else images, shown, result)
