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
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from kdbench.errors import BadInput
from kdbench.run.launch import WandbOptions
from kdbench.run.observers import Observer, Observers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from kdbench.deploy.pick import Choice
    from kdbench.papers.outcome import Page
    from kdbench.report.points import Points
    from kdbench.report.render import Grid
    from kdbench.report.report import ReportFiles
    from kdbench.report.worth import Worth
    from kdbench.run.estimate import DryRun
    from kdbench.run.store import Run
    from kdbench.run.student import Student
    from kdbench.series import Series
    from kdbench.sweeps.config import SweepConfig
    from kdbench.sweeps.types import Sweep

FIGURES = ("pareto", "gain", "methods", "temperature_alpha", "curves", "cost", "reliability")


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
            return series.Series(series.run_series(asked, observer))
        return Result(run_sweep(asked, observer))
    finally:
        observer.close()


def run_sweep(config: SweepConfig, observer: Observer, command: str | None = None) -> Path:
    """What ``kdbench sweep`` and ``sweep`` do: what was asked for to a finished folder, without its report."""
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
        options: ``rows`` (globs), ``seeds``, ``epochs``, ``limit``, ``max_hours``, and where it runs: ``cache``,
            ``workers``, ``executor``, ``device``, ``wandb``.

    Raises:
        KdbenchError: whatever the command line would end with.
    """
    from kdbench.papers.load import load_paper
    from kdbench.papers.outcome import write_report
    from kdbench.papers.paper_plan import run_paper
    from kdbench.papers.plan import Protocol, Request
    from kdbench.run.watch import make_observer
    from kdbench.sweeps.overrides import read_run_options

    asked = {name: options.pop(name) for name in ("rows", "seeds", "epochs", "limit") if name in options}
    asked["rows"] = tuple(asked.get("rows", ()))
    hours = float(options.pop("max_hours", 24.0))
    protocol = Protocol(load_paper(paper), Request(**asked))
    run = read_run_options({"out": out, **options})
    observer = make_observer(quiet=not progress, as_json=False)
    folder = run.out / protocol.name
    try:
        tracking = tracked(folder, protocol.name, run.tracking, observer)
        command = shlex.join(["kdbench", "reproduce", paper])
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


class Result:
    """A sweep on disk: read when it is asked for, so that it may still be running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Result({str(self.folder)!r})"

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What was asked for, resolved."""
        from kdbench.sweeps.store import read_spec

        return read_spec(self.folder)[0].model_dump(mode="json")

    @cached_property
    def _runs(self) -> list[Run]:
        from kdbench.run.store import load_runs

        return load_runs(self.folder, epochs=True)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Command, versions, hardware, times."""
        from kdbench.run.manifest import read_manifest

        return read_manifest(self.folder)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per finished run; accuracies are fractions."""
        from kdbench.sweeps.store import load_trials

        return load_trials(self.folder, self._runs)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch of every finished run."""
        import pandas as pd

        rows = ({"trial_id": run.config.id, **log.model_dump()} for run in self._runs for log in run.epochs)
        return pd.DataFrame(rows)

    @cached_property
    def _judged(self) -> tuple[Points, pd.DataFrame, Worth]:
        from kdbench.report.report import judged

        return judged(self.runs, self.manifest)

    @property
    def points(self) -> pd.DataFrame:
        """One row per student and method measured on test, hard labels included: intervals, paired gain, front."""
        from kdbench.report.points import NESTED

        return self._judged[0].frame.drop(columns=[*NESTED])

    @property
    def pareto(self) -> pd.DataFrame:
        """One row per student and distilling method, against its hard-label baseline, paired by seed."""
        return self._judged[1]

    @cached_property
    def verdicts(self) -> list[str]:
        """One line per row of ``pareto``."""
        from kdbench.report.verdicts import verdicts

        return verdicts(self.pareto)

    def figure(self, name: str = "pareto") -> Figure:
        """A matplotlib figure: pareto, gain, methods, temperature_alpha, curves, cost or reliability.

        Raises:
            BadInput: an unknown name, or nothing to draw yet.
        """
        from kdbench.errors import unknown
        from kdbench.report.costs import cost_table
        from kdbench.report.report import draw_figures

        if name not in FIGURES:
            raise unknown("figure", name, FIGURES, "one of " + ", ".join(FIGURES))
        points, pareto, value = self._judged
        costs = cost_table(self.runs, points)
        drawn = draw_figures(self.runs, points, pareto, self._histories, costs, value).get(name)
        if drawn is None:
            raise BadInput(f"there is nothing to draw for '{name}' in {self.folder} yet")
        return drawn

    @property
    def _histories(self) -> dict[str, Any]:
        from kdbench.report.points import History

        return {
            run.config.id: History(
                [log.val_acc for log in run.epochs], run.result.reliability, run.result.scaled_ece
            ) for run in self._runs
        }  # fmt: skip

    def report(self) -> ReportFiles:
        """Write tables, figures and report.html into the folder; shows as the table in a terminal or a notebook."""
        from kdbench.report.report import write_report

        return write_report(self.folder, self.runs, self.manifest, self._histories)

    def student(self, name: str, method: str | None = None) -> Student:
        """The trained network of a student: of its confirm runs the one that is best on validation.

        Args:
            name: timm name of the student.
            method: only runs of this loss (``hard`` for the baseline) or control; None: of the methods that distil.

        Raises:
            BadInput: no confirm run of that student with its weights is here.
        """
        from kdbench.run.store import run_folder
        from kdbench.run.student import best_of, open_student

        best = best_of(self._runs, name, method, self.folder)
        if best is None:
            there = sorted({run.config.model for run in self._runs if run.config.phase == "confirm"})
            raise BadInput(
                f"no weights of '{name}'{f' trained by {method}' if method else ''} in {self.folder} (confirmed: "
                f"{', '.join(there) or 'none'}; a record keeps no weights)"
            )
        return open_student(best, run_folder(self.folder, best.config.id), self.spec.get("data_path"))

    def export(
        self, which: str | None = None, *, formats: tuple[str, ...] = ("timm", "onnx"), output: Path | None = None,
        push: str | None = None, say: Callable[[str], None] = lambda text: None, **options: Any,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Files that run without kdbench, one folder per student; what each one's export.json says, and where it is.

        Args:
            which: a student, or a run's id; None: every student.
            formats: of timm, onnx, torch-export, openvino.
            output: the folder to write; ``export/STUDENT`` in the sweep's when None.
            push: where to upload it, ``hf:user/name``.
            say: told each step.
            options: int8, half, normalize, softmax, calibration, max_drop (``kdbench export --help``).

        Raises:
            BadInput: nothing of that name is confirmed here, ``output`` is not empty, a file that fails its check.
        """
        from kdbench.deploy.export import Wanted, export_all

        wanted = Wanted(formats=formats, **options)
        command = str(self.manifest.get("command", "kdbench sweep"))
        points = [{str(name): value for name, value in row.items()} for row in self.points.to_dict("records")]
        return export_all(self.folder, self._runs, which, wanted, points=points, command=command,
                          data_path=self.spec.get("data_path"), output=output, push=push, say=say)  # fmt: skip

    def pick(
        self, limits: Mapping[str, float | None], *, runtime: str = "ort", precision: str = "fp32", threads: int = 1
    ) -> tuple[Choice, list[str]]:
        """The one student to ship within ``limits`` (ms, mb, params, macs at most; acc at least), and why.

        Raises:
            BadInput: an impossible limit, or a measure that nothing was exported or measured for.
        """
        from kdbench.deploy.offers import pick

        points = [{str(name): value for name, value in row.items()} for row in self._judged[0].frame.to_dict("records")]
        return pick(self.folder, self._runs, points, limits, runtime=runtime, precision=precision, threads=threads)

    def over(self, x: str) -> tuple[Grid, dict[str, Path]]:
        """The front over another cost, written as ``pareto-X``: macs, file_mb, or RUNTIME-PRECISION (``ort-int8``).

        Raises:
            BadInput: another name, or nothing measured of it.
        """
        from kdbench.deploy.offers import over

        return over(self.folder, self._judged[0], self.manifest, x)
