"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from the binary version or from checksum-verified Python batches."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from kdbench.catalog.datasets import CHECKSUMS
from kdbench.data.samples import ArraySamples
from kdbench.errors import BadInput

_PIXELS = 3 * 32 * 32
_FILES = {
    "cifar-10-batches-bin": {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]},
    "cifar-100-binary": {"train": ["train.bin"], "test": ["test.bin"]},
    "cifar-10-batches-py": {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]},
    "cifar-100-python": {"train": ["train"], "test": ["test"]},
}


def read_cifar(folder: Path, layout: str, part: str) -> ArraySamples:
    """The images (uint8 (N, 32, 32, 3)) and fine labels of ``part`` from ``folder / layout``.

    Raises:
        BadInput: naming the file, when one is missing, cut short, or (Python batches) not the published one.
    """
    hundred = "100" in layout
    chunks = []
    for name in _FILES[layout][part]:
        path = folder / layout / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}; unpack the data set again") from error
        chunks.append(_binary(path, content, hundred) if "bin" in layout else _verified(path, content, hundred))
    planes = np.concatenate([images for images, _ in chunks]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in chunks]).astype(np.int64)
    return ArraySamples(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _binary(path: Path, content: bytes, hundred: bool) -> tuple[Any, Any]:
    """A record is one label byte (CIFAR-100: coarse, then fine) and the red, green and blue planes."""
    head = 2 if hundred else 1
    if not content or len(content) % (head + _PIXELS):
        raise BadInput(
            f"{path} holds {len(content)} bytes, which is not a whole number of {head + _PIXELS}-byte records: "
            "it is truncated or of another format; unpack the data set again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, head + _PIXELS)
    return records[:, head:], records[:, head - 1]


class _OnlyArrays(pickle.Unpickler):
    """Builds NumPy arrays and plain containers, nothing else, even from a verified file."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR batch")


def _verified(path: Path, content: bytes, hundred: bool) -> tuple[Any, Any]:
    """The very bytes whose MD5 was compared with the published one are unpickled, never the file again."""
    expected = CHECKSUMS["cifar100" if hundred else "cifar10"][path.name]
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise BadInput(f"{path} is not the published file: MD5 {found}, not {expected}; fetch the data set again")
    batch = _OnlyArrays(io.BytesIO(content), encoding="latin1").load()
    return batch["data"], np.asarray(batch["fine_labels" if hundred else "labels"])
