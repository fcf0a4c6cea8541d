"""The runs of a sweep by phase, network, loss and replicate."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from kdbench.config import HARD, Phase
from kdbench.sweeps.types import Sweep

SEARCHES_APART = 2000
"""Between the seeds of one search and the next: those of the confirm phase, 998 of them, lie between two."""


class Group(NamedTuple):
    """The runs of one phase for one network and one loss."""

    phase: Phase
    model: str
    method: str
    """Or the name of a control."""
    replicate: int = 0
    """Of several teachers or searches the one that it belongs to."""

    @property
    def key(self) -> str:
        """``search/mobilenetv3_small_050/kd``, of a further replicate ``search/mobilenetv3_small_050/kd/1``."""
        return "/".join([*self[:3], *([str(self.replicate)] if self.replicate else [])])


def groups(sweep: Sweep) -> Iterator[Group]:
    """All students' groups, in the order in which their runs are taken: a row of the table is there early."""
    searched = (HARD, *sweep.methods) if sweep.tuned else sweep.methods
    for student in sweep.pair.students:
        baseline = Group("baseline", student, HARD)
        searches = [Group("search", student, method) for method in searched]
        yield from (*searches, baseline) if sweep.tuned else (baseline, *searches)  # a tuned baseline is a winner too
        yield from (Group("confirm", student, method) for method in (HARD, *sweep.methods, *sweep.controls))
    for number, student in product(range(1, sweep.replicates), sweep.pair.students):
        if sweep.repeat_search > 1:
            yield from (Group("search", student, method, number) for method in sweep.methods)
        yield from (Group("confirm", student, method, number) for method in sweep.methods)


def search_seed(sweep: Sweep, group: Group) -> int:
    """Seed of a search and of its runs."""
    return sweep.search_seed + SEARCHES_APART * group.replicate
