"""``hf:name``: a Hugging Face data set, through timm's reader (needs the package ``datasets``)."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdbench.data.samples import Samples, cut_test
from kdbench.errors import BadInput, MachineFault
from kdbench.files import identify

_NAMES = {"train": ("train", "training"), "val": ("validation", "valid", "val"), "test": ("test",)}


class HubSamples:
    """One split of a Hugging Face data set."""

    def __init__(self, name: str, split: str, image_key: str, label_key: str) -> None:
        from timm.data import create_dataset

        self.name, self.split = name, split
        self.reader = create_dataset(f"hfds/{name}", split=split, input_key=image_key, target_key=label_key).reader
        targets = self.reader.dataset.with_format("numpy", columns=[label_key])[label_key]
        self.labels: NDArray[np.int64] = np.asarray(targets, dtype=np.int64)

    def image(self, row: int) -> Image.Image:
        """The decoded image.

        Raises:
            BadInput: when it cannot be decoded.
        """
        try:
            stream, _ = self.reader[row]
            with stream, Image.open(stream) as image:
                image.load()
                return image
        except (OSError, SyntaxError, ValueError) as error:
            raise BadInput(f"cannot decode image {row} of hf:{self.name}, split {self.split}: {error}") from error

    def signature(self, row: int) -> str:
        """Where the image is; ``hub_digest`` says which version of the data set that is."""
        return f"{self.name}:{self.split}:{row}"


@lru_cache(maxsize=4)
def _opened(name: str) -> tuple[dict[str, str], str, str]:
    """(our split -> theirs, image column, label column) of ``name``."""
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise MachineFault(f"hf:{name} needs the package `datasets`: pip install datasets") from error
    try:
        theirs = datasets.get_dataset_split_names(name)
        features = datasets.load_dataset(name, split=theirs[0]).features
    except (OSError, ValueError, RuntimeError) as error:
        raise MachineFault(
            f"cannot open the Hugging Face data set '{name}': {str(error).splitlines()[0]}. Check its name and the "
            "network, or use a copy on this machine: hf:/path/to/it"
        ) from error
    splits = {part: n for part, known in _NAMES.items() for n in known if n in theirs}
    if "train" not in splits:
        raise BadInput(f"hf:{name} has no split 'train', only {', '.join(theirs)}")
    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    preferred = [key for key in labels if key in ("label", "fine_label", "labels")]
    if not images or not labels:
        raise BadInput(f"hf:{name} has no image column with a class label, only {', '.join(features)}")
    return splits, images[0], (preferred or labels)[0]


@lru_cache(maxsize=4)
def _samples(name: str, split: str) -> HubSamples:
    _, image_key, label_key = _opened(name)
    return HubSamples(name, split, image_key, label_key)


def read_hub(name: str, part: str) -> Samples | None:
    """The images of ``part``; without a test split, a fixed stratified share of train is the test split."""
    splits = _opened(name)[0]
    if part == "val":
        return _samples(name, splits["val"]) if "val" in splits else None
    if "test" in splits:
        return _samples(name, splits[part])
    return cut_test(_samples(name, splits["train"]), part)


def hub_classes(name: str) -> tuple[str, ...]:
    """Class names in order of their label."""
    samples = _samples(name, _opened(name)[0]["train"])
    index: dict[str, int] = samples.reader.class_to_idx
    return tuple(sorted(index, key=lambda label: index[label]))


def hub_digest(name: str) -> str:
    """Digest of the sizes of all splits, as the data set's own card of itself gives them, and of train's labels."""
    samples = _samples(name, _opened(name)[0]["train"])
    info: Any = samples.reader.dataset.info
    sizes = {k: [v.num_examples, v.num_bytes] for k, v in (info.splits or {}).items()}
    return identify([str(info.version), sizes, samples.labels.tolist()])
