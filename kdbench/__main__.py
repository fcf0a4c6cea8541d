"""``python -m kdbench``."""

from __future__ import annotations

from kdbench.cli.main import entry

if __name__ == "__main__":
    entry()
