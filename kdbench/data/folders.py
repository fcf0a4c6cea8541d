"""Images in folders: one folder a class, with or without ``train``, ``val`` and ``test`` above. Imports no torch.

Every file of a user's own folder is looked into once: a digest of its content, whether it can be decoded, and its
size are kept in ``<cache>/files`` for as long as its length, time and inode stay the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from kdbench.data.samples import BROKEN, FileSamples, Samples, cut_test, shown, why_broken
from kdbench.errors import BadInput
from kdbench.files import atomic_text
from kdbench.host import cores, default_cache

EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"
)  # fmt: skip
SYSTEM = frozenset(
    {"@eadir", "@tmp", "@recycle", "#recycle", "__macosx", "$recycle.bin", "lost+found", "system volume information"}
)
"""Folders that operating systems and storage boxes leave behind, in lower case; they and hidden ones are skipped."""
_PART = re.compile(
    r"(?:.*[_-])?(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing)?|eval))"
    r"(?:[_-](?:set|data|images?|split))?",
    re.IGNORECASE,
)
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096
FRESH_NS = 10**9
"""Within a tick of the clock a file may be written again and look the same: what is that new is looked at again."""


class Tree(NamedTuple):
    """Where the splits of a folder are; ``train`` is the folder itself when it has no split folders."""

    train: Path
    val: Path | None
    test: Path | None


def tree(root: Path, val_is_test: bool = False) -> Tree:
    """The splits below ``root``; ``val_is_test`` where a published val plays the test split (ImageNet and its kin).

    Raises:
        BadInput: when ``root`` is no readable folder, or has a split for testing but none for training.
    """
    found: dict[str, Path] = {}
    for name in (names := subfolders(root)):
        if part := part_of(name):
            found.setdefault(part, root / name)
    train = found.get("train")
    if len(found) < len(names) and train is not None and not subfolders(train):
        train = None  # a class of that name among others
    if train is None:
        if len(found) > 1 and len(found) == len(names) and any(map(subfolders, found.values())):
            raise BadInput(f"{root} holds {' and '.join(p.name for p in found.values())} but no folder 'train'")
        return Tree(root, None, None)
    if val_is_test:
        return Tree(train, None, found.get("val") or found.get("test"))
    return Tree(train, found.get("val"), found.get("test"))


def part_of(name: str) -> str | None:
    """Which split (train, val or test) a folder or a series of shards of that name holds."""
    match = _PART.fullmatch(name)
    return match and match.lastgroup


def classes_of(root: Path) -> tuple[str, ...]:
    """The class folders of ``root``, in order.

    Raises:
        BadInput: unreadable, none, or a single one.
    """
    found = subfolders(root)
    expected = f"it must hold one folder a class, each with images ({', '.join(EXTENSIONS[:3])}, ...)"
    if not found:
        raise BadInput(f"no class folders in {root}: {expected}")
    if len(found) < 2:
        raise BadInput(f"only one class ('{shown(found[0])}') in {root}: a classifier needs two or more; {expected}")
    return tuple(found)


def read_folder(
    root: Path, part: str, *, val_is_test: bool = False, published: bool = False, skip_corrupt: bool = False
) -> Samples | None:
    """The images of ``part`` (train, val or test) below ``root``, by class and then by name.

    Without a test folder, a fixed stratified share of the training images is the test split, and no longer training.
    None where there is no val folder. What cannot be decoded is in the samples' ``faults``; with ``skip_corrupt``
    every file is decoded once, and those are left out. The files of ``published`` data sets are not looked into.

    Raises:
        BadInput: unreadable folder, a class folder without an image, a class that the training split does not have.
    """
    where = tree(root, val_is_test)
    classes, place = classes_of(where.train), getattr(where, part)
    whole = scan(place or where.train, classes, published, skip_corrupt) if place or part != "val" else None
    return cut_test(whole, part) if whole is not None and where.test is None and part != "val" else whole


def read_tiny_imagenet(root: Path, part: str, *, skip_corrupt: bool = False) -> Samples | None:
    """tiny-imagenet-200 as published: the labels of its val, here the test split, are in a text file.

    Raises:
        BadInput: when that file is missing or names an unknown class.
    """
    notes = root / "val" / "val_annotations.txt"
    if part != "test" or not notes.is_file():
        return read_folder(root, part, val_is_test=True, published=True, skip_corrupt=skip_corrupt)
    index = {name: label for label, name in enumerate(classes_of(tree(root, True).train))}
    files, labels = {}, []
    for number, line in enumerate(notes.read_text().splitlines(), 1):
        name, known = [*line.split("\t"), ""][:2]
        path = root / "val" / "images" / name
        if known not in index or not path.is_file():
            raise BadInput(f"{notes}, line {number}: '{line}' does not name a file and a known class; unpack it again")
        files[f"images/{name}"] = path.stat()
        labels.append(index[known])
    return _samples(root / "val", files, labels, True, skip_corrupt)


def scan(root: Path, classes: tuple[str, ...], published: bool, skip_corrupt: bool) -> FileSamples:
    """The images in the class folders of ``root``; see ``read_folder``."""
    found, left = set(subfolders(root)), Counter[str]()
    if strange := sorted(found - set(classes)):
        raise BadInput(
            f"{root} holds a class '{shown(strange[0])}' that the training split does not: rename or remove it"
        )
    files: dict[str, os.stat_result] = {}
    labels: list[int] = []
    above = {_place(root), *(_place(root / name) for name in found)}
    left.update(name for name, status in _entries(root) if _is_left(name, status))
    for label, name in enumerate(classes):
        mine = sorted(_images(root / name, name, above, left)) if name in found else []
        if name in found and not mine:
            raise BadInput(
                f"no image in the class folder {shown(root / name)}: add some ({', '.join(EXTENSIONS)}) or remove it"
            )
        files |= mine
        labels += [label] * len(mine)
    notes = (f"left out: {', '.join(f'{n} x {name}' for name, n in sorted(left.items()))}",) if left else ()
    return _samples(root, files, labels, published, skip_corrupt, notes)


def _samples(
    root: Path, files: dict[str, os.stat_result], labels: list[int], published: bool, skip: bool,
    notes: tuple[str, ...] = (),
) -> FileSamples:  # fmt: skip
    names = list(files)
    if published and not skip:
        marks = [f"{name}:{stat.st_size}" for name, stat in files.items()]
        return FileSamples(root, names, np.array(labels, np.int64), marks, notes=notes)
    known = _examine(root, files, full=skip)
    sound = [row for row, name in enumerate(names) if not (skip and known[name].fault)]
    if skip and len(sound) < len(names):
        notes = (*notes, f"{len(names) - len(sound)} of {len(names)} images in {root} cannot be decoded: left out")
    return FileSamples(
        root,
        [names[row] for row in sound],
        np.array([labels[row] for row in sound], np.int64),
        [f"{names[row]}:{files[names[row]].st_size}" if published else known[names[row]].digest for row in sound],
        [(known[names[row]].height, known[names[row]].width) for row in sound],
        () if skip else tuple((str(root / name), known[name].fault) for name in names if known[name].fault),
        notes,
    )


class _Known(NamedTuple):
    """What is known of a file, as long as its length, time (ns) and inode are these."""

    length: int
    time: int
    inode: int
    digest: str
    height: int
    width: int
    fault: str
    full: bool
    """Whether all of it was decoded, not its header alone."""

    def holds(self, now: os.stat_result, full: bool) -> bool:
        return self[:3] == (now.st_size, now.st_mtime_ns, now.st_ino) and (self.full or bool(self.fault) or not full)


def _examine(root: Path, files: dict[str, os.stat_result], full: bool) -> dict[str, _Known]:
    """Each file's digest, size and fault: from the index of an earlier look where the file has not changed."""
    place = default_cache() / "files" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]}.json"
    index: dict[str, _Known] = {}
    with suppress(OSError, ValueError, TypeError):
        index = {name: _Known(*known) for name, known in json.loads(place.read_text()).items()}
    fresh = [name for name, now in files.items() if name not in index or not index[name].holds(now, full)]
    if not fresh:
        return index
    with ThreadPoolExecutor(2 * cores()) as pool:
        index |= zip(fresh, pool.map(lambda name: _look(root / name, files[name], full), fresh), strict=True)
    settled = {name: index[name] for name in files if time.time_ns() - files[name].st_mtime_ns > FRESH_NS}
    with suppress(OSError):  # a cache that cannot be written: the next process looks again
        atomic_text(place, json.dumps(settled))
    return index


def _look(path: Path, now: os.stat_result, full: bool) -> _Known:
    found = Seen("", 0, 0, "")
    try:
        with path.open("rb") as stream:
            found = seen(stream, now.st_size, full)
    except OSError as error:
        found = found._replace(fault=why_broken(error))
    return _Known(now.st_size, now.st_mtime_ns, now.st_ino, *found, full)


class Seen(NamedTuple):
    """What a look into an image's file found."""

    digest: str
    height: int
    width: int
    fault: str


def seen(stream: io.BytesIO | io.BufferedReader, length: int, full: bool) -> Seen:
    """Read an image's bytes: its digest, its header; its pixels with ``full``, or where its end is not an image's."""
    digest, height, width, fault = "", 0, 0, ""
    try:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        stream.seek(max(0, length - _TAIL))
        tail = stream.read()
        stream.seek(0)
        with Image.open(stream) as image:
            height, width = image.height, image.width
            if full or _ENDS.get(image.format or "", b"") not in tail:
                image.load()
            else:
                image.verify()  # the checksums of a PNG
    except BROKEN as error:
        fault = why_broken(error)
    return Seen(digest, height, width, fault)


def _skipped(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def _is_left(name: str, status: os.stat_result) -> bool:
    return _skipped(name) and stat.S_ISDIR(status.st_mode)


def _place(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def subfolders(root: Path) -> list[str]:
    """Names of the folders in a folder, but for hidden ones and the system's, in order."""
    return sorted(name for name, status in _entries(root) if stat.S_ISDIR(status.st_mode) and not _skipped(name))


def _entries(folder: Path) -> list[tuple[str, os.stat_result]]:
    """What is in a folder, links followed; a link to nowhere or to itself is not there."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    found.append((entry.name, entry.stat()))
    except FileNotFoundError:
        raise BadInput(f"there is no folder {shown(folder)}: check the path") from None
    except OSError as error:
        raise BadInput(f"cannot read the folder {shown(folder)}: {error.strerror}; check its permissions") from error
    return found


def _images(
    folder: Path, prefix: str, above: set[tuple[int, int]], left: Counter[str]
) -> Iterator[tuple[str, os.stat_result]]:
    """The image files below ``folder``; a link back to one of the folders ``above`` is not followed."""
    for name, status in _entries(folder):
        if _skipped(name):
            left.update([name] if _is_left(name, status) else [])
        elif stat.S_ISREG(status.st_mode) and name.lower().endswith(EXTENSIONS):
            yield f"{prefix}/{name}", status
        elif stat.S_ISDIR(status.st_mode) and (here := (status.st_dev, status.st_ino)) not in above:
            yield from _images(folder / name, f"{prefix}/{name}", above | {here}, left)
