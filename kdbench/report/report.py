"""Everything a sweep's report consists of, written into its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.text import Text

from kdbench.catalog.datasets import DATASETS
from kdbench.files import atomic_text
from kdbench.report.costs import cost_table
from kdbench.report.points import History, Points, gather, pareto_table
from kdbench.report.ranking import method_table
from kdbench.report.render import Screen, csv
from kdbench.report.shifted import shifted_grid, shifted_table
from kdbench.report.tables import render_table, write_tables
from kdbench.report.verdicts import verdicts
from kdbench.report.worth import Worth, worth
from kdbench.run.frame import conform, replicate_of
from kdbench.run.words import counted, numbered
from kdbench.stats import look_numbers
from kdbench.sweeps.controls import capped

_SHOWN = 5
"""Searches that a note names."""


@dataclass(frozen=True)
class ReportFiles:
    """What ``write_report`` wrote, and what it says. Prints as the table a person reads (rich)."""

    paths: dict[str, Path]
    """By file name: trials.parquet, trials.csv, pareto.csv, pareto.md, pareto.tex, size_saved.csv, cost.csv,
    report.html, and each figure as .png, .svg and .pdf: pareto, temperature_alpha, and where there is something to
    draw, gain, methods (with methods.csv), curves, cost and reliability."""
    pareto: pd.DataFrame
    """The Pareto frame."""
    verdicts: list[str]
    """One line per row of ``pareto``."""
    worth: Worth
    """The mean gain over the sizes, and the size saved at equal accuracy."""
    points: Points
    """What the tables are made of."""
    shifted: pd.DataFrame
    """``shifted_table``."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing or was left out, one sentence each; empty for a whole sweep without failures."""
        return self.points.notes

    def __rich__(self) -> RenderableType:
        """The table, what distilling is worth, then the notes."""
        told = [Text(sentence) for sentence in self.worth.sentences]
        told += [Text(note, style="yellow") for note in self.notes]
        under = [Screen(shifted_grid(self.shifted).flat("Under shift"))] if len(self.shifted) else []
        return Group(render_table(self.pareto, self.points), *under, *told)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data: files, rows with verdicts (unknown numbers are null), what distilling is worth, notes."""
        rows, shifted = (
            [{name: None if value is pd.NA or value != value else value for name, value in row.items()}
             for row in table.astype(object).to_dict("records")] for table in (self.pareto, self.shifted)
        )  # fmt: skip
        return {
            "files": {name: str(path) for name, path in self.paths.items()},
            "rows": [{**row, "verdict": verdict} for row, verdict in zip(rows, self.verdicts, strict=True)],
            "front": self.worth.sentences,
            "notes": list(self.notes),
            **({"shifted": shifted} if shifted else {}),
        }


def write_report(
    out: Path,
    runs: pd.DataFrame,
    manifest: Mapping[str, Any] | None = None,
    histories: Mapping[str, History] | None = None,
) -> ReportFiles:
    """Write tables, figures and report.html into ``out`` from a runs frame, whole or partial.

    A sweep that was interrupted leaves what can be said so far, with notes on what is missing. Equal input gives
    equal bytes (parquet and PNG: with the same versions of their libraries). Each file is replaced whole or not at
    all. ``manifest`` is shown in the page and is not written.

    Args:
        out: the sweep's folder, made if absent.
        runs: the runs frame of one sweep.
        manifest: JSON data on where the numbers come from; ``command`` serves to say how to rerun a point, ``samples``
            (how many there are) and ``spec`` to judge what was learned, ``latency_ms`` for the table.
        histories: epochs and calibration of the confirm runs, by trial id; without them the figures ``curves`` and
            ``reliability`` are not drawn.

    Raises:
        BadInput: when ``runs`` is no runs frame, or of several data sets or teachers.
        OSError: when ``out`` cannot be written.
    """
    from kdbench.report.page import page
    from kdbench.report.style import save

    frame, about = conform(runs), manifest or {}
    points, pareto, value = judged(frame, about)
    costs = cost_table(frame, points)
    shifted = shifted_table(frame, {run: each.shifted for run, each in (histories or {}).items()})
    paths = write_tables(frame, points, pareto, value, out, shifted)
    more = {"cost.csv": costs, "methods.csv": method_table(points, value), "shifted.csv": shifted}
    for name, held in ((name, held) for name, held in more.items() if len(held) or name == "cost.csv"):
        atomic_text(out / name, csv(held))
        paths[name] = out / name
    for name, figure in draw_figures(frame, points, pareto, histories or {}, costs, value).items():
        paths |= save(figure, out, name)
    pictures = {name[:-4]: path.read_text(encoding="utf-8") for name, path in paths.items() if name.endswith(".svg")}
    atomic_text(out / "report.html", page(frame, points, pareto, about, value, shifted, pictures))
    paths["report.html"] = out / "report.html"
    return ReportFiles(paths, pareto, verdicts(pareto), value, points, shifted)


def judged(frame: pd.DataFrame, about: Mapping[str, Any]) -> tuple[Points, pd.DataFrame, Worth]:
    """What a sweep's tables and figures are made of: its points, its Pareto table, and what distilling is worth.

    ``about``: the sweep's manifest, as ``write_report`` reads it.
    """
    held, looks = _samples(about), _looks(about)
    points = gather(frame, chance=1 / held["classes"] if held.get("classes") else None, looks=looks)
    points = replace(points, repeated=_repeated(about), asked=tuple((about.get("spec") or {}).get("methods") or ()))
    notes = (*_provisos(about), *points.notes, *_undecided(frame, held.get("val", 0)), *_looked(points, looks))
    points = replace(points, notes=notes)
    return points, pareto_table(points, about.get("latency_ms")), worth(points, held.get("test", 0), looks)


def _undecided(runs: pd.DataFrame, images: int) -> list[str]:
    """A note on searches whose best points cannot be told apart by so many validation ``images``.

    Points count as tied with the winner within one binomial standard error of its accuracy.
    """
    search = runs[(runs["phase"] == "search") & (runs["status"] == "complete")].dropna(subset=["val_acc"])
    search = search.assign(replicate=replicate_of(search))
    told, groups = [], search.groupby(["student", "method", "replicate"], sort=False)
    several = search["method"].nunique() > 1
    knobs = ["temperature", "alpha", *(name for name in search.columns if name.startswith("hyper_"))]
    for (student, method, number), trials in groups if images else ():
        best = float(trials["val_acc"].max())
        sure = (best * images + 1) / (images + 2)  # not 1, however few the images are
        tied = trials[trials["val_acc"] >= best - math.sqrt(sure * (1 - sure) / images)]
        if len(tied) > 1:
            ranges = [
                f"{name.removeprefix('hyper_')} {tied[name].min():.3g} to {tied[name].max():.3g}"
                for name in knobs if tied[name].nunique() > 1
            ]  # fmt: skip
            where = f"{numbered(str(student), int(str(number)))}{f' ({method})' * several}"
            told.append(f"{where}: {', '.join(ranges) or f'{len(tied)} points'}")
    if not told:
        return []
    count, more = len(told), len(told) - _SHOWN
    told = [*told[:_SHOWN], f"and {more} more"] if more > 1 else told
    return [f"Searches that {images:,} validation images cannot decide ({count} of {groups.ngroups}); within one "
            f"standard error of the best are {'; '.join(told)}."]  # fmt: skip


def _samples(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Numbers of ``classes``, ``val`` and ``test`` images: what the sweep noted, or what the catalog knows."""
    data = (manifest.get("spec") or {}).get("data") or {}
    held = dict(manifest.get("samples") or {})
    if not held and data.get("name") in DATASETS.names():
        spec = DATASETS.get(data["name"])
        held = {"classes": spec.classes, **spec.sizes}
    if "train" in held and "val" not in held:
        held["val"] = round(data.get("val_fraction", 0.1) * held["train"])  # cut before a limit thins out the rest
    return held


def _looks(manifest: Mapping[str, Any]) -> tuple[int, ...]:
    """Numbers of seeds at which a sweep that adds seeds looked at its rows."""
    spec = manifest.get("spec") or {}
    return look_numbers(spec["budget"]["seeds"], spec["max_seeds"]) if spec.get("max_seeds") else ()


def _repeated(manifest: Mapping[str, Any]) -> str:
    """What a sweep has several of: teachers, searches, or both in pairs."""
    spec = manifest.get("spec") or {}
    kinds = [noun for noun, key in (("teacher", "teacher_seeds"), ("search", "repeat_search")) if spec.get(key, 1) > 1]
    return f"{'-'.join(kinds)} pair" if len(kinds) > 1 else "".join(kinds) or "replicate"


def _looked(points: Points, looks: Sequence[int]) -> list[str]:
    """How rows were decided where seeds were added until they were, and what stopping early saved."""
    if not looks:
        return []
    own = points.compared.frame
    runs, whole = int(own["n_seeds"].sum()), len(own) * looks[-1]
    return [
        f"Seeds were added where a row was not decided, looking at {', '.join(map(str, looks))} seeds; intervals of "
        f"gains are wider and p larger for it, and the mean over the sizes keeps to the first "
        f"{counted(looks[0], 'seed')}. The table took {runs} confirm runs instead of {whole}."
    ]


def _provisos(manifest: Mapping[str, Any]) -> list[str]:
    """What the manifest says that a reader must know: a part of the samples, another's runs, a control cut short."""
    held = manifest.get("spec")
    spec = held if isinstance(held, Mapping) else {}
    taken = manifest.get("against")
    notes = [f"Of the record {taken['record']}, not trained here: {counted(taken['runs'], 'run')}."] if taken else []
    notes += capped(spec.get("compute_epochs") or {}, (spec.get("recipe") or {}).get("epochs") or 1)
    limit = (spec.get("data") or {}).get("limit")
    if not limit:
        return notes
    given = spec.get("teacher_weights") and not spec.get("teacher_tune")  # trained nobody knows on what
    too = "" if given else ", the teacher too"
    return [f"Trained on {limit:,} of the training samples{too}: this says nothing of what all of them give.", *notes]


def draw_figures(
    frame: pd.DataFrame, points: Points, pareto: pd.DataFrame, histories: Mapping[str, History], costs: pd.DataFrame,
    value: Worth,
) -> dict[str, Figure]:  # fmt: skip
    """The report's figures by name, those that have something to show, and the first two in any case."""
    from kdbench.report import figures, figures_runs, ranking

    title = figures.title_of(points)
    found = {
        "pareto": figures.pareto_figure(points),
        "temperature_alpha": figures_runs.temperature_alpha_figure(frame),
        "gain": figures.gain_figure(pareto, title),
        "methods": ranking.ranking_figure(method_table(points, value), title),
        "curves": figures_runs.curves_figure(points.compared, histories),
        "cost": figures.cost_figure(costs, points, title),
        "reliability": figures_runs.reliability_figure(points.compared, histories),
    }
    return {name: figure for name, figure in found.items() if figure is not None}
