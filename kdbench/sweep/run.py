"""The coordinator: check, plan, prepare the teacher, let workers run, finish. And the plan of a dry run."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import torch

from kdbench.engine import choose_precision, seconds_per_step
from kdbench.engine.run import describe_hardware, steps_per_epoch
from kdbench.errors import BadInput
from kdbench.models import build, count_params, latency_ms
from kdbench.schema import Recipe, Sweep
from kdbench.sweep import manifest
from kdbench.sweep.context import Context, pick_device
from kdbench.sweep.events import Plan, PlanRow, View
from kdbench.sweep.options import WandbOptions
from kdbench.sweep.plan import lanes, slots, teacher_config, with_precision
from kdbench.sweep.pool import run_pool
from kdbench.sweep.queue import Queue, open_storage
from kdbench.sweep.spec import spec_difference
from kdbench.sweep.store import read_spec, read_status, write_spec
from kdbench.sweep.work import Worker, limit_threads, storage_url
from kdbench.teacher import load_card
from kdbench.track import make_tracker


def run_sweep(
    sweep: Sweep,
    *,
    out: Path,
    cache: Path,
    storage: str | None,
    workers: int | Literal["auto"],
    device: str,
    wandb: WandbOptions,
    teacher_weights: str | None,
    view: View,
    command: str,
) -> Path:
    """Run a sweep to its end, or go on with it; returns its folder, ``<out>/<name>``.

    Raises:
        BadInput: the name holds another spec, the data or the device is not there.
        KdbenchError: a teacher below its floor.
        MachineFault: a folder or storage that cannot be written.
    """
    chosen = pick_device(device)
    limit_threads()
    processes = worker_count(workers, chosen)
    sweep_dir = out / sweep.name
    sweep = _resolved(sweep, sweep_dir, cache=cache, device=chosen, weights=teacher_weights)
    context = Context(sweep, cache=cache, device=chosen, teacher_weights=teacher_weights)
    _ = context.data  # what is wrong with the data is said before anything is written
    _check_weights(context)
    url = storage_url(sweep_dir, storage)
    if storage is not None:
        open_storage(url)
    sweep_dir.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    queue = Queue(open_storage(url), sweep)
    queue.check_spec(next(iter(lanes(sweep))))
    write_spec(sweep_dir, sweep, _without_password(storage))
    manifest.begin(
        sweep_dir,
        sweep,
        command=command,
        device=describe_hardware(chosen),
        threads=torch.get_num_threads(),
        workers=processes,
    )
    tracker = make_tracker(wandb.mode, root=sweep_dir, project=wandb.project, entity=wandb.entity, notify=view.note)
    with closing(tracker):
        worker = Worker(queue, context, sweep_dir, tracker, view)
        _prepare(worker, context, view)
        if processes > 1 and not worker.all_done():
            run_pool(worker, processes, sweep_dir, storage=url, cache=cache, device=device, wandb=wandb, view=view)
        worker.loop()
    manifest.finish(sweep_dir, _latencies(sweep, context, sweep_dir))
    return sweep_dir


def worker_count(asked: int | Literal["auto"], device: torch.device) -> int:
    """``auto``: one-thread processes, one a core and at most four, train small students faster than threads do;
    on a GPU one process. ``KDBENCH_THREADS`` bounds the cores counted."""
    if asked != "auto":
        return asked
    if device.type != "cpu":
        return 1
    return max(1, min(4, int(os.environ.get("KDBENCH_THREADS") or os.cpu_count() or 1)))


def _prepare(worker: Worker, context: Context, view: View) -> None:
    """The teacher, then its passes over all views that the sweep will see, with all cores."""
    teacher = next(iter(lanes(worker.sweep)))
    for lane in lanes(worker.sweep):
        worker.queue.reclaim(lane)
    worker.plan()
    claim = worker.next_claim(only=("teacher",))
    if claim is not None:
        worker.execute(claim)
    if worker.queue.finished(teacher, 1):
        context.card()  # refuses a teacher below its floor at every start
        if not worker.all_done():
            context.fill_bank(view.progress)


def _resolved(sweep: Sweep, sweep_dir: Path, *, cache: Path, device: torch.device, weights: str | None) -> Sweep:
    """The spec with measured precisions: the stored ones where the sweep has begun.

    Raises:
        BadInput: when the folder holds another spec, with the difference.
    """
    if (sweep_dir / "sweep.json").exists():
        stored, _ = read_spec(sweep_dir)
        asked = sweep.model_copy(update={"precisions": stored.precisions})
        difference = spec_difference(stored.model_copy(update={"data_path": asked.data_path}), asked)
        if difference:
            raise BadInput(
                f"'{sweep.name}' in {sweep_dir.parent} holds another sweep; choose another --name, or ask for the "
                "same:\n  " + "\n  ".join(difference)
            )
        return asked
    context = Context(sweep, cache=cache, device=device, teacher_weights=weights)
    measured = {}
    for model, recipe in [
        (sweep.pair.teacher, sweep.teacher_recipe),
        *((s, sweep.recipe) for s in sweep.pair.students),
    ]:
        if recipe.precision == "auto":
            measured[model] = choose_precision(
                model,
                cache=cache,
                classes=context.data.classes,
                channels=context.data.channels,
                input_size=context.data.input_size,
                stem=recipe.stem,
                batch_size=recipe.batch_size,
                device=device,
            )
    return sweep.model_copy(update={"precisions": measured})


def _check_weights(context: Context) -> None:
    """Given weights are tried before anything is written, unless the teacher is prepared already."""
    if context.sweep.teacher_weights and load_card(context.teacher_folder) is None:
        context.given_teacher()


def _without_password(url: str | None) -> str | None:
    """A storage URL as it may be written to a file."""
    if url is None:
        return None
    from sqlalchemy.engine import make_url

    return make_url(url).set(password=None).render_as_string()


def _latencies(sweep: Sweep, context: Context, sweep_dir: Path) -> dict[str, float]:
    """Milliseconds for one image, measured once a sweep."""
    known: dict[str, float] = dict(manifest.read_manifest(sweep_dir).get("latency_ms") or {})
    for student in sweep.pair.students:
        if student not in known:
            model = build(student, **_shape(context, sweep.recipe))
            known[student] = latency_ms(model, context.data.channels, context.data.input_size, context.device)
    return known


def _shape(context: Context, recipe: Recipe) -> dict[str, Any]:
    data = context.data
    return {"classes": data.classes, "channels": data.channels, "input_size": data.input_size, "stem": recipe.stem}


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
    done: dict[str, int] = {}
    if (sweep_dir / "sweep.json").exists():
        status = read_status(sweep_dir)["phases"]
        done = {phase: sum(v for k, v in counts.items() if k != "planned") for phase, counts in status.items()}
        stored, _ = read_spec(sweep_dir)
        sweep = sweep.model_copy(update={"precisions": stored.precisions})
    context = Context(sweep, cache=cache, device=chosen, teacher_weights=teacher_weights)
    card = load_card(context.teacher_folder) if teacher_config(sweep).recipe.precision != "auto" else None
    seconds: dict[str, float] = {}
    models = (sweep.pair.teacher, *sweep.pair.students)
    for k, model in enumerate(models):
        view.progress("measuring a few steps of each network", k, len(models))
        recipe = sweep.teacher_recipe if model == sweep.pair.teacher else sweep.recipe
        seconds[model] = _seconds_per_epoch(context, model, with_precision(sweep, model, recipe))
    rows = []
    for lane in lanes(sweep):
        role = sweep.teacher_recipe if lane.phase == "teacher" else sweep.recipe
        runs = 1 if lane.phase == "teacher" else slots(sweep, lane)
        have = min(runs, done.get(lane.phase, 0))
        done[lane.phase] = done.get(lane.phase, 0) - have
        if lane.phase == "teacher" and card is not None:
            have = 1
        rows.append(
            PlanRow(
                phase=lane.phase,
                model=lane.model,
                method=lane.method,
                runs=runs,
                done=have,
                epochs=role.epochs,
                params=count_params(build(lane.model, **_shape(context, role))),
                seconds=(runs - have) * role.epochs * seconds[lane.model],
            )
        )
    return Plan(
        name=sweep.name,
        folder=str(sweep_dir),
        hardware=describe_hardware(chosen),
        rows=tuple(rows),
        workers=worker_count(workers, chosen),
        notes=_notes(context, card is not None),
    )


def _seconds_per_epoch(context: Context, model: str, recipe: Recipe) -> float:
    """Training steps and one validation pass."""
    shape = {**_shape(context, recipe), "batch_size": recipe.batch_size, "device": context.device}
    precision = "fp32" if recipe.precision == "auto" else recipe.precision
    step = seconds_per_step(model, precision=precision, **shape)
    steps = steps_per_epoch(len(context.data.train), recipe.batch_size)
    return step * (steps + len(context.data.val) / recipe.batch_size / 3)


def _notes(context: Context, cached: bool) -> tuple[str, ...]:
    data, sweep = context.data, context.sweep
    notes = [f"the teacher is in the cache: {context.teacher_folder}"] if cached else []
    if data.train.n_views is None:
        notes.append("the augmentation is continuous: the teacher runs live in every step")
    else:
        passes = sweep.recipe.epochs * (1 + sweep.budget.seeds)
        full = len(data.train) * data.train.n_views * (2 * data.classes + 4) / 2**20
        notes.append(
            f"teacher bank: at most {min(passes, data.train.n_views)} passes of the teacher over {len(data.train):,} "
            f"samples serve every trial; {full:,.0f} MiB on disk when full ({data.train.n_views} views a sample)"
        )
    if os.environ.get("KDBENCH_THREADS"):
        notes.append(f"threads limited to {os.environ['KDBENCH_THREADS']} by KDBENCH_THREADS")
    return tuple(notes)
