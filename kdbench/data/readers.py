"""Data sets that come as arrays: IDX files (MNIST and its relatives, http://yann.lecun.com/exdb/mnist), CIFAR
(Krizhevsky 2009: the binary version, or checksum-verified Python batches), torchvision's, and scikit-learn's digits.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import pickle
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdbench.catalog.datasets import CHECKSUMS, IDX_FILES
from kdbench.catalog.types import DatasetSpec
from kdbench.data.samples import ArraySamples
from kdbench.errors import BadInput, MachineFault

_UBYTE = 0x08
_PIXELS = 3 * 32 * 32
_CIFAR = {
    "cifar-10-batches-bin": {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]},
    "cifar-100-binary": {"train": ["train.bin"], "test": ["test.bin"]},
    "cifar-10-batches-py": {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]},
    "cifar-100-python": {"train": ["train"], "test": ["test"]},
}


def read_arrays(spec: DatasetSpec, folder: Path, marker: str, part: str) -> ArraySamples:
    """``part`` (train or test) of a data set that comes as arrays, from ``folder``, where ``marker`` is.

    Raises:
        BadInput: naming the file, when one is missing, damaged, truncated, or not the published one.
    """
    if spec.name in ("cifar10", "cifar100"):
        samples = read_cifar(folder, marker, part)
    elif spec.name in ("svhn", "stl10"):
        samples = _torchvision(spec.name, folder, part)
    else:
        samples = _idx_split(folder, spec.name, part, spec.shape)
    expected = spec.sizes.get(part)
    if expected is not None and len(samples.labels) != expected:
        raise BadInput(
            f"the {part} split of '{spec.name}' in {folder} holds {len(samples.labels)} images, not the published "
            f"{expected}: a file is truncated or of another data set; fetch it again"
        )
    return samples


def digits() -> ArraySamples:
    """scikit-learn's bundled digits: 1,797 grey images of 8 × 8, pixels 0 to 255."""
    found = find_spec("sklearn")  # its file alone: importing scikit-learn takes most of a second, in every process
    if found is None or found.origin is None:
        raise MachineFault("scikit-learn, which brings the digits, is not installed: pip install scikit-learn")
    table = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    images = np.rint(table[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return ArraySamples(images, table[:, -1].astype(np.int64))


def read_idx(path: Path, dims: int, published: dict[str, str] | None = None) -> NDArray[np.uint8]:
    """The unsigned bytes of an IDX file with ``dims`` dimensions, plain or gzipped.

    Args:
        published: MD5 by file name, with ``.gz`` for the packed file and without for its content.

    Raises:
        BadInput: naming the file, when it is unreadable, damaged, truncated, of another format, or not the
            published one.
    """
    fix = "fetch the file again"
    try:
        packed = path.read_bytes()
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"cannot read {path}: {error or 'it ends too early'}; {fix}") from error
    for name, data in ((path.name.removesuffix(".gz"), content), (path.name, packed)):
        if name in (published or {}):
            _check_md5(path, data, (published or {})[name])
            break
    header, magic = 4 + 4 * dims, bytes([0, 0, _UBYTE, dims])
    if len(content) < header or content[:4] != magic:
        begins = f"begins with 0x{content[:4].hex()}" if content else "is empty"
        raise BadInput(
            f"{path} is not an IDX file of {dims}-dimensional bytes: it {begins}, not 0x{magic.hex()}; {fix}"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", dims, 4))
    if math.prod(shape) != len(content) - header:
        raise BadInput(
            f"{path} says {shape} but holds {len(content) - header} bytes: it is truncated or damaged; {fix}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _check_md5(path: Path, content: bytes, published: str) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != published:
        raise BadInput(f"{path} is not the published file: MD5 {found}, not {published}; fetch it again")


def _idx_split(folder: Path, name: str, part: str, shape: tuple[int, int, int]) -> ArraySamples:
    published, paths = CHECKSUMS.get(name, {}), []
    for stem in IDX_FILES[part]:
        path = next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)
        if path is None:
            raise BadInput(f"{folder} holds neither {stem}.gz nor {stem}, which belongs to the data set: put it there")
        paths.append(path)
    images, labels = read_idx(paths[0], 3, published), read_idx(paths[1], 1, published)
    if len(images) != len(labels):
        raise BadInput(f"{paths[0]} holds {len(images)} images but {paths[1]} {len(labels)} labels; fetch both again")
    if images.shape[1:] != shape[1:]:
        raise BadInput(f"{paths[0]} holds images of {images.shape[1:]}, but {name}'s are {shape[1:]}")
    return ArraySamples(images[..., None], labels.astype(np.int64))


def read_cifar(folder: Path, layout: str, part: str) -> ArraySamples:
    """The images (uint8 (N, 32, 32, 3)) and fine labels of ``part`` from ``folder / layout``.

    Raises:
        BadInput: naming the file, when one is missing, cut short, or (Python batches) not the published one.
    """
    hundred, chunks = "100" in layout, []
    for name in _CIFAR[layout][part]:
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
    _check_md5(path, content, CHECKSUMS["cifar100" if hundred else "cifar10"][path.name])
    batch = _OnlyArrays(io.BytesIO(content), encoding="latin1").load()
    return batch["data"], np.asarray(batch["fine_labels" if hundred else "labels"])


def _torchvision(name: str, folder: Path, part: str) -> ArraySamples:
    from torchvision import datasets as tv

    kind = {"svhn": tv.SVHN, "stl10": tv.STL10}[name]
    try:
        found = kind(str(folder), split=part)
    except (RuntimeError, OSError, ValueError) as error:
        raise BadInput(
            f"the files of {name} in {folder} are damaged or incomplete: {error}; fetch them again"
        ) from error
    return ArraySamples(np.ascontiguousarray(found.data.transpose(0, 2, 3, 1)), found.labels.astype(np.int64))
