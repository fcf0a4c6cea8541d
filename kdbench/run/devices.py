"""Which device trains: what ``--device`` and ``--gpus-per-run`` come to on this machine."""

from __future__ import annotations

import torch

from kdbench.errors import BadInput
from kdbench.run.events import Setting


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        BadInput: a device that torch does not know or that is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"--device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def device_of(device: torch.device, setting: Setting, rank: int = 0) -> torch.device:
    """Of this worker's ``rank``-th process: GPUs in turn where ``--device`` names none.

    Raises:
        BadInput: a run that wants more GPUs than there are.
    """
    if device.type != "cuda":
        return device
    count, named = torch.cuda.device_count(), str(device) != "cuda"
    if setting.gpus_per_run > (1 if named else count):
        found = f"--device {device} is one" if named else f"this machine has {count}"
        raise BadInput(f"--gpus-per-run {setting.gpus_per_run}: {found}")
    if named or count == 1:
        return device
    return torch.device("cuda", (setting.worker * setting.gpus_per_run + rank) % count)
