"""Files that are whole or absent, and ids made of canonical JSON: equal ids mean the same run."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ID_LENGTH = 12


def canonical_json(value: Any) -> str:
    """``value`` (a pydantic model or plain JSON data) as JSON with sorted keys and no spaces.

    Floats keep Python's shortest round-trip form, so the text is the same on every machine.

    Raises:
        ValueError: for NaN or infinity, which have no place in an identity.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def identify(value: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:ID_LENGTH]


@contextmanager
def named(path: Path) -> Iterator[None]:
    """What fails in it names ``path``: a full disk does not say whose write it refused."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` with a temporary path beside ``path`` and rename it into place when it returns.

    A kill at any moment leaves the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    aside = Path(name)
    try:
        with named(path):
            write(aside)
            with aside.open("rb+") as stream:
                os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o666 & ~mask)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def drop_halves(folder: Path, name: str = "") -> None:
    """Remove what kills left of writes in ``folder`` (of ``name``): for whoever alone writes there now."""
    for aside in folder.glob(f".{name}*.tmp"):
        aside.unlink(missing_ok=True)


def atomic_text(path: Path, text: str) -> None:
    """``text`` as UTF-8, whole or not at all."""
    atomic(path, lambda aside: aside.write_text(text, encoding="utf-8"))
