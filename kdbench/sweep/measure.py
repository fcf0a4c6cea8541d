"""What is measured of this machine before a sweep is planned: processes, threads, precisions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch

from kdbench.config import Recipe
from kdbench.errors import BadInput
from kdbench.sweep.context import Context
from kdbench.sweep.machine import cores, threads_each
from kdbench.sweep.plan import with_precision
from kdbench.sweep.spec import spec_difference
from kdbench.sweep.store import read_spec
from kdbench.sweep.types import Sweep
from kdbench.train import Shape, choose_precision


def worker_count(asked: int | Literal["auto"], device: torch.device) -> int:
    """``auto``: one-thread processes, one a core and at most four, train small students faster than threads do;
    on a GPU one process. ``KDBENCH_THREADS`` bounds the cores counted.
    """
    if asked != "auto":
        return asked
    if device.type != "cpu":
        return 1
    return max(1, min(4, cores()))


def measured_precisions(
    context: Context, processes: int, *, remember: bool = True
) -> dict[str, Literal["fp32", "bf16"]]:
    """Measured where a recipe says ``auto``: each network with the threads that it will be trained with."""
    measured: dict[str, Literal["fp32", "bf16"]] = {}
    for model, recipe, threads in roles(context.sweep, processes):
        if recipe.precision == "auto":
            with threads_set_to(threads):
                shape = Shape(model, **shape_of(context, recipe), batch_size=recipe.batch_size, device=context.device)
                measured[model] = choose_precision(shape, cache=context.cache, remember=remember)
    return measured


def stored_precisions(sweep: Sweep, sweep_dir: Path) -> dict[str, Literal["fp32", "bf16"]] | None:
    """What was measured when the sweep in ``sweep_dir`` began; None where none has begun.

    Raises:
        BadInput: when the folder holds another sweep, with the difference.
    """
    if not (sweep_dir / "sweep.json").exists():
        return None
    stored, _ = read_spec(sweep_dir)
    asked = sweep.model_copy(update={"precisions": stored.precisions})
    elsewhere = {"data_path": asked.data_path, "teacher_floor": asked.teacher_floor}
    difference = spec_difference(stored.model_copy(update=elsewhere), asked)
    if difference:
        free = next(name for k in count(2) if not (sweep_dir.parent / (name := f"{sweep.name}-{k}")).exists())
        raise BadInput(
            f"'{sweep.name}' in {sweep_dir.parent} holds another sweep; add `--name {free}`, or ask for the same:\n  "
            + "\n  ".join(difference)
        )
    return stored.precisions


def measure_steps(context: Context, processes: int) -> None:
    """Choose each student's step now, with nothing else running, for the workers to find in the cache."""
    for model, recipe, threads in roles(context.sweep, processes)[1:]:
        with threads_set_to(threads):
            context.step(model, with_precision(context.sweep, model, recipe))


def roles(sweep: Sweep, processes: int) -> list[tuple[str, Recipe, int]]:
    """(network, recipe, threads) of the teacher and every student: the teacher has the machine for itself."""
    share = threads_each(processes) if processes > 1 else torch.get_num_threads()
    teacher = (sweep.pair.teacher, sweep.teacher_recipe, torch.get_num_threads())
    return [teacher, *((student, sweep.recipe, share) for student in sweep.pair.students)]


@contextmanager
def threads_set_to(count: int) -> Iterator[None]:
    """Torch with another number of threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shape_of(context: Context, recipe: Recipe) -> dict[str, Any]:
    """What ``build`` needs to know of a network beside its name."""
    data = context.data
    return {"classes": data.classes, "channels": data.channels, "input_size": data.input_size, "stem": recipe.stem}
