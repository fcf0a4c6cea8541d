"""Do the statistics keep their word? Simulated sweeps with a known truth; writes the figures that are committed.

    python analysis/coverage.py --out results/records/statistics/coverage.md

Noise between seeds: normal; skewed (gamma, shape 4); accuracies of 360 test images, which come in steps of 0.28 points;
loud: normal, of 1.4 points, more than the 1.2 points between sizes, so that every front is in doubt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from kdbench.stats import (
    Interval,
    SizeSaved,
    holm,
    hypervolume_gain,
    hypervolume_interval,
    paired_difference,
    size_saved,
    t_interval,
)

SIZES, HARD = 2.0 ** np.arange(5), 0.88 + 0.012 * np.arange(5)
GAIN, SD = 0.006, 0.002  # a true gain of 0.6 points at every size; 0.2 points of noise between seeds


def noise(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "steps":
        return rng.binomial(360, 0.97, shape) / 360 - 0.97
    sd = 7 * SD if kind == "loud" else SD
    return sd * (rng.normal(size=shape) if kind != "skewed" else (rng.gamma(4, size=shape) - 4) / 2)


def holds(found: Interval | SizeSaved, truth: float) -> bool:
    return found.lo <= truth <= found.hi


def simulate(n: int, kind: str, sweeps: int, seed: int = 0) -> dict[str, tuple[int, int]]:
    """(how often, of how many) for each promise at ``n`` seeds."""
    rng = np.random.default_rng([seed, n, len(kind)])
    means = [t_interval(row) for row in noise(kind, rng, (sweeps, n))]
    answered = [one for one in means if one.lo == one.lo]  # equal values give no interval
    found = {"t interval of a mean covers": (sum(holds(one, 0.0) for one in answered), len(answered))}
    pairs = noise(kind, rng, (sweeps, 2, len(SIZES), n))
    p = np.array([[paired_difference(a, b).p for a, b in zip(*both, strict=True)] for both in pairs])
    called = np.array([(holm(row) < 0.05).any() for row in p])
    found["identical methods called different at some of 5 sizes, after Holm"] = (int(called.sum()), sweeps)
    found["identical methods called different at one size, uncorrected"] = (int((p < 0.05).sum()), p.size)
    return found


def simulate_fronts(n: int, kind: str, fronts: int, seed: int = 0) -> dict[str, tuple[int, int]]:
    """The same for the intervals that belong to whole fronts."""
    rng = np.random.default_rng([seed, n, len(kind), 1])
    saved, truth = 0, 1 - 2 ** (-GAIN / 0.012)
    between, area, area_truth = 0, 0, float(np.sum(HARD + GAIN - 0.8))
    for index in range(fronts):
        luck = noise(kind, rng, (1, n))
        soft, hard = (level[:, None] + luck + noise(kind, rng, (5, n)) for level in (HARD + GAIN, HARD))
        one = size_saved(SIZES, soft, SIZES[2:3], hard[2:3], resamples=400, seed=index)[0]
        saved += holds(one, truth)
        corner = (6.0, 0.8)
        area += holds(
            hypervolume_interval(np.arange(1, 6), soft, reference=corner, resamples=400, seed=index), area_truth
        )
        both = hypervolume_gain(np.arange(1, 6), soft, hard, reference=corner, resamples=400, seed=index)
        between += holds(both, len(SIZES) * GAIN)
    return {
        "interval of the size saved covers": (saved, fronts),
        "interval of the hypervolume covers": (area, fronts),
        "interval of the area between two fronts covers": (between, fronts),
    }


def table(sweeps: int, fronts: int) -> str:
    lines = ["# Do the statistics keep their word?\n", *__doc__.splitlines()[2:]]
    lines += ["A 95% interval should cover in 93 to 97% of simulations; identical methods should differ in at most 5%."]
    lines += [
        "The ± is the 95% error of the simulation itself: over 5 independent sizes Holm's rate is 1 - 0.99^5 = 4.90%.\n"
    ]
    lines += ["| promise | noise | seeds | share (%) | simulations |", "|---|---|--:|--:|--:|"]
    for kind in ("normal", "skewed", "steps", "loud"):
        for n in (3, 5, 10):
            found = simulate(n, kind, sweeps) if kind != "loud" else {}  # nothing there depends on the scale
            found |= simulate_fronts(n, kind, fronts) if kind in ("normal", "loud") else {}
            for promise, (hits, of) in found.items():
                share = hits / of
                error = 1.96 * (share * (1 - share) / of) ** 0.5
                lines.append(f"| {promise} | {kind} | {n} | {100 * share:.2f} ± {100 * error:.2f} | {of:,} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("coverage.md"))
    parser.add_argument("--sweeps", type=int, default=10_000, help="simulated sweeps a row")
    parser.add_argument("--fronts", type=int, default=2_000, help="simulated fronts a row")
    chosen = parser.parse_args()
    chosen.out.write_text(table(chosen.sweeps, chosen.fronts), encoding="utf-8")
