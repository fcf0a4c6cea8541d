"""``hf:name``: a Hugging Face data set (needs the package ``datasets``)."""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdbench.data.samples import BROKEN, BadImages, Rows, Samples, cut_test, why_broken
from kdbench.errors import BadInput, MachineFault
from kdbench.files import atomic_text, identify
from kdbench.host import default_cache

_NAMES = {"train": ("train", "training"), "val": ("validation", "valid", "val"), "test": ("test",)}
_LABELS = ("label", "fine_label", "labels")
_NUMBERS = (*_LABELS, "target", "class", "y")
"""Names of label columns; the second list where labels are plain numbers."""


@dataclass(frozen=True)
class HubSamples:
    """Rows of one split of a Hugging Face data set."""

    place: str
    digest: str
    """Of the whole split's files."""
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
        return f"{self.digest}:{int(self.rows[row])}"

    def take(self, rows: Rows) -> HubSamples:
        return HubSamples(self.place, self.digest, self.images, self.image_key, self.rows[rows], self.labels[rows])


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
        place, digest = f"hf:{self.name}, split {split}", _content(images, self.image_key)
        return HubSamples(place, digest, images, self.image_key, np.arange(len(labels)), labels)


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
    """Digest of the content and the labels of all splits."""
    opened = _opened(name)
    parts = {part: opened.samples(part) for part in opened.splits}
    return identify({part: [samples.digest, samples.labels.tolist()] for part, samples in parts.items()})


def _content(images: Any, key: str) -> str:
    """Digest of the undecoded images of a split, computed once for each version that ``datasets`` keeps."""
    kept = default_cache() / "files" / f"hf-{images._fingerprint}.txt"
    with suppress(OSError, ValueError):
        return f"{int(kept.read_text(encoding='utf-8'), 16):032x}"
    sha = hashlib.blake2b(digest_size=16)
    for stored in images.select_columns(key):
        with suppress(OSError):  # what is not there is said when it is decoded
            sha.update(stored[key]["bytes"] or Path(stored[key]["path"]).read_bytes())
        sha.update(b"\0")
    with suppress(OSError):
        atomic_text(kept, sha.hexdigest())
    return sha.hexdigest()
