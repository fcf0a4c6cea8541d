"""Who holds a claimed trial, its signs of life, and whether that process still lives."""

from __future__ import annotations

import os
import platform
import threading
from datetime import datetime
from typing import Any

import psutil
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

HEARTBEAT, GRACE = 60, 300
"""Seconds between a worker's signs of life, and after which it is given up."""
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


class Heartbeat:
    """Tells the storage once a minute that this trial's worker lives."""

    def __init__(self, storage: RDBStorage, trial_id: int) -> None:
        self._storage, self._trial_id = storage, trial_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        while not self._stop.is_set():
            try:
                self._storage.record_heartbeat(self._trial_id)
            except (SQLAlchemyError, StorageInternalError):
                pass  # a busy or absent server is tried again at the next beat; the grace period covers five
            self._stop.wait(HEARTBEAT)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
