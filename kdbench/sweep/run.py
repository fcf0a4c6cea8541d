"""The coordinator: check, plan, prepare the teacher, let workers run, finish."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from kdbench.errors import MachineFault
from kdbench.methods import loss_function
from kdbench.models import build, latency_ms
from kdbench.sweep import manifest
from kdbench.sweep.context import Context, pick_device
from kdbench.sweep.events import View
from kdbench.sweep.machine import limit_threads
from kdbench.sweep.measure import measure_steps, measured_precisions, shape_of, stored_precisions, worker_count
from kdbench.sweep.options import WandbOptions
from kdbench.sweep.plan import lanes
from kdbench.sweep.pool import alone, run_pool
from kdbench.sweep.queue import Queue, open_storage
from kdbench.sweep.store import read_result, trial_folder, write_spec
from kdbench.sweep.types import Sweep
from kdbench.sweep.work import Worker, storage_url
from kdbench.teacher import load_card
from kdbench.tracking import open_trackers
from kdbench.train import finish
from kdbench.train.hardware import describe_hardware


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
    for flag, folder in (("--out", out), ("--cache", cache)):
        if folder.exists() and not folder.is_dir():
            raise MachineFault(f"{flag} {folder} is a file, not a folder: name another place")
    processes = worker_count(workers, chosen)
    sweep_dir = out / sweep.name
    sweep = _resolved(sweep, sweep_dir, cache=cache, device=chosen, weights=teacher_weights, processes=processes)
    context = Context(sweep, cache=cache, device=chosen, teacher_weights=teacher_weights)
    for method in sweep.methods:
        loss_function(method)  # a third party's loss fails now, not after hours of teacher
    _ = context.data, context.teacher  # what is wrong with them is said before anything is written
    _check_weights(context)
    url = storage_url(sweep_dir, storage)
    if storage is not None:
        open_storage(url)  # what is wrong with it is said before anything is written
    sweep_dir.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    with alone(sweep_dir, f"`kdbench worker {sweep_dir.name}` helps it"):
        queue = Queue(open_storage(url), sweep)
        queue.check_spec(next(iter(lanes(sweep))))
        check_results(queue, sweep_dir)
        write_spec(sweep_dir, sweep, storage and manifest.without_password(storage, mark=""))
        manifest.begin(
            sweep_dir,
            sweep,
            command=command,
            device=describe_hardware(chosen),
            threads=torch.get_num_threads(),
            workers=processes,
        )
        project, entity = wandb.project, wandb.entity
        with open_trackers(wandb.mode, root=sweep_dir, project=project, entity=entity, notify=view.note) as trackers:
            worker = Worker(queue, context, sweep_dir, trackers, view)
            _prepare(worker, context, view)
            if processes > 1 and not worker.all_done():
                measure_steps(context, processes)
                run_pool(worker, processes, sweep_dir, storage=url, cache=cache, device=device, wandb=wandb, view=view)
            worker.loop()
        manifest.finish(sweep_dir, _latencies(sweep, context, sweep_dir))
    return sweep_dir


def check_results(queue: Queue, sweep_dir: Path) -> None:
    """Refuse to go on where the storage knows finished runs whose results are not in the folder.

    Raises:
        MachineFault: naming the first of them.
    """
    for lane in lanes(queue.sweep):
        for trial_id in queue.told_ids(lane):
            if read_result(trial_folder(sweep_dir, trial_id)) is None:
                raise MachineFault(
                    f"the storage says that run {trial_id} ({lane.key}) is finished, but {sweep_dir / 'trials'} holds "
                    "no readable result of it: restore that folder, or choose another --name"
                )


def _prepare(worker: Worker, context: Context, view: View) -> None:
    """The teacher, then its passes over all views that the sweep will see, with all cores."""
    teacher = next(iter(lanes(worker.sweep)))
    for lane in lanes(worker.sweep):
        worker.queue.reclaim(lane)
    worker.plan()
    claim = worker.next_claim(only=("teacher",))
    if claim is not None:
        finish(worker.execute(claim))
    if worker.queue.finished(teacher, 1):
        context.card()  # refuses a teacher below its floor at every start
        if not worker.all_done():
            context.fill_bank(view.progress)


def _resolved(
    sweep: Sweep, sweep_dir: Path, *, cache: Path, device: torch.device, weights: str | None, processes: int
) -> Sweep:
    """The spec with measured precisions: the stored ones where the sweep has begun.

    Raises:
        BadInput: when the folder holds another spec, with the difference.
    """
    precisions = stored_precisions(sweep, sweep_dir)
    if precisions is None:
        context = Context(sweep, cache=cache, device=device, teacher_weights=weights)
        precisions = measured_precisions(context, processes)
    return sweep.model_copy(update={"precisions": precisions})


def _check_weights(context: Context) -> None:
    """Given weights are tried before anything is written, unless the teacher is prepared already."""
    if context.sweep.teacher_weights and load_card(context.teacher_folder) is None:
        context.given_teacher()


def _latencies(sweep: Sweep, context: Context, sweep_dir: Path) -> dict[str, float]:
    """Milliseconds for one image, measured once a sweep."""
    known: dict[str, float] = dict(manifest.read_manifest(sweep_dir).get("latency_ms") or {})
    for student in sweep.pair.students:
        if student not in known:
            model = build(student, **shape_of(context, sweep.recipe))
            known[student] = latency_ms(model, context.data.channels, context.data.input_size, context.device)
    return known
