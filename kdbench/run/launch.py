"""From a plan to finished folders: device, workers, locks, manifest, observers, scheduler. What every verb calls."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from kdbench.config import Flag, Frozen
from kdbench.errors import BadInput, MachineFault
from kdbench.host import default_cache
from kdbench.run import manifest
from kdbench.run.events import Setting
from kdbench.run.executors import make_executor, unheard
from kdbench.run.job import Plan
from kdbench.run.machine import THREADS_VARIABLE, cores, threads_each
from kdbench.run.observers import Observer, Observers
from kdbench.run.scheduler import Scheduler, alone
from kdbench.run.speeds import Speeds


@dataclass(frozen=True, kw_only=True)
class WandbOptions:
    """How runs are recorded with W&B."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    """offline writes files only (``kdbench sync`` uploads them), online falls back to it without a server."""
    project: str = "kdbench"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; None is the account's default."""


WHERE = "Where it runs"


def _wandb_mode() -> str:
    """What W&B's own variables say, offline where they say nothing."""
    switched = "disabled" if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true") else "offline"
    return os.environ.get("WANDB_MODE") or switched


class RunOptions(Frozen):
    """Where and with what a plan runs: never part of what it is. Fields with a ``Flag`` are flags and keywords."""

    out: Annotated[Path, Flag(WHERE)] = Path("results")
    """Folder with one folder per sweep."""
    cache: Annotated[Path, Flag(WHERE, shown="~/.cache/kdbench")] = Field(default_factory=default_cache)
    """Folder of teachers and their logits, shared by all plans."""
    storage: Annotated[str | None, Flag(WHERE, "URL")] = None
    """Mirror the searches live for optuna-dashboard: sqlite:///FILE or postgresql+psycopg://..."""
    workers: Annotated[int | Literal["auto"], Flag(WHERE, "N|auto")] = "auto"
    """Processes that train; auto: one a core and at most four on a CPU, one on a GPU."""
    gpus_per_run: Annotated[int, Flag(WHERE, "N"), Field(ge=1)] = 1
    """GPUs that train one run together, each its part of every batch: the same run."""
    executor: Annotated[Literal["local", "ray", "slurm"], Flag(WHERE)] = "local"
    """Where the workers are: processes of this machine, actors of a Ray cluster, or jobs of Slurm."""
    slurm: Annotated[tuple[str, ...], Flag(WHERE, "KEY=VALUE,...", shown="the cluster's")] = ()
    """What a worker's job asks for: partition=gpu,gres=gpu:1,time=240 (minutes)."""
    device: Annotated[str, Flag(WHERE, "auto|cpu|cuda|cuda:N")] = "auto"
    """What they train on."""
    exact: Annotated[bool, Flag(WHERE)] = False
    """PyTorch's own path alone: no kernels of ours, nothing compiled."""
    wandb: Annotated[Literal["offline", "online", "disabled"], Flag(WHERE, shown="offline")] = Field(
        default_factory=_wandb_mode,
        validate_default=True,
    )
    """Record with W&B: files only (`kdbench sync` uploads them), on its server, or not at all."""
    wandb_project: Annotated[str, Flag(WHERE, "NAME", shown="kdbench")] = Field(
        default_factory=lambda: os.environ.get("WANDB_PROJECT") or "kdbench"
    )
    """W&B project."""
    wandb_entity: Annotated[str | None, Flag(WHERE, "NAME")] = None
    """W&B user or team."""

    @property
    def tracking(self) -> WandbOptions:
        """How runs are recorded with W&B."""
        return WandbOptions(mode=self.wandb, project=self.wandb_project, entity=self.wandb_entity)

    @field_validator("out", "cache")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("workers", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        count = int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value
        if count != "auto" and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise BadInput(f"workers must be auto or a whole number of at least 1, not {value}")
        return count

    @field_validator("slurm", mode="before")
    @classmethod
    def _asked(cls, value: Any) -> Any:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("storage")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise BadInput(
                f"storage '{value}' is no database URL: write sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
            )
        return value


def warm_up(run: RunOptions) -> None:
    """Let the server that workers are forked from import torch and timm while this process does the same."""
    if run.executor != "local" or run.workers == 1 or (run.workers == "auto" and cores() == 1):
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(["kdbench.run.preload"])
    with unheard():
        forkserver.ensure_running()


def worker_count(asked: int | Literal["auto"], device: str) -> int:
    """``auto``: one-thread processes, one per core and at most four, train small students faster than threads do;
    on a GPU one process. ``KDBENCH_THREADS`` bounds the cores counted.
    """
    if asked != "auto":
        return asked
    return max(1, min(4, cores())) if device == "cpu" else 1


def run_plan(
    plan: Plan,
    run: RunOptions,
    observer: Observer,
    *,
    device: str,
    hardware: str,
    command: str,
    data_path: str | None = None,
    sources: dict[str, str] | None = None,
    runs: dict[str, int] | None = None,
    more: Sequence[Callable[[], Observer]] = (),
    first: Callable[[], None] = lambda: None,
    last: Callable[[Setting], None] = lambda setting: None,
) -> Path:
    """Run a plan to its end, or go on with it; returns its folder, ``<out>/<name>``.

    ``device`` is what ``run.device`` comes to here, ``hardware`` describes it. While this process holds the folder,
    ``first`` is called, ``more`` observers are made, and after the runs ``last`` is called.

    Raises:
        BadInput: another process runs this plan.
        MachineFault: a folder that cannot be written.
    """
    folder, workers = run.out / plan.name, worker_count(run.workers, device.partition(":")[0])
    for flag, place in (("--out", run.out), ("--cache", run.cache)):
        if place.exists() and not place.is_dir():
            raise MachineFault(f"{flag} {place} is a file, not a folder: name another place")
    if run.gpus_per_run > 1 and run.executor != "local":
        raise BadInput(f"--gpus-per-run {run.gpus_per_run}: the GPUs of one run are this machine's: --executor local")
    threads = cores() if workers == 1 else threads_each(workers)
    if workers == 1 and not os.environ.get(THREADS_VARIABLE):
        threads = default_threads()
    setting = Setting(
        folder=folder.resolve(), cache=run.cache.resolve(), device=device, threads=threads,
        cores=cores() if os.environ.get(THREADS_VARIABLE) else default_threads(), exact=run.exact,
        data_path=data_path, sources=sources or {}, passes=plan.passes, runs=runs, gpus_per_run=run.gpus_per_run,
        tracked=plan.name if run.wandb != "disabled" else None,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    run.cache.mkdir(parents=True, exist_ok=True)
    together = f"{run.gpus_per_run} of " * (run.gpus_per_run > 1)
    speeds = Speeds(run.cache, together + hardware, threads)
    with alone(folder):
        first()
        manifest.begin(folder, plan.spec(), command=command, device=hardware, threads=threads, workers=workers)
        observers = Observers([observer])
        try:
            scheduler = Scheduler(plan, setting, observers, speeds=speeds, workers=workers)
            observers.members += [make() for make in more if scheduler.pending]
            scheduler.run(lambda handle: make_executor(run.executor, workers, setting, handle, run.slurm))
        finally:
            for member in observers.members[1:]:
                member.close()
        last(setting)
    return folder


def set_threads(count: int) -> None:
    """Give torch so many threads in this process."""
    import torch

    torch.set_num_threads(count)


def default_threads() -> int:
    """The threads that torch takes where nobody says anything."""
    import torch

    return int(torch.get_num_threads())
