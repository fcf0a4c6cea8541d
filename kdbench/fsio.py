"""Files that are whole or absent: write aside, flush, rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` with a temporary path beside ``path`` and rename it into place when it returns.

    A kill at any moment leaves the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    aside = Path(name)
    try:
        write(aside)
        with aside.open("rb+") as stream:
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o666 & ~mask)
        os.replace(aside, path)
    except OSError as error:
        if error.filename is None:  # a full disk does not say whose write it refused
            error.filename = str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)


def atomic_text(path: Path, text: str) -> None:
    """``text`` as UTF-8, whole or not at all."""
    atomic(path, lambda aside: aside.write_text(text, encoding="utf-8"))
