"""manifest.json: what a sweep was run with and on. Written at the start and completed at the end."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kdbench
from kdbench.errors import MachineFault
from kdbench.files import atomic_text
from kdbench.host import processor

KINDS = {"spec": dict, "hardware": dict, "starts": list, "latency_ms": dict, "latency_range_ms": dict}
"""What readers rely on."""
PACKAGES = ("torch", "timm", "optuna", "wandb", "numpy", "scipy", "pandas")


def _git_revision() -> str | None:
    """The revision of kdbench's own checkout, ``+`` where it was changed; None for an installed copy."""
    here = Path(kdbench.__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        run = [subprocess.run(["git", "-C", str(here), *args], capture_output=True, text=True, timeout=10, check=True)
               for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])]  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return run[0].stdout.strip() + ("+" if run[1].stdout.strip() else "")


def _versions() -> dict[str, str]:
    found = {"kdbench": kdbench.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_manifest(sweep_dir: Path) -> dict[str, Any]:
    """The manifest, or an empty mapping where there is none yet.

    Raises:
        MachineFault: when it is damaged.
    """
    path = sweep_dir / "manifest.json"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        odd = [key for key, kind in KINDS.items() if not isinstance(held.get(key) or kind(), kind)]
        odd += [key for key, ms in (held.get("latency_ms") or {}).items() if not isinstance(ms, int | float)]
        if odd:
            raise ValueError(f"unexpected: {', '.join(odd)}")
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise MachineFault(f"{path} is damaged ({error}): delete it, `kdbench sweep` writes it again") from error
    return dict(held)


def begin(sweep_dir: Path, spec: dict[str, Any], *, command: str, device: str, threads: int, workers: int) -> None:
    """Note a start: every start of a sweep is kept with what it ran on, the first one's facts on top as well."""
    held = read_manifest(sweep_dir)
    start = {
        **origin(command),
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "device": device,
            "threads": threads,
            "workers": workers,
            "system": platform.system(),
        },
    }
    first = {key: held.get(key, value) for key, value in start.items()}
    update(sweep_dir, {"spec": spec, **first, "starts": [*held.get("starts", []), start]})


def origin(command: str) -> dict[str, Any]:
    """When, by which command, and by which code something was made."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_password(command),
        "git": _git_revision(),
        "versions": _versions(),
    }


PASSWORDS = (r"(://[^:/@]*):.*@", r"\1:***@"), (r"(?i)([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*)=[^&]*", r"\1=***")
"""In a URL: behind a user's name, or in the query."""


def hide_password(url: str) -> str:
    """A URL with ``***`` for every password in it."""
    for pattern, shown in PASSWORDS if "://" in url else ():
        url = re.sub(pattern, shown, url)
    return url


def without_password(command: str) -> str:
    """A command line whose URLs show no password."""
    return shlex.join(map(hide_password, shlex.split(command))) if "://" in command else command


def update(sweep_dir: Path, changes: dict[str, Any]) -> None:
    """Merge ``changes`` into the manifest."""
    merged = {**read_manifest(sweep_dir), **changes}
    atomic_text(sweep_dir / "manifest.json", json.dumps(merged, indent=1) + "\n")


def finish(sweep_dir: Path, measured: dict[str, Any]) -> None:
    """Note the end, the first time, and what was ``measured`` (latencies: milliseconds a batch of one image)."""
    held = read_manifest(sweep_dir)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    update(sweep_dir, {"finished": held.get("finished", now), **measured})
