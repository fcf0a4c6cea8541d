"""The IDX format of MNIST and its relatives (http://yann.lecun.com/exdb/mnist), plain or gzipped."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdbench.catalog.datasets import CHECKSUMS, IDX_FILES
from kdbench.data.samples import ArraySamples
from kdbench.errors import BadInput

_UBYTE = 0x08


def read_idx(path: Path, dims: int, published: dict[str, str] | None = None) -> NDArray[np.uint8]:
    """The unsigned bytes of an IDX file with ``dims`` dimensions.

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
    _check_md5(path, packed, content, published or {})
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


def read_idx_split(folder: Path, name: str, part: str, shape: tuple[int, int, int]) -> ArraySamples:
    """The images (uint8 (N, H, W, 1)) and labels of ``part`` (train or test) of data set ``name`` in ``folder``.

    Raises:
        BadInput: as ``read_idx``; also when images and labels differ in number or the images in size.
    """
    published = CHECKSUMS.get(name, {})
    image_file, label_file = (_find(folder, stem) for stem in IDX_FILES[part])
    images, labels = read_idx(image_file, 3, published), read_idx(label_file, 1, published)
    if len(images) != len(labels):
        raise BadInput(
            f"{image_file} holds {len(images)} images but {label_file} {len(labels)} labels; fetch both again"
        )
    if images.shape[1:] != shape[1:]:
        raise BadInput(f"{image_file} holds images of {images.shape[1:]}, but {name}'s are {shape[1:]}")
    return ArraySamples(images[..., None], labels.astype(np.int64))


def _find(folder: Path, stem: str) -> Path:
    for candidate in (folder / f"{stem}.gz", folder / stem):
        if candidate.is_file():
            return candidate
    raise BadInput(f"{folder} holds neither {stem}.gz nor {stem}, which belongs to the data set: put it there")


def _check_md5(path: Path, packed: bytes, content: bytes, published: dict[str, str]) -> None:
    stem = path.name.removesuffix(".gz")
    for name, data in ((stem, content), (path.name, packed)):
        if (expected := published.get(name)) is not None:
            found = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if found != expected:
                raise BadInput(f"{path} is not the published file: MD5 {found}, not {expected}; fetch it again")
            return
