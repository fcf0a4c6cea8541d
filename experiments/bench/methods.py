"""What methods cost: ``python experiments/bench/methods.py`` takes steps of each, the teacher's outputs in the cache.

All methods in turn in one process, so of the times the ratios to kd within a round count; methods of feature maps ask
the live teacher, as in a sweep. Memory is measured in a process of each one's own. Keep the machine otherwise idle.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from contenders import endless, shape, which_samples
from rounds import Setting

from kdbench.config import Recipe, RunConfig
from kdbench.data import TaskData, load, resolve_dataset
from kdbench.errors import KdbenchError
from kdbench.files import atomic_text
from kdbench.host import processor
from kdbench.methods import METHODS
from kdbench.models import build
from kdbench.teacher import Teacher
from kdbench.train.loop import Trainer
from kdbench.train.step import Step


def trainers(task: Setting, names: list[str], cache: Path) -> Iterator[tuple[str, Trainer]]:
    """One of each method that fits the networks, under one untrained teacher."""
    device = torch.device(task.device)
    recipe = Recipe(batch_size=task.batch_size, pad=task.pad, precision="fp32", epochs=10**6, lr=1e-3)
    data: TaskData = load(resolve_dataset(task.dataset)[0], which_samples(task), recipe, device)
    network = build(task.teacher, **shape(data))
    guide = Teacher(lambda: network, device, data.classes, keyed="view", root=cache, teacher_id="untrained")
    for name in names:
        spec = METHODS.get(name)
        hyper = spec.defaults | {key: one.low or 0.5 for key, one in spec.space.items() if key not in spec.defaults}
        config = RunConfig(
            data=which_samples(task),
            model=task.student,
            method=name,
            hyper=hyper,
            recipe=recipe,
            seed=0,
            phase="search",
        )
        try:
            yield name, Trainer(config, data, guide if spec.asks else None, device, Step(kernels=task.device == "cpu"))
        except KdbenchError as error:
            sys.stderr.write(f"{name} left out: {error}\n")


def warm(trainer: Trainer) -> Iterator[int]:
    """Its steps, after as many epochs as fill the cache for all views, and the first step."""
    data, fields = trainer.data.train, METHODS.get(trainer.config.method).asks
    if trainer.teacher is not None and trainer.teacher.fills(data, fields) and "maps" not in fields:
        for epoch in range(1, 1 + 2 * (data.n_views or 1)):
            trainer.teacher.fill(data, 0, epoch, fields)
    steps = endless(trainer)
    next(steps)
    return steps


def paced(steps: Iterator[int], seconds: float) -> float:
    """Milliseconds a step, over so long at least."""
    since, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - since) < seconds:
        next(steps)
        count += 1
    return 1000 * spent / count


def peak(task: Setting, name: str, cache: Path) -> float:
    """MB that the run of one method takes at most: on the GPU, or of the whole process."""
    for _, trainer in trainers(task, [name], cache):
        paced(warm(trainer), task.seconds)
    if task.device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    told = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(told["VmHWM"].split()[0]) / 1e3  # the other has the peak of who started this process too


def markdown(found: dict[str, Any]) -> str:
    """The table, cheapest first."""
    task, rows = found["setting"], found["methods"]
    lines = [
        "# What methods cost", "",
        f"{task['teacher']} : {task['student']} on {task['limit']:,} images of {task['dataset']}, batches of "
        f"{task['batch_size']}, {found['hardware']}; median of {task['rounds']} rounds in which all take turns, and "
        "the range of the ratio. Memory: of a process of its own.", "",
        "| method | ms a step | of kd | parameters beside the student | peak MB |", "|---|--:|--:|--:|--:|",
    ]  # fmt: skip
    for name, row in sorted(rows.items(), key=lambda item: item[1]["of_kd"][0]):
        middle, low, high = row["of_kd"]
        ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"| {name} | {row['ms']:.2f} | {ratio} | {row['extra']:,} | {row['mb']:.0f} |")
    return "\n".join([*lines, *(["", found["note"]] if found.get("note") else [])]) + "\n"


def bench(
    pair: Annotated[str, typer.Option(help="teacher:student, timm names.")] = "resnet18:mobilenetv3_small_050",
    methods: Annotated[str, typer.Option(help="Comma-separated; all of them when empty.")] = "",
    dataset: Annotated[str, typer.Option(help="Catalog name, in memory.")] = "fashion-mnist",
    limit: Annotated[int, typer.Option(help="Training samples.")] = 5_000,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 128,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Of a measurement.")] = 2.0,
    out: Annotated[Path | None, typer.Option(help="Folder of methods.json and methods.md.")] = None,
    note: Annotated[str, typer.Option(help="Text below the table: what the record replaces, and why.")] = "",
    memory_of: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print, as JSON, each method's milliseconds a step, their ratio to kd, what it holds on the side, its memory."""
    teacher, student = pair.split(":")
    task = Setting(teacher=teacher, student=student, dataset=dataset, limit=limit, batch_size=batch_size, pad=0,
                   device=device, rounds=rounds, seconds=seconds)  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        cache = Path(place)
        if memory_of:
            typer.echo(f"{peak(task, memory_of, cache):.1f}")
            return
        names = list(dict.fromkeys(["kd", *(methods.split(",") if methods else METHODS.names())]))
        held = dict(trainers(task, names, cache))
        running = {name: warm(trainer) for name, trainer in held.items()}
        table = [{name: paced(steps, seconds) for name, steps in running.items()} for _ in range(rounds)]
    rows = {}
    for name, trainer in held.items():
        ratios = [row[name] / row["kd"] for row in table]
        words = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
        memory = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        rows[name] = {
            "ms": statistics.median(row[name] for row in table), "mb": float(memory),
            "of_kd": [statistics.median(ratios), min(ratios), max(ratios)],
            "extra": sum(p.numel() for p in trainer.part.parameters()),
        }  # fmt: skip
    found = {"setting": task.model_dump(), "hardware": f"{processor()}, {device}", "methods": rows, "note": note}
    typer.echo(json.dumps(found, indent=1))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        atomic_text(out / "methods.json", json.dumps(found, indent=1) + "\n")
        atomic_text(out / "methods.md", markdown(found))


if __name__ == "__main__":
    try:
        typer.run(bench)
    except KdbenchError as error:
        sys.exit(f"error: {error}")
