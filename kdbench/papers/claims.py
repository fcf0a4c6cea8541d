"""Qualitative claims of a paper, answered by our runs: a verdict and a sentence with the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

from kdbench.papers.measures import Value
from kdbench.papers.schema import Claim
from kdbench.papers.table import PaperTable
from kdbench.stats import Interval, PairedDifference, equivalence_p, holm, paired_difference, ratio_interval

Finding = Literal["supported", "partly supported", "not supported", "undecided", "open"]


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
    return paired_difference(*_common(left, right))


def _common(left: Point, right: Point) -> tuple[list[float], list[float]]:
    seeds = sorted(set(left.errors) & set(right.errors))
    return [left.errors[s] for s in seeds], [right.errors[s] for s in seeds]


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
    removed, whole = ([held[1][s] - held[side][s] for s in seeds] for side in (2, 0))
    share = ratio_interval(removed, whole)
    verdict: Finding = "not supported"
    if gain.mean > 0 and gain.p < 0.05:
        verdict = "supported" if share.lo >= options["at_least"] else "partly supported"
    return Answer(
        claim, verdict,
        f"{hard:.1f} errors on hard labels, {soft:.1f} on soft targets, {teacher:.1f} the teacher: {share.mean:.0%} of "
        f"the gap ({_percent(share)}); {gain.mean:.1f} errors fewer (p = {gain.p:.2g}), paired over "
        f"{len(seeds)} seeds. Supported means that the whole interval of the share is above {options['at_least']:.0%}.",
    )  # fmt: skip


def _percent(share: Interval) -> str:
    if np.isnan(share.lo):
        return "no 95% interval: the gap itself is uncertain"
    return f"95% interval {share.lo:.0%} to {share.hi:.0%}, Fieller"


def _similar(table: PaperTable, claim: Claim, options: dict[str, Any]) -> Answer:
    """Whether temperatures from ``similar_from`` on are alike within ``margin`` errors, at each of the ``widths``."""
    held, margin = curves(table), float(options["margin"])
    texts, found = [], []
    for width in options["widths"]:
        high = [point for point in held.get(width, []) if point.temperature >= options["similar_from"]]
        if len(high) < 2 or min(len(point.errors) for point in high) < 2:
            return _open(claim)
        pairs = list(combinations(high, 2))
        gaps = [compared(*pair) for pair in pairs]
        names = [f"{a.temperature:g} and {b.temperature:g}" for a, b in pairs]
        apart = [name for name, gap in zip(names, gaps, strict=True) if gap.lo > margin or gap.hi < -margin]
        alike = [equivalence_p(np.subtract(*_common(*pair)), margin) < 0.05 for pair in pairs]
        found.append("apart" if apart else "alike" if all(alike) else "unknown")
        means = ", ".join(f"{point.mean:.1f} at T = {point.temperature:g}" for point in high)
        told = {
            "apart": f"T = {', '.join(apart)} differ by more than {margin:g} errors",
            "alike": f"every pair is alike within {margin:g} errors",
            "unknown": f"{sum(alike)} of {len(pairs)} pairs are alike within {margin:g} errors, none are shown apart",
        }
        texts.append(f"{width} units: {means} errors; {told[found[-1]]}")
    verdict: Finding = "undecided" if "unknown" in found else "partly supported"
    if len(set(found)) == 1 and found[0] != "unknown":
        verdict = "supported" if found[0] == "alike" else "not supported"
    how = "Alike is two one-sided paired t-tests"
    return Answer(claim, verdict, f"{'. '.join(texts)}. {how} at 5%; too few seeds show neither.")


def _best(table: PaperTable, claim: Claim, options: dict[str, Any]) -> Answer:
    """Whether every temperature inside a band beats every one below it and above it."""
    points = curves(table).get(options["width"], [])
    low, high = options["band"]
    inside = [point for point in points if low <= point.temperature <= high]
    outside = [point for point in points if not low <= point.temperature <= high]
    sides = {point.temperature < low for point in outside}
    if not inside or len(sides) < 2 or min(len(point.errors) for point in points) < 2:
        return _open(claim)
    gaps = {(one.temperature, other.temperature): compared(other, one) for one in inside for other in outside}
    p = dict(zip(gaps, holm([gap.p for gap in gaps.values()]), strict=True))
    sure = {pair for pair, gap in gaps.items() if gap.mean > 0 and p[pair] < 0.05}
    lost = [f"{a:g} over {b:g}" for a, b in gaps if (a, b) not in sure]
    best = min(points, key=lambda point: point.mean)
    verdict: Finding = "supported" if not lost else "partly supported" if sure and best in inside else "not supported"
    means = ", ".join(f"{point.mean:.1f} at T = {point.temperature:g}" for point in points)
    tail = f"not shown: T = {', '.join(lost)}" if lost else "all of them are shown"
    return Answer(
        claim, verdict,
        f"{means} errors. {len(sure)} of {len(gaps)} comparisons of a temperature in the band with one outside favour "
        f"it (paired, Holm-corrected); {tail}.",
    )  # fmt: skip


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
