"""Images of files decoded once for all processes, into arrays that every one of them maps."""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock

from kdbench.data.samples import ArraySamples, BadImages, Fit, Pixels, Samples
from kdbench.files import atomic, drop_halves
from kdbench.host import cores

_AT_ONCE = 32
_FORMAT = 1


def decoded(samples: Samples, fit: Fit, cache: Path) -> Pixels:
    """uint8 (N, S, S, C): the images of ``samples``, fitted; mapped from a file where they come from files."""
    if isinstance(samples, ArraySamples) and samples.images.shape[1:] == (fit.size, fit.size, fit.channels):
        return samples.images
    kept = None if isinstance(samples, ArraySamples) else stored(samples, fit, cache)
    if kept is None:
        kept = np.empty((len(samples.labels), fit.size, fit.size, fit.channels), np.uint8)
        decode_into(kept, samples, fit)
    return kept


def stored(samples: Samples, fit: Fit, cache: Path) -> Pixels | None:
    """As ``decoded``, from ``<cache>/decoded``: decoded by one process, once, and shared by all that map the file.

    None where the cache has no room for it or cannot be written.

    Raises:
        BadImages: all of ``samples`` that cannot be decoded.
    """
    shape = (len(samples.labels), fit.size, fit.size, fit.channels)
    sha = hashlib.sha256(f"{_FORMAT}:{PIL.__version__}:{fit}".encode())
    for row in range(len(samples.labels)):
        sha.update(os.fsencode(samples.signature(row)) + b"\0")
    path = cache / "decoded" / f"{sha.hexdigest()[:24]}.npy"

    def write(aside: Path) -> None:
        out = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
        decode_into(out, samples, fit)
        out.flush()

    try:
        found = _mapped(path, shape)
        if found is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                found = _mapped(path, shape)  # another process may have been faster
                if found is None:
                    if shutil.disk_usage(path.parent).free < 2 * np.prod(shape, dtype=np.int64):
                        return None
                    drop_halves(path.parent, path.name)
                    atomic(path, write)
                    found = _mapped(path, shape)
    except OSError:
        return None
    return found


def _mapped(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """The array in a file; None where there is none, or another or a damaged one."""
    try:
        found: Pixels = np.load(path, mmap_mode="c")
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None


def decode_into(out: Pixels | None, samples: Samples, fit: Fit) -> None:
    """Fill ``out``, uint8 (N, S, S, C), with the fitted images of ``samples``; None: only see whether they decode.

    Raises:
        BadImages: all that cannot be decoded.
    """

    def some(start: int) -> list[tuple[str, str]]:
        faults: list[tuple[str, str]] = []
        for row in range(start, min(start + _AT_ONCE, len(samples.labels))):
            try:
                image = fit(samples.image(row))
            except BadImages as error:
                faults += error.faults
            else:
                if out is not None:
                    out[row] = image
        return faults

    with ThreadPoolExecutor(cores()) as pool:
        faults = [fault for found in pool.map(some, range(0, len(samples.labels), _AT_ONCE)) for fault in found]
    if faults:
        raise BadImages(faults)
