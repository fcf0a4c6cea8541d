"""``kdbench sweep``: run, or go on with, a sweep."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from kdbench.api import plan_sweep, run_sweep
from kdbench.cli.common import show_plan, show_report
from kdbench.run.watch import make_observer

WHAT, HOW, WHERE = "What is compared", "How it is trained", "Where it runs"
StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Mirror the searches live for optuna-dashboard: sqlite:///FILE or postgresql+psycopg://...",
        rich_help_panel=WHERE,
    ),
]
ExecutorOption = Annotated[
    str | None, typer.Option(help="local, or ray: actors of a Ray cluster. [dim](local)[/dim]", rich_help_panel=WHERE)
]
DeviceOption = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or cuda:N. [dim](auto)[/dim]", rich_help_panel=WHERE)
]
WandbOption = Annotated[
    str | None, typer.Option(help="offline, online or disabled. [dim](offline)[/dim]", rich_help_panel=WHERE)
]
ProjectOption = Annotated[str | None, typer.Option(help="W&B project. [dim](kdbench)[/dim]", rich_help_panel=WHERE)]
EntityOption = Annotated[str | None, typer.Option(help="W&B user or team.", rich_help_panel=WHERE)]


def _what(help_text: str, metavar: str | None = None) -> Any:
    return typer.Option(help=help_text, metavar=metavar, rich_help_panel=WHAT)


def _how(help_text: str, metavar: str | None = None) -> Any:
    return typer.Option(help=help_text, metavar=metavar, rich_help_panel=HOW)


def _where(help_text: str, metavar: str | None = None) -> Any:
    return typer.Option(help=help_text, metavar=metavar, rich_help_panel=WHERE)


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("sweep")(sweep)


def sweep(
    ctx: typer.Context,
    pair: Annotated[
        str | None, _what("Teacher and students: families or timm names, comma-separated.", "T:S,...")
    ] = None,
    dataset: Annotated[str | None, _what("Catalog name, folder:/path or hf:name. [dim](digits)[/dim]")] = None,
    method: Annotated[str | None, _what("Distillation losses, comma-separated. [dim](kd)[/dim]")] = None,
    temperature: Annotated[str | None, _what("4, 1,2,4,8 or 1..20. [dim](1..20, log)[/dim]")] = None,
    alpha: Annotated[str | None, _what("Weight of the soft targets, the same forms. [dim](0..1)[/dim]")] = None,
    budget: Annotated[str | None, _what("smoke, quick, standard or paper. [dim](quick)[/dim]")] = None,
    trials: Annotated[int | None, _what("Search trials per student size and method.")] = None,
    seeds: Annotated[int | None, _what("Fresh seeds of the confirm phase.")] = None,
    sampler: Annotated[str | None, _what("tpe, random, grid, qmc or gp. [dim](tpe)[/dim]")] = None,
    pruner: Annotated[str | None, _what("median or none. [dim](median)[/dim]")] = None,
    limit: Annotated[int | None, _what("Use only this many training samples, for rehearsals.")] = None,
    teacher_weights: Annotated[
        str | None,
        _what("'pretrained' or a .safetensors file; several: an ensemble. [dim](train it here)[/dim]", "PATH[,..]"),
    ] = None,
    teacher_floor: Annotated[
        float | None, _what("Validation accuracy (0 to 1) that the teacher must reach. [dim](the data set's)[/dim]")
    ] = None,
    epochs: Annotated[int | None, _how("Students' epochs.")] = None,
    teacher_epochs: Annotated[int | None, _how("The teacher's epochs.")] = None,
    lr: Annotated[float | None, _how("Students' peak learning rate.")] = None,
    batch_size: Annotated[int | None, _how("Students' samples a step.")] = None,
    stem: Annotated[str | None, _how("native, or small: no stride in the stem, for small images.")] = None,
    precision: Annotated[str | None, _how("fp32, bf16, or auto: bf16 on recent GPUs. [dim](auto)[/dim]")] = None,
    config: Annotated[str | None, _where("YAML file, or the name of one in experiments/.", "FILE|NAME")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any option, after the file.", rich_help_panel=WHERE),
    ] = None,
    name: Annotated[str | None, _where("Folder and W&B group. [dim](data set, pair and method)[/dim]")] = None,
    out: Annotated[Path | None, _where("Folder with one folder per sweep. [dim](results)[/dim]")] = None,
    cache: Annotated[Path | None, _where("Folder of teachers and their logits. [dim](~/.cache/kdbench)[/dim]")] = None,
    storage: StorageOption = None,
    workers: Annotated[
        str | None, _where("Processes that train: a number, or auto, one a core. [dim](auto)[/dim]", "N|auto")
    ] = None,
    pack: Annotated[int | None, typer.Option(hidden=True)] = None,
    executor: ExecutorOption = None,
    device: DeviceOption = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="PyTorch's own path: no kernels of ours, no compiler.", rich_help_panel=WHERE),
    ] = False,
    wandb: WandbOption = None,
    wandb_project: ProjectOption = None,
    wandb_entity: EntityOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and an estimate; run nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line on stdout.")] = False,
) -> None:
    """Train a teacher, search each student size, confirm the winners on fresh seeds, report.

    The same command again goes on where it stopped; finished runs are never repeated.

    Examples:
        kdbench sweep --pair resnet50:mobilenetv3

        kdbench sweep --pair resnet50:mobilenetv3 --dataset fashion-mnist --budget standard --seeds 5

        kdbench sweep --pair resnet50:mobilenetv3_small_050,resnet18 --temperature 1,2,4,8 --alpha 0.5..1

        kdbench sweep --config quick --set budget.trials=4 --dry-run
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in ctx.params.items()}
    flags = {key: value for key, value in given.items() if key not in ("config", "set", "dry-run", "quiet", "as-json")}
    flags["exact"] = exact or None
    observer = make_observer(quiet=quiet, as_json=as_json and not dry_run)
    try:
        if dry_run:
            planned = plan_sweep(flags, set_ or [], config, observer)
        else:
            command = shlex.join(["kdbench", *(ctx.obj or [])])
            folder = run_sweep(flags, set_ or [], config, observer, command)
    finally:
        observer.close()
    if dry_run:
        show_plan(planned, as_json=as_json)
    else:
        show_report(folder, as_json=as_json)
