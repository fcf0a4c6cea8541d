"""kdbench from Python: the same sweeps, tables and students as on the command line, as DataFrames and networks.

    import kdbench

    result = kdbench.sweep("resnet50:mobilenetv3", dataset="fashion-mnist", temperature="1..20", trials=20)
    result.pareto                              # one row per student and method, with intervals and paired gains
    result.student("mobilenetv3_small_050")    # the trained network in eval mode, with its preprocessing

Everything raises ``KdbenchError`` where the command line would exit; nothing needs an ``if __name__`` guard.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from kdbench.result import Result
from kdbench.run.launch import WandbOptions, warm_up
from kdbench.run.observers import Observer, Observers

if TYPE_CHECKING:
    import pandas as pd

    from kdbench.papers.outcome import Page
    from kdbench.run.estimate import DryRun
    from kdbench.series import Series
    from kdbench.sweeps.config import SweepConfig
    from kdbench.sweeps.types import Sweep


@overload
def sweep(pair: str | None = None, *, epochs: int | None = None, **options: Any) -> Result: ...


@overload
def sweep(pair: list[str], *, epochs: int | list[int] | None = None, **options: Any) -> Series: ...


@overload
def sweep(pair: str | None = None, *, epochs: list[int], **options: Any) -> Series: ...


def sweep(
    pair: str | list[str] | None = None,
    *,
    config: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> Result | Series:
    """Train a teacher, search each student size, confirm the winners on fresh seeds; or go on where that stopped.

    Args:
        pair: ``TEACHER:STUDENTS``, as ``--pair``; a list of several, or of several ``epochs``, is a series of sweeps.
        config: a YAML file, or the name of one in experiments/.
        set: dotted keys to values, as ``--set``.
        progress: one line per run on stderr (a live table in a terminal).
        options: any flag of ``kdbench sweep`` with underscores, such as ``teacher_epochs=30`` or ``out="results"``.

    Raises:
        KdbenchError: whatever the command line would end with.
    """
    from kdbench import series
    from kdbench.run.watch import make_observer
    from kdbench.sweeps.series import Sweeps, read_sweeps

    sets = [f"{key}={value}" for key, value in (set or {}).items()]
    asked = read_sweeps(None if config is None else str(config), sets, {"pair": pair, **options})
    observer = make_observer(quiet=not progress, as_json=False)
    try:
        if isinstance(asked, Sweeps):
            if failed := series.run_series(asked, observer):
                raise failed
            return series.Series(asked.folder)
        return Result(run_sweep(asked, observer))
    finally:
        observer.close()


def run_sweep(config: SweepConfig, observer: Observer, command: str | None = None) -> Path:
    """What ``kdbench sweep`` and ``sweep`` do: what was asked for to a finished folder, without its report."""
    warm_up(config)  # beside this process's own imports, which begin in a moment
    spec, sources = _spec(config)
    from kdbench.sweeps.run import run_sweep as start  # imports torch: what was typed wrong is said before

    tracking = tracked(config.out / spec.name, spec.name, config.tracking, observer, spec.pair.teacher)
    words = command or shlex.join(["kdbench", "sweep", *config.words()])
    return start(
        spec, config, observer, command=words, sources=sources, tracking=tracking,
        against=config.against,
    )  # fmt: skip


def _spec(config: SweepConfig) -> tuple[Sweep, dict[str, str]]:
    """What was asked for, resolved, on its own or beside a record's runs; where its weights are."""
    from kdbench.sweeps.against import sweep_against
    from kdbench.sweeps.spec import build_sweep, sources_of

    sweep = build_sweep(config) if config.against is None else sweep_against(config)
    return sweep, sources_of(config, sweep)


def plan_sweep(config: SweepConfig, observer: Observer) -> DryRun:
    """What ``run_sweep`` would do, and about how long that takes here. Writes nothing."""
    spec, sources = _spec(config)
    from kdbench.sweeps.run import plan_sweep as plan

    return plan(spec, config, observer, sources=sources)


def tracked(
    folder: Path, name: str, options: WandbOptions, observer: Observer, teacher: str | None = None
) -> Callable[[], Observer] | None:
    """What makes the observer that records with W&B; its notes reach a log even where nothing else is shown.

    Raises:
        BadInput: a project or entity that W&B would refuse.
    """
    if options.mode == "disabled":
        return None
    from kdbench.tracking import WandbObserver
    from kdbench.tracking.client import check_name, say

    check_name("project", options.project)
    check_name("entity", options.entity)
    notify = say if isinstance(observer, Observers) else observer.message
    return lambda: WandbObserver(folder, name, options, notify, teacher)


def load(folder: str | Path) -> Result:
    """A sweep's folder, finished or not, or a committed record.

    Raises:
        BadInput: a folder that holds no sweep.
    """
    found = Result(Path(folder).expanduser())
    _ = found.spec
    return found


def reproduce(paper: str, *, out: str | Path = "results", progress: bool = True, **options: Any) -> Page:
    """Run what a published table lacks; the page with its table, claims and files (``rows`` select, ``seeds`` bound).

    Args:
        paper: an id of ``kdbench ls papers``, or a YAML file.
        out: folder with one folder per paper.
        progress: one line per run on stderr.
        options: ``rows`` (globs), ``seeds``, ``first_seed``, ``epochs``, ``limit``, ``max_hours``, and where it runs:
            ``cache``, ``workers``, ``executor``, ``device``, ``wandb``.

    Raises:
        KdbenchError: whatever the command line would end with.
    """
    from kdbench.papers.load import load_paper
    from kdbench.papers.outcome import write_report
    from kdbench.papers.paper_plan import run_paper
    from kdbench.papers.plan import Protocol, Request
    from kdbench.run.watch import make_observer
    from kdbench.sweeps.overrides import read_run_options

    asked = {name: options.pop(name) for name in ("rows", "seeds", "first_seed", "epochs", "limit") if name in options}
    asked["rows"] = tuple(asked.get("rows", ()))
    words = [f"--{n.replace('_', '-')}={value}" for n, value in asked.items() if n != "rows" and value is not None]
    words += [f"--rows={glob}" for glob in asked["rows"]]
    hours = float(options.pop("max_hours", 24.0))
    protocol = Protocol(load_paper(paper), Request(**asked))
    run = read_run_options({"out": out, **options})
    observer = make_observer(quiet=not progress, as_json=False)
    folder = run.out / protocol.name
    try:
        tracking = tracked(folder, protocol.name, run.tracking, observer)
        command = shlex.join(["kdbench", "reproduce", paper, *words])
        run_paper(protocol, run, observer, max_hours=hours, command=command, tracking=tracking)
    finally:
        observer.close()
    return write_report(protocol, folder)


def leaderboard(*results: str | Path) -> pd.DataFrame:
    """All sweeps and records in and below the folders, ranked within each protocol; one row per student and method."""
    import pandas as pd

    from kdbench.board.leaderboard import leaderboard as merge
    from kdbench.board.pages import records
    from kdbench.board.submissions import read

    return pd.DataFrame(records(merge(read([str(folder) for folder in results or ("results",)]))))
