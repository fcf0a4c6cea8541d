"""Images in folders: one folder a class, with or without ``train``, ``val`` and ``test`` above. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdbench.data.samples import FileSamples, Samples, cut_test
from kdbench.errors import BadInput

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


class Tree(NamedTuple):
    """Where the splits of a folder are; ``train`` is the folder itself when it has no split folders."""

    train: Path
    val: Path | None
    test: Path | None


def tree(root: Path, val_is_test: bool = False) -> Tree:
    """The splits below ``root``; ``val_is_test`` where a published val plays the test split (ImageNet and its kin).

    Raises:
        BadInput: when ``root`` is no readable folder.
    """
    names = {entry.lower(): root / entry for entry in _subfolders(root)}
    found = {part: next((names[n] for n in known if n in names), None) for part, known in _NAMES.items()}
    if found["train"] is None:
        return Tree(root, None, None)
    if val_is_test:
        return Tree(found["train"], None, found["val"] or found["test"])
    return Tree(found["train"], found["val"], found["test"])


def classes_of(root: Path) -> tuple[str, ...]:
    """The class folders of ``root``, in order.

    Raises:
        BadInput: unreadable, none, or a single one.
    """
    found = _subfolders(root)
    expected = f"it must hold one folder a class, each with images ({', '.join(EXTENSIONS[:3])}, ...)"
    if not found:
        raise BadInput(f"no class folders in {root}: {expected}")
    if len(found) < 2:
        raise BadInput(f"only one class ('{found[0]}') in {root}: a classifier needs two or more; {expected}")
    return tuple(found)


def scan(root: Path, classes: tuple[str, ...]) -> FileSamples:
    """The images below the class folders of ``root``, by class and then by name; a class may be absent, not empty.

    Raises:
        BadInput: unreadable folder, a class folder without an image, a class that is not one of ``classes``.
    """
    found = set(_subfolders(root))
    if strange := sorted(found - set(classes)):
        raise BadInput(f"{root} holds a class '{strange[0]}' that the training split does not: rename or remove it")
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = _images(root / name, name) if name in found else []
        if name in found and not files:
            raise BadInput(
                f"no image in the class folder {root / name}: add some ({', '.join(EXTENSIONS)}) or remove it"
            )
        names += files
        labels += [label] * len(files)
    return FileSamples(root, tuple(names), np.array(labels, np.int64))


def read_folder(root: Path, part: str, val_is_test: bool = False) -> Samples | None:
    """The images of ``part`` (train, val or test) below ``root``.

    Without a test folder, a fixed stratified share of the training images is the test split, and no longer training.
    None where there is no val folder.
    """
    where = tree(root, val_is_test)
    classes = classes_of(where.train)
    if part == "val":
        return None if where.val is None else scan(where.val, classes)
    if where.test is None:
        return cut_test(scan(where.train, classes), part)
    return scan(where.train if part == "train" else where.test, classes)


def read_tiny_imagenet(root: Path, part: str) -> Samples | None:
    """tiny-imagenet-200 as published: the labels of its val, here the test split, are in a text file.

    Raises:
        BadInput: when that file is missing or names an unknown class.
    """
    notes = root / "val" / "val_annotations.txt"
    if part != "test" or not notes.is_file():
        return read_folder(root, part, val_is_test=True)
    index = {name: label for label, name in enumerate(classes_of(tree(root, True).train))}
    names, labels = [], []
    for number, line in enumerate(notes.read_text().splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in index:
            raise BadInput(f"{notes}, line {number}: '{line}' does not name a file and a known class; unpack it again")
        names.append(f"images/{fields[0]}")
        labels.append(index[fields[1]])
    return FileSamples(root / "val", tuple(names), np.array(labels, np.int64))


def _subfolders(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        raise BadInput(f"there is no folder {root}: check the path") from None
    except OSError as error:
        raise BadInput(f"cannot read the folder {root}: {error.strerror}; check its permissions") from error


def _images(folder: Path, prefix: str) -> Sequence[str]:
    found: list[str] = []
    for base, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(base).relative_to(folder).as_posix()
        place = prefix if inside == "." else f"{prefix}/{inside}"
        found += [f"{place}/{f}" for f in files if f.lower().endswith(EXTENSIONS) and not f.startswith(".")]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise BadInput(f"cannot read the folder {error.filename}: {error.strerror}; check its permissions") from error
