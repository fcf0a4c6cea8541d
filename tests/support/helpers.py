"""What several test files use: outcomes of command lines, small data on disk."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """What a command line left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def run_process(*arguments: object, **environment: str) -> Outcome:
    """``python -m kdbench ARGS`` as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "kdbench", *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def write_idx(path: Path, array: np.ndarray) -> None:
    """``array`` (uint8) as a gzipped IDX file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_image_folder(root: Path, classes: int, per_class: int, side: int = 16) -> Path:
    """``root/<class>/<n>.png``: noise around one grey level a class."""
    from PIL import Image

    random = np.random.default_rng(0)
    for label in range(classes):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(per_class):
            level = 40 + 150 * label // max(classes - 1, 1)
            pixels = np.clip(random.normal(level, 20, (side, side, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root
