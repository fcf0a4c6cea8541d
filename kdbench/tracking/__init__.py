"""Runs in W&B: offline unless asked, in a child process of the coordinator's, sent later by ``kdbench sync``.

``record`` says how a run is described there, ``observer`` tells the child (``child``), ``sync`` sends what has not
arrived, ``client`` is the wandb client of one process. W&B mirrors what the run folders hold; nothing is ever read
from it to decide. Importing this package does not import wandb.
"""

from __future__ import annotations

from kdbench.tracking.observer import WandbObserver
from kdbench.tracking.sync import SyncReport, sync

__all__ = ["SyncReport", "WandbObserver", "sync"]
