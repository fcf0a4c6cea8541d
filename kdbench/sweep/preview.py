"""The plan of a dry run: runs, parameters, and times measured here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from kdbench.config import Recipe
from kdbench.methods import loss_function
from kdbench.models import build, count_params, members
from kdbench.sweep.context import Context, pick_device
from kdbench.sweep.events import Plan, PlanRow, View
from kdbench.sweep.machine import THREADS_VARIABLE
from kdbench.sweep.measure import (
    measured_precisions,
    roles,
    shape_of,
    stored_precisions,
    threads_set_to,
    worker_count,
)
from kdbench.sweep.plan import lanes, slots, with_precision
from kdbench.sweep.store import rows_of
from kdbench.sweep.types import Sweep
from kdbench.teacher import BankedTeacher, RecordedTeacher, load_card, recorded_bytes, room
from kdbench.teacher.topk import MOST_CLASSES
from kdbench.train import Shape, seconds_per_step
from kdbench.train.hardware import describe_hardware
from kdbench.train.loop import steps_per_epoch

FORWARD_SHARE = 1 / 3
"""Cost of evaluating a sample against training on it: one forward pass of a forward and two backward ones."""

FEW_UPDATES = 100
"""Updates below which a run can hardly have learnt anything."""
FEW_LOGITS = 50
"""What the plan proposes to keep of many classes' logits, where all of them need too much disk."""


def plan_sweep(
    sweep: Sweep,
    *,
    out: Path,
    cache: Path,
    storage: str | None,
    workers: int | Literal["auto"],
    device: str,
    teacher_weights: str | None,
    view: View,
) -> Plan:
    """What ``run_sweep`` would do, with times measured here on a few steps of each network. Writes nothing."""
    chosen = pick_device(device)
    sweep_dir = out / sweep.name
    processes = worker_count(workers, chosen)
    context = Context(sweep, cache=cache, device=chosen, teacher_weights=teacher_weights)
    for method in sweep.methods:
        loss_function(method)
    _ = context.teacher  # what is wrong with it is said before anything is measured
    held = stored_precisions(sweep, sweep_dir)
    precisions = measured_precisions(context, processes, remember=False) if held is None else held
    sweep = sweep.model_copy(update={"precisions": precisions})
    context = Context(sweep, cache=cache, device=chosen, teacher_weights=teacher_weights)
    cached = load_card(context.teacher_folder) is not None
    return Plan(
        name=sweep.name,
        folder=str(sweep_dir),
        hardware=describe_hardware(chosen),
        rows=_rows(context, _seconds(context, processes, view), _done(sweep_dir), cached),
        workers=processes,
        notes=_notes(context, cached),
    )


def _done(sweep_dir: Path) -> dict[tuple[str, str, str], int]:
    """Finished runs by (phase, network, method)."""
    done: dict[tuple[str, str, str], int] = {}
    for row in rows_of(sweep_dir) if (sweep_dir / "sweep.json").exists() else []:
        key = (row["phase"], row["student"], row["method"])
        done[key] = done.get(key, 0) + 1
    return done


def _seconds(context: Context, processes: int, view: View) -> dict[str, float]:
    """Measured seconds an epoch of each network."""
    seconds: dict[str, float] = {}
    planned = roles(context.sweep, processes)
    for k, (model, recipe, threads) in enumerate(planned):
        view.progress("measuring a few steps of each network", k, len(planned))
        with threads_set_to(threads):
            seconds[model] = _seconds_per_epoch(context, model, with_precision(context.sweep, model, recipe))
    return seconds


def _seconds_per_epoch(context: Context, model: str, recipe: Recipe) -> float:
    """Training steps and one validation pass."""
    shape = Shape(model, **shape_of(context, recipe), batch_size=recipe.batch_size, device=context.device)
    step = seconds_per_step(shape, precision=recipe.precision)
    steps = steps_per_epoch(len(context.data.train), recipe.batch_size)
    return step * (steps + len(context.data.val) / recipe.batch_size * FORWARD_SHARE)


def _rows(
    context: Context, seconds: dict[str, float], done: dict[tuple[str, str, str], int], cached: bool
) -> tuple[PlanRow, ...]:
    sweep, rows = context.sweep, []
    given = sweep.teacher_weights or ""
    for lane in lanes(sweep):
        teacher = lane.phase == "teacher"
        recipe = sweep.teacher_recipe if teacher else sweep.recipe
        runs = 1 if teacher else slots(sweep, lane)
        have = min(runs, done.get((lane.phase, lane.model, lane.method), 0))
        epochs = 0 if teacher and given else recipe.epochs
        together = len(members(given)) if teacher else 1
        left = (runs - have) * epochs * seconds[lane.model]
        if teacher:
            left = (0.0 if cached else left) + context.passes * together * seconds[lane.model] * FORWARD_SHARE
        rows.append(
            PlanRow(
                phase=lane.phase,
                model=lane.model,
                method=lane.method,
                runs=runs,
                done=have,
                epochs=epochs,
                params=together * count_params(build(lane.model, **shape_of(context, recipe))),
                seconds=left,
            )
        )
    return tuple(rows)


def _notes(context: Context, cached: bool) -> tuple[str, ...]:
    notes = [f"the teacher is in the cache: {context.teacher_folder}"] if cached else []
    notes.append(_data_note(context))
    notes.append(teacher_note(context))
    if os.environ.get(THREADS_VARIABLE):
        notes.append(f"threads limited to {os.environ[THREADS_VARIABLE]} by {THREADS_VARIABLE}")
    return tuple(notes)


def teacher_note(context: Context) -> str:
    """Where trials will get the teacher's logits, how many passes and how much disk that takes."""
    train, teacher = context.data.train, context.teacher
    passes = f"at most {context.passes} passes of the teacher over {len(train):,} samples"
    if isinstance(teacher, BankedTeacher):
        size = teacher.key(train, plain=False).bytes / 2**20
        return f"teacher bank: {passes} serve every trial; {size:,.0f} MiB on disk ({train.n_views} views a sample)"
    classes, kept = context.data.classes, context.sweep.recipe.teacher_top_k
    size = recorded_bytes(train, classes, context.passes, kept) / 2**20
    why = "the augmentation is continuous" if train.n_views is None else "the images are too large for memory"
    if isinstance(teacher, RecordedTeacher):
        return f"{why}: {passes}, recorded by (seed, epoch, sample), serve trials of the same seed; {size:,.0f} MiB"
    less = recorded_bytes(train, classes, context.passes, FEW_LOGITS)
    fits = FEW_LOGITS < classes <= MOST_CLASSES and less <= room(context.teacher_folder)
    way_out = f"; --set recipe.teacher-top-k={FEW_LOGITS} would take {less / 2**20:,.0f} MiB" if fits else ""
    return f"{why} and recorded logits would take {size:,.0f} MiB: the teacher runs live in every step{way_out}"


def _data_note(context: Context) -> str:
    """Images a split, their size, and updates a run: what tells a data set too small for its recipe."""
    data, recipe = context.data, context.sweep.recipe
    updates = recipe.epochs * steps_per_epoch(len(data.train), recipe.batch_size)
    text = f"data: {len(data.train):,} training and {len(data.val):,} validation images at {data.input_size} px"
    few = "; few: more --epochs or a smaller --batch-size would help" if updates < FEW_UPDATES else ""
    return f"{text}, {updates:,} updates a student's run{few}"
