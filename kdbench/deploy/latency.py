"""Latencies of exported students, kept beside the sweep by hardware: measured here, or on a device and brought back."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.deploy.device import COLUMNS, Candidate, about_folder, bytes_of, candidates_of, hardware, load, measure
from kdbench.errors import BadInput
from kdbench.files import atomic_text

FILE = "latency.csv"
RUNTIMES = ("ort", "torch", "openvino", "executorch", "litert")
_PACKAGES = {"ort": "onnxruntime", "openvino": "openvino", "executorch": "executorch", "litert": "ai_edge_litert"}
PRECISIONS = ("fp32", "int8")
KEY = ["model", "file", "runtime", "precision", "infer_img_size", "infer_batch_size", "threads", "hardware"]
"""A row measured again replaces the one before; other hardware never does."""
BUSY = 0.5
"""A load above which a machine is said to be busy."""
_POSITIVE = ("infer_step_time", "infer_samples_per_sec", "infer_batch_size", "infer_img_size", "threads")


def exported(place: Path) -> list[Path]:
    """The exported folders at, or in, or of the sweep at ``place``.

    Raises:
        BadInput: there is none.
    """
    around = [place, *sorted(place.glob("*")), *sorted(place.glob("export/*"))]
    found = [folder for folder in around if (folder / "export.json").is_file()]
    if not found:
        raise BadInput(f"{place} holds no exported student: `kdbench export {place.name}` makes them")
    return found


def run_latency(
    folders: Sequence[Path], runtimes: Sequence[str], precisions: Sequence[str], batches: Sequence[int],
    threads: Sequence[int], rounds: int, say: Callable[[str], None],
) -> pd.DataFrame:  # fmt: skip
    """Rows of ``COLUMNS`` measured on this machine.

    Raises:
        BadInput: an unknown runtime or precision, a runtime that is not installed, nothing to measure.
    """
    for kind, asked, known in (("runtime", runtimes, RUNTIMES), ("precision", precisions, PRECISIONS)):
        for name in asked:
            if name not in known:
                raise BadInput(f"unknown {kind} '{name}' (one of {', '.join(known)})")
    for name, package in _PACKAGES.items():
        if name in runtimes and importlib.util.find_spec(package) is None:
            extra = "export" if name == "ort" else name
            raise BadInput(f"--runtime {name} needs the package '{package}': pip install 'kdbench[{extra}]'")
    if (busy := load()) > BUSY:
        say(f"this machine is busy (load {busy:.1f}): the figures say so, better measure when it is idle")
    say("opening the files")
    found: list[Candidate] = []
    try:
        found += candidates_of(folders, precisions) if "ort" in runtimes else []
    except ValueError as error:
        raise BadInput(str(error)) from error
    for folder in folders if "fp32" in precisions else ():
        found += [_other(folder, name) for name in runtimes if name != "ort" and (folder / _FILES[name]).is_file()]
    if not found:
        raise BadInput("nothing to measure: no exported file is of that runtime and precision")
    return pd.DataFrame(measure(found, batches, threads, rounds, say), columns=list(COLUMNS))


_FILES = {"torch": "model.safetensors", "openvino": "model.xml", "executorch": "model.pte", "litert": "model.tflite"}


def _other(folder: Path, runtime: str) -> Candidate:
    about, shape = about_folder(folder)
    path = folder / _FILES[runtime]
    told = {**about, "file": path.name, "runtime": runtime, "precision": "fp32"}
    told["file_mb"] = round(bytes_of(path) / 1e6, 3)
    start = {"torch": _torch, "openvino": _openvino}.get(runtime, _phone)
    told["runtime_version"] = version(_PACKAGES.get(runtime, runtime).replace("_", "-"))
    return Candidate(told, shape, lambda threads: start(path, threads))


def _torch(path: Path, threads: int) -> Callable[[Any], Any]:
    """Eager, as deployed, channels_last: as the sweep's own latency."""
    import torch

    from kdbench.deploy.formats import open_timm
    from kdbench.models import deployed

    network = deployed(open_timm(path.parent)).eval().to(memory_format=torch.channels_last)

    def run(images: Any) -> Any:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return network(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))

    return run


def _phone(path: Path, threads: int) -> Callable[[Any], Any]:
    from kdbench.deploy.formats import open_phone  # imports torch

    return open_phone(path, threads)


def _openvino(path: Path, threads: int) -> Callable[[Any], Any]:
    import openvino

    from kdbench.deploy.formats import OPENVINO  # imports torch

    core = openvino.Core()
    return core.compile_model(path, "CPU", {**OPENVINO, "INFERENCE_NUM_THREADS": threads})  # type: ignore[no-any-return]


def read_rows(path: Path, students: Iterable[str] | None = None) -> pd.DataFrame:
    """latency.csv, or what ``device.py`` printed; each row is looked at.

    Raises:
        BadInput: no such file, missing columns, impossible figures, or models that are no ``students``.
    """
    try:
        table = pd.read_csv(io.StringIO(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path} cannot be read as CSV ({why})") from error
    if lacking := [name for name in COLUMNS if name not in table]:
        raise BadInput(f"{path} is no table of latencies: it lacks {', '.join(lacking)}")
    for name in _POSITIVE:
        values = pd.to_numeric(table[name], errors="coerce")
        if (bad := ~((values > 0) & (values < 1e9))).any():
            row = int(bad.to_numpy().argmax())
            raise BadInput(f"{path}, row {row + 2}: {name} is {table[name][row]!r}, not a number above 0")
        table[name] = values
    if students is not None and (strange := sorted({*table["model"].astype(str)} - {*students})):
        raise BadInput(f"{path}: {strange[0]} is no student of this sweep ({', '.join(sorted(students))})")
    return table[list(COLUMNS)]


def merge(folder: Path, rows: pd.DataFrame) -> Path:
    """``folder/latency.csv`` with ``rows`` in it, sorted; its path."""
    path = folder / FILE
    held = [read_rows(path)] if path.is_file() else []
    table = pd.concat([*held, rows], ignore_index=True).drop_duplicates(KEY, keep="last")
    table = table.sort_values(["hardware", "runtime", "precision", "infer_batch_size", "threads", "param_count"])
    atomic_text(path, table.to_csv(index=False))
    return path


def costs(folder: Path, named: str) -> tuple[dict[str, float], str]:
    """What a student costs by the measure ``named``, and how an axis calls it.

    ``RUNTIME-PRECISION[-bBATCH][-tTHREADS]`` (``ort-int8``: one image, one thread): median milliseconds out of
    latency.csv, on this machine's hardware where it was measured there, else on the only other; ``file_mb`` and
    ``file_mb-int8``: megabytes of the ONNX file.

    Raises:
        BadInput: another name, nothing measured, or several devices of which none is this one.
    """
    base, *more = named.split("-")
    if base == "file_mb" and more in ([], ["int8"]):
        kind = "int8" if more else "onnx"
        held = [json.loads((place / "export.json").read_text(encoding="utf-8")) for place in exported(folder)]
        sizes = {one["student"]: file["bytes"] / 1e6 for one in held for file in one["files"] if file["format"] == kind}
        return sizes, f"ONNX file{' in int8' if more else ''} (MB)"
    path = folder / FILE
    if not path.is_file():
        raise BadInput(f"nothing is measured in {folder}: run `kdbench latency {folder.name}` first")
    table = read_rows(path)
    asked: dict[str, Any] = {"runtime": base, "precision": "fp32", "infer_batch_size": 1, "threads": 1}
    for part in more:
        letter, count = part[:1], part[1:]
        if part in PRECISIONS:
            asked["precision"] = part
        elif letter in "bt" and count.isdecimal():
            asked["infer_batch_size" if letter == "b" else "threads"] = int(count)
        else:
            base = ""
    if base not in RUNTIMES:
        raise BadInput(f"unknown measure '{named}': params, macs, file_mb or RUNTIME-PRECISION such as ort-int8")
    own = table[(table[list(asked)] == pd.Series(asked)).all(axis=1)]
    devices = sorted(own["hardware"].astype(str).unique())
    if hardware() in devices:
        devices = [hardware()]
    if len(devices) != 1:
        why = f"on {' and '.join(devices)}, never mixed" if devices else "not at all"
        raise BadInput(f"{named} was measured {why}: run `kdbench latency {folder.name}` here for it")
    own = own[own["hardware"] == devices[0]]
    batch, threads = asked["infer_batch_size"], asked["threads"]
    detail = f"{base} {asked['precision']}, batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
    times = dict(zip(own["model"].astype(str), own["infer_step_time"].astype(float), strict=True))
    return times, f"Latency (ms; {detail}, {devices[0]})"
