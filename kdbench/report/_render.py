"""The Pareto table on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kdbench.report._cells import Row, rows_of, shared_prefix, short_names
from kdbench.report._frames import HARD

_STYLE = {"helps": "green", "hurts": "red", "none": "", "unknown": "dim"}
_SHORT = {"helps": "helps", "hurts": "hurts", "none": "no difference"}
_LEGEND = "★ on the Pareto front (parameters, accuracy), hard-label points included"


def render_table(pareto: pd.DataFrame, verdicts: Sequence[str]) -> RenderableType:
    """``pareto`` with its ``verdicts`` (one a row, as the function of that name gives them).

    The table fits itself to the console when it is printed: weights tags go and words that all names
    begin with move to the heading, then gaps shrink, then latency, T and alpha go. Percent for
    accuracies, points for gains, a star on what is on the Pareto front; verdicts that need more than a
    word follow as lines below.
    """
    return _Report(rows_of(pareto), list(verdicts), pareto)


@dataclass
class _Report:
    """A table that chooses its columns when the width is known."""

    rows: list[Row]
    verdicts: list[str]
    pareto: pd.DataFrame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.rows:
            yield Text("No confirmed runs yet, so there is no table.")
            return
        for table in self._variants():
            if Measurement.get(console, options.update(width=10_000), table).maximum <= options.max_width:
                break
        yield table
        teacher = self.pareto["teacher_acc"].dropna()
        before = f"Teacher {100 * teacher.iloc[0]:.1f}%. " if len(teacher) else ""
        yield Text(before + _LEGEND, style="dim")
        caveats = Counter(row.verdict.caveat for row in self.rows)
        for row, verdict in zip(self.rows, self.verdicts, strict=True):
            if row.verdict.caveat and caveats[row.verdict.caveat] == 1:
                name = f"* {row.student}" + (f" ({row.method})" if self._several else "")
                yield Text.assemble((name, "bold"), f": {verdict}")
        yield from (Text(f"* {caveat}") for caveat, count in caveats.items() if caveat and count > 1)

    @property
    def _several(self) -> bool:
        return len({row.method for row in self.rows if row.method != HARD}) > 1

    def _variants(self) -> Iterator[Table]:
        """Tables from the widest to the narrowest; the last one folds its cells where even it does not fit."""
        every = {"params": "Params", "latency": "ms", "temperature": "T", "alpha": "α"}
        known = {field: head for field, head in every.items() if any(getattr(row, field) for row in self.rows)}
        fewer = {field: head for field, head in known.items() if field != "latency"}
        yield self._table(known, full_names=True, gap=1)
        yield self._table(known, full_names=False, gap=1)
        yield self._table(known, full_names=False, gap=0)
        yield self._table(fewer, full_names=False, gap=0)
        yield self._table({"params": "Params"} if "params" in known else {}, full_names=False, gap=0)
        yield self._table({}, full_names=False, gap=0, wrap=True)

    def _table(self, fields: dict[str, str], *, full_names: bool, gap: int, wrap: bool = False) -> Table:
        seeds = sorted({int(row.seeds) for row in self.rows})
        over = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        table = Table(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, gap),
            collapse_padding=True,
            title=f"Test accuracy (%), mean ± 95% interval over {over} seed{'s' * (seeds[-1] != 1)}",
            title_justify="left",
            title_style="bold",
        )
        students = [row.student for row in self.rows]
        prefix = "" if full_names else shared_prefix(students)
        names = {name: name for name in students} if full_names else short_names(students)
        table.add_column(f"{prefix}…" if prefix else "Student", overflow="fold", min_width=12)
        if self._several:
            table.add_column("Method", overflow="fold")
        for head in fields.values():
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("Distilled", justify="right", no_wrap=True)
        table.add_column("Hard labels" if gap else "Hard", justify="right", no_wrap=True)
        table.add_column("Gain (points)", no_wrap=not wrap)
        table.add_column("Verdict", no_wrap=not wrap)
        for row in self.rows:
            table.add_row(*self._cells(row, list(fields), names[row.student]))
        return table

    def _cells(self, row: Row, fields: list[str], name: str) -> list[RenderableType]:
        style = _STYLE[row.verdict.kind]
        accuracy = f"{row.accuracy} ± {row.half}" if row.half else row.accuracy
        distilled = Text("") if row.verdict.short == "no distilled run" else _star(accuracy, row.on_front)
        gains = max(len(other.gain) for other in self.rows)
        short = _SHORT.get(row.verdict.kind, row.verdict.short)
        cells: list[RenderableType] = [Text(name)]
        cells += [Text(row.method)] if self._several else []
        cells += [Text(getattr(row, field)) for field in fields]
        cells += [
            distilled,
            _star(row.baseline, row.baseline_on_front),
            Text(f"{row.gain:>{gains}} {row.bounds}".rstrip(), style=style),
            Text(short + (" *" if row.verdict.caveat else ""), style=style),
        ]
        return cells


def _star(text: str, starred: bool) -> Text:
    """``text`` with a star or its room, so that numbers stay in line."""
    return Text.assemble(text, (" ★", "yellow") if starred and text else "  ")
