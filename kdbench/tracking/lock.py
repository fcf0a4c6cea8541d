"""Say that a run is being written, in a way that ends with the process, however it ends."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no flock: there every run counts as ended
    fcntl = None  # type: ignore[assignment]

_NAME = "writing.lock"


def hold(folder: Path) -> IO[bytes]:
    """Lock ``folder`` until the returned file is closed or its process ends (the kernel lets go after a kill -9)."""
    handle = (folder / _NAME).open("wb")
    if fcntl is not None:
        with contextlib.suppress(OSError):  # some network file systems cannot lock: the record matters more
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def held(folder: Path) -> bool:
    """Whether a live process is writing the run in ``folder``."""
    if fcntl is None or not (folder / _NAME).exists():
        return False
    with (folder / _NAME).open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False
