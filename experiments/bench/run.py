"""How fast trials and sweeps run on this machine, beside other loops: ``python experiments/bench/run.py --help``."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from kdbench.errors import BadInput, KdbenchError
from kdbench.files import atomic_text
from kdbench.run.watch import make_observer


def bench(
    pair: Annotated[str, typer.Option(help="Teacher and one student.")] = "resnet50:mobilenetv3_small_100",
    dataset: Annotated[str, typer.Option(help="Catalog name.")] = "fashion-mnist",
    limit: Annotated[int, typer.Option(help="Training samples.")] = 10_000,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 128,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each contender.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds a measurement.")] = 3.0,
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Leave compiled steps out.")] = False,
    mlp: Annotated[bool, typer.Option("--mlp", help="Also time the steps of Hinton's MNIST networks.")] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="Also time a whole 20-trial sweep (minutes).")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json and bench.md.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the bare student step, kdbench's trial, and other distillation loops, side by side in alternating rounds.

    Keep the machine otherwise idle. torchdistill takes part where it is installed.

    Examples:
        python experiments/bench/run.py

        python experiments/bench/run.py --pair resnet50:resnet18 --rounds 3 --no-compile

        python experiments/bench/run.py --sweep --out results/records/bench-cpu
    """
    from kdbench.catalog.pairs import parse_pair
    from kdbench.models import known_models

    students = (named := parse_pair(pair, known_models)).students
    if len(students) != 1:
        raise BadInput(f"--pair {pair} names {len(students)} students: a benchmark takes one, such as {students[0]}")
    from ledger import run_ledger
    from mlp import run_mlp
    from rounds import Setting, run_rounds
    from table import to_markdown

    from kdbench.run.machine import cores

    setting = Setting(
        teacher=named.teacher, student=students[0], dataset=dataset, limit=limit, batch_size=batch_size, device=device,
        rounds=rounds, seconds=seconds, compiled=not no_compile,
    )  # fmt: skip
    observer = make_observer(quiet=as_json, as_json=False)
    try:
        report = run_rounds(setting, cores=cores(), progress=observer.message)
        ledger = run_ledger(report, progress=observer.message) if sweep else None
        steps = None
        if mlp:
            how: dict[str, Any] = {"rounds": rounds, "seconds": seconds, "compiled": not no_compile}
            steps = run_mlp(threads=cores(), **how, progress=observer.message)
    finally:
        observer.close()
    figures: dict[str, Any] = {
        "command": shlex.join(["python", "experiments/bench/run.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **report.model_dump(mode="json"),
        "ratios": report.ratios(),
        "sweep": ledger,
        "mlp": steps,
    }
    table = to_markdown(figures)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        atomic_text(out / "bench.json", json.dumps(figures, indent=1) + "\n")
        atomic_text(out / "bench.md", table)
    typer.echo(json.dumps(figures) if as_json else table)


if __name__ == "__main__":
    try:
        typer.run(bench)
    except KdbenchError as error:
        sys.exit(f"error: {error}")
