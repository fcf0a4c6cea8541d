"""manifest.json: what a sweep was run with and on. Written at the start and completed at the end."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kdbench
from kdbench.fsio import atomic_text
from kdbench.schema import Sweep

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


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def read_manifest(sweep_dir: Path) -> dict[str, Any]:
    """The manifest, or an empty mapping."""
    path = sweep_dir / "manifest.json"
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return held


def begin(sweep_dir: Path, sweep: Sweep, *, command: str, device: str, threads: int, workers: int) -> None:
    """Note a start: every start of a sweep is kept, the first one's facts on top."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    held = read_manifest(sweep_dir)
    start = {"at": now, "command": command, "workers": workers, "threads": threads, "git": _git_revision()}
    update(
        sweep_dir,
        {
            "spec": sweep.model_dump(mode="json"),
            "command": held.get("command", command),
            "git": held.get("git", start["git"]),
            "started": held.get("started", now),
            "starts": [*held.get("starts", []), start],
            "versions": _versions(),
            "hardware": {
                "processor": _processor(),
                "cores": os.cpu_count(),
                "device": device,
                "system": platform.system(),
                "python": sys.version.split()[0],
            },
        },
    )


def update(sweep_dir: Path, changes: dict[str, Any]) -> None:
    """Merge ``changes`` into the manifest."""
    merged = {**read_manifest(sweep_dir), **changes}
    atomic_text(sweep_dir / "manifest.json", json.dumps(merged, indent=1) + "\n")


def finish(sweep_dir: Path, latency_ms: dict[str, float]) -> None:
    """Note the end and the measured latencies (milliseconds a batch of one image)."""
    update(sweep_dir, {"finished": datetime.now(UTC).isoformat(timespec="seconds"), "latency_ms": latency_ms})
