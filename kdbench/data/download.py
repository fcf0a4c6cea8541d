"""Fetching a data set through torchvision, into the user's cache, whole or not at all."""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdbench.data import places

_TIMEOUT_S = 20.0
_FAULTS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zipfile.BadZipFile)


def _fetchers() -> dict[str, Callable[[str], Any]]:
    from torchvision import datasets as tv

    return {
        "mnist": lambda root: tv.MNIST(root, download=True),
        "fashion-mnist": lambda root: tv.FashionMNIST(root, download=True),
        "kmnist": lambda root: tv.KMNIST(root, download=True),
        "cifar10": lambda root: tv.CIFAR10(root, download=True),
        "cifar100": lambda root: tv.CIFAR100(root, download=True),
        "svhn": lambda root: [tv.SVHN(root, split=part, download=True) for part in ("train", "test")],
        "stl10": lambda root: tv.STL10(root, download=True),
        "imagenette": lambda root: tv.Imagenette(root, size="160px", download=True),
    }


def download(name: str) -> None:
    """Puts the data set ``name`` into the cache; torchvision compares every file with its published checksum.

    Raises:
        MachineFault: naming the places looked at before, and why the download failed or was not tried.
    """
    if not places.may_download():
        raise places.missing(name, "KDBENCH_DOWNLOAD=0 forbids it")
    try:
        fetch = _fetchers().get(name)
    except (ImportError, RuntimeError) as error:  # a torchvision that does not match torch dies with RuntimeError
        raise places.missing(name, f"torchvision cannot be used ({error})") from error
    if fetch is None:
        raise places.missing(name, "this data set has to be fetched by hand")
    target = places.cache_root() / name
    before = socket.getdefaulttimeout()
    aside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=target.parent))
        socket.setdefaulttimeout(_TIMEOUT_S)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            fetch(str(aside))
        if not target.exists():  # another worker may have been faster
            os.replace(aside, target)
    except _FAULTS as error:
        raise places.missing(name, " ".join(str(error).split())[:300] or type(error).__name__) from error
    finally:
        socket.setdefaulttimeout(before)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
