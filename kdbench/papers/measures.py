"""From a finished trial to the numbers of a cell: errors, shares, and bias corrections on kept logits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdbench.catalog.datasets import DATASETS
from kdbench.config import RunConfig, RunResult
from kdbench.errors import MachineFault
from kdbench.papers.plan import Protocol
from kdbench.papers.schema import Bias, Cell
from kdbench.run.store import LOGITS, Run, read_result, recorded_logits, run_folder

VALUES = "values.csv"
STEP = 0.1
"""Biases are tried in steps of this."""

Scores = NDArray[np.float32]
Labels = NDArray[np.int64]
Where = Literal["val", "test"]


class Outputs(NamedTuple):
    """A network's logits on a split, (N, classes), and the split's labels, (N,)."""

    logits: Scores
    labels: Labels


class Value(NamedTuple):
    """One cell's numbers of one trial, in the cell's unit; NaN where there is none."""

    seed: int
    trial_id: str
    last: float
    """After the last epoch: what the verdict is about."""
    best: float = float("nan")
    """Of the best epoch on the test split, where the protocol measures it every epoch."""
    on_test: float = float("nan")
    """With the bias chosen on the test split itself."""


def load_outputs(path: Path, split: Where) -> Outputs:
    """What was kept of a split.

    Raises:
        MachineFault: a file that is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            return Outputs(held[f"{split}_logits"], held[f"{split}_labels"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise MachineFault(f"{path} cannot be read ({error}); delete its folder to repeat the run") from error


def wrong(outputs: Outputs, bias: float = 0.0, classes: tuple[int, ...] = ()) -> NDArray[np.bool_]:
    """(N,) which samples are misclassified with ``bias`` added to the logits of ``classes``."""
    logits = outputs.logits.astype(np.float64)
    logits[:, list(classes)] += bias
    return np.asarray(logits.argmax(axis=1) != outputs.labels)


def choose_bias(outputs: Outputs, correction: Bias) -> float:
    """The bias with the fewest errors on a split; of several that tie, the middle one.

    Hinton et al. 2015, section 3, choose it on the test set; here the split is the caller's choice.
    """
    steps = round(correction.reach / STEP)
    grid = np.arange(-steps, steps + 1) * STEP
    classes, logits = list(correction.classes), outputs.logits.astype(np.float64)
    moved, still = logits[:, classes], np.delete(logits, classes, axis=1)
    others = np.setdiff1d(np.arange(logits.shape[1]), classes)
    # the best of the moved and of the others does not change with the bias: only which of the two wins
    inside = np.asarray(classes)[moved.argmax(axis=1)] == outputs.labels
    outside = others[still.argmax(axis=1)] == outputs.labels
    gap = still.max(axis=1) - moved.max(axis=1)
    errors = [int(np.where(gap < value, ~inside, ~outside).sum()) for value in grid]
    best = np.flatnonzero(np.asarray(errors) == min(errors))
    return float(round(grid[best[(len(best) - 1) // 2]], 10))


@dataclass(frozen=True)
class Trial:
    """A finished run and where its logits are, if they were kept."""

    config: RunConfig
    result: RunResult
    logits: Path

    @cached_property
    def test(self) -> Outputs:
        """Kept logits on the test split."""
        return load_outputs(self.logits, "test")

    @cached_property
    def val(self) -> Outputs:
        """Kept logits on the validation split."""
        return load_outputs(self.logits, "val")


def _logits(folder: Path, run_id: str) -> Path:
    """Where a record, or the folder of a paper, has them."""
    kept = recorded_logits(folder, run_id)
    return kept if kept.exists() else run_folder(folder, run_id) / LOGITS


class Trials:
    """Finished trials of a table by id, each read once; ``held``: those of a record, which has no folders of runs."""

    def __init__(self, folder: Path, held: Iterable[Run] = ()) -> None:
        self.folder = folder
        self._known: dict[str, Trial | None] = {
            run.config.id: Trial(run.config, run.result, _logits(folder, run.config.id)) for run in held
        }

    def get(self, config: RunConfig) -> Trial | None:
        """The trial, or None while it is not finished."""
        if config.id not in self._known:
            place = run_folder(self.folder, config.id)
            result = read_result(place)
            self._known[config.id] = Trial(config, result, place / LOGITS) if result else None
        return self._known[config.id]

    @cached_property
    def _noted(self) -> dict[tuple[str, str], Value]:
        """What ``values.csv`` says of each cell and run: for records that are older than their logits."""
        if not (self.folder / VALUES).exists():
            return {}
        held = pd.read_csv(self.folder / VALUES, dtype={"trial_id": str}).itertuples(index=False)
        return {(cell, value[1]): Value(*value) for cell, *value in held}

    def value(self, cell: Cell, trial: Trial) -> Value:
        """The cell's number of one trial, from its kept logits where it takes them, else as it was noted."""
        if (cell.bias is not None or cell.of_classes is not None) and not trial.logits.exists():
            noted = self._noted.get((cell.id, trial.config.id))
            if noted is not None:
                return noted
        return measure(cell, trial)


def values(protocol: Protocol, cell: Cell, trials: Trials) -> list[Value]:
    """One entry for each complete trial of the cell's run, in the order of seeds."""
    if cell.run is None:
        return []
    run = protocol.paper.run(cell.run)
    found = []
    for k in range(protocol.seed_count(run)):
        trial = trials.get(protocol.config(run, k))
        if trial is not None and trial.result.status == "complete":
            found.append(trials.value(cell, trial))
    return found


def measure(cell: Cell, trial: Trial) -> Value:
    """The cell's number of one trial."""
    seed, trial_id = trial.config.seed, trial.config.id
    if cell.bias is not None:
        chosen, ideal = choose_bias(trial.val, cell.bias), choose_bias(trial.test, cell.bias)
        if cell.measure == "bias":
            return Value(seed, trial_id, chosen, on_test=ideal)
        classes = cell.bias.classes
        last = _counted(cell, wrong(trial.test, chosen, classes), trial.test.labels)
        return Value(seed, trial_id, last, on_test=_counted(cell, wrong(trial.test, ideal, classes), trial.test.labels))
    if cell.of_classes is not None:
        return Value(seed, trial_id, _counted(cell, wrong(trial.test), trial.test.labels))
    result = trial.result
    acc = result.test_acc if trial.config.phase == "confirm" else result.val_acc
    samples = DATASETS.get(trial.config.data.name).sizes.get("test", 0)
    best = result.best_val_acc if trial.config.data.validate_on == "test" else None
    return Value(seed, trial_id, _unit(cell, acc, samples), _unit(cell, best, samples))


def _unit(cell: Cell, acc: float | None, samples: int) -> float:
    """An accuracy (fraction) in the cell's unit."""
    if acc is None:
        return float("nan")
    if cell.measure == "errors":
        return float(round((1 - acc) * samples))
    return 100 * acc if cell.measure == "accuracy" else 100 * (1 - acc)


def _counted(cell: Cell, missed: NDArray[np.bool_], labels: Labels) -> float:
    """Misses among the samples that the cell is about, in its unit."""
    if cell.of_classes is not None:
        missed = missed[np.isin(labels, cell.of_classes)]
    if cell.measure == "errors":
        return float(missed.sum())
    share = 100 * float(missed.mean())
    return share if cell.measure == "error_rate" else 100 - share
