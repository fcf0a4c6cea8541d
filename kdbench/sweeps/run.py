"""A sweep, run: what is asked is checked before anything is written, then the plan goes to the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdbench.catalog.shifts import parts_of
from kdbench.catalog.teachers import chain_of, networks_of
from kdbench.catalog.types import DatasetSpec
from kdbench.config import Recipe
from kdbench.data import resolve_dataset
from kdbench.data.task import check_parts, network_shape
from kdbench.data.views import augment_for
from kdbench.errors import BadInput, KdbenchError, NameTaken
from kdbench.methods import METHODS, Method, Taps
from kdbench.models import build, count_macs, latencies, load_start, load_weights, members, several_in
from kdbench.models.build import planned
from kdbench.run import manifest
from kdbench.run.devices import pick_device
from kdbench.run.estimate import DryRun, dry_run
from kdbench.run.events import Setting
from kdbench.run.launch import RunOptions, run_plan, worker_count
from kdbench.run.machine import threads_each
from kdbench.run.observers import Observer
from kdbench.run.store import WEIGHTS, load_runs
from kdbench.run.words import counted
from kdbench.sweeps.against import take_over
from kdbench.sweeps.controls import capped, compute_epochs
from kdbench.sweeps.plan import SweepPlan, fixed_of, space_of, trials_of
from kdbench.sweeps.store import read_spec, write_spec
from kdbench.sweeps.teachers import teacher_config
from kdbench.sweeps.types import Sweep, spec_difference
from kdbench.teacher import asked, kind_of, taps_of
from kdbench.teacher.outputs import check_rest
from kdbench.train.autotune import precision_for
from kdbench.train.beside import reusable
from kdbench.train.optim import check_momenta, frozen
from kdbench.train.step import describe_hardware

GROWING = ("trials", "seeds")
"""What may be asked for more of: the runs that are there serve on."""


def run_sweep(
    sweep: Sweep,
    run: RunOptions,
    observer: Observer,
    *,
    command: str,
    sources: dict[str, str],
    tracking: Callable[[], Observer] | None = None,
    against: Path | None = None,
) -> Path:
    """Run a sweep to its end, or go on with it; returns its folder, ``<out>/<name>``.

    Raises:
        BadInput: the name holds another spec, the data or the device is not there.
        KdbenchError: a teacher below its floor, or no trial that came to an end.
        MachineFault: a folder that cannot be written, or W&B's and Optuna's places.
    """
    observer.message("preparing: data, networks, workers")
    device = pick_device(run.device)
    folder = run.out / sweep.name
    sweep = resolved(sweep, folder, device)
    spec = check_inputs(sweep, run.cache, sources, decode=True)
    for said in _several(sweep, sources):
        observer.message(said)
    if sweep.data_path is not None:
        observer.message(f"data: {spec.source}")
    more = [tracking] if tracking else []
    if run.storage is not None:
        from kdbench.sweeps.mirror import Mirror, open_storage  # imports SQLAlchemy

        open_storage(run.storage)
        more.append(partial(Mirror, run.storage, sweep, observer.message))
    samples = {"classes": spec.classes, **spec.sizes}
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    taken = take_over(against, folder) if against is not None else {}
    plan = SweepPlan(sweep, folder)
    run_plan(
        plan, run, observer, device=str(device), hardware=describe_hardware(device), command=command,
        data_path=sweep.data_path, sources=sources, runs=plan.runs, more=more,
        first=lambda: write_spec(folder, sweep, run.storage and manifest.hide_password(run.storage)),
        last=lambda setting: manifest.finish(folder, {"samples": samples, **taken, **_latencies(sweep, spec, setting)}),
    )  # fmt: skip
    searched = [each.result for each in load_runs(folder) if each.config.phase == "search"]
    if searched and all(result.status == "failed" for result in searched):
        raise KdbenchError(
            f"every search trial failed, the first with: {searched[0].error}; try a lower --lr under another --name"
        )
    return folder


def _several(sweep: Sweep, sources: dict[str, str]) -> list[str]:
    """What there is to say of files that hold several networks' weights."""
    return [*filter(None, (several_in(at) for name, at in sources.items() if name not in sweep.also_test))]


def check_inputs(sweep: Sweep, cache: Path, sources: dict[str, str], *, decode: bool = False) -> DatasetSpec:
    """What is wrong with data or given weights is said before anything is trained.

    Raises:
        BadInput: data that changed or are damaged, weights that do not fit. MachineFault: either is nowhere.
    """
    spec, digest = resolve_dataset(sweep.data_path or sweep.data.name, skip_corrupt=sweep.data.skip_corrupt)
    if digest != sweep.data.digest:
        raise BadInput(f"the data of '{sweep.data.name}' changed since this sweep began; use another --name")
    check_parts(spec, sweep.data, sweep.recipe if decode else None, cache)
    kinds: dict[str, str] = {}
    for model, recipe in _networks(sweep):
        options = tuple(sorted(recipe.model_options.items()))
        network = planned(model, **_shape(sweep, spec, recipe), stem=recipe.stem, options=options)
        kinds[model] = kind_of(network)
        if recipe.freeze:
            frozen(network, recipe.freeze)
    for method in map(METHODS.get, sweep.methods):
        _check_method(sweep, spec, method, kinds)
    for model, recipe in _networks(sweep):
        teaches = recipe is sweep.teacher_recipe
        named = sweep.teacher_weights if teaches else sweep.student_weights.get(model)
        if named is None or (teaches and (cache / "teachers" / teacher_config(sweep).id / WEIGHTS).exists()):
            continue
        about = {**_shape(sweep, spec, recipe), "stem": recipe.stem, "source": sources.get(named, named)}
        if teaches and sweep.teacher_tune is None:
            load_weights(model, **about)
        else:
            load_start(model, **about, seed=0, options=recipe.model_options)
    return spec


def _check_method(sweep: Sweep, spec: DatasetSpec, method: Method, kinds: Mapping[str, str]) -> None:
    """Refuse, as BadInput, networks and recipes that a method cannot do with; ``kinds`` by model."""
    teachers = chain_of(sweep.pair.teacher)[-1]
    several = len(teachers) > 1 or len(members(sweep.teacher_weights or "")) > 1
    if several and (inside := {"pooled", "maps"} & method.needs):
        raise BadInput(
            f"method '{method.name}' reads {' and '.join(sorted(inside))} of its teacher, an ensemble gives logits "
            "alone: name one network, or a method on logits (`kdbench ls methods`)"
        )
    method.check(head=not several)  # a third party's loss fails now, not after hours of teacher
    for teacher, student in product(teachers, sweep.pair.students):
        method.fits(kinds[teacher.model], kinds[student])
    for _, recipe in _students(sweep):
        if method.momenta:
            dim = space_of(sweep, method.name).get("delta")
            deltas = dim.choices or (dim.high,) if dim else (fixed_of(sweep, method.name)["delta"],)
            check_momenta(recipe, max(each for each in deltas if each is not None))
        if "reused" in method.needs and (recipe.freeze or recipe.max_norm is not None):
            raise BadInput(
                f"method '{method.name}' ships its student with another head: recipe.freeze and recipe.max-norm, "
                "which name the student's own layers, do not go with it"
            )
    if not {"averaged", "halves", "reused", "token"} & method.needs:
        return
    fields = method.needs | ({"pooled"} if "reused" in method.needs else set())
    taught = [_looked_at(sweep, spec, one.model, sweep.teacher_recipe, fields - {"token"}) for one in teachers]
    for seen in taught if "reused" in method.needs else ():
        reusable(method, seen)
    looks = [_looked_at(sweep, spec, *one, method.needs) for one in _students(sweep)]
    for seen in (*taught, *looks) if "halves" in method.needs else ():
        check_rest(method.name, seen)
    for seen in looks if {"averaged", "halves"} & method.needs else ():
        method.build({**method.defaults, "temperature": 1.0}, seen, taught[0])


def _networks(sweep: Sweep) -> Iterator[tuple[str, Recipe]]:
    yield from ((network.model, sweep.teacher_recipe) for network in networks_of(sweep.pair.teacher))
    yield from _students(sweep)


def _students(sweep: Sweep) -> Iterator[tuple[str, Recipe]]:
    yield from ((student, sweep.recipe_of(student)) for student in sweep.pair.students)


def _looked_at(sweep: Sweep, spec: DatasetSpec, model: str, recipe: Recipe, fields: Collection[str]) -> Taps:
    shape, network = _shape(sweep, spec, recipe), _built(sweep, spec, model, recipe)
    image = torch.zeros(1, shape["channels"], shape["input_size"], shape["input_size"])
    return taps_of(asked(network, fields), network, image)


def _shape(sweep: Sweep, spec: DatasetSpec, recipe: Recipe) -> dict[str, Any]:
    return {**network_shape(spec, sweep.data, recipe)}


def _built(sweep: Sweep, spec: DatasetSpec, model: str, recipe: Recipe) -> nn.Module:
    return build(model, **_shape(sweep, spec, recipe), stem=recipe.stem, options=recipe.model_options)


def _compute_epochs(sweep: Sweep) -> dict[str, int]:
    spec, _ = resolve_dataset(sweep.data_path or sweep.data.name, skip_corrupt=sweep.data.skip_corrupt)
    counts = []
    for model, recipe in _networks(sweep):
        shape = _shape(sweep, spec, recipe)
        counts.append((model, count_macs(_built(sweep, spec, model, recipe), shape["channels"], shape["input_size"])))
    networks, last = networks_of(sweep.pair.teacher), len(chain_of(sweep.pair.teacher)[-1])
    macs, students = [count for _, count in counts[: len(networks)]], counts[len(networks) :]
    asked = sum(macs[-last:]) * len(members(sweep.teacher_weights or ""))
    passed = sum(k * (one.stop_at or sweep.teacher_recipe.epochs) for one, k in zip(networks, macs, strict=True))
    views = augment_for(spec, sweep.recipe).n_views
    return compute_epochs(sweep, dict(students), asked, views, trials_of(sweep), passed)


def resolved(sweep: Sweep, folder: Path, device: torch.device) -> Sweep:
    """The spec with its precisions: those that the sweep in ``folder`` began with, else what holds for the device.
    With the control ``compute`` also its epochs, which the networks' sizes say.

    More trials or more seeds than stored extend a sweep.

    Raises:
        BadInput: when the folder holds another sweep, with the difference.
    """
    if "compute" in sweep.controls:
        sweep = sweep.model_copy(update={"compute_epochs": _compute_epochs(sweep)})
    models = (*(network.model for network in networks_of(sweep.pair.teacher)), *sweep.pair.students)
    auto = [
        m for m in models if (sweep.recipe if m in sweep.pair.students else sweep.teacher_recipe).precision == "auto"
    ]
    if not (folder / "sweep.json").exists():
        precisions = sweep.precisions or dict.fromkeys(auto, precision_for(device))  # those of a record it is beside
        return sweep.model_copy(update={"precisions": precisions})
    stored, _ = read_spec(folder)
    asked = sweep.model_copy(update={"precisions": stored.precisions})
    same: dict[str, Any] = {name: getattr(asked, name) for name in ("data_path", "teacher_floor", "also_test")}
    if sweep.data_path is not None and stored.data_path is not None:  # a folder is its images, whatever it is called
        asked = asked.model_copy(update={"data": asked.data.model_copy(update={"name": stored.data.name})})
        same["data"] = stored.data.model_copy(update={"skip_corrupt": asked.data.skip_corrupt})
    # looks at the rows that were planned stay as planned; who had none may begin with the seeds that are there
    same["max_seeds"] = asked.max_seeds if stored.max_seeds is None else stored.max_seeds
    grown = {key: getattr(asked.budget, key) for key in (GROWING if stored.max_seeds is None else GROWING[:1])}
    if all(value >= getattr(stored.budget, key) for key, value in grown.items()):
        same["budget"] = stored.budget.model_copy(update=grown)
    if stored.max_seeds is None and asked.replicates >= stored.replicates and _extends(stored, asked):
        same |= {name: getattr(asked, name) for name in ("teacher_seeds", "repeat_search")}
    difference = spec_difference(stored.model_copy(update=same), asked)
    if difference:
        raise NameTaken(sweep.name, folder.parent, "; ".join(difference))
    return asked


def _extends(stored: Sweep, asked: Sweep) -> bool:
    """Whether further teachers or searches leave the replicates that are there what they are."""
    kinds = [(sweep.teacher_seeds > 1, sweep.repeat_search > 1) for sweep in (stored, asked)]
    return stored.replicates == 1 or kinds[0] == kinds[1]


def plan_sweep(sweep: Sweep, run: RunOptions, observer: Observer, *, sources: dict[str, str]) -> DryRun:
    """What ``run_sweep`` would do. Writes nothing.

    Raises:
        BadInput: what ``run_sweep`` would refuse.
    """
    observer.message("planning")
    device, folder = pick_device(run.device), run.out / sweep.name
    sweep = resolved(sweep, folder, device)
    spec = check_inputs(sweep, run.cache, sources)
    plan, workers = SweepPlan(sweep), worker_count(run.workers, device.type)
    places = [run.cache / "teachers" / teacher.id for teacher in plan.teachers]
    notes = [f"the teacher is in the cache: {place}" for place in places if (place / "result.json").exists()]
    notes += [f"logits are kept of each of the {len(places)} teachers"] if len(places) > 1 else []
    notes += _several(sweep, sources)
    notes += capped(sweep.compute_epochs, sweep.recipe.epochs)
    notes += [f"data: {spec.source}"] if sweep.data_path is not None else []
    if parts := parts_of(sweep.also_test):
        notes.append(f"also-test: each confirmed run is read on {counted(len(parts), 'further test set')}, not counted")
    if sweep.looks:
        notes.append(f"seeds are added where a row is not decided, up to {sweep.looks[-1]}: they are not counted here")
    threads = torch.get_num_threads() if workers == 1 else threads_each(workers)
    return dry_run(
        plan, folder, spec, device=device, workers=workers, threads=threads, cache=run.cache,
        tell=observer.message, notes=notes,
    )  # fmt: skip


def _latencies(sweep: Sweep, spec: DatasetSpec, setting: Setting) -> dict[str, Any]:
    """What the manifest says of the students' latency, measured once a sweep."""
    held = manifest.read_manifest(setting.folder)
    if set(sweep.pair.students) <= set(held.get("latency_ms") or {}):
        return {}
    shapes = {student: _shape(sweep, spec, sweep.recipe_of(student)) for student in sweep.pair.students}
    inputs = {student: (shape["channels"], shape["input_size"]) for student, shape in shapes.items()}
    models = {student: _built(sweep, spec, student, sweep.recipe_of(student)) for student in sweep.pair.students}
    found = latencies(models, inputs, torch.device(setting.device))
    return {
        "latency_ms": {student: each.ms for student, each in found.items()},
        "latency_range_ms": {student: [each.p10, each.p90] for student, each in found.items()},
        "latency_threads": torch.get_num_threads(),
    }
