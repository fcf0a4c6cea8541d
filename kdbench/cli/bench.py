"""``kdbench bench``: how fast trials and sweeps run on this machine, beside other loops."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from kdbench.cli.view import make_view
from kdbench.errors import BadInput
from kdbench.files import atomic_text


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("bench")(bench)


def bench(
    ctx: typer.Context,
    pair: Annotated[str, typer.Option(help="Teacher and one student.")] = "resnet50:mobilenetv3_small_100",
    dataset: Annotated[str, typer.Option(help="Catalog name.")] = "fashion-mnist",
    limit: Annotated[int, typer.Option(help="Training samples.")] = 10_000,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 128,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each contender.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds a measurement.")] = 3.0,
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Leave compiled steps out.")] = False,
    pack: Annotated[int, typer.Option(min=1, help="Also measure so many trials side by side in a process.")] = 1,
    mlp: Annotated[bool, typer.Option("--mlp", help="Also time the steps of Hinton's MNIST networks.")] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="Also time a whole 20-trial sweep (minutes).")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json and bench.md.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the bare student step, kdbench's trial, and other distillation loops, side by side in alternating rounds.

    Keep the machine otherwise idle. torchdistill takes part where it is installed.

    Examples:
        kdbench bench

        kdbench bench --pair resnet50:resnet18 --rounds 3 --no-compile

        kdbench bench --sweep --out results/records/bench-cpu
    """
    from kdbench.catalog.pairs import parse_pair
    from kdbench.models import known_models

    students = (named := parse_pair(pair, known_models)).students
    if len(students) != 1:
        raise BadInput(f"--pair {pair} names {len(students)} students: a benchmark takes one, such as {students[0]}")
    from kdbench.bench import Setting, run_rounds
    from kdbench.bench.ledger import run_ledger
    from kdbench.bench.mlp import run_mlp
    from kdbench.bench.table import to_markdown
    from kdbench.sweep.machine import cores

    setting = Setting(
        teacher=named.teacher, student=students[0], dataset=dataset, limit=limit, batch_size=batch_size, device=device,
        rounds=rounds, seconds=seconds, compiled=not no_compile, pack=pack,
    )  # fmt: skip
    view = make_view(quiet=as_json, as_json=False)
    try:
        report = run_rounds(setting, cores=cores(), progress=view.progress)
        ledger = run_ledger(report, progress=view.progress) if sweep else None
        steps = None
        if mlp:
            how: dict[str, Any] = {"rounds": rounds, "seconds": seconds, "compiled": not no_compile}
            steps = run_mlp(threads=cores(), **how, progress=view.progress)
    finally:
        view.close()
    figures: dict[str, Any] = {
        "command": shlex.join(["kdbench", *(ctx.obj or [])]),
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
