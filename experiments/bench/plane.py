"""What everything but training costs: ``python experiments/bench/plane.py`` runs sweeps whose runs end at once.

Plans, searches, folders, scheduler, reports and leaderboards are the library's own; a stand-in executor hands back
made-up results. CPU milliseconds a run by size of the sweep, and the ratio to the middle size: 1 is linear. The search
is Optuna's random sampler; TPE looks at all earlier trials in each ask, so it is timed beside it up to 1,000 runs.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kdbench.board.leaderboard import leaderboard
from kdbench.board.pages import write
from kdbench.board.submissions import read
from kdbench.config import EpochLog, RunResult
from kdbench.files import atomic_text
from kdbench.host import processor
from kdbench.report.report import judged, write_report
from kdbench.report.tables import write_tables
from kdbench.result import Result
from kdbench.run import manifest
from kdbench.run.events import Ended, Epoch, Handle, Setting, Started
from kdbench.run.job import Job
from kdbench.run.observers import Observers
from kdbench.run.scheduler import Scheduler
from kdbench.run.speeds import Speeds
from kdbench.run.store import load_runs, run_folder, write_config, write_result
from kdbench.sweeps.overrides import read_config
from kdbench.sweeps.plan import SweepPlan
from kdbench.sweeps.spec import build_sweep
from kdbench.sweeps.store import write_spec
from kdbench.sweeps.types import Sweep
from kdbench.train.checkpoint import write_metrics

EPOCHS = 15
STUDENTS = {"mobilenetv3_small_050": 578_186, "mobilenetv3_small_075": 1_026_834}


def sweep_of(runs: int, sampler: str) -> Sweep:
    """Of about so many runs: a fifth of them confirms the winners and the hard labels, at most ten seeds."""
    seeds = max(1, min(10, runs // 20))
    trials = max(1, (runs - 1 - len(STUDENTS) * (1 + 2 * seeds)) // len(STUDENTS))
    asked = {"pair": f"resnet18:{','.join(STUDENTS)}", "dataset": "digits", "name": f"plane-{runs}",
             "trials": trials, "seeds": seeds, "epochs": EPOCHS, "sampler": sampler, "precision": "fp32",
             "teacher_floor": 0.0}  # fmt: skip
    return build_sweep(read_config(None, (), asked))


class Instant:
    """Stands in for workers: every job ends as it is given, with a made-up result."""

    def __init__(self, folder: Path, handle: Handle) -> None:
        self._folder, self._handle = folder, handle
        self._job: Job | None = None

    def free(self) -> int:
        return int(self._job is None)

    def submit(self, job: Job) -> None:
        self._job = job

    def poll(self, seconds: float) -> None:
        job, self._job = self._job, None
        assert job is not None
        config, place = job.config, run_folder(self._folder, job.id)
        luck = (int(job.id, 16) % 1000) / 1e5
        self._handle(Started(job.id, 1))
        logs = []
        for epoch in range(1, EPOCHS + 1):
            acc = 0.9 - 0.3 / epoch + luck
            logs.append(EpochLog(epoch=epoch, lr=0.1, train_loss=1.0, train_acc=acc, val_loss=1.0, val_acc=acc))
            if self._handle(Epoch(job.id, logs[-1])):
                break
        acc = logs[-1].val_acc
        result = RunResult(
            id=job.id, status="complete" if len(logs) == EPOCHS else "pruned", val_acc=acc, best_val_acc=acc,
            test_acc=acc if config.phase in ("confirm", "teacher") else None, nll=0.5, ece=0.02, epochs=len(logs),
            params=STUDENTS.get(config.model, 11_000_000), macs=10**6, seconds=1.0, hardware="made up",
        )  # fmt: skip
        write_config(place, config)
        write_metrics(place, logs)
        write_result(place, result)
        self._handle(Ended(job.id, result))

    def owns(self, owner: str | None) -> bool:
        return False

    def close(self) -> None:
        return None


@contextmanager
def timed(found: dict[str, float], name: str, runs: int) -> Iterator[None]:
    """CPU milliseconds a run."""
    since = time.process_time()
    yield
    found[name] = 1000 * (time.process_time() - since) / runs


def measure(place: Path, runs: int) -> dict[str, float]:
    """Every part at one size, in the order in which a user meets them."""
    found: dict[str, float] = {}
    sweep, folder = sweep_of(runs, "random"), place / f"plane-{runs}"
    folder.mkdir(parents=True)
    write_spec(folder, sweep, None)
    manifest.begin(folder, sweep.model_dump(mode="json"), command="made up", device="cpu", threads=1, workers=1)
    setting = Setting(folder=folder, cache=place / "cache")

    def scheduler() -> Scheduler:
        speeds = Speeds(place, "cpu", 1)
        return Scheduler(SweepPlan(sweep, folder), setting, Observers(), speeds=speeds, workers=1)

    count = 1 + sum(SweepPlan(sweep).runs.values())
    with timed(found, "run: plan, ask, store", count):
        scheduler().run(lambda handle: Instant(folder, handle))
    found["runs"] = len(load_runs(folder))
    with timed(found, "read: folder to runs", count):
        load_runs(folder, epochs=True)
    with timed(found, "resume: nothing to do", count):
        assert not scheduler().pending
    result = Result(folder)
    with timed(found, "report: tables", count):
        points, pareto, value = judged(result.runs, result.manifest)
        write_tables(result.runs, points, pareto, value, place / "tables")
    with timed(found, "report: figures and page", count):
        write_report(folder, result.runs, result.manifest, result._histories)
    found["page (MB)"] = (folder / "report.html").stat().st_size / 1e6
    with timed(found, "leaderboard", count):
        write(leaderboard(read([folder])), place / f"board-{runs}")
    return found


def asks(runs: int, sampler: str) -> float:
    """CPU milliseconds a run of the plan and its searches alone, in memory."""
    found: dict[str, float] = {}
    plan, finished = SweepPlan(sweep_of(runs, sampler)), dict[str, RunResult]()
    with timed(found, "ask", runs):
        while (job := next(iter(plan.jobs(finished)), None)) is not None:
            luck = (int(job.id, 16) % 1000) / 1e5
            made = RunResult(id=job.id, status="complete", val_acc=0.8 + luck, test_acc=0.8)
            finished[job.id] = made
            plan.ended(job, made)
    return found["ask"]


def markdown(found: dict[str, Any]) -> str:
    """The figures as a table: milliseconds a run, in brackets what they are of the middle size."""
    sizes = [*found["sizes"]]
    middle = sizes[len(sizes) // 2]
    lines = [
        "# What everything but training costs", "",
        f"CPU milliseconds a run, median of {found['rounds']} (the largest size once); {found['hardware']}. In "
        f"brackets: ratio to {int(middle):,} runs, 1 is linear. Made-up results of {EPOCHS} epochs; random search.", "",
        "| | " + " | ".join(f"{int(size):,} runs" for size in sizes) + " |", "|---|" + "--:|" * len(sizes),
    ]  # fmt: skip
    for name in found["sizes"][middle]:
        if name == "runs":
            continue
        values = [found["sizes"][size][name] for size in sizes]
        ratio = [value / values[len(sizes) // 2] for value in values]
        told = [f"{v:.2f}" + ("" if "MB" in name else f" ({r:.2f})") for v, r in zip(values, ratio, strict=True)]
        lines.append(f"| {name} | {' | '.join(told)} |")
    tpe = ", ".join(f"{int(size):,} runs {ms:.1f} ms" for size, ms in found["tpe"].items())
    return (
        "\n".join([*lines, "", f"Plan and asks by TPE (Optuna's, which reads every earlier trial): {tpe} a run."])
        + "\n"
    )


def bench(
    sizes: Annotated[str, typer.Option(help="Numbers of runs.")] = "10,1000,10000",
    rounds: Annotated[int, typer.Option(min=1, help="Of all sizes but the largest.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder of plane.json and plane.md.")] = None,
) -> None:
    """Print, as JSON, CPU milliseconds a run by size."""
    counts = [int(size) for size in sizes.split(",")]
    found: dict[str, Any] = {"rounds": rounds, "hardware": processor(), "sizes": {}, "tpe": {}}
    for runs in counts:
        held = []
        for _ in range(1 if runs == max(counts) else rounds):
            with tempfile.TemporaryDirectory() as place:
                held.append(measure(Path(place), runs))
        found["sizes"][str(runs)] = {name: statistics.median(each[name] for each in held) for name in held[0]}
        if runs <= 1000:
            found["tpe"][str(runs)] = asks(runs, "tpe")
    typer.echo(json.dumps(found, indent=1))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        atomic_text(out / "plane.json", json.dumps(found, indent=1) + "\n")
        atomic_text(out / "plane.md", markdown(found))


if __name__ == "__main__":
    typer.run(bench)
