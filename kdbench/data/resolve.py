"""From what a user types after ``--dataset`` to a spec, and where its bytes are. Imports torch for ``hf:`` only."""

from __future__ import annotations

import statistics
from importlib.util import find_spec

from PIL import Image

from kdbench.catalog.datasets import DATASETS, IMAGENET_MEAN, IMAGENET_STD
from kdbench.catalog.types import DatasetSpec
from kdbench.data import places
from kdbench.data.samples import TEST_FRACTION, TEST_SEED, Samples
from kdbench.errors import BadInput, MachineFault, unknown
from kdbench.files import identify

_PROBES = 32
_SIZES = (32, 64, 96, 128, 224)
_CUT_NOTE = f"no test split of its own: a stratified {TEST_FRACTION:.0%} of train (seed {TEST_SEED}) is the test split"


def resolve_dataset(name: str) -> tuple[DatasetSpec, str | None]:
    """The spec of a catalog name, ``folder:/path`` or ``hf:name``, and the digest of a user's own data.

    Raises:
        BadInput: unknown name (with the closest one), or a folder that cannot serve.
        MachineFault: an ``hf:`` data set that cannot be opened here.
    """
    if name.startswith("folder:"):
        return _folder(name)
    if name.startswith("hf:"):
        return _hub(name)
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS.names(), "`kdbench ls datasets` lists them; folder:/path is your own")
    return DATASETS.get(name), None


def describe_source(name: str) -> list[tuple[str, bool]]:
    """Every place where the bytes of ``name`` are looked for, and whether they are there."""
    if name.startswith("folder:"):
        from kdbench.data.sources import folder_path

        return [(str(folder_path(name)), folder_path(name).is_dir())]
    if name.startswith("hf:"):
        return [(f"package datasets, for {name}", find_spec("datasets") is not None)]
    if name == "digits":
        return [("scikit-learn (bundled)", find_spec("sklearn") is not None)]
    return [
        (str(folder), any((folder / mark).exists() for mark in wanted)) for folder, wanted in places.candidates(name)
    ]


def _folder(name: str) -> tuple[DatasetSpec, str]:
    from kdbench.data.folders import classes_of, read_folder, tree
    from kdbench.data.sources import folder_path

    root = folder_path(name)
    where = tree(root)
    classes = classes_of(where.train)
    parts = {part: read_folder(root, part) for part in ("train", "val", "test")}
    files = [
        [part, group.signature(row), int(group.labels[row])]
        for part, group in parts.items()
        if group is not None
        for row in range(len(group.labels))
    ]
    note = "" if where.test else f"; {_CUT_NOTE}"
    sizes = {part: len(group.labels) for part, group in parts.items() if group is not None}
    return _own(name, len(classes), parts["train"], sizes, f"a folder of images, one folder a class{note}"), identify(
        files
    )


def _hub(name: str) -> tuple[DatasetSpec, str]:
    try:
        from kdbench.data.hub import hub_classes, hub_digest, read_hub
    except ImportError as error:
        raise MachineFault(f"{name} needs timm and the package `datasets`: {error}") from error

    short = name.removeprefix("hf:")
    if not short:
        raise BadInput("'hf:' needs a name: --dataset hf:owner/name")
    parts = {part: read_hub(short, part) for part in ("train", "val", "test")}
    sizes = {part: len(group.labels) for part, group in parts.items() if group is not None}
    return _own(name, len(hub_classes(short)), parts["train"], sizes, "Hugging Face data set"), hub_digest(short)


def _own(name: str, classes: int, samples: Samples | None, sizes: dict[str, int], source: str) -> DatasetSpec:
    """The spec of a user's own data: RGB, ImageNet's normalisation, the input size nearest to the images'."""
    if samples is None or min(sizes.values()) == 0:
        empty = next(part for part, size in sizes.items() if size == 0)
        raise BadInput(f"the {empty} split of '{name}' is empty: every class needs two images or more")
    step = max(1, len(samples.labels) // _PROBES)
    shapes = [_stored_shape(samples, row) for row in range(0, len(samples.labels), step)]
    side = statistics.median_low(min(shape) for shape in shapes)
    height, width = shapes[0]
    return DatasetSpec(
        name=name,
        classes=classes,
        shape=(3, height, width),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        sizes=sizes,
        input_size=min(_SIZES, key=lambda size: (abs(size - side), size)),
        teacher_floor=round(1.2 / classes, 4),
        license="the user's own",
        source=source,
    )


def _stored_shape(samples: Samples, row: int) -> tuple[int, int]:
    """(height, width) in pixels of an image as stored."""
    image = samples.image(row)
    return (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[0], image.shape[1])
