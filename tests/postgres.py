"""A PostgreSQL server that tests start and stop themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def running() -> Iterator[str]:
    """A server on a Unix socket; its URL with the database ``postgres``. Skips the test where there is none."""
    missing = [name for name in ("initdb", "pg_ctl", "postgres") if shutil.which(name) is None]
    if missing or find_spec("psycopg") is None:
        pytest.skip(f"PostgreSQL is not here (missing: {', '.join(missing) or 'psycopg'})")
    root = Path(tempfile.mkdtemp(prefix="kdbench-pg-"))
    as_user: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    if os.getuid() == 0:  # the server refuses to run as root
        shutil.chown(root, "nobody")
        as_user |= {"user": "nobody", "extra_groups": []}
    made = ["initdb", "-D", root / "data", "-U", "kdbench", "-A", "trust", "--no-sync"]
    begun = ["pg_ctl", "-D", root / "data", "-w", "-o", f"-k {root} -c listen_addresses='' -c fsync=off", "start"]
    try:
        try:
            subprocess.run(made, check=True, **as_user)
            subprocess.run(begun, check=True, **as_user)
        except (subprocess.CalledProcessError, PermissionError) as error:
            pytest.skip(f"PostgreSQL does not start here: {error}")
        yield f"postgresql+psycopg://kdbench@/postgres?host={root}"
    finally:
        subprocess.run(["pg_ctl", "-D", root / "data", "-m", "immediate", "stop"], check=False, **as_user)
        shutil.rmtree(root, ignore_errors=True)


def database(server: str, name: str) -> str:
    """The URL of a new, empty database."""
    import psycopg

    name = "t" + "".join(c for c in name if c.isalnum()).lower()
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")
