"""Where data sets are looked for on this machine, and where a download goes. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from kdbench.catalog.datasets import IDX_FILES
from kdbench.errors import MachineFault

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


def data_root() -> Path | None:
    """``$KDBENCH_DATA``, when set."""
    value = os.environ.get("KDBENCH_DATA", "").strip()
    return Path(value).expanduser() if value else None


def cache_root() -> Path:
    """Folder for downloads, below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdbench" / "datasets"


def may_download() -> bool:
    """False where ``KDBENCH_DOWNLOAD=0`` forbids it."""
    return os.environ.get("KDBENCH_DOWNLOAD", "1").strip().lower() not in ("0", "no", "false", "off")


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
    for folder, wanted in candidates(name):
        for marker in wanted:
            if (folder / marker).exists():
                return folder, marker
    return None


def missing(name: str, why: str = "") -> MachineFault:
    """The error for a data set that is nowhere: every place looked at, and what to do."""
    looked = ", ".join(str(folder) for folder, _ in candidates(name))
    shown = " or ".join(mark for mark in markers(name) if mark) or "class folders"
    package = f"; on Debian `apt install {_DEBIAN_PACKAGE[name]}` brings it" if name in _DEBIAN_PACKAGE else ""
    tried = f" No download: {why}." if why else ""
    return MachineFault(
        f"the data set '{name}' is not on this machine: no {shown} in {looked}.{tried} Put it in one of these places "
        f"(KDBENCH_DATA names the folder of data sets){package}, or use `--dataset digits`, which needs no files"
    )
