"""Everything a table leaves in its folder, and the page as a terminal shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdbench.papers import render
from kdbench.papers.claims import Answer, answer
from kdbench.papers.measures import Trials
from kdbench.papers.plan import Protocol
from kdbench.papers.table import PaperTable, paper_table

_COLOURS = {"reproduced": "green", "higher": "yellow", "lower": "yellow"}


@dataclass(frozen=True)
class Page:
    """The table, the answers to the paper's claims, and the files."""

    table: PaperTable
    answers: tuple[Answer, ...]
    paths: dict[str, Path]

    def as_json(self) -> dict[str, Any]:
        """Rows, answers, notes and paths, for scripts."""
        return {
            "paper": self.table.protocol.name,
            "rows": self.table.records(),
            "claims": [{"id": a.claim.id, "verdict": a.verdict, "text": a.text} for a in self.answers],
            "notes": dict(render.notes(self.table)),
            "files": {name: str(path) for name, path in self.paths.items()},
        }

    def print(self, screen: Console) -> None:
        """The page on a terminal."""
        paper = self.table.protocol.paper
        grid = Table(title=f"{paper.name}: {paper.title}", title_justify="left", box=None, pad_edge=False)
        heads = render.columns(self.table)
        for head in heads:
            left = head in ("Row", "Unit", "Verdict")
            grid.add_column(head, justify="left" if left else "right", overflow="fold")
        last = ""
        for row, texts in zip(self.table.rows, render.cells(self.table), strict=True):
            if row.group != last:
                grid.add_row(Text(row.group, style="bold"), *[""] * (len(heads) - 1))
                last = row.group
            grid.add_row(*(Text(text) for text in texts[:-1]), Text(texts[-1], style=_COLOURS.get(texts[-1], "")))
        screen.print(grid)
        screen.print(Text(f"\n{render.LEGEND}", style="dim"))
        claims = [("Claims", [a.sentence for a in self.answers])] if self.answers else []
        for head, lines in [*claims, *render.notes(self.table)]:
            screen.print(Text(f"\n{head}", style="bold"))
            for line in lines:
                screen.print(Text(f"- {line}"))
        if "table.md" in self.paths:
            screen.print(Text(f"\nTables and figures: {self.paths['table.md'].parent}"), soft_wrap=True)


def write_report(protocol: Protocol, folder: Path, reason: str = "") -> Page:
    """The table from the folder's finished trials; its files are written where there is at least one.

    ``reason`` says why the missing runs were not made.
    """
    table = paper_table(protocol, Trials(folder), reason)
    answers = tuple(answer(table, claim) for claim in protocol.paper.claims)
    paths: dict[str, Path] = {}
    if any(table.values.values()):
        paths = render.write_table(table, folder, [each.sentence for each in answers])
        if protocol.paper.claims:
            from kdbench.papers.figures import draw_claims

            paths |= draw_claims(table, folder)
    return Page(table, answers, paths)
