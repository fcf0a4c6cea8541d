"""A folder per run: config.json first, result.json last and whole; the truth about what was run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.errors import MachineFault, readable
from kdbench.files import atomic, atomic_text

RUNS_FILE = "runs.jsonl"
"""A record's runs: config, epochs and result of one in each line."""
WEIGHTS = "model.safetensors"
LOGITS = "logits.npz"


class Run(NamedTuple):
    """A finished run."""

    config: RunConfig
    result: RunResult
    epochs: list[EpochLog]
    """Empty where they were not asked for."""


def run_folder(folder: Path, run_id: str) -> Path:
    """Where one run of a sweep or paper keeps config.json, metrics.jsonl, its checkpoint and, last, result.json."""
    return folder / "trials" / run_id


def write_config(place: Path, config: RunConfig) -> None:
    """config.json of a run; written before it starts."""
    atomic_text(place / "config.json", config.model_dump_json(indent=1) + "\n")


def write_result(place: Path, result: RunResult) -> None:
    """result.json; its presence means that the run is whole."""
    atomic_text(place / "result.json", result.model_dump_json(indent=1) + "\n")


def read_config(place: Path) -> RunConfig | None:
    """What a run is, or None where that is missing or damaged (running it again writes it)."""
    try:
        return RunConfig.model_validate_json((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_result(place: Path) -> RunResult | None:
    """A run's result, or None while it has none (a damaged file counts as none: the run is repeated)."""
    try:
        return RunResult.model_validate_json((place / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_epochs(place: Path) -> list[EpochLog]:
    """A run's epochs so far, up to the first line that cannot be read."""
    logs: list[EpochLog] = []
    try:
        for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            logs.append(EpochLog.model_validate_json(line))
    except (OSError, ValueError):
        pass
    return logs


def count_start(place: Path) -> int:
    """The number of this start of a run, 1-based, kept in its folder."""
    path = place / "starts"
    try:
        before = int(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = 0
    atomic_text(path, f"{before + 1}\n")
    return before + 1


def of_last_release(place: Path, config: RunConfig) -> RunResult | None:
    """The result of a teacher that release 0.1 prepared, from its card.json."""
    try:
        card = json.loads((place / "card.json").read_text(encoding="utf-8"))
        kept = {name: card[name] for name in ("id", "val_acc", "nll", "ece", "params", "macs", "seconds", "hardware")}
        epochs = config.recipe.epochs if card["source"] == "trained" else 0
        result = RunResult(status="complete", best_val_acc=card["val_acc"], agreement=1.0, epochs=epochs, **kept)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    write_config(place, config)
    write_result(place, result)
    return result


def recorded_logits(record: Path, run_id: str) -> Path:
    """Where a record has a run's logits."""
    return record / "logits" / f"{run_id}.npz"


def load_runs(folder: Path, *, epochs: bool = False, faults: list[str] | None = None) -> list[Run]:
    """All finished runs in a folder, from ``trials/``, or from a record's ``runs.jsonl``.

    Lines of a record that cannot be read are told to ``faults`` where it is given.

    Raises:
        MachineFault: when a record's lines cannot be read.
    """
    record = folder / RUNS_FILE
    if record.is_file() and not (folder / "trials").is_dir():
        found = list(_recorded(record, epochs, faults))
        if not found and not faults:
            raise MachineFault(f"{record} holds no run: restore it, or make the record again")
        return found
    runs = []
    for path in sorted(folder.glob("trials/*/result.json")):
        config, result = read_config(path.parent), read_result(path.parent)
        if config is not None and result is not None and config.id == path.parent.name:
            runs.append(Run(config, result, read_epochs(path.parent) if epochs else []))
        elif faults is not None:
            faults.append(
                f"run {path.parent.name} left out: its config.json or result.json is damaged or another run's"
            )
    return runs


def _recorded(record: Path, epochs: bool, faults: list[str] | None) -> Iterator[Run]:
    seen: set[str] = set()
    for number, line in enumerate(record.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            held = json.loads(line)
            if (name := held["result"]["id"]) in seen:
                raise ValueError(f"run {name} is there twice")
            seen.add(name)
            logs = [EpochLog.model_validate(log) for log in held["epochs"]] if epochs else []
            yield Run(RunConfig.model_validate(held["config"]), RunResult.model_validate(held["result"]), logs)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            told = readable(error) if isinstance(error, ValidationError) else str(error).splitlines()[0]
            if faults is None:
                raise MachineFault(f"{record}, line {number}, cannot be read: {told}") from error
            faults.append(f"line {number} of {record.name} left out: {told}")


def run_line(place: Path) -> str:
    """One run as a record keeps it: its config, its epochs, its result."""
    held: dict[str, Any] = {
        part: json.loads((place / f"{part}.json").read_text(encoding="utf-8")) for part in ("config", "result")
    }
    epochs = [log.model_dump(mode="json") for log in read_epochs(place)]
    return json.dumps({"config": held["config"], "epochs": epochs, "result": held["result"]})


def adopt(run_id: str, needed: Iterable[str], others: Iterable[Path], place: Path) -> tuple[RunResult, str] | None:
    """A finished run copied from another plan's folder, with the files needed of it; its result, and which folder.

    Equal ids are the same run. One that was pruned is not taken: another search may have let it go on.
    """
    for folder in others:
        there = run_folder(folder, run_id)
        held = read_result(there)
        if held is None or held.status != "complete" or not all((there / name).exists() for name in needed):
            continue
        config, logs = read_config(there), read_epochs(there)
        if config is None or not run_id == config.id == held.id or len(logs) < held.epochs:  # damaged
            continue
        place.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "metrics.jsonl", *needed):
            atomic(place / name, partial(shutil.copyfile, there / name))
        write_result(place, held)
        return held, folder.name
    return None
