"""Interleaved rounds of all contenders, and the ratios that they come to."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from kdbench.config import Frozen
from kdbench.host import processor

ONE, WHOLE = "one process", "whole machine"
PEERS = ("tutorial loop", "timm", "timm channels_last", "torchdistill")
PARALLEL = ("bare kernels", "bare compiled", "kdbench trial", "kdbench trial compiled")
"""Trained by as many one-thread processes as there are cores; the others use all cores as threads."""
THREADED = ("bare plain", "bare channels_last", *PEERS)


class Setting(Frozen):
    """What is compared, and for how long."""

    teacher: str = "resnet50"
    """timm name."""
    student: str = "mobilenetv3_small_100"
    """timm name."""
    dataset: str = "fashion-mnist"
    """Catalog name."""
    limit: int = 10_000
    """Training samples."""
    batch_size: int = 128
    """Samples a step."""
    pad: int = 4
    """Border of the random crop."""
    device: str = "cpu"
    """cpu or cuda."""
    rounds: int = 5
    """Measurements of each contender."""
    seconds: float = 3.0
    """Length of one measurement."""
    compiled: bool = True
    """Whether compiled steps are measured too (a minute or two more)."""


class Report(Frozen):
    """Images a second of every contender in every round, and ratios of them."""

    setting: Setting
    """What was compared."""
    machine: dict[str, Any]
    """Processor, cores, versions."""
    rates: dict[str, list[float]]
    """``contender (one process | whole machine)`` to images a second, a value a round."""
    absent: dict[str, str]
    """Contenders that did not run, and why."""

    def ratios(self) -> dict[str, tuple[float, float, float]]:
        """Median, smallest and largest of the ratios within rounds: a trial to the best bare step, and to each peer."""
        found = {}
        for where in (ONE, WHOLE):
            trial, bare = self.best("kdbench trial ", where), self.best("bare", where)
            if trial and bare:
                found[f"trial / best bare step, {where}"] = ratio(trial, bare)
        trial = self.best("kdbench trial ", WHOLE)
        for peer in PEERS:
            rates = self.rates.get(f"{peer} ({WHOLE})")
            if trial and rates:
                found[f"trials / {peer}, {WHOLE}"] = ratio(trial, rates)
        return found

    def best(self, start: str, where: str) -> list[float]:
        """The rates of the contender that is fastest by its median."""
        those = [rates for name, rates in self.rates.items() if name.startswith(start) and name.endswith(f"({where})")]
        return max(those, key=statistics.median, default=[])


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of the ratios within rounds."""
    each = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return statistics.median(each), each[0], each[-1]


@dataclass
class _Group:
    """The processes of one contender, started once and asked again and again."""

    name: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    log: IO[str] | None = None

    def start(self, setting: Setting, count: int, threads: int) -> str | None:
        """Start and warm up; the reason where it cannot run."""
        asked = json.dumps({"contender": self.name, "task": setting.model_dump(), "threads": threads})
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("child.py")), asked],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment,
            )  # fmt: skip
            self.processes.append(process)
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                self.stop()
                self.log.seek(0)
                return (self.log.read().strip().splitlines() or ["it ended without a word"])[-1]
        return None

    def measure(self, seconds: float, count: int) -> float:
        """Images a second of the first ``count`` processes together."""
        asked = self.processes[:count]
        for process in asked:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        total = 0.0
        for process in asked:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            total += told["images"] / told["seconds"]
        return total

    def stop(self) -> None:
        """End all of them."""
        for process in self.processes:
            process.kill()
            process.wait()


def run_rounds(setting: Setting, *, cores: int, progress: Callable[[str, int, int], None]) -> Report:
    """Start every contender, then measure them in turn, in alternating order, ``setting.rounds`` times.

    Idle contenders wait without using the processor.
    """
    wanted = [name for name in (*PARALLEL, *THREADED) if setting.compiled or "compiled" not in name]
    groups: list[tuple[_Group, int]] = []
    absent: dict[str, str] = {}
    try:
        for k, name in enumerate(wanted):
            progress(f"starting {name}", k, len(wanted))
            count, threads = (cores, 1) if name in PARALLEL and setting.device == "cpu" else (1, cores)
            group = _Group(name)
            reason = group.start(setting, count, threads)
            if reason is None:
                groups.append((group, count))
            else:
                absent[name] = reason
        rates = _measure(groups, setting, progress)
    finally:
        for group, _ in groups:
            group.stop()
    return Report(setting=setting, machine=_machine(cores, setting.device), rates=rates, absent=absent)


def _measure(
    groups: Sequence[tuple[_Group, int]], setting: Setting, progress: Callable[[str, int, int], None]
) -> dict[str, list[float]]:
    turns = [(group, WHOLE, count) for group, count in groups]
    turns += [(group, ONE, 1) for group, count in groups if count > 1]
    rates: dict[str, list[float]] = {}
    for turn in range(setting.rounds):
        order = turns if turn % 2 == 0 else turns[::-1]
        for k, (group, where, count) in enumerate(order):
            progress(
                f"round {turn + 1} of {setting.rounds}: {group.name}",
                turn * len(turns) + k,
                setting.rounds * len(turns),
            )
            rates.setdefault(f"{group.name} ({where})", []).append(group.measure(setting.seconds, count))
    return rates


def _machine(cores: int, device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"processor": processor(), "cores": cores, "system": platform.system()}
    if device != "cpu":
        from kdbench.run.devices import pick_device
        from kdbench.train.step import describe_hardware

        found["device"] = describe_hardware(pick_device(device))
    for package in ("torch", "timm", "torchdistill"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
