"""Everything a paper's table leaves in its folder, and the page as a terminal shows it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from kdbench.files import atomic_text
from kdbench.papers.claims import Answer, answer
from kdbench.papers.measures import VALUES, Trials
from kdbench.papers.plan import Protocol
from kdbench.papers.table import PaperTable, grid, legend, notes, paper_table
from kdbench.report.render import Grid, Screen, csv, latex, markdown


@dataclass(frozen=True)
class Page:
    """The table, the answers to the paper's claims, and the files. Prints as the table a person reads (rich)."""

    table: PaperTable
    answers: tuple[Answer, ...]
    paths: dict[str, Path]

    @property
    def notes(self) -> list[tuple[str, list[str]]]:
        """Answers and notes under their headings."""
        claims = [("Claims", [a.sentence for a in self.answers])] if self.answers else []
        return [*claims, *notes(self.table)]

    def as_json(self) -> dict[str, Any]:
        """Rows, answers, notes and paths, for scripts."""
        return {
            "paper": self.table.protocol.name,
            "rows": self.table.records(),
            "claims": [{"id": a.claim.id, "verdict": a.verdict, "text": a.text} for a in self.answers],
            "notes": dict(notes(self.table)),
            "files": {name: str(path) for name, path in self.paths.items()},
        }

    def __rich__(self) -> RenderableType:
        """The page on a terminal."""
        parts: list[RenderableType] = [Screen(grid(self.table)), Text(f"\n{legend(self.table)}", style="dim")]
        for head, lines in self.notes:
            parts += [Text(f"\n{head}", style="bold"), *(Text(f"- {line}") for line in lines)]
        if "table.md" in self.paths:
            parts.append(Text(f"\nTables and figures: {self.paths['table.md'].parent}", no_wrap=True))
        return Group(*parts)


def write_report(protocol: Protocol, folder: Path, reason: str = "") -> Page:
    """The table from the folder's finished trials; its files are written where there is at least one.

    table.md, .tex, .csv, values.csv (one line per cell and seed, with the run's id) and the figures of the claims;
    equal tables give equal bytes. ``reason`` says why the missing runs were not made.
    """
    table = paper_table(protocol, Trials(folder), reason)
    page = Page(table, tuple(answer(table, claim) for claim in protocol.paper.claims), {})
    if not any(table.values.values()):
        return page
    lines = [{"cell": cell, **value._asdict()} for cell, found in table.values.items() for value in found]
    texts = {
        "table.md": _markdown(page),
        "table.tex": _latex(page),
        "table.csv": csv(table.rows),
        VALUES: csv(pd.DataFrame(lines, columns=["cell", "seed", "trial_id", "last", "best", "on_test"])),
    }
    for name, text in texts.items():
        atomic_text(folder / name, text)
    paths = {name: folder / name for name in texts}
    if protocol.paper.claims:
        from kdbench.papers.figures import draw_claims

        paths |= draw_claims(table, folder)
    return replace(page, paths=paths)


def _markdown(page: Page) -> str:
    paper = page.table.protocol.paper
    out = [f"# {paper.title}", "", paper.note, "", *markdown(grid(page.table)), "", legend(page.table)]
    for head, lines in page.notes:
        out += ["", f"**{head}**", "", *(f"- {line}" for line in lines)]
    return "\n".join(out).replace("\n\n\n", "\n\n") + "\n"


def _latex(page: Page) -> str:
    """Rows that were run; the notes stand above as comments."""
    every = grid(page.table)
    ran = [k for k, row in enumerate(page.table.rows["verdict"]) if row != "not run"]
    shown = Grid(every.columns, tuple(every.rows[k] for k in ran), tuple(every.groups[k] for k in ran))
    comments = [line for head, lines in notes(page.table) for line in (f"{head}:", *(f"  {one}" for one in lines))]
    protocol = page.table.protocol
    return latex(shown, f"{protocol.paper.title}. {legend(page.table)}", protocol.name, comments)
