"""What distilling is worth over all sizes: the mean gain, and the size saved at equal accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdbench.config import CONTROLS, HARD
from kdbench.report.numbers import bounds, decimals, millions, percent, signed
from kdbench.report.points import Points
from kdbench.report.saved import SAVED_COLUMNS, fewer, words_of
from kdbench.run.words import counted
from kdbench.stats import (
    LEVEL,
    Components,
    PairedDifference,
    Spread,
    components,
    holm,
    look_level,
    mean_gain,
    pareto_front,
    size_saved,
    smallest_crossed_gain,
    spread_of,
)

FEWEST_SEEDS = 5
"""With 3 seeds, and distilled runs noisier than hard ones, the interval of the size saved covers 91% only."""
PLAIN_KD = "kd"
"""The honest opponent of any other method: plain distillation, searched in as many trials."""
FEW = 3
"""Methods up to which each has sentences of its own."""

Key = TypeVar("Key")
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Worth:
    """Both answers for every method of a sweep."""

    saved: pd.DataFrame
    """One row per method and student on the hard-label front, columns ``SAVED_COLUMNS``: numbers of parameters and
    fractions; ``needed`` is infinite and ``saved`` minus infinity when the method never gets as accurate."""
    gains: dict[str, PairedDifference]
    """By method: the gain (fraction) averaged over the sizes within each seed, its paired test over seeds; ``p`` is
    Holm-corrected over the methods."""
    shows: dict[str, tuple[float, float]]
    """By method: the smallest true gain (fraction) that these seeds show with power 0.8, averaged over the sizes and at
    one of them (at the level that Holm gives the first row; from the spread of all sizes together)."""
    sizes: dict[str, int]
    """By method: how many sizes share seeds with hard labels."""
    parts: dict[str, Components]
    """By method with several teachers or searches: where the variance of its gain, averaged over the sizes, lies."""
    repeated: dict[str, str]
    """Of these methods, what there are several of: ``3 teachers``."""
    beyond: dict[tuple[str, str], tuple[PairedDifference, int]]
    """By method and control: the same difference between the two, and at how many sizes; Holm over these alone."""
    over_kd: dict[str, PairedDifference]
    """By method other than kd: its gain over kd, where that is there; Holm over these alone."""
    digits: int
    """Decimals of percentages, as in the table."""
    image_error: str
    """What other test images would change, in words; empty where their number is unknown."""
    images: int
    """Of the test split; 0 where unknown."""
    by_images: frozenset[str]
    """Methods whose gain other test images could change by more than other seeds: its binomial standard error (of two
    networks that err independently; the same images make it smaller) is wider than half of the interval over seeds."""

    @property
    def sentences(self) -> list[str]:
        """The headline, stated beforehand; what these seeds could have seen; size saved; what controls leave of it."""
        if len(self.gains) > FEW:
            return list(self._of_many())
        told = [text for method in self.gains for text in (*self._on_gain(method), *self._on_size(method))]
        told += [
            self._difference(gain, self.sizes[method], method, "better than kd", "worse than kd", over=" over kd")
            for method, gain in self.over_kd.items()
        ]
        better = ("better than the control", "worse than the control")
        return told + [
            self._difference(gain, sizes, method, *better, over=f" over {CONTROLS[control]}")
            for (method, control), (gain, sizes) in self.beyond.items()
        ]

    def _of_many(self) -> Iterator[str]:
        """The same of many methods: which differ for sure, from hard labels and from kd."""
        n, sizes = (counted(max(found), noun) for found, noun in (
            ([gain.n for gain in self.gains.values()], "seed"), (self.sizes.values(), "size")))  # fmt: skip
        yield f"Over {sizes}, mean gain over hard labels (paired by seed, {n}, Holm over the methods): " + self._sorted(
            self.gains
        )
        if self.over_kd:
            yield "The same over kd, which was searched in as many trials: " + self._sorted(self.over_kd)
        if self.shows:
            least, most = (points_of(end([shown for shown, _ in self.shows.values()])) for end in (min, max))
            span = least if least == most else f"{least.split(' ')[0]} to {most}"
            yield f"With these seeds a true gain of {span} would show, by method (power 80%){self.image_error}."

    def _sorted(self, gains: dict[str, PairedDifference]) -> str:
        """Which are better, which worse, which nobody can tell."""
        order = sorted(gains, key=lambda method: -gains[method].mean)
        kinds = {"better": [], "worse": [], "no difference that these seeds can tell from chance": []}  # type: dict[str, list[str]]
        for method in order:
            mean, lo, hi, p, _ = gains[method]
            kind = [*kinds][2 if not p < LEVEL else int(mean < 0)]
            interval = f" {signed(mean, self.digits)} {bounds(lo, hi, self.digits)}".rstrip() if p < LEVEL else ""
            kinds[kind].append(f"{method}{interval}")
        return "; ".join(f"{kind}: {', '.join(found) or 'none'}" for kind, found in kinds.items()) + "."

    def helps(self, method: str) -> bool:
        """Whether the mean gain is above 0 for sure."""
        return self.gains[method].mean > 0 and self.gains[method].p < LEVEL

    def _difference(
        self, gain: PairedDifference, sizes: int, method: str, better: str, worse: str, over: str = ""
    ) -> str:
        mean, lo, hi, p, n = gain
        seeds = ", ".join(filter(None, (self.repeated.get(method), counted(n, "seed"))))
        start = f"Over {f'the {sizes} sizes' if sizes > 1 else 'its one size'}, {method}"
        if mean == mean:
            start += f" {'changes accuracy by' if mean < 0 else 'gains'} {signed(mean, self.digits)} points"
        if p != p:
            return f"{start}{over} ({seeds} with every size on both sides): too few to tell."
        told = f"no difference that {self._these(method)} can tell from chance"
        if p < LEVEL:
            told = better if mean > 0 else worse
        start = f"{start} {bounds(lo, hi, self.digits)}".rstrip()
        return f"{start}{over} (paired by seed, {seeds}, p = {_p(p)}): {told}."

    def _these(self, method: str) -> str:
        return (
            f"these {self.repeated[method].partition(' ')[2]} and seeds" if method in self.repeated else "these seeds"
        )

    def _on_gain(self, method: str) -> Iterator[str]:
        gain, sizes = self.gains[method], self.sizes[method]
        yield self._difference(gain, sizes, method, "distilling helps", "distilling hurts")
        if method in self.shows:
            mean_shown, row_shown = self.shows[method]
            one = f", and at one size one of {points_of(row_shown)}" if sizes > 1 else ""
            text = f"With {self._these(method)} a true gain of {points_of(mean_shown)} would show{one} (power 80%)"
            yield f"{text}{self.image_error}."
        if method in self.parts:
            yield self._on_variance(method)
        if method in self.by_images:
            yield f"Other test images could change this: {self.images:,} of them decide."

    def _on_variance(self, method: str) -> str:
        parts, (count, _, noun) = self.parts[method], self.repeated[method].partition(" ")
        between, luck = (f"{percent(part / sum(parts), 0)}%" for part in parts[:2])
        return (
            f"Of the gain's variance from run to run, {between} lies between {noun}, {luck} between seeds, and the "
            f"rest in neither alone (estimated from {count} {noun} and {counted(self.gains[method].n, 'seed')})."
        )

    def _on_size(self, method: str) -> Iterator[str]:
        """Said only where the gain is sure and the seeds are not too few for this interval (see coverage.md)."""
        own = self.saved[self.saved["method"] == method]
        if not self.helps(method) or own.empty or self.gains[method].n < FEWEST_SEEDS:
            return
        best = own.sort_values(["baseline_acc", "params"], ascending=[False, True], kind="stable").iloc[0]
        words = words_of(best)
        goal = f"{best['student']}, {percent(best['baseline_acc'])}%, {millions(best['params'])}"
        goal = f"the best hard-label student ({goal})"
        if best["reached"] == "never":
            yield f"No student distilled by {method} is as accurate as {goal}; size saved not determined."
            return
        text = f"To match {goal}, {method} needs {words['needed']} parameters: {fewer(best)}"
        if math.isnan(best["saved_lo"]):
            yield f"{text} (no interval)."
            return
        sure = round(best["saved_lo"], 2) > 0 or round(best["saved_hi"], 2) < 0
        interval = f"95% interval{' over seeds alone' if method in self.repeated else ''}: {words['bounds']}"
        yield f"{text} ({interval}){'.' if sure else ', so that is not certain with these seeds.'}"


def _p(value: float) -> str:
    """A p-value that never reads 0.05 on the wrong side of it."""
    return f"{value:.2g}" if (float(f"{value:.2g}") < LEVEL) == (value < LEVEL) else f"{value:.3g}"


def points_of(fraction: float) -> str:
    """A gain's size in words: ``0.42 points``."""
    if fraction > 1:
        return "more than 100 points"
    form = ".2g" if fraction < 0.01 else ".1f" if fraction < 0.1 else ".0f"
    return counted(f"{100 * fraction:{form}}", "point")


def worth(points: Points, images: int = 0, looks: Sequence[int] = ()) -> Worth:
    """Mean gain and size saved of every method that shares seeds with hard labels; ``images``: of the test split.

    Where seeds were added after ``looks``, both keep to those of the first: they are stated before anything is seen.
    """
    rows, gains, shows, sizes_of = list[tuple[object, ...]](), dict[str, PairedDifference](), {}, dict[str, int]()
    by_images, parts, repeated = set[str](), dict[str, Components](), dict[str, str]()
    methods = points.methods
    for method in methods:
        both, each, plain = _beside(points, method, HARD)
        if not both:
            continue
        if looks:
            each, plain = each[..., : looks[0]], plain[:, : looks[0]]
        runs = np.isfinite(each).sum(axis=0)
        soft = np.nansum(each, axis=0) / np.where(runs, runs, np.nan)
        known = [k for k, (one, base) in enumerate(both) if one.params > 0 and base.params > 0]
        sizes = np.array([both[k][0].params for k in known])
        front = pareto_front(sizes, np.round(np.nanmean(plain[known], axis=1), 12))
        found = size_saved(sizes, soft[known], sizes, plain[known]) if known else []
        for k, on, one in zip(known, front, found, strict=True):
            base = both[k][1]
            if on:
                acc = float(np.nanmean(plain[k])) if looks else base.test_acc
                rows.append((base.student, method, _whole(base.params), acc, *one[:4], one.reached))
        gains[method], sizes_of[method] = mean_gain(each, plain), len(both)
        noise = sum(p * (1 - p) for p in (np.nanmean(soft), np.nanmean(plain)))
        if images and math.sqrt(noise / images) > (gains[method].hi - gains[method].lo) / 2:
            by_images.add(method)
        gaps = each - plain
        whole, each_size = spread_of(gaps.mean(axis=1)), [spread_of(gaps[:, k]) for k in range(len(both))]
        if whole.replicates > 1:
            repeated[method] = counted(whole.replicates, points.repeated)
            if whole.error > 0 and whole.seeds > 1:
                parts[method] = components(gaps.mean(axis=1))
        if whole.seeds > 2 and whole.error > 0:
            level, most = LEVEL / len(methods), looks[-1] if looks else whole.seeds  # as Holm judges the first of all
            between, within = np.mean([one[:2] for one in each_size if one.seeds > 1], axis=0)
            of_one = Spread(float(between), float(within), whole.replicates, most)
            shows[method] = (
                smallest_crossed_gain(whole, level=level),
                smallest_crossed_gain(of_one, level=look_level(most, looks) / len(methods) / len(both)),
            )
    beyond, sizes_beyond = dict[tuple[str, str], PairedDifference](), dict[tuple[str, str], int]()
    for method, control in product(methods, CONTROLS):
        both, ours, theirs = _beside(points, method, control)
        if both:
            beyond[method, control], sizes_beyond[method, control] = mean_gain(ours, theirs), len(both)
    over_kd = dict[str, PairedDifference]()
    for method in methods if PLAIN_KD in methods else ():
        both, ours, theirs = _beside(points, method, PLAIN_KD)
        if method != PLAIN_KD and both:
            over_kd[method] = mean_gain(
                *(((ours[..., : looks[0]], theirs[:, : looks[0]])) if looks else (ours, theirs))
            )
    gains, beyond = _corrected(gains), _corrected(beyond)
    best, error = points.frame["test_acc"].max(), ""
    if images and 0 < best < 1:
        off = points_of(math.sqrt(best * (1 - best) / images))
        error = f"; the standard error of an accuracy on {counted(images, 'test image')} is {off}"
    saved, digits = pd.DataFrame(rows, columns=list(SAVED_COLUMNS)), decimals(points.frame)
    controls = {k: (gain, sizes_beyond[k]) for k, gain in beyond.items()}
    return Worth(
        saved, gains, shows, sizes_of, parts, repeated, controls, _corrected(over_kd), digits, error, images,
        frozenset(by_images),
    )  # fmt: skip


def _beside(points: Points, one: str, other: str) -> tuple[list[tuple[Any, Any]], Scores, Scores]:
    """Points of two methods of the students that have seeds of both, and their scores.

    Those of ``one`` have shape (replicates, students, seeds), those of ``other`` (students, seeds).
    """
    theirs = {point.student: point for point in points if point.method == other}
    both = [
        (point, theirs[point.student])
        for point in points
        if point.method == one and point.student in theirs and {*point.scores} & {*theirs[point.student].scores}
    ]
    seeds = sorted({seed for pair in both for point in pair for seed in point.scores})
    plain = np.array([[base.scores.get(seed, math.nan) for seed in seeds] for _, base in both])
    numbers = sorted({number for point, _ in both for number in point.replicates})
    each = [[[own.replicates.get(k, {}).get(seed, math.nan) for seed in seeds] for own, _ in both] for k in numbers]
    return both, np.array(each), plain


def _corrected(gains: dict[Key, PairedDifference]) -> dict[Key, PairedDifference]:
    """With p-values after Holm's correction over all of them."""
    corrected = holm([gain.p for gain in gains.values()])
    return {name: gain._replace(p=float(p)) for (name, gain), p in zip(gains.items(), corrected, strict=True)}


def _whole(cost: float) -> float | int:
    return int(cost) if float(cost).is_integer() else float(cost)
