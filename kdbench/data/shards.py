"""Images in tar shards as webdataset names them: ``train-000.tar`` with ``key.jpg`` beside ``key.cls``. No torch.

``key.cls`` holds the class's number; without it ``key.json`` does, under ``label`` or ``cls``.

A shard is read once, from beginning to end: what it holds, where, of which class, and each image's digest are kept in
``<cache>/files`` for as long as its length, time and inode stay the same. From then on an image is one seek.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

from kdbench.data.folders import EXTENSIONS, FRESH_NS, part_of, seen, subfolders
from kdbench.data.samples import BROKEN, BadImages, FileSamples, Rows, Samples, cut_test, why_broken
from kdbench.errors import BadInput
from kdbench.files import atomic_text
from kdbench.host import cores, default_cache

NAMES = ("classes.txt", "classnames.txt")
"""Files beside the shards that name the classes, one a line, in the order of their numbers."""
_NUMBER = re.compile(r"[-_.]?\d*$")
_TOGETHER = 256
"""Images of a shard that are in memory at once."""


class Member(NamedTuple):
    """One image of a shard: its name, its bytes' place, its class (-1: none is given), and what ``seen`` says."""

    name: str
    offset: int
    length: int
    label: int
    digest: str
    height: int
    width: int
    fault: str


@dataclass(frozen=True)
class ShardSamples(FileSamples):
    """Images in the shards of ``root``; names are ``SHARD/MEMBER``."""

    spans: Sequence[tuple[int, int]] = ()
    """(offset, length) of each in its shard."""

    def image(self, row: int) -> Image.Image:
        shard, member = self.names[row].split("/", 1)
        offset, length = self.spans[row]
        try:
            with (self.root / shard).open("rb") as stream:
                stream.seek(offset)
                with Image.open(io.BytesIO(stream.read(length))) as image:
                    image.load()
                    return image
        except BROKEN as error:
            raise BadImages([(f"{self.root / shard}: {member}", why_broken(error))]) from error

    def take(self, rows: Rows) -> Self:
        return replace(super().take(rows), spans=[self.spans[row] for row in rows])


def shards_of(root: Path) -> dict[str, list[Path]]:
    """The shards in ``root`` by split, each in the order of their names; of no split's name: training.

    {} where there are none, or folders beside them: then those hold the images, and a tar is what they came in.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(root.glob("*.tar")) if root.is_dir() and not subfolders(root) else ():
        found.setdefault(part_of(_NUMBER.sub("", path.stem)) or "train", []).append(path)
    return found


def shard_classes(root: Path) -> tuple[str, ...]:
    """Names of the classes, or their numbers."""
    for path in (root / name for name in NAMES):
        with suppress(FileNotFoundError):
            try:
                return tuple(path.read_text(encoding="utf-8").rstrip("\n").splitlines())
            except UnicodeDecodeError as error:
                raise BadInput(f"{path} is no text in UTF-8: write one class a line in it") from error
    shards = [shard for of_part in shards_of(root).values() for shard in of_part]
    labels = {member.label for shard in shards for member in members_of(shard)}
    return tuple(map(str, range(1 + max(labels, default=-1))))


def read_shards(root: Path, part: str, *, skip_corrupt: bool = False) -> Samples | None:
    """The images of ``part`` (train, val or test), as ``read_folder`` has those of a folder.

    Raises:
        BadInput: no training shard, a damaged shard, an image without a class.
    """
    found = shards_of(root)
    if "train" not in found:
        raise BadInput(f"{root} holds shards of {', '.join(found)} but none of train: name them train-000.tar, ...")
    if part == "val" and "val" not in found:
        return None
    whole = _samples(root, found.get(part) or found["train"], skip_corrupt)
    return cut_test(whole, part) if "test" not in found and part != "val" else whole


def _samples(root: Path, shards: Sequence[Path], skip: bool) -> ShardSamples:
    rows = [(shard.name, member) for shard in shards for member in members_of(shard, skip)]
    for shard, member in rows:
        if member.label < 0:
            raise BadInput(f"{root / shard}: no class beside {member.name}: add its number as {_key(member.name)}.cls")
    sound = [(shard, member) for shard, member in rows if not (skip and member.fault)]
    lost = len(rows) - len(sound)
    faults = [(f"{root / shard}: {member.name}", member.fault) for shard, member in sound if member.fault]
    return ShardSamples(
        root, [f"{shard}/{member.name}" for shard, member in sound],
        np.array([member.label for _, member in sound], np.int64), [member.digest for _, member in sound],
        [(member.height, member.width) for _, member in sound], tuple(faults),
        (f"{lost} of {len(rows)} images in {root} cannot be decoded: left out",) if lost else (),
        [(member.offset, member.length) for _, member in sound],
    )  # fmt: skip


def members_of(shard: Path, full: bool = False) -> list[Member]:
    """The images of a shard in its order, each looked into (see ``seen``).

    Raises:
        BadInput: no tar file, one that ends too early, a class that is no number.
    """
    now = shard.stat()
    held = [now.st_size, now.st_mtime_ns, now.st_ino]
    place = default_cache() / "files" / f"{hashlib.sha256(os.fsencode(shard.resolve())).hexdigest()[:24]}.json"
    with suppress(OSError, ValueError, TypeError, LookupError):
        kept = json.loads(place.read_text(encoding="utf-8"))
        if kept["file"] == held and kept["full"] >= full:
            return [Member(*row) for row in kept["members"]]
    try:
        found = _read(shard, full)
    except (OSError, tarfile.TarError, ValueError, TypeError) as error:
        raise BadInput(f"cannot read the shard {shard}: {error}; fetch or make it again") from error
    if time.time_ns() - now.st_mtime_ns > FRESH_NS:
        with suppress(OSError):
            atomic_text(place, json.dumps({"file": held, "full": full, "members": found}))
    return found


def _read(shard: Path, full: bool) -> list[Member]:
    labels: dict[str, int] = {}
    images: list[tuple[tarfile.TarInfo, bytes]] = []
    found: list[Member] = []
    with tarfile.open(shard, "r:") as tar, ThreadPoolExecutor(cores()) as pool:

        def look(each: tuple[tarfile.TarInfo, bytes]) -> Member:
            info, data = each
            return Member(info.name, info.offset_data, info.size, -1, *seen(io.BytesIO(data), info.size, full))

        for info in tar:
            stream, name = tar.extractfile(info), info.name.lower()
            if stream is None or name.rpartition("/")[2].startswith("."):  # a folder, what a Mac leaves
                continue
            if name.endswith(EXTENSIONS):
                images.append((info, stream.read()))
            elif name.endswith(".cls"):
                labels[_key(info.name)] = int(stream.read())
            elif info.name == _key(info.name) + ".json" and (label := _label(stream.read())) is not None:
                labels.setdefault(_key(info.name), label)
            if len(images) >= _TOGETHER:
                found += pool.map(look, images)
                images.clear()
        found += pool.map(look, images)
        end = tar.offset  # behind the last whole member, where an empty block must be; tarfile ends quietly at others
    with shard.open("rb") as stream:
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"damaged or cut off after {len(found)} images")
    return [member._replace(label=labels.get(_key(member.name), -1)) for member in found]


def _key(name: str) -> str:
    """What the files of one sample share: the name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _label(raw: bytes) -> int | None:
    """What an object in JSON says of a class, where it does."""
    said: Any = json.loads(raw)
    label = said.get("label", said.get("cls")) if isinstance(said, dict) else None
    return label if isinstance(label, int) else None
