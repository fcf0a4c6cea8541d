"""``kdbench doctor``: what works on this machine, and what to do about what does not."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import typer

from kdbench import __version__
from kdbench.cli.common import console, print_json
from kdbench.cli.options import RESULTS, JsonFlag
from kdbench.errors import BadInput, KdbenchError
from kdbench.host import default_cache
from kdbench.run.words import counted

if TYPE_CHECKING:
    from kdbench.catalog.registry import Registry

LIBRARIES = ("torch", "torchvision", "timm", "optuna", "wandb", "numpy", "scipy", "pandas", "pyarrow", "seaborn")
EXTRAS = {"psycopg": "postgres", "optuna_dashboard": "dashboard"}
ENOUGH_DISK = 2 * 1024**3
_MARK = {"ok": "[green]✓[/green]", "missing": "[yellow]–[/yellow]", "broken": "[red]✗[/red]"}


class Check(NamedTuple):
    """One thing looked at."""

    topic: str
    name: str
    state: Literal["ok", "missing", "broken"]
    found: str
    fix: str = ""


def doctor(as_json: JsonFlag = False) -> None:
    """Check versions, devices, disk, data sets and W&B on this machine. Exit code 1 if something is broken.

    Examples:
        kdbench doctor

        kdbench doctor --json
    """
    checks = [check for part in (_versions, _plugins, _devices, _places, _data, _wandb) for check in part()]
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        _show(checks)
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(1)


def _show(checks: list[Check]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    topic = ""
    for check in checks:
        fix = f"  [dim]{escape(check.fix)}[/dim]" if check.fix else ""
        head = "" if check.topic == topic else f"[bold]{check.topic}[/bold]"
        table.add_row(head, _MARK[check.state], check.name, escape(check.found) + fix)
        topic = check.topic
    console().print(table)


def _versions() -> Iterator[Check]:
    yield Check("versions", "kdbench", "ok", __version__)
    yield Check("versions", "python", "ok", f"{platform.python_version()} ({sys.executable})")
    for name in LIBRARIES:
        try:
            yield Check("versions", name, "ok", version(name))
        except PackageNotFoundError:
            yield Check("versions", name, "broken", "not installed", f"pip install {name}")
    for name, extra in EXTRAS.items():
        if find_spec(name) is None:
            yield Check("versions", name, "missing", "optional", f"pip install 'kdbench[{extra}]'")
        else:
            yield Check("versions", name, "ok", "installed")


def _plugins() -> Iterator[Check]:
    """Third parties' entry points, each group loaded now."""
    from kdbench.catalog.datasets import DATASETS
    from kdbench.catalog.families import FAMILIES
    from kdbench.catalog.pairs import PAIRS
    from kdbench.methods import METHODS

    for registry in (DATASETS, FAMILIES, METHODS, PAIRS):
        points = [f"{point.name} ({point.value})" for point in entry_points(group=registry.group)]
        try:
            registry.names()
        except BadInput as error:
            yield Check("plugins", registry.group, "broken", str(error), "mend or uninstall the package that brings it")
        else:
            if points:
                yield Check("plugins", registry.group, "ok", ", ".join(points))


def _devices() -> Iterator[Check]:
    import psutil

    cores, memory = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        psutil.virtual_memory(),
    )
    yield Check("devices", "cores", "ok", f"{cores} usable ({platform.machine()})")
    yield Check("devices", "memory", "ok", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free")
    try:
        import timm  # noqa: F401  a torchvision of another build makes this die, whatever the versions say
        import torch
    except (ImportError, RuntimeError, OSError) as error:
        fix = "install torch and torchvision of one release (2.11 with 0.26, 2.15 with 0.29, ...)"
        yield Check("devices", "torch, timm", "broken", " ".join(str(error).split())[:200], fix)
        return
    threads = counted(torch.get_num_threads(), "thread")
    yield Check("devices", "cpu", "ok", f"{threads}, {torch.backends.cpu.get_cpu_capability()}")
    if not torch.cuda.is_available():
        yield Check("devices", "cuda", "missing", "no GPU seen by torch", "sweeps run on the CPU")
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield Check("devices", f"cuda:{index}", "ok", f"{found.name}, {found.total_memory / 2**30:.0f} GiB")


def _places() -> Iterator[Check]:
    for name, folder, fix in (
        ("results", RESULTS, "choose another folder with --out"),
        ("cache", default_cache(), "choose another folder with --cache or KDBENCH_CACHE"),
    ):
        there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            yield Check("disk", name, "broken", f"{folder.absolute()} cannot be written", fix)
            continue
        free = shutil.disk_usage(there).free
        found = f"{folder.absolute()}, {free / 2**30:.1f} GiB free"
        yield Check("disk", name, "ok", found) if free > ENOUGH_DISK else Check("disk", name, "broken", found, fix)


def _data() -> Iterator[Check]:
    from kdbench.catalog.datasets import DATASETS
    from kdbench.data import describe_source

    root = os.environ.get("KDBENCH_DATA")
    if root is None:
        yield Check(
            "data", "KDBENCH_DATA", "missing", "not set", "export KDBENCH_DATA=FOLDER with a folder per data set"
        )
    elif not Path(root).is_dir():
        yield Check("data", "KDBENCH_DATA", "broken", f"{root} is no folder", "set it to the folder of your data sets")
    else:
        yield Check("data", "KDBENCH_DATA", "ok", root)
    for name in _known(DATASETS):
        looked = describe_source(name)
        found = [str(place) for place, there in looked if there]
        if found:
            yield Check("data", name, "ok", found[0])
        else:
            yield Check("data", name, "missing", "not here", "; ".join(str(place) for place, _ in looked))


def _known(registry: Registry[Any]) -> list[str]:
    """Its names; none where a plugin is broken, which was said already."""
    try:
        return registry.names()
    except BadInput:
        return []


def _wandb() -> Iterator[Check]:
    mode = os.environ.get("WANDB_MODE")
    yield Check("wandb", "mode", "ok", f"{mode} (WANDB_MODE)" if mode else "offline by default")
    try:
        from kdbench.tracking.client import require_key

        require_key()
        yield Check("wandb", "key", "ok", "found")
    except KdbenchError as error:
        yield Check("wandb", "key", "missing", str(error), "only --wandb online and `kdbench sync` need one")
