"""``kdbench explain``: pictures, from a real teacher, of what a sweep turns its knobs on."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kdbench.files import atomic_text
from kdbench.run.watch import make_observer

app = typer.Typer(no_args_is_help=True, help="Pictures of the ideas behind a sweep, made from a real teacher.")


@app.callback()
def explain() -> None:
    """Pictures of the ideas behind a sweep, made from a real teacher."""


@app.command("temperature")
def temperature(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Option(metavar="NAME", help="Catalog name, folder:/path or hf:name.")] = "digits",
    teacher: Annotated[str, typer.Option(metavar="NAME", help="timm name.")] = "resnet50",
    budget: Annotated[
        str, typer.Option(metavar="NAME", help="How it is trained where it is not in the cache.")
    ] = "quick",
    samples: Annotated[int, typer.Option(min=1, max=10, metavar="N", help="Images shown.")] = 4,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for temperature.png, .svg, .pdf and .json.")] = Path(
        "."
    ),
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Print nothing but the file's name.")
    ] = False,
) -> None:
    """What T does to a teacher's predictions: a few validation images, their soft targets, entropy against T.

    The teacher is the one that `kdbench sweep` uses for this data set and budget; it is trained first where the cache
    does not hold it. temperature.json says which one it was.

    Examples:
        kdbench explain temperature

        kdbench explain temperature --dataset fashion-mnist --teacher resnet50 --out pictures
    """
    from kdbench.sweeps.config import SweepConfig
    from kdbench.sweeps.spec import build_sweep

    spec = build_sweep(SweepConfig(pair=f"{teacher}:{teacher}", dataset=dataset, budget=budget))
    observer = make_observer(quiet=quiet, as_json=False)
    try:
        from kdbench.report.drawing import save, telling_samples, temperature_figure
        from kdbench.run.manifest import origin
        from kdbench.sweeps.explain import teacher_on_validation

        told = teacher_on_validation(spec, partial(telling_samples, count=samples), observer)
    finally:
        observer.close()
    title = f"{teacher} on {spec.data.name}: softmax(z / T) of validation images it gets right"
    figure = temperature_figure(told.images, told.logits, told.shown, title)
    out.mkdir(parents=True, exist_ok=True)
    about = {**origin(shlex.join(["kdbench", *(ctx.obj or [])])), "teacher": told.teacher.model_dump(mode="json")}
    atomic_text(out / "temperature.json", json.dumps(about, indent=1) + "\n")
    typer.echo(save(figure, out, "temperature")["temperature.png"])
