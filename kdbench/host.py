"""What machine this is, and what the environment says of how to use it; without torch."""

from __future__ import annotations

import ctypes
import math
import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

from kdbench.errors import BadInput

THREADS_VARIABLE = "KDBENCH_THREADS"


@cache
def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def keep_heap() -> None:
    """Let this process keep the memory that it frees for its next step, where the C library is glibc.

    Left alone, it hands blocks of a step back to the system and faults them in again page by page.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library, which has no such call
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((-3, 32 << 20), (-1, 2**31 - 1), (-2, 64 << 20)):  # M_MMAP_THRESHOLD, _TRIM_, _TOP_PAD
            mallopt(parameter, value)


def default_cache() -> Path:
    """``$KDBENCH_CACHE``, else ``kdbench`` in the user's cache folder."""
    if named := os.environ.get("KDBENCH_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kdbench"


def seconds(variable: str, default: float) -> float:
    """What an environment variable says, ``default`` where it says nothing.

    Raises:
        BadInput: when it is not a number of seconds.
    """
    asked = os.environ.get(variable) or str(default)
    try:
        found = float(asked)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise BadInput(f"{variable}={asked}: give a number of seconds, 0 or more")
    return found


def whole_number(variable: str) -> int | None:
    """What an environment variable says; None where it says nothing.

    Raises:
        BadInput: when it is not a whole number of at least 1.
    """
    asked = os.environ.get(variable)
    if not asked:
        return None
    if not asked.isdecimal() or int(asked) < 1:
        raise BadInput(f"{variable}={asked}: give a whole number of at least 1")
    return int(asked)


def cores() -> int:
    """Cores that may be used: ``KDBENCH_THREADS``, else those that the system gives this process.

    Raises:
        BadInput: when the variable is not a whole number of at least 1.
    """
    if asked := whole_number(THREADS_VARIABLE):
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
