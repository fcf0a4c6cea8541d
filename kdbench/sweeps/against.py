"""A new method beside a record's finished runs: only what the record lacks is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdbench.errors import BadInput
from kdbench.methods import METHODS
from kdbench.run.launch import RunOptions
from kdbench.run.store import load_runs, run_folder, write_config, write_result
from kdbench.sweeps.config import SweepConfig
from kdbench.sweeps.spec import check_methods
from kdbench.sweeps.store import read_spec
from kdbench.sweeps.types import Sweep, sweep_name

FREE = {*RunOptions.model_fields, "against", "method", "name", "student_weights", "teacher_weights"}
"""What may be said beside ``--against``; all else is the record's."""


def sweep_against(config: SweepConfig) -> Sweep:
    """The record's sweep with the methods of ``config`` beside its own.

    Each new method searches its own default ranges, on the record's budget, recipe and seeds.

    Raises:
        BadInput: no record there, an option that the record decides, or no method that it lacks.
    """
    assert config.against is not None
    record, _ = read_spec(config.against)
    if decided := sorted(config.model_fields_set - FREE):
        raise BadInput(
            f"--against takes {decided[0].replace('_', '-')} from {config.against.name}, as all else that both sides "
            "must share: leave it out"
        )
    check_methods(config.method)
    new = [name for name in config.method if name not in record.methods]
    if not new:
        raise BadInput(
            f"--against: {config.against.name} has {', '.join(record.methods)} already; name another with --method"
        )
    space = dict(record.space)
    for name in new:
        for knob, dimension in METHODS.get(name).space.items():
            if knob not in record.fixed and record.space.get(knob) != dimension:
                space[f"{name}.{knob}"] = dimension
    made = f"{record.name}+{'+'.join(new)}"
    name = sweep_name(config.name or made, record.data.name, record.pair, record.methods)
    held = {"name": name, "methods": (*record.methods, *new), "space": space}
    return record.model_copy(update={**held, "also_test": ()})  # no record keeps weights to read other images with


def take_over(record: Path, folder: Path) -> dict[str, Any]:
    """Give a sweep's folder the record's runs but its teacher's, whose weights no record keeps; what was taken.

    W&B has them under the sweep that ran them, so they are not recorded there again.
    """
    from kdbench.train.checkpoint import write_metrics  # imports torch, and what was typed wrong is said before

    taken = 0
    for config, result, epochs in load_runs(record, epochs=True):
        place = run_folder(folder, config.id)
        if config.phase == "teacher":
            continue
        if not (place / "result.json").exists():
            write_config(place, config)
            write_metrics(place, epochs)
            write_result(place, result.model_copy(update={"wandb_run": None}))
        taken += 1
    return {"against": {"record": record.resolve().name, "runs": taken}}
