"""``kdbench worker``: another process, here or on another machine, that helps with a sweep."""

from __future__ import annotations

from typing import Annotated

import typer

from kdbench.cli.common import RESULTS, OutOption, SweepArgument, find_sweep
from kdbench.cli.sweep import DeviceOption, EntityOption, PackOption, ProjectOption, StorageOption, WandbOption
from kdbench.cli.view import make_view
from kdbench.sweep.options import export, merge, run_options


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("worker")(worker)


def worker(
    sweep: SweepArgument,
    out: OutOption = RESULTS,
    storage: StorageOption = None,
    pack: PackOption = None,
    device: DeviceOption = None,
    wandb: WandbOption = None,
    wandb_project: ProjectOption = None,
    wandb_entity: EntityOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Take runs of a started sweep from its storage until none is left.

    Examples:
        kdbench worker fashion-mnist-resnet50-mobilenetv3-kd

        kdbench worker mine --storage postgresql+psycopg://user@host/kdbench --device cuda:1
    """
    flags = {
        "storage": storage,
        "pack": pack,
        "device": device,
        "wandb": wandb,
        "wandb-project": wandb_project,
        "wandb-entity": wandb_entity,
    }
    run = run_options(merge(None, [], flags))
    export(run)
    folder = find_sweep(sweep, out)
    from kdbench.sweep.work import work

    view = make_view(quiet=quiet, as_json=False)
    try:
        work(folder, storage=run.storage, device=run.device, wandb=run.wandb, view=view)
    finally:
        view.close()
