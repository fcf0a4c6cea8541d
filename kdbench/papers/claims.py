"""Qualitative claims of a paper, answered by our runs: a verdict and a sentence with the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

from kdbench.papers.measures import Value
from kdbench.papers.schema import Claim
from kdbench.papers.table import PaperTable
from kdbench.stats import PairedDifference, paired_difference

Finding = Literal["supported", "partly supported", "not supported", "open"]


@dataclass(frozen=True)
class Answer:
    """What our runs say about a claim."""

    claim: Claim
    verdict: Finding
    text: str

    @property
    def sentence(self) -> str:
        """Claim, verdict, numbers."""
        return f"{self.claim.text} {self.verdict.capitalize()}: {self.text}"


class Point(NamedTuple):
    """One temperature of one width: errors by seed, and the table's row."""

    temperature: float
    errors: dict[int, float]
    row: Any

    @property
    def mean(self) -> float:
        """Mean errors."""
        return float(np.mean(list(self.errors.values())))


def curves(table: PaperTable) -> dict[int, list[Point]]:
    """Width to its temperatures, ascending: cells of plain test errors whose runs are distilled by temperature.

    The width is the number at the end of the network's name.
    """
    found: dict[int, dict[float, Point]] = {}
    for cell in table.protocol.cells:
        run = table.protocol.paper.run(cell.run) if cell.run else None
        ending = run.model.rpartition("_")[2] if run else ""
        whole = cell.measure == "errors" and cell.bias is None and cell.of_classes is None
        if run is None or "temperature" not in run.hyper or run.data or not whole or not ending.isdecimal():
            continue
        errors = {value.seed: value.last for value in table.values[cell.id]}
        if errors:
            point = Point(run.hyper["temperature"], errors, table.row(cell.id))
            found.setdefault(int(ending), {})[point.temperature] = point
    return {width: [points[t] for t in sorted(points)] for width, points in sorted(found.items())}


def compared(left: Point, right: Point) -> PairedDifference:
    """Errors at ``left``'s temperature minus those at ``right``'s, over their common seeds."""
    seeds = sorted(set(left.errors) & set(right.errors))
    return paired_difference([left.errors[s] for s in seeds], [right.errors[s] for s in seeds])


def answer(table: PaperTable, claim: Claim) -> Answer:
    """The verdict on ``claim``; ``open`` until the runs that decide it are there."""
    kinds = {
        "gap-closed": _gap,
        "temperatures-similar": _similar,
        "temperatures-best": _best,
        "unseen-class": _unseen,
    }
    return kinds[claim.kind](table, claim, claim.options)


def _gap(table: PaperTable, claim: Claim, options: dict[str, Any]) -> Answer:
    """Which share of the errors between the hard-label student and the teacher the soft targets remove."""
    held = [{v.seed: v.last for v in table.values.get(options[key], [])} for key in ("teacher", "hard", "soft")]
    seeds = sorted(set.intersection(*map(set, held)))
    if len(seeds) < 2:
        return _open(claim)
    teacher, hard, soft = (float(np.mean([values[seed] for seed in seeds])) for values in held)
    gain = paired_difference([held[1][seed] for seed in seeds], [held[2][seed] for seed in seeds])
    share = (hard - soft) / (hard - teacher) if hard > teacher else float("nan")
    verdict: Finding = "supported" if share >= options["at_least"] and gain.lo > 0 else "not supported"
    if verdict == "not supported" and gain.lo > 0:
        verdict = "partly supported"
    return Answer(
        claim, verdict,
        f"{hard:.1f} errors on hard labels, {soft:.1f} on soft targets, {teacher:.1f} the teacher: {share:.0%} of the "
        f"gap; {gain.mean:.1f} [{gain.lo:.1f}, {gain.hi:.1f}] errors fewer, paired over {len(seeds)} seeds. Supported "
        f"means at least {options['at_least']:.0%} and an interval above 0.",
    )  # fmt: skip


def _similar(table: PaperTable, claim: Claim, options: dict[str, Any]) -> Answer:
    """Whether no two temperatures from ``similar_from`` on differ, at each of the ``widths``."""
    held = curves(table)
    texts, differing = [], 0
    for width in options["widths"]:
        high = [point for point in held.get(width, []) if point.temperature >= options["similar_from"]]
        if len(high) < 2:
            return _open(claim)
        pairs = [(left, right, compared(left, right)) for left, right in combinations(high, 2)]
        if any(np.isnan(gap.lo) for _, _, gap in pairs):
            return _open(claim)
        apart = [f"{a.temperature:g} and {b.temperature:g}" for a, b, gap in pairs if gap.lo > 0 or gap.hi < 0]
        differing += bool(apart)
        means = ", ".join(f"{point.mean:.1f} at T = {point.temperature:g}" for point in high)
        tail = f"; T = {', '.join(apart)} differ" if apart else "; no paired 95% interval excludes 0"
        texts.append(f"{width} units: {means} errors{tail}")
    verdicts: dict[int, Finding] = {0: "supported", len(options["widths"]): "not supported"}
    return Answer(claim, verdicts.get(differing, "partly supported"), ". ".join(texts) + ".")


def _best(table: PaperTable, claim: Claim, options: dict[str, Any]) -> Answer:
    """Whether the best temperature inside a band beats every one below it and above it."""
    points = curves(table).get(options["width"], [])
    low, high = options["band"]
    inside = [point for point in points if low <= point.temperature <= high]
    below = [point for point in points if point.temperature < low]
    above = [point for point in points if point.temperature > high]
    if not (inside and below and above) or min(len(point.errors) for point in points) < 2:
        return _open(claim)
    best = min(inside, key=lambda point: point.mean)
    gaps = {point.temperature: compared(point, best) for point in [*below, *above]}
    sure = [t for t, gap in gaps.items() if gap.lo > 0]
    verdict: Finding = "partly supported"
    if len(sure) == len(gaps):
        verdict = "supported"
    elif not sure or min(points, key=lambda point: point.mean) is not best:
        verdict = "not supported"
    listed = ", ".join(f"{gap.mean:+.1f} [{gap.lo:.1f}, {gap.hi:.1f}] at T = {t:g}" for t, gap in gaps.items())
    return Answer(claim, verdict, f"T = {best.temperature:g} makes {best.mean:.1f} errors; against it {listed}.")


def _unseen(table: PaperTable, claim: Claim, options: dict[str, Any]) -> Answer:
    """Whether a class that was never shown is recognised, before and after the correction of its bias."""
    plain, corrected = (_shares(table.values.get(options[key], []), options["total"]) for key in ("plain", "corrected"))
    if len(plain) < 2 or len(corrected) < 2:
        return _open(claim)
    first, second = min(plain) >= options["most"], min(corrected) >= options["nearly_all"]
    verdict: Finding = "supported" if first and second else "partly supported" if first or second else "not supported"
    return Answer(
        claim, verdict,
        f"{np.mean(plain):.1%} of the threes are right ({min(plain):.1%} to {max(plain):.1%} over {len(plain)} seeds); "
        f"with a bias chosen on held-out training data {np.mean(corrected):.1%} ({min(corrected):.1%} to "
        f"{max(corrected):.1%}). Most means at least {options['most']:.0%} and nearly all at least "
        f"{options['nearly_all']:.0%}, for every seed.",
    )  # fmt: skip


def _shares(values: list[Value], total: int) -> list[float]:
    return [1 - value.last / total for value in values]


def _open(claim: Claim) -> Answer:
    return Answer(claim, "open", "the runs that decide it are not all there.")
