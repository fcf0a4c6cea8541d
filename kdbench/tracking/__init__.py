"""Where runs are shown while they happen: nothing, or W&B (offline unless asked).

``base`` says what a tracker is and names its runs, ``wandb_tracker`` writes them with the real client, ``service``
owns the client's process-wide state (environment, background process, credentials), ``offline`` reads a run's file
back, ``upload`` sends offline runs later (``kdbench sync``). W&B mirrors what the trial folders hold; nothing is ever
read from it to decide. Importing this package does not import wandb.
"""

from __future__ import annotations

from kdbench.tracking.base import NullTracker, Tracker, run_id
from kdbench.tracking.make import Trackers, make_tracker, open_trackers
from kdbench.tracking.offline import OfflineRun, find_runs, read_offline
from kdbench.tracking.upload import SyncReport, sync

__all__ = [
    "NullTracker",
    "OfflineRun",
    "SyncReport",
    "Tracker",
    "Trackers",
    "find_runs",
    "make_tracker",
    "open_trackers",
    "read_offline",
    "run_id",
    "sync",
]
