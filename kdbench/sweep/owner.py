"""Who holds a claimed trial, and whether that process still lives."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from typing import Any

import psutil

UNSIGNED = 20
"""Seconds after which a claimed trial without an owner is given up."""


def me() -> dict[str, Any]:
    """This process, as a claimed trial names it."""
    return {"host": platform.node(), "pid": os.getpid(), "born": psutil.Process().create_time()}


def is_dead(owner: dict[str, Any] | None, started: datetime | None) -> bool:
    """True for a process of this machine that is gone; a number reused by another process counts as gone.

    A trial without an owner belongs to a worker that was killed between claiming it and signing it.
    """
    if owner is None:
        return started is not None and (datetime.now() - started).total_seconds() > UNSIGNED
    if owner["host"] != platform.node():
        return False
    try:
        process = psutil.Process(owner["pid"])
        same = abs(process.create_time() - owner["born"]) < 1.0
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
