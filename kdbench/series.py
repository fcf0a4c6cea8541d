"""Several sweeps by one command: planned, run one after the other in one folder, read side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.api import plan_sweep, run_sweep
from kdbench.errors import BadInput, KdbenchError, MachineFault, NameTaken
from kdbench.result import Result
from kdbench.run.observers import Observer
from kdbench.run.words import counted, duration
from kdbench.sweeps.series import Sweeps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from kdbench.report.series import SeriesReport
    from kdbench.run.estimate import DryRun


def plan_series(sweeps: Sweeps, observer: Observer) -> list[DryRun]:
    """``plan_sweep`` of each; runs that an earlier one has, hard labels say, count as done. Writes nothing.

    Raises:
        BadInput: what any of them would be refused for, or the folder is a sweep's.
    """
    from kdbench.run.estimate import without
    from kdbench.run.launch import default_threads, set_threads
    from kdbench.sweeps.store import SPEC_FILE  # imports pandas

    if (sweeps.folder / SPEC_FILE).is_file():
        raise BadInput(f"'{sweeps.folder.name}' in {sweeps.folder.parent} is one sweep: give the series another --name")
    threads = default_threads()
    plans: list[DryRun] = []
    for one in sweeps.each:
        try:
            plans.append(without(plan_sweep(one, observer), plans))
        except NameTaken as error:  # the name that was given, or could be, is the series'
            raise NameTaken(sweeps.folder.name, sweeps.folder.parent, f"{one.name}: {error.difference}") from None
        set_threads(threads)  # an estimate changes them
    return plans


def run_series(sweeps: Sweeps, observer: Observer) -> KdbenchError | None:
    """Run each sweep, or go on with it, and write its report; what is wrong with any of them is said before.

    One that fails, because its teacher is below its floor, say, stops no other: the error to raise in the end names it.
    """
    failed: list[str] = []
    left = [plan.seconds or 0.0 for plan in plan_series(sweeps, observer)]
    for number, one in enumerate(sweeps.each):
        about = f"about {duration(sum(left[number:]))} for all that is left"
        observer.message(f"sweep {number + 1} of {counted(len(left), 'sweep')}: {one.name} ({about})")
        try:
            Result(run_sweep(one, observer)).report()
        except (BadInput, MachineFault):  # would stop the others too
            raise
        except KdbenchError as error:
            failed.append(f"{one.name}: {error}")
            observer.message(f"failed, {failed[-1]}")
    words = f"{len(failed)} of {counted(len(left), 'sweep')} failed; {'; '.join(failed)}"
    return KdbenchError(words) if failed else None


class Series:
    """Sweeps side by side in one folder, each a ``Result``: several teachers, or several numbers of epochs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Series({str(self.folder)!r})"

    @property
    def results(self) -> dict[str, Result]:
        """The sweeps by name."""
        from kdbench.report.series import sweeps_in

        return {folder.name: Result(folder) for folder in sweeps_in(self.folder)}

    @property
    def table(self) -> pd.DataFrame:
        """One row per sweep, student and method: teacher, epochs, accuracies, gain; fractions, 95% bounds."""
        from kdbench.report.series import series_table, sweeps_in

        return series_table(sweeps_in(self.folder))

    def figure(self, name: str = "capacity_gap") -> Figure:
        """A matplotlib figure: capacity_gap or budget_curve.

        Raises:
            BadInput: an unknown name, or nothing that differs to be drawn against.
        """
        from kdbench.report.series import series_figure

        drawn = series_figure(self.table, name)
        if drawn is None:
            raise BadInput(f"there is nothing to draw for '{name}' in {self.folder}: it needs several to compare")
        return drawn

    def report(self) -> SeriesReport:
        """Write table and figures into the folder; shows as the table in a terminal or a notebook."""
        from kdbench.report.series import write_series

        return write_series(self.folder)
