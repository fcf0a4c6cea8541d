"""``kdbench latency`` and ``kdbench pick``: what exported students cost, and which one to ship."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli.common import SPEC_FILE, find_sweep, print_json, print_table
from kdbench.cli.options import RESULTS, JsonFlag, OutOption, SweepArgument
from kdbench.errors import BadInput


def _say(text: str) -> None:
    sys.stderr.write(f"{text} ...\n")
    sys.stderr.flush()


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _counts(name: str, text: str) -> list[int]:
    found = [int(part) if part.isdecimal() else 0 for part in _split(text)]
    if not found or min(found) < 1:
        raise BadInput(f"{name}: write whole numbers above 0, such as 1,8, not '{text}'")
    return found


def latency(
    what: Annotated[list[str], typer.Argument(metavar="SWEEP|FOLDER...", help="A sweep, or exported folders.")],
    runtime: Annotated[str, typer.Option(metavar="NAME,...", help="ort, torch, openvino, executorch, litert.")] = "ort",
    precision: Annotated[str, typer.Option(metavar="NAME,...", help="fp32, int8.")] = "fp32,int8",
    batch: Annotated[str, typer.Option(metavar="N,...", help="Images a pass.")] = "1",
    threads: Annotated[str, typer.Option(metavar="N,...", help="Threads of a pass.")] = "1",
    rounds: Annotated[int, typer.Option(help="Times that each file is measured, in turn.")] = 50,
    brought: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Figures of kdbench/deploy/device.py, elsewhere.")
    ] = None,
    out: OutOption = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Measure exported students in alternating rounds; latency.csv keeps each hardware's figures apart.

    On another device: copy kdbench/deploy/device.py and the exported folders there; onnxruntime and numpy are enough.

    Examples:
        kdbench latency digits-resnet50-mobilenetv3-kd --batch 1,32 --threads 1,2

        kdbench latency mine --runtime ort,torch --precision fp32

        kdbench latency mine --import phone.csv
    """
    if rounds < 6:
        raise BadInput(f"rounds: an interval needs 6 or more, not {rounds}")
    batches, counts = _counts("batch", batch), _counts("threads", threads)
    _say("reading" if brought else f"measuring {', '.join(what)}")
    from kdbench.deploy import latency as engine

    places = [path if path.is_dir() and not (path / SPEC_FILE).is_file() else find_sweep(name, out)
              for name in what for path in [Path(name).expanduser()]]  # fmt: skip
    folders = [folder for place in places for folder in engine.exported(place)]
    if brought is not None:
        from kdbench.deploy.device import about_folder

        rows = engine.read_rows(brought.expanduser(), {about_folder(folder)[0]["model"] for folder in folders})
    else:
        rows = engine.run_latency(folders, _split(runtime), _split(precision), batches, counts, rounds, _say)
    path = engine.merge(places[0], rows)
    if as_json:
        print_json({"file": str(path), "rows": rows.to_dict("records")})
        return
    table = [
        (row["model"], row["runtime"], row["precision"], row["infer_batch_size"], row["threads"],
         f"{row['infer_step_time']:.3f}", f"[{row['lo']:.3f}, {row['hi']:.3f}]",
         f"{row['p10']:.3f} to {row['p90']:.3f}", f"{row['infer_samples_per_sec']:,.0f}", row["file_mb"],
         row["peak_mb"])
        for row in rows.to_dict("records")
    ]  # fmt: skip
    columns = (
        "model",
        "runtime",
        "precision",
        "batch",
        "threads",
        "ms",
        "95%",
        "p10 to p90",
        "images/s",
        "MB",
        "peak MB",
    )
    print_table(f"{rows['hardware'].iloc[0]}, load before {rows['load'].iloc[0]}", columns, table)
    sys.stdout.write(f"\n{path}\n")


def pick(
    sweep: SweepArgument,
    max_ms: Annotated[float | None, typer.Option(help="Milliseconds an image at most (`kdbench latency`).")] = None,
    max_mb: Annotated[float | None, typer.Option(help="Megabytes of the ONNX file at most (`kdbench export`).")] = None,
    max_params: Annotated[float | None, typer.Option(help="Parameters at most.")] = None,
    max_macs: Annotated[float | None, typer.Option(help="Multiply-accumulates an image at most.")] = None,
    min_acc: Annotated[float | None, typer.Option(help="Validation accuracy (0 to 1) at least.")] = None,
    runtime: Annotated[str, typer.Option(metavar="NAME", help="What --max-ms is about: ort, torch, ...")] = "ort",
    precision: Annotated[str, typer.Option(metavar="NAME", help="fp32 or int8.")] = "fp32",
    threads: Annotated[int, typer.Option(help="Threads of a pass.")] = 1,
    out: OutOption = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Name the one student to ship: best on validation within the limits, and of those that tie the cheapest.

    Exit code 1 where nothing fits, with what comes nearest. Also writes pick.html into the sweep's folder.

    Examples:
        kdbench pick digits-resnet50-mobilenetv3-kd --max-params 1e6

        kdbench pick mine --max-ms 3 --precision int8 --max-mb 2
    """
    folder = find_sweep(sweep, out)
    from kdbench.result import Result

    limits = {"ms": max_ms, "mb": max_mb, "params": max_params, "macs": max_macs, "acc": min_acc}
    choice, told = Result(folder).pick(limits, runtime=runtime, precision=precision, threads=threads)
    if as_json:
        print_json({**choice.as_json(), "sentences": told})
    else:
        sys.stdout.write("\n".join(told) + "\n")
    if choice.chosen is None:
        raise typer.Exit(1)
