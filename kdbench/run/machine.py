"""Cores and threads of this machine, as the user bounds them."""

from __future__ import annotations

import os

from kdbench.host import whole_number

THREADS_VARIABLE = "KDBENCH_THREADS"


def cores() -> int:
    """Cores that may be used: ``KDBENCH_THREADS``, else those that the system gives this process.

    Raises:
        BadInput: when the variable is not a whole number of at least 1.
    """
    if asked := whole_number(THREADS_VARIABLE):
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each(processes: int) -> int:
    """A process's share of the cores."""
    return max(1, cores() // processes)


def limit_threads() -> None:
    """Give torch as many threads as ``KDBENCH_THREADS`` says, where it says anything."""
    if os.environ.get(THREADS_VARIABLE):
        import torch

        torch.set_num_threads(cores())
