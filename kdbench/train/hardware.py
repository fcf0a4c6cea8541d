"""What a run was measured on, in words."""

from __future__ import annotations

import platform

import torch


def describe_hardware(device: torch.device) -> str:
    """One line: device, model, threads."""
    if device.type == "cuda":
        return f"cuda:{torch.cuda.get_device_name(device)}"
    return f"{device.type}:{platform.machine()}:{torch.get_num_threads()} threads"
