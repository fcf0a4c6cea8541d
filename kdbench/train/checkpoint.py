"""A run's files: the checkpoint (atomic, one an epoch) and metrics.jsonl."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdbench.config import EpochLog
from kdbench.files import atomic, atomic_text
from kdbench.host import seconds

NAME = "checkpoint.pt"
INTERVAL = seconds("KDBENCH_CHECKPOINT_SECONDS", 5)
"""Seconds of training that a kill may cost at most, beside the epoch under way; 0 writes after every epoch."""


class Checkpoint(NamedTuple):
    """Everything that an epoch boundary is: noise and order are functions of (seed, epoch), so not here."""

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    logs: list[EpochLog]
    attempts: int
    method: dict[str, Any] = {}  # noqa: RUF012
    """State of the method's own part."""
    step: dict[str, Any] = {}  # noqa: RUF012
    """The form of the steps, which a resumed run keeps."""
    ema: dict[str, Tensor] = {}  # noqa: RUF012
    """State of the moving average."""
    run: str = ""
    """Its id."""


def save_checkpoint(workdir: Path, checkpoint: Checkpoint) -> None:
    """Replace the run's checkpoint; a kill leaves the old one or the new one."""
    buffer = io.BytesIO()  # torch's own writer hides what the disk said
    torch.save(checkpoint._asdict() | {"logs": [log.model_dump() for log in checkpoint.logs]}, buffer)
    atomic(workdir / NAME, lambda aside: aside.write_bytes(buffer.getbuffer()))


def load_checkpoint(workdir: Path, device: torch.device) -> Checkpoint | None:
    """The run's checkpoint, or None where there is none or it cannot be read (then the run starts over)."""
    try:
        state = torch.load(io.BytesIO((workdir / NAME).read_bytes()), map_location=device, weights_only=True)
        logs = [EpochLog.model_validate(log) for log in state["logs"]]
        return Checkpoint(**{**state, "logs": logs})
    except (FileNotFoundError, RuntimeError, EOFError, LookupError, ValueError, TypeError, pickle.UnpicklingError):
        return None  # junk ends in any of these


def write_metrics(workdir: Path, logs: list[EpochLog]) -> None:
    """metrics.jsonl, a line an epoch, whole each time: a resumed run can leave no doubled line."""
    atomic_text(workdir / "metrics.jsonl", "".join(log.model_dump_json() + "\n" for log in logs))
