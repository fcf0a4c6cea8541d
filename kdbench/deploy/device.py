"""How long exported students take on this device. This file alone, with onnxruntime and numpy, is enough: copy it to
the device with the exported folders and run

    python device.py small_050 small_075 --batch 1,8 --threads 1,4 > here.csv

`kdbench latency SWEEP --import here.csv` then puts the figures beside the sweep's. Every round times each file once, so
that whatever else the device does meets all of them alike. Columns are those of timm's benchmark where it has them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

COLUMNS = (
    *("model", "file", "runtime", "runtime_version", "precision", "infer_img_size", "infer_batch_size", "threads"),
    *("infer_samples_per_sec", "infer_step_time", "p10", "p90", "lo", "hi", "rounds", "param_count", "infer_gmacs"),
    *("file_mb", "peak_mb", "hardware", "load"),
)
"""``infer_step_time``: median milliseconds of a batch over the rounds; ``lo`` and ``hi``: its 95% interval over
sittings; ``p10``, ``p90``: of the rounds. ``param_count`` in millions, MACs in billions. ``load``: what else the
machine did before."""
SHORTEST = 0.005
"""Seconds that a round lasts at least: shorter passes are repeated within it."""
WARM = 3
SITTINGS = 5
"""So often all files are opened anew and timed, one sitting after the other."""
QUANTILES = (0.0, 12.706, 4.303, 3.182, 2.776)
"""97.5% points of Student's t by degrees of freedom."""
Run = Callable[[Any], Any]


class Candidate(NamedTuple):
    """Something to be timed."""

    about: Mapping[str, Any]
    """Its columns that are known beforehand: model, file, runtime, precision, sizes."""
    shape: tuple[int, int, int]
    """(channels, height, width) of an image."""
    start: Callable[[int], Run]
    """By threads: what takes a float32 batch."""


def bytes_of(path: Path) -> int:
    """A file's size, with its weights where those lie beside it (OpenVINO's .bin)."""
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
    return sum(each.stat().st_size for each in (path, *beside))


def hardware() -> str:
    """The processor's name and its number of cores."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        found = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
        name = found[0] if found else name
    except OSError:
        pass
    return f"{name} ({os.cpu_count()} cores)"


def load() -> float:
    """Processes that wanted to run in the last minute; NaN where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def interval(sittings: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95% t interval of the time over sittings, of each the median over its rounds; it holds the median of all.

    What drifts between sittings (clocks, heat, where memory lies) is in it; over single rounds it would not be.
    """
    middle = [float(np.median(held)) for held in sittings]
    reach = QUANTILES[len(middle) - 1] * float(np.std(middle, ddof=1)) / len(middle) ** 0.5
    centre, whole = float(np.mean(middle)), float(np.median(np.concatenate(sittings)))
    return min(centre - reach, whole), max(centre + reach, whole)


def measure(
    candidates: Sequence[Candidate], batches: Sequence[int], threads: Sequence[int], rounds: int,
    say: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row of ``COLUMNS`` for each candidate, batch size and number of threads, over several sittings."""
    busy, asked, count = load(), list(product(threads, batches)), min(SITTINGS, rounds // 2)
    sittings = []
    for number in range(count):
        say(f"{len(candidates)} files, sitting {number + 1} of {count}")
        share = rounds // count + (number < rounds % count)
        sittings.append([_rounds(candidates, batch, on, share) for on, batch in asked])
    rows = []
    for place, (on, batch) in enumerate(asked):
        for which, each in enumerate(candidates):
            own = [sitting[place][which] for sitting in sittings]
            held, (lo, hi) = np.concatenate(own), interval(own)
            middle = float(np.median(held))
            rows.append({
                **dict.fromkeys(COLUMNS, ""), **each.about, "infer_img_size": each.shape[1], "infer_batch_size": batch,
                "threads": on, "infer_samples_per_sec": round(1000 * batch / middle, 2), "rounds": rounds,
                "infer_step_time": round(middle, 4), "p10": round(float(np.percentile(held, 10)), 4),
                "p90": round(float(np.percentile(held, 90)), 4), "lo": round(max(lo, 0.0), 4), "hi": round(hi, 4),
                "hardware": hardware(), "load": round(busy, 2),
            })  # fmt: skip
    return rows


def _rounds(candidates: Sequence[Candidate], batch: int, threads: int, rounds: int) -> list[list[float]]:
    """Milliseconds of a pass of each candidate in each round, all opened anew and taking turns."""
    ready = []
    for each in candidates:
        run, images = each.start(threads), np.zeros((batch, *each.shape), np.float32)
        for _ in range(WARM):
            run(images)
        began = time.perf_counter()
        run(images)
        ready.append((run, images, max(1, round(SHORTEST / max(time.perf_counter() - began, 1e-6)))))
    times: list[list[float]] = [[] for _ in ready]
    for _ in range(rounds):
        for (run, images, repeats), held in zip(ready, times, strict=True):
            began = time.perf_counter()
            for _ in range(repeats):
                run(images)
            held.append(1000 * (time.perf_counter() - began) / repeats)
    return times


def session(path: Path, threads: int) -> Run:
    """An ONNX file in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    opened = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = opened.get_inputs()[0].name
    return lambda images: opened.run(None, {name: images})


def peak_mb(path: Path, batch: int = 1, threads: int = 1) -> float:
    """Memory (MB) that opening and running a file adds, in a process of its own; NaN where Linux does not tell it."""
    words = [sys.executable, __file__, "--peak", str(path), "--batch", str(batch), "--threads", str(threads)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        return float(done.stdout)
    except ValueError:
        return float("nan")


def _peak(path: Path, batch: int, threads: int) -> float:
    import onnxruntime  # noqa: F401  its own memory is not the file's

    images = np.zeros((batch, *about_folder(path.parent)[1]), np.float32)
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    reset.write_text("5")  # the peak so far is forgotten, which a process has from the one that started it
    before = _kilobytes(status, "VmRSS:")
    session(path, threads)(images)
    return (_kilobytes(status, "VmHWM:") - before) / 1e3


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def about_folder(folder: Path) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """What an exported folder says of its student, and the shape of its images.

    Raises:
        ValueError: when it is no exported folder.
    """
    try:
        how = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
        held = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        shape = int(how["channels"]), int(how["size"]), int(how["size"])
        about = {"model": str(held["student"]), "param_count": held["params"] / 1e6, "infer_gmacs": held["macs"] / 1e9}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} is no exported student: export.json or preprocess.json is missing or damaged"
        ) from error
    return about, shape


def candidates_of(folders: Sequence[Path], precisions: Sequence[str] = ("fp32", "int8")) -> list[Candidate]:
    """The ONNX files of exported folders.

    Raises:
        ValueError: a folder that is none, or no file at all.
    """
    import onnxruntime

    found = []
    for folder in folders:
        about, shape = about_folder(folder)
        for precision, name in (("fp32", "model.onnx"), ("int8", "model_int8.onnx")):
            path = folder / name
            if precision in precisions and path.is_file():
                told = {**about, "file": name, "runtime": "ort", "runtime_version": onnxruntime.__version__,
                        "precision": precision, "file_mb": round(path.stat().st_size / 1e6, 3),
                        "peak_mb": round(peak_mb(path), 1)}  # fmt: skip
                found.append(Candidate(told, shape, lambda threads, path=path: session(path, threads)))  # type: ignore[misc]
    if not found:
        raise ValueError(f"no model.onnx or model_int8.onnx in {', '.join(map(str, folders))}")
    return found


def numbers(text: str) -> list[int]:
    """``1,4`` as whole numbers above 0."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError("whole numbers above 0")
    return found


def main() -> int:
    """CSV on standard output."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="exported students")
    reader.add_argument("--batch", type=numbers, default=[1], help="images a pass: 1,8")
    reader.add_argument("--threads", type=numbers, default=[1], help="1,4")
    reader.add_argument("--rounds", type=int, default=50)
    reader.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.peak:
        sys.stdout.write(f"{_peak(asked.peak, asked.batch[0], asked.threads[0]):.1f}\n")
        return 0
    if asked.rounds < 6:
        reader.error(f"--rounds: an interval needs 6 or more, not {asked.rounds}")
    if not asked.folders:
        reader.error("name an exported folder")
    try:
        rows = measure(candidates_of(asked.folders), asked.batch, asked.threads, asked.rounds,
                       lambda text: print(text, "...", file=sys.stderr, flush=True))  # fmt: skip
    except ValueError as error:
        reader.error(str(error))
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
