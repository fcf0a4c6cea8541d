"""A sweep on disk, as DataFrames, figures, networks and files to ship."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from kdbench.deploy.pick import Choice
    from kdbench.report.points import Points
    from kdbench.report.render import Grid
    from kdbench.report.report import ReportFiles
    from kdbench.report.worth import Worth
    from kdbench.run.store import Run
    from kdbench.run.student import Student

FIGURES = ("pareto", "gain", "methods", "temperature_alpha", "curves", "cost", "reliability")


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
                [log.val_acc for log in run.epochs], run.result.reliability, run.result.scaled_ece,
                run.result.shifted,
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
            formats: of timm, onnx, torch-export, openvino, executorch, litert.
            output: the folder to write; ``export/STUDENT`` in the sweep's when None.
            push: where to upload it, ``hf:user/name``.
            say: told each step.
            options: int8, qat, half, normalize, softmax, calibration, max_drop (``kdbench export --help``).

        Raises:
            BadInput: nothing of that name is confirmed here, ``output`` is not empty, a file that fails its check.
        """
        from kdbench.deploy.export import export_all
        from kdbench.deploy.wanted import Wanted

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
