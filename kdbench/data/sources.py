"""From what a user types after ``--dataset`` to a spec and its labelled images. Imports torch only where it must."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from kdbench.catalog.datasets import DATASETS, IMAGENET_MEAN, IMAGENET_STD
from kdbench.catalog.types import DatasetSpec
from kdbench.data import places
from kdbench.data.folders import classes_of, read_folder, read_tiny_imagenet, scan, tree
from kdbench.data.readers import digits, read_arrays
from kdbench.data.samples import TEST_FRACTION, TEST_SEED, BadImages, FileSamples, Samples, cut_test, shown
from kdbench.data.shards import read_shards, shard_classes, shards_of
from kdbench.errors import BadInput, unknown
from kdbench.files import identify

PARTS = ("train", "val", "test")
_PUBLISHED = frozenset({"imagenet-1k", "imagenette", "tiny-imagenet"})
_PROBES = 32
_SIZES = (32, 64, 96, 128, 224)
_NAMES_SHOWN = 12


def resolve_dataset(name: str, *, skip_corrupt: bool = False) -> tuple[DatasetSpec, str | None]:
    """The spec of a catalog name, ``folder:/path`` or ``hf:name``, and the digest of a user's own data.

    The digest of a folder is of its images' content and names, not of where it lies; of images that can be decoded
    alone with ``skip_corrupt``.

    Raises:
        BadInput: unknown name (with the closest one), a folder that cannot serve, or all images in it that are broken.
        MachineFault: an ``hf:`` data set that cannot be opened here.
    """
    if name.startswith("folder:"):
        return _folder(folder_path(name), skip_corrupt)
    if name.startswith("hf:"):
        return _hub(name)
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS.names(), "`kdbench ls datasets` lists them; folder:/path is your own")
    return DATASETS.get(name), None


def class_names(spec: DatasetSpec) -> tuple[str, ...] | None:
    """Names of the classes of a user's own data, in the order of their labels; None where nobody knows them."""
    if spec.name.startswith("folder:"):
        return _classes(folder_path(spec.name))
    if spec.name.startswith("hf:"):
        from kdbench.data.hub import hub_classes

        return tuple(map(str, hub_classes(spec.name.removeprefix("hf:"))))
    return None


def other_test(spec: DatasetSpec, name: str) -> tuple[str, FileSamples]:
    """A test set of the same classes in ``folder:/path``: what identifies it (``folder:NAME@digest``), and its images.

    Its class folders are named as the classes of ``spec`` are (or numbered, where those have no names); some may lack.

    Raises:
        BadInput: no such folder, a class that ``spec`` does not have, images that cannot be decoded.
    """
    if not name.startswith("folder:"):
        raise BadInput(f"also-test: '{name}' is neither corruptions nor folder:/path")
    root, classes = folder_path(name), class_names(spec) or spec.labels or tuple(map(str, range(spec.classes)))
    found = scan(root, classes, False, False)
    refuse_broken(found)
    if not len(found.labels):
        raise BadInput(f"also-test: {root} holds no image; it must hold class folders such as {', '.join(classes[:3])}")
    marks = [[name, mark, int(label)] for name, mark, label in zip(found.names, found.marks, found.labels, strict=True)]
    return f"folder:{shown(root.name)}@{identify(marks)[:8]}", found


def natural_order(names: Sequence[str]) -> tuple[str, ...]:
    """As timm's ``train.py`` orders class folders: digits as numbers, letters whatever their case."""
    from timm.utils.misc import natural_key

    return tuple(sorted(names, key=natural_key))


def describe_source(name: str) -> list[tuple[str, bool]]:
    """Every place where the bytes of ``name`` are looked for, and whether they are there."""
    if name.startswith("folder:"):
        return [(str(folder_path(name)), folder_path(name).is_dir())]
    if name.startswith("hf:"):
        return [(f"package datasets, for {name}", find_spec("datasets") is not None)]
    if name == "digits":
        return [("scikit-learn (bundled)", find_spec("sklearn") is not None)]
    return [
        (str(folder), any((folder / mark).exists() for mark in wanted)) for folder, wanted in places.candidates(name)
    ]


def read_part(spec: DatasetSpec, part: str, *, skip_corrupt: bool = False) -> Samples | None:
    """The samples of ``part`` (train, val or test); None where the data set publishes no val split.

    Raises:
        BadInput: the data are there but damaged, truncated or of another shape: names the file and the fix.
        MachineFault: the data set is nowhere on this machine and could not be downloaded.
    """
    name = spec.name
    if name.startswith("folder:"):
        return _reader(folder_path(name))(folder_path(name), part, skip_corrupt=skip_corrupt)
    if name.startswith("hf:"):
        from kdbench.data.hub import read_hub

        if skip_corrupt:
            raise BadInput("skip-corrupt: serves folders of images, not Hugging Face data sets")
        return read_hub(name.removeprefix("hf:"), part)
    if name == "digits":
        return None if part == "val" else cut_test(digits(), part)
    place = places.locate(name)
    if place is None:
        places.download(name)
        place = places.locate(name)
    if place is None:
        raise places.missing(name, "the download did not bring it")
    folder, marker = place
    if marker.startswith("train-images") or name in places.ARRAYS:
        return None if part == "val" else read_arrays(spec, folder, marker, part)
    folder = folder / marker if name in _PUBLISHED and marker != "train" else folder
    if name == "tiny-imagenet":
        return read_tiny_imagenet(folder, part, skip_corrupt=skip_corrupt)
    published = name in _PUBLISHED
    return read_folder(folder, part, val_is_test=published, published=published, skip_corrupt=skip_corrupt)


def refuse_broken(*groups: Samples | None) -> None:
    """Raises BadImages with every file in ``groups`` that is known not to be decodable."""
    faults = [fault for group in groups if isinstance(group, FileSamples) for fault in group.faults]
    if faults:
        raise BadImages(faults)


def folder_path(name: str) -> Path:
    """The absolute path of ``folder:PATH``; a relative one is below the current directory."""
    path = name.removeprefix("folder:").strip()
    if not path:
        raise BadInput("'folder:' needs a path: --dataset folder:/path/to/images")
    return Path(path).expanduser().absolute()


def _reader(root: Path) -> Callable[..., Samples | None]:
    """Of the shards in a folder, or of the images in its class folders."""
    return read_shards if shards_of(root) else read_folder


def _classes(root: Path) -> tuple[str, ...]:
    return shard_classes(root) if shards_of(root) else tuple(map(shown, classes_of(tree(root).train)))


def _folder(root: Path, skip_corrupt: bool) -> tuple[DatasetSpec, str]:
    read = _reader(root)
    parts = {part: read(root, part, skip_corrupt=skip_corrupt) for part in PARTS}
    groups = {part: group for part, group in parts.items() if isinstance(group, FileSamples)}
    refuse_broken(*groups.values())
    files = [
        [part, name, mark, int(label)]
        for part, group in groups.items()
        for name, mark, label in zip(group.names, group.marks, group.labels, strict=True)
    ]
    train, names, shards = groups["train"], _classes(root), shards_of(root)
    has_test = "test" in shards if shards else tree(root).test is not None
    more = f", ... ({len(names)})" if len(names) > _NAMES_SHOWN else ""
    how = f"{sum(map(len, shards.values()))} tar shards" if shards else "a folder of images, one folder a class"
    source = f"{how}: {', '.join(names[:_NAMES_SHOWN])}{more}"
    if not has_test:
        source += f"; no test split of its own: a stratified {TEST_FRACTION:.0%} of train (seed {TEST_SEED}) is it"
    source += "".join(f"; {note}" for note in dict.fromkeys(note for group in groups.values() for note in group.notes))
    sizes = {part: len(group.labels) for part, group in groups.items()}
    return _own(f"folder:{root}", len(names), train.sides, sizes, source), identify(files)


def _hub(name: str) -> tuple[DatasetSpec, str]:
    from kdbench.data.hub import hub_classes, hub_digest, read_hub

    short = name.removeprefix("hf:")
    if not short:
        raise BadInput("'hf:' needs a name: --dataset hf:owner/name")
    parts = {part: read_hub(short, part) for part in PARTS}
    sizes = {part: len(group.labels) for part, group in parts.items() if group is not None}
    probes = []
    if (train := parts["train"]) is not None:
        for row in range(0, len(train.labels), max(1, len(train.labels) // _PROBES)):
            image = train.image(row)
            assert isinstance(image, Image.Image)
            probes.append((image.height, image.width))
    return _own(name, len(hub_classes(short)), probes, sizes, "Hugging Face data set"), hub_digest(short)


def _own(name: str, classes: int, shapes: Sequence[tuple[int, int]], sizes: dict[str, int], source: str) -> DatasetSpec:
    """The spec of a user's own data: RGB, ImageNet's normalisation, the input size nearest to the images'."""
    if min(sizes.values()) == 0:
        empty = next(part for part, size in sizes.items() if size == 0)
        raise BadInput(f"the {empty} split of '{name}' is empty: every class needs two images or more")
    some = shapes[:: max(1, len(shapes) // _PROBES)]
    side = statistics.median_low(min(shape) for shape in some)
    return DatasetSpec(
        name=name,
        classes=classes,
        shape=(3, *shapes[0]),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        sizes=sizes,
        input_size=min(_SIZES, key=lambda size: (abs(size - side), size)),
        teacher_floor=round(1.2 / classes, 4),
        license="the user's own",
        source=source,
    )
