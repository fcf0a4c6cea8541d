"""Where data sets are looked for on this machine, and fetching one into the user's cache. Imports no torch."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import shutil
import socket
import tarfile
import tempfile
import zipfile
from pathlib import Path

from kdbench.catalog.datasets import IDX_FILES
from kdbench.errors import MachineFault
from kdbench.host import default_cache

DEBIAN = Path("/usr/share/datasets")
_TORCHVISION = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw", "kmnist": "KMNIST/raw"}
_IDX = tuple(IDX_FILES["train"][0] + ending for ending in (".gz", ""))
_MARKERS = {  # files or folders that show that a data set is there, by data set
    **dict.fromkeys(_TORCHVISION, _IDX),
    "cifar10": ("cifar-10-batches-bin", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-binary", "cifar-100-python"),
    "svhn": ("train_32x32.mat",),
    "stl10": ("stl10_binary",),
    "imagenette": ("imagenette2-160", "imagenette2-320", "imagenette2", "train"),
    "tiny-imagenet": ("tiny-imagenet-200", "train"),
    "imagenet-1k": ("train",),
}
_OTHERS = (*_IDX, "train", "")  # third parties' data sets: IDX files, split folders, class folders
ARRAYS = frozenset({*_TORCHVISION, "cifar10", "cifar100", "svhn", "stl10"})
"""Data sets that come as arrays, not as image files."""
_DEBIAN_PACKAGE = {"fashion-mnist": "dataset-fashion-mnist"}
_CLASSES = {  # in torchvision.datasets
    "mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100",
    "svhn": "SVHN", "stl10": "STL10", "imagenette": "Imagenette",
}  # fmt: skip
_ARGUMENTS = {"svhn": [{"split": "train"}, {"split": "test"}], "imagenette": [{"size": "160px"}]}
_TIMEOUT_S = 20.0
_FAULTS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zipfile.BadZipFile)


def data_root() -> Path | None:
    """``$KDBENCH_DATA``, when set."""
    value = os.environ.get("KDBENCH_DATA", "").strip()
    return Path(value).expanduser() if value else None


def cache_root() -> Path:
    """Folder for downloads, in the cache (``$KDBENCH_CACHE``)."""
    return default_cache() / "datasets"


def markers(name: str) -> tuple[str, ...]:
    """Files or folders any one of which shows the data set ``name``; empty stands for the folder itself."""
    return _MARKERS.get(name, _OTHERS)


def candidates(name: str) -> list[tuple[Path, tuple[str, ...]]]:
    """Folders that may hold ``name``, in the order they are looked at, each with what would show it there."""
    wanted, inner, root = markers(name), _TORCHVISION.get(name), data_root()
    own = tuple(mark for mark in wanted if mark not in ("train", ""))  # a bare train/ at the top could be anyone's
    places: list[tuple[Path, tuple[str, ...]]] = []
    if root is not None:
        places.append((root / name, wanted))
        places += [(root, own)] if own and name in _MARKERS else []
        places += [(root / inner, wanted)] if inner else []
    places.append((DEBIAN / name, wanted))
    cache = cache_root() / name
    return [*places, (cache / inner if inner else cache, wanted)]


def locate(name: str) -> tuple[Path, str] | None:
    """The first (folder, marker) that exists for ``name``."""
    found = ((folder, mark) for folder, wanted in candidates(name) for mark in wanted if (folder / mark).exists())
    return next(found, None)


def missing(name: str, why: str = "") -> MachineFault:
    """The error for a data set that is nowhere: every place looked at, and what to do."""
    looked = ", ".join(str(folder) for folder, _ in candidates(name))
    sought = " or ".join(mark for mark in markers(name) if mark) or "class folders"
    package = f"; on Debian `apt install {_DEBIAN_PACKAGE[name]}` brings it" if name in _DEBIAN_PACKAGE else ""
    tried = f" No download: {why}." if why else ""
    return MachineFault(
        f"the data set '{name}' is not on this machine: no {sought} in {looked}.{tried} Put it in one of these places "
        f"(KDBENCH_DATA names the folder of data sets){package}, or use `--dataset digits`, which needs no files"
    )


def download(name: str) -> None:
    """Puts the data set ``name`` into the cache, whole or not at all.

    torchvision fetches it and compares every file with its published checksum. ``KDBENCH_DOWNLOAD=0`` forbids it.

    Raises:
        MachineFault: naming the places looked at before, and why the download failed or was not tried.
    """
    if os.environ.get("KDBENCH_DOWNLOAD", "1").strip().lower() in ("0", "no", "false", "off"):
        raise missing(name, "KDBENCH_DOWNLOAD=0 forbids it")
    if name not in _CLASSES:
        raise missing(name, "this data set has to be fetched by hand")
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # a torchvision that does not match torch dies with RuntimeError
        raise missing(name, f"torchvision cannot be used ({error})") from error
    target, before, aside = cache_root() / name, socket.getdefaulttimeout(), None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=target.parent))
        socket.setdefaulttimeout(_TIMEOUT_S)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for arguments in _ARGUMENTS.get(name, [{}]):
                getattr(datasets, _CLASSES[name])(str(aside), download=True, **arguments)
        if not target.exists():  # another worker may have been faster
            os.replace(aside, target)
    except _FAULTS as error:
        raise missing(name, " ".join(str(error).split())[:300] or type(error).__name__) from error
    finally:
        socket.setdefaulttimeout(before)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
