"""How long epochs take on this machine, as runs have shown; and from that how long a plan will take."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path

from kdbench.config import EpochLog, RunConfig
from kdbench.files import atomic_text
from kdbench.host import processor
from kdbench.methods import METHODS
from kdbench.run.job import Planned

KEPT = 9
"""Epochs remembered of each kind of run: the latest."""


def reads_maps(config: RunConfig) -> bool:
    """Whether the teacher runs live beside the student: its maps are kept nowhere."""
    return "maps" in METHODS.get(config.method).needs


class Speeds:
    """``<cache>/speeds.json``: seconds an epoch by kind of run; part of no run's identity. A damaged file is empty."""

    def __init__(self, cache: Path, device: str, threads: int) -> None:
        self._path, self._where = cache / "speeds.json", f"{device}|{processor()}|{threads}"
        try:
            held = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            held = {}
        self._seconds: dict[str, list[float]] = {
            key: value for key, value in (held.items() if isinstance(held, dict) else ())
            if isinstance(value, list) and all(isinstance(each, int | float) for each in value)
        }  # fmt: skip

    def _key(self, config: RunConfig) -> str:
        r, d = config.recipe, config.data
        shape = f"{d.name}|{d.limit}|{d.train_classes}|{r.input_size}|{r.stem}|{r.batch_size}|{r.precision}|{r.views}"
        shape += r.augment or ""  # what a policy costs
        shape += f"|{r.network_size}" if r.network_size else ""
        shape += "|head" if config.tune == "head" else ""  # a forward pass and little more
        shape += f"|{config.method}" * bool(METHODS.get(config.method).costly)
        shape += f"|{config.method} under {config.teacher_id}" if reads_maps(config) else ""  # which runs beside it
        return f"{config.model}|{shape}|{self._where}"

    def learn(self, config: RunConfig, log: EpochLog) -> None:
        """An epoch took so long. The first one of a process compiles and reads: the median forgets it."""
        held = self._seconds.setdefault(self._key(config), [])
        held.append(round(log.seconds, 4))
        del held[:-KEPT]

    def epoch(self, config: RunConfig) -> float | None:
        """Seconds that an epoch of such a run takes; None: not known."""
        held = self._seconds.get(self._key(config))
        return statistics.median(held) if held else None

    def save(self) -> None:
        """Write what was learnt; a cache that cannot be written to is no fault of the runs."""
        try:
            atomic_text(self._path, json.dumps(self._seconds, indent=0, sort_keys=True) + "\n")
        except OSError:
            return

    def left(self, kinds: Iterable[Planned], workers: int) -> float | None:
        """Wall-clock seconds of the runs that are still to do; None where nothing is known of them.

        A network not met yet is taken to be like the mean of those that were. Teachers have the machine to themselves.
        """
        known: list[float] = []
        total, open_epochs = 0.0, 0
        for kind in kinds:
            epochs = max(kind.runs - kind.done, 0) * kind.example.recipe.last_epoch
            seconds = self.epoch(kind.example)
            if kind.phase == "teacher":
                total += epochs * (seconds or 0.0)
            elif seconds is None:
                open_epochs += epochs
            else:
                known.append(seconds)
                total += epochs * seconds / workers
        if open_epochs and not known:
            return None
        return total + (open_epochs * statistics.mean(known) / workers if open_epochs else 0.0)
