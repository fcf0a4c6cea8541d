"""One search: an Optuna study in memory, asked and told by the coordinator, the same again after any interruption.

The k-th point is a function of the spec and of the results of earlier trials: what was asked is written down
(``search.jsonl``), so a study is rebuilt from that and from the finished runs. ``grid``, ``random`` and ``qmc`` points,
and the first ones of the adaptive samplers, depend on the spec alone.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.exceptions import ExperimentalWarning
from optuna.trial import Trial, TrialState

from kdbench.catalog.types import Dimension
from kdbench.config import EpochLog, Hyper, RunResult
from kdbench.files import identify, named
from kdbench.sweeps.types import Sweep

ADAPTIVE = ("tpe", "gp")


def startup(sweep: Sweep) -> int:
    """Leading trials of an adaptive sampler that are a space-filling design instead of its guesses."""
    return min(10, max(3, sweep.budget.trials // 2))


def search_size(sweep: Sweep, space: dict[str, Dimension]) -> int:
    """Trials of a search: the budget's, or fewer where the space does not hold so many points."""
    axes = [dimension.choices for dimension in space.values()]
    if any(choices is None for choices in axes):
        return sweep.budget.trials
    return min(sweep.budget.trials, math.prod(len(choices or ()) for choices in axes))


class Journal:
    """``search.jsonl``: the points that were asked, a line each; a torn last line is as good as none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.points: dict[tuple[str, int], Hyper] = {}
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path and path.exists() else []
        for line in lines:
            try:
                held = json.loads(line)
                self.points[held["study"], int(held["number"])] = {k: float(v) for k, v in held["params"].items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def add(self, study: str, number: int, params: Hyper) -> None:
        """Write a point down before anything is trained with it."""
        self.points[study, number] = params
        if self._path is not None:
            with named(self._path), self._path.open("a", encoding="utf-8") as stream:
                # a line of its own, even behind one that a kill tore
                stream.write("\n" * (stream.tell() > 0 and not self._whole()) + _line(study, number, params))
                stream.flush()
                os.fsync(stream.fileno())

    def _whole(self) -> bool:
        assert self._path is not None
        with self._path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"\n"


def _line(study: str, number: int, params: Hyper) -> str:
    return json.dumps({"study": study, "number": number, "params": params}) + "\n"


class Search:
    """The trials of one student and method, numbered from 0 in the order in which they were asked."""

    def __init__(self, sweep: Sweep, key: str, space: dict[str, Dimension], journal: Journal, seed: int) -> None:
        self.sweep, self.key, self.space, self._journal, self.seed = sweep, key, space, journal, seed
        self.size = search_size(sweep, space)
        self.trials: list[Trial] = []
        self.ended: dict[int, RunResult] = {}
        self._open: dict[int, None] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(direction="maximize", pruner=self._pruner())

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.sweep.pruner == "none":
            return optuna.pruners.NopPruner()
        warmup = max(1, self.sweep.recipe.epochs // 3)
        return optuna.pruners.MedianPruner(n_startup_trials=startup(self.sweep), n_warmup_steps=warmup)

    @property
    def open(self) -> list[int]:
        """Numbers asked and not ended."""
        return [*self._open]

    def ask(self) -> tuple[int, Hyper]:
        """The next trial's number and point."""
        number = len(self.trials)
        known = self._journal.points.get((self.key, number))
        point = self._drawn(number) if known is None else known
        if point is not None:
            self.study.sampler = optuna.samplers.RandomSampler(seed=0)
            self.study.enqueue_trial({name: point[name] for name in self.space})
        else:
            self.study.sampler = self._sampler(number)
        trial = self.study.ask()
        hyper = {name: suggest(trial, name, dim) for name, dim in self.space.items()}
        if known is None:
            self._journal.add(self.key, number, hyper)
        self.trials.append(trial)
        self._open[number] = None
        return number, hyper

    def epoch(self, number: int, log: EpochLog) -> bool:
        """Report an epoch; whether the pruner ends the trial here."""
        if number in self.ended:
            return False
        self.trials[number].report(log.val_acc, log.epoch)
        return self.trials[number].should_prune()

    def tell(self, number: int, result: RunResult) -> None:
        """A trial ended."""
        if number in self.ended:
            return
        self.ended[number] = result
        self._open.pop(number, None)
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        value = result.val_acc if result.status == "complete" else None
        self.study.tell(self.trials[number], value, state=states[result.status])

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        return len(self.ended) >= self.size

    def winner(self) -> Hyper | None:
        """The point of the complete trial with the highest validation accuracy; the earliest wins a tie."""
        complete = [(n, r) for n, r in self.ended.items() if r.status == "complete" and r.val_acc is not None]
        if not complete:
            return None
        best = min(complete, key=lambda pair: (-(pair[1].val_acc or 0.0), pair[0]))[0]
        return dict(self.trials[best].params)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Seeded by the trial's number: what it suggests depends on the history alone, not on restarts."""
        seed = int(identify([self.seed, self.key, number]), 16) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            if self.sweep.sampler == "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup(self.sweep))
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup(self.sweep))

    @cached_property
    def _seed(self) -> int:
        return int(identify([self.seed, self.key, self.sweep.sampler]), 16)

    @cached_property
    def _sobol(self) -> NDArray[np.float64]:
        """A scrambled Sobol sequence as long as any trial may need, (n, dimensions)."""
        size = 2 ** max(1, (self.size - 1).bit_length())
        from scipy.stats import qmc  # takes long to import, and a dry run asks for no point

        sequence = qmc.Sobol(len(self.space), scramble=True, rng=np.random.default_rng(self._seed))
        return np.asarray(sequence.random(size))

    def _drawn(self, number: int) -> Hyper | None:
        """A point that does not depend on other trials; None where the sampler must decide."""
        if not self.space:
            return {}
        if self.sweep.sampler in ADAPTIVE and number >= startup(self.sweep):
            return None
        if self.sweep.sampler == "grid":
            axes = [dim.choices or () for dim in self.space.values()]
            sides = [len(axis) for axis in axes]
            cell = int(np.random.default_rng(self._seed).permutation(math.prod(sides))[number % math.prod(sides)])
            index = np.unravel_index(cell, sides)
            return {name: axis[int(i)] for name, axis, i in zip(self.space, axes, index, strict=True)}
        if self.sweep.sampler == "random":
            unit = np.random.default_rng([self._seed, number]).random(len(self.space))
        else:
            unit = self._sobol[number]
        return {name: _scaled(dim, float(u)) for (name, dim), u in zip(self.space.items(), unit, strict=True)}


def _scaled(dim: Dimension, unit: float) -> float:
    """A number of [0, 1) as a value of the dimension."""
    if dim.choices is not None:
        return dim.choices[min(int(unit * len(dim.choices)), len(dim.choices) - 1)]
    assert dim.low is not None and dim.high is not None
    value = dim.low * (dim.high / dim.low) ** unit if dim.log else dim.low + (dim.high - dim.low) * unit
    return float(min(max(value, dim.low), dim.high))


def suggest(trial: Trial, name: str, dim: Dimension) -> float:
    """What a trial takes for one hyper-parameter."""
    if dim.choices is not None:
        return float(trial.suggest_categorical(name, list(dim.choices)))
    assert dim.low is not None and dim.high is not None
    return trial.suggest_float(name, dim.low, dim.high, log=dim.log)
