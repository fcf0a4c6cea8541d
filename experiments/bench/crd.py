"""Hours that the CRD paper's whole CIFAR-100 table takes on this machine: ``python experiments/bench/crd.py --help``.

The images are noise, which costs what pictures cost. Each student's step is timed as plain PyTorch takes it, recorded
(``kdbench.train.capture``) on one batch, and as kdbench trains it; a teacher's pass by filling its cache.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from contenders import bare_steps, endless, warm_cache
from rounds import ratio
from torch import nn

from kdbench.config import RunConfig
from kdbench.data import ResidentSplit, load, resolve_dataset
from kdbench.errors import KdbenchError
from kdbench.files import atomic_text
from kdbench.host import processor
from kdbench.models import build
from kdbench.papers.load import load_paper
from kdbench.papers.plan import Protocol, Request
from kdbench.teacher import Teacher
from kdbench.train.capture import EAGER
from kdbench.train.loop import Trainer, steps_per_epoch
from kdbench.train.step import Step, describe_hardware, repeatable

SAMPLES = 6400
"""Images that are trained on here; the table's epochs have 50,000."""
BARE, RECORDED, BEFORE, TRIAL = "bare", "bare, recorded", "trial, not recorded", "trial"
SHARING = "cifar_resnet20"
"""The student whose runs share the device for a moment."""
MPS = "nvidia-cuda-mps-control"
FORMS = {BARE: False, RECORDED: True, BEFORE: False, TRIAL: True}


def noise(root: Path) -> None:
    """CIFAR-100's own files, of noise."""
    folder, rng = root / "cifar100" / "cifar-100-binary", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, count in (("train.bin", 50_000), ("test.bin", 10_000)):
        records = rng.integers(0, 256, (count, 3074), dtype=np.uint8)
        records[:, 1] = np.arange(count) % 100
        (folder / name).write_bytes(records.tobytes())


def seconds_a_step(steps: Iterator[int], seconds: float, device: torch.device) -> float:
    """Of as many as the time holds."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(10):
            next(steps)
        count += 10
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / count


class Bench:
    """The paper's plan, and data to time it on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        repeatable(device)
        protocol = Protocol(load_paper("cifar100-crd"), Request(limit=SAMPLES))
        self.jobs = [job for job in protocol.jobs if job.config.method in ("hard", "kd")]
        teachers = protocol.teacher_ids
        self.students = {job.config.model: job.config for job in self.jobs if job.config.method == "kd"}
        self.teachers = {job.config.model: job.config for job in self.jobs if job.config.id in teachers}
        first = next(iter(self.students.values()))
        self.data = load(resolve_dataset("cifar100")[0], first.data, first.recipe, device)

    def teacher(self, model: str, root: Path) -> Teacher:
        """With a cache of its own."""

        def make() -> nn.Module:
            network = build(model, classes=100, channels=3, input_size=32, seed=0)
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None  # what it saw: of one that saw nothing the outputs overflow
            network.train()(torch.randn(64, 3, 32, 32))
            return network

        return Teacher(make, self.device, 100, keyed="view", root=root, teacher_id=model)

    @contextmanager
    def warm(self) -> Iterator[Teacher]:
        """A teacher whose cache holds every view."""
        with tempfile.TemporaryDirectory() as folder:
            warm_cache(teacher := self.teacher("cifar_resnet20", Path(folder)), self.data)
            yield teacher

    def rounds(self, config: RunConfig, teacher: Teacher, rounds: int, seconds: float) -> dict[str, list[float]]:
        """Seconds a step of each form, in alternating rounds; of a teacher's training the last one alone."""
        running: dict[str, Iterator[int]] = {}
        for name, captured in FORMS.items():
            step = Step(kernels=False, captured=captured and self.device.type == "cuda")
            if name in (BARE, RECORDED):
                running[name] = bare_steps(config.model, self.data, config.recipe, step, self.device)
            else:
                running[name] = endless(Trainer(config, self.data, teacher, self.device, step))
        if config.method == "hard":
            running = {TRIAL: running[TRIAL]}
        for steps in running.values():
            for _ in range(EAGER + 8):
                next(steps)
        found: dict[str, list[float]] = {name: [] for name in running}
        for number in range(rounds):
            for name in list(running)[:: 1 if number % 2 else -1]:
                found[name].append(seconds_a_step(running[name], seconds, self.device))
        return found

    def views_a_second(self, model: str) -> float:
        """Of a teacher that fills its cache with an epoch, disk included; the second of two."""
        with tempfile.TemporaryDirectory() as folder:
            teacher = self.teacher(model, Path(folder))
            for epoch in (1, 2):
                start = time.perf_counter()
                teacher.fill(self.data.train, 0, epoch)
        return len(self.data.train) / (time.perf_counter() - start)


def serve(model: str, device: torch.device) -> None:
    """A worker of ``together``: says ``ready``, then answers each line of seconds with steps a second."""
    bench = Bench(device)
    with bench.warm() as teacher:
        step = Step(kernels=False, captured=device.type == "cuda")
        steps = endless(Trainer(bench.students[model], bench.data, teacher, device, step))
        seconds_a_step(steps, 0.5, device)
        print("ready", flush=True)
        for line in sys.stdin:
            print(1 / seconds_a_step(steps, float(line), device), flush=True)


@contextmanager
def multi_process() -> Iterator[dict[str, str]]:
    """NVIDIA's multi-process service, where it is installed; the environment of its clients."""
    with tempfile.TemporaryDirectory() as folder:
        own = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        subprocess.run([MPS, "-d"], env=own, check=True)
        try:
            yield own
        finally:
            subprocess.run([MPS], input="quit", text=True, env=own, check=True)


def together(model: str, counts: list[int], device: str, seconds: float, env: dict[str, str]) -> dict[int, float]:
    """Steps a second of so many processes on one device, all of them."""
    command = [sys.executable, __file__, "--device", device, "--serve", model]
    io: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    workers = [subprocess.Popen(command, **io) for _ in range(max(counts))]
    found = {}
    try:
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline().strip() == "ready", "a worker did not start"
        for count in counts:
            for worker in workers[:count]:
                assert worker.stdin is not None
                print(seconds, file=worker.stdin, flush=True)
            found[count] = sum(float(worker.stdout.readline()) for worker in workers[:count] if worker.stdout)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return found


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the program.")] = "cuda",
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each form of a step.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, help="Seconds a measurement.")] = 0.3,
    student: Annotated[list[str] | None, typer.Option(help="Only this student; may be repeated.")] = None,
    workers: Annotated[str, typer.Option(help="Numbers of processes that share the device.")] = "1,2,4,8",
    serve_: Annotated[str, typer.Option("--serve", hidden=True)] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for crd.json and crd.md.")] = None,
) -> None:
    """Time the steps of the table's students and the passes of its teachers, then count."""
    place = torch.device(device)
    if serve_:
        return serve(serve_, place)
    with tempfile.TemporaryDirectory() as folder:
        noise(Path(folder))
        os.environ["KDBENCH_DATA"] = folder
        bench = Bench(place)
        wanted = {m: c for m, c in (bench.teachers | bench.students).items() if not student or m in student}
        steps: dict[str, dict[str, list[float]]] = {}
        with bench.warm() as teacher:
            for model, config in wanted.items():
                steps[model] = bench.rounds(config, teacher, rounds, seconds)
                typer.echo(f"{model}: " + ", ".join(f"{n} {1e3 * min(s):.2f} ms" for n, s in steps[model].items()))
        passes = {model: bench.views_a_second(model) for model in bench.teachers if model in wanted}
        counts = [int(n) for n in workers.split(",")]
        shared = {}
        if SHARING in wanted:
            shared["processes on one device"] = together(SHARING, counts, device, 4 * seconds, dict(os.environ))
        if SHARING in wanted and place.type == "cuda" and shutil.which(MPS):
            with multi_process() as env:
                shared["the same under NVIDIA's MPS"] = together(SHARING, counts, device, 4 * seconds, env)
    figures = {
        "command": " ".join(["python", "experiments/bench/crd.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "device": describe_hardware(place),
        "processor": processor(), "torch": torch.__version__, "rounds": rounds, "seconds": seconds,
        "seconds_a_step": steps, "views_a_second": passes, "steps_a_second_together": shared,
        "hours": {} if student else hours(bench, steps, passes),
    }  # fmt: skip
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        atomic_text(out / "crd.json", json.dumps(figures, indent=1) + "\n")
        atomic_text(out / "crd.md", to_markdown(figures))
    typer.echo(to_markdown(figures))


def hours(bench: Bench, steps: dict[str, dict[str, list[float]]], passes: dict[str, float]) -> dict[str, float]:
    """Of the whole table, one run after the other."""
    found = {f"runs, {name}": 0.0 for name in (BEFORE, TRIAL)}
    for job in bench.jobs:
        forms = steps[job.config.model]
        for name in (BEFORE, TRIAL):
            each = statistics.median(forms.get(name, forms[TRIAL]))
            found[f"runs, {name}"] += job.config.recipe.epochs * steps_per_epoch(50_000, 64) * each
    views = bench.data.train.n_views if isinstance(bench.data.train, ResidentSplit) else None
    found["teachers' passes over every view"] = sum(50_000 * (views or 0) / rate for rate in passes.values())
    return {name: value / 3600 for name, value in found.items()}


def rows(head: list[str], body: Iterable[list[str]]) -> list[str]:
    """A table, and an empty line before it; nothing where it has no rows."""
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *body)]
    return ["", *lines] if len(lines) > 2 else []


def to_markdown(figures: dict[str, Any]) -> str:
    """The figures as tables."""
    lines = [
        "# The CRD paper's CIFAR-100 table: what it takes", "",
        f"{figures['device']} ({figures['processor']}), torch {figures['torch']}, {figures['date'][:10]}: "
        f"`{figures['command']}`. Noise in CIFAR-100's form, batches of 64, fp32 with deterministic kernels; "
        f"{figures['rounds']} alternating rounds of {figures['seconds']:g} s.",
    ]  # fmt: skip
    body = []
    for model, forms in figures["seconds_a_step"].items():
        times = {n: sorted(1e3 * each for each in found) for n, found in forms.items()}
        cells = {n: f"{statistics.median(t):.2f} ({t[0]:.2f} to {t[-1]:.2f})" for n, t in times.items()}
        found = ratio(forms[TRIAL], forms[RECORDED]) if RECORDED in forms else ()
        over = "{:.2f} ({:.2f} to {:.2f})".format(*found) if found else ""
        body.append([model, *(cells.get(n, "") for n in FORMS), over])
    lines += rows(["ms a step, median (range)", *FORMS, f"{TRIAL} / {RECORDED}"], body)
    passes = figures["views_a_second"].items()
    lines += rows(["teacher", "views a second into the cache"], ([m, f"{v:,.0f}"] for m, v in passes))
    if shared := figures["steps_a_second_together"]:
        head = [f"{SHARING}, steps a second of all", *map(str, next(iter(shared.values())))]
        lines += rows(head, ([name, *(f"{v:,.0f}" for v in rates.values())] for name, rates in shared.items()))
    lines += rows(["hours of its runs on hard labels and by plain distillation, one after the other", ""],
                  ([name, f"{value:.1f}"] for name, value in figures["hours"].items()))  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        typer.run(main)
    except KdbenchError as error:
        sys.exit(f"error: {error}")
