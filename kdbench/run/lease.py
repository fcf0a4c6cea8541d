"""Who is training a run: a file in its folder with a random owner and a heartbeat.

Neither process numbers nor clocks are compared: both lie across containers and machines. A lease is alive as long as
its file changes while somebody looks on.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kdbench.files import named

BEAT, GRACE = 2.0, 12.0
"""Seconds between signs of life, and without one until a lease counts as left behind."""
NAME = "lease"


class Lease:
    """Held by whoever trains the run in ``place``; ``lost`` once another has taken it (this process slept too long)."""

    def __init__(self, place: Path, owner: str) -> None:
        self._path = place / NAME
        self.owner = owner
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Lease:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with named(self._path):
                self._path.write_text(self.owner, encoding="utf-8")
        except OSError:  # a full disk leaves an empty file, which the next start would wait for
            self._path.unlink(missing_ok=True)
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if not self.lost:
            self._path.unlink(missing_ok=True)

    @property
    def lost(self) -> bool:
        """Whether the file names another owner by now."""
        return owner_of(self._path.parent) != self.owner

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with suppress(OSError):
                if not self.lost:
                    os.utime(self._path)


def new_owner() -> str:
    """A name that nobody else has."""
    return secrets.token_hex(8)


def owner_of(place: Path) -> str | None:
    """Who holds the run in ``place``; None where nobody does."""
    try:
        return (place / NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def held(folder: Path, cache: Path) -> list[Path]:
    """The runs of a plan, and the cache's teachers, that have a lease."""
    return [path.parent for path in (*folder.glob(f"trials/*/{NAME}"), *cache.glob(f"teachers/*/{NAME}"))]


def release(folder: Path, cache: Path, owners: Collection[str]) -> None:
    """Take away the leases of workers that are known to be gone, so that nobody waits for them."""
    for place in held(folder, cache):
        if owner_of(place) in owners:
            (place / NAME).unlink(missing_ok=True)


class Watch:
    """Tells leases that live from those left behind, by looking again and again."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[tuple[str | None, int], float]] = {}

    def alive(self, place: Path) -> bool:
        """Whether somebody may still be training there. A lease met for the first time gets its whole grace."""
        try:
            mark = (owner_of(place), (place / NAME).stat().st_mtime_ns)
        except OSError:
            return False
        held = self._seen.get(place)
        if held is None or held[0] != mark:
            self._seen[place] = (mark, time.monotonic())
            return True
        return time.monotonic() - held[1] < GRACE
