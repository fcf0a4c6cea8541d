"""From a data set's spec to its labelled images, one published split at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdbench.catalog.types import DatasetSpec
from kdbench.data import places
from kdbench.data.cifar import read_cifar
from kdbench.data.download import download
from kdbench.data.folders import read_folder, read_tiny_imagenet
from kdbench.data.idx import read_idx_split
from kdbench.data.samples import ArraySamples, Samples, cut_test
from kdbench.errors import BadInput


def read_part(spec: DatasetSpec, part: str) -> Samples | None:
    """The samples of ``part`` (train, val or test); None where the data set publishes no val split.

    Raises:
        BadInput: the data are there but damaged, truncated or of another shape: names the file and the fix.
        MachineFault: the data set is nowhere on this machine and could not be downloaded.
    """
    name = spec.name
    if name.startswith("folder:"):
        return read_folder(folder_path(name), part)
    if name.startswith("hf:"):
        from kdbench.data.hub import read_hub

        return read_hub(name.removeprefix("hf:"), part)
    if name == "digits":
        return None if part == "val" else cut_test(_digits(), part)
    return _from_files(spec, part)


def folder_path(name: str) -> Path:
    """The path of ``folder:PATH``."""
    path = name.removeprefix("folder:").strip()
    if not path:
        raise BadInput("'folder:' needs a path: --dataset folder:/path/to/images")
    return Path(path).expanduser()


def _digits() -> ArraySamples:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return ArraySamples(images[..., None], bunch.target.astype(np.int64))


def _from_files(spec: DatasetSpec, part: str) -> Samples | None:
    name = spec.name
    place = places.locate(name)
    if place is None:
        download(name)
        place = places.locate(name)
    if place is None:
        raise places.missing(name, "the download did not bring it")
    folder, marker = place
    if name == "tiny-imagenet":
        return read_tiny_imagenet(folder if marker == "train" else folder / marker, part)
    if name == "imagenette":
        return read_folder(folder if marker == "train" else folder / marker, part, val_is_test=True)
    if not marker.startswith("train-images") and name not in places.ARRAYS:
        return read_folder(folder, part, val_is_test=name == "imagenet-1k")
    if part == "val":
        return None
    if name in ("cifar10", "cifar100"):
        samples = read_cifar(folder, marker, part)
    elif name in ("svhn", "stl10"):
        samples = _torchvision(name, folder, part)
    else:
        samples = read_idx_split(folder, name, part, spec.shape)
    _check_size(spec, part, samples, folder)
    return samples


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


def _check_size(spec: DatasetSpec, part: str, samples: ArraySamples, folder: Path) -> None:
    expected = spec.sizes.get(part)
    if expected is not None and len(samples.labels) != expected:
        raise BadInput(
            f"the {part} split of '{spec.name}' in {folder} holds {len(samples.labels)} images, not the published "
            f"{expected}: a file is truncated or of another data set; fetch it again"
        )
