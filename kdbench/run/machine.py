"""Cores and threads of this machine, as the user bounds them."""

from __future__ import annotations

import os

from kdbench.host import THREADS_VARIABLE as THREADS_VARIABLE
from kdbench.host import cores as cores


def threads_each(processes: int) -> int:
    """A process's share of the cores."""
    return max(1, cores() // processes)


def limit_threads() -> None:
    """Give torch as many threads as ``KDBENCH_THREADS`` says, where it says anything."""
    if os.environ.get(THREADS_VARIABLE):
        import torch

        torch.set_num_threads(cores())
