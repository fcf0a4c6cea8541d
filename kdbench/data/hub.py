"""``hf:name``: a Hugging Face data set (needs the package ``datasets``)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image

from kdbench.data.samples import BROKEN, BadImages, Rows, Samples, cut_test, why_broken
from kdbench.errors import BadInput, MachineFault
from kdbench.files import identify

_NAMES = {"train": ("train", "training"), "val": ("validation", "valid", "val"), "test": ("test",)}
_LABELS = ("label", "fine_label", "labels")
_NUMBERS = (*_LABELS, "target", "class", "y")
"""Names of label columns; the second list where labels are plain numbers."""


@dataclass(frozen=True)
class HubSamples:
    """Rows of one split of a Hugging Face data set."""

    place: str
    images: Any
    """The data set, its column of images undecoded."""
    image_key: str
    rows: Rows
    labels: Rows

    def image(self, row: int) -> Image.Image:
        try:
            stored = self.images[int(self.rows[row])][self.image_key]
            with Image.open(io.BytesIO(stored["bytes"]) if stored["bytes"] else stored["path"]) as image:
                image.load()
                return image
        except BROKEN as error:
            raise BadImages([(f"{int(self.rows[row])} of {self.place}", why_broken(error))]) from error

    def signature(self, row: int) -> str:
        """Where the image is; ``hub_digest`` says which version of the data set that is."""
        return f"{self.place}:{int(self.rows[row])}"

    def take(self, rows: Rows) -> HubSamples:
        return HubSamples(self.place, self.images, self.image_key, self.rows[rows], self.labels[rows])


class _Opened:
    """A data set's splits (ours -> theirs), columns and class names (None where labels are plain numbers)."""

    def __init__(self, name: str) -> None:
        try:
            self.library = import_module("datasets")
        except ImportError as error:
            raise MachineFault(f"hf:{name} needs the package `datasets`: pip install datasets") from error
        try:
            theirs = self.library.get_dataset_split_names(name)
            features = self.library.load_dataset(name, split=theirs[0]).features
        except (OSError, ValueError, RuntimeError) as error:
            raise MachineFault(
                f"cannot open the Hugging Face data set '{name}': {str(error).splitlines()[0]}. Check its name and the "
                "network, or use a copy on this machine: hf:/path/to/it"
            ) from error
        self.name = name
        self.splits = {part: n for part, known in _NAMES.items() for n in known if n in theirs}
        if "train" not in self.splits:
            raise BadInput(f"hf:{name} has no split 'train', only {', '.join(theirs)}")
        images = [key for key, kind in features.items() if isinstance(kind, self.library.Image)]
        named = [key for key, kind in features.items() if isinstance(kind, self.library.ClassLabel)]
        plain = [key for key in _NUMBERS if "int" in str(getattr(features.get(key), "dtype", ""))]
        labels = [key for key in _LABELS if key in named] + named + plain
        if not images or not labels:
            raise BadInput(f"hf:{name} has no image column with a class label, only {', '.join(features)}")
        self.image_key, self.label_key = images[0], labels[0]
        self.names: list[str] | None = getattr(features[self.label_key], "names", None)

    @lru_cache(maxsize=4)  # noqa: B019  as many as there are splits, as long as the data set is open
    def samples(self, part: str) -> HubSamples:
        split = self.splits[part]
        found = self.library.load_dataset(self.name, split=split)
        targets = found.with_format("numpy", columns=[self.label_key])[self.label_key]
        labels = np.asarray(targets, dtype=np.int64)
        images = found.cast_column(self.image_key, self.library.Image(decode=False))
        return HubSamples(f"hf:{self.name}, split {split}", images, self.image_key, np.arange(len(labels)), labels)


_opened = lru_cache(maxsize=4)(_Opened)


def read_hub(name: str, part: str) -> Samples | None:
    """The images of ``part``; without a test split, a fixed stratified share of train is the test split.

    Raises:
        BadInput: no training split, no column of images or of labels. MachineFault: it cannot be opened here.
    """
    opened = _opened(name)
    if part in opened.splits and (part != "train" or "test" in opened.splits):
        return opened.samples(part)
    return None if part == "val" else cut_test(opened.samples("train"), part)


def hub_classes(name: str) -> tuple[str, ...]:
    """Class names in order of their label; numbers where the data set names none."""
    opened = _opened(name)
    if opened.names is not None:
        return tuple(opened.names)
    return tuple(map(str, range(int(opened.samples("train").labels.max(initial=-1)) + 1)))


def hub_digest(name: str) -> str:
    """Digest of the sizes of all splits, as the data set's own card of itself gives them, and of train's labels."""
    samples = _opened(name).samples("train")
    info: Any = samples.images.info
    sizes = {k: [v.num_examples, v.num_bytes] for k, v in (info.splits or {}).items()}
    return identify([str(info.version), sizes, samples.labels.tolist()])
