"""The data of a run: training and validation split now, the test split only when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from kdbench.catalog.types import DatasetSpec
from kdbench.config import DataConfig, Recipe
from kdbench.data import splits
from kdbench.data.corruptions import Corrupted
from kdbench.data.decoded import decode_into, decoded, stored
from kdbench.data.samples import ArraySamples, Fit, Rows, Samples, stratified_cut, stratified_limit
from kdbench.data.sources import PARTS, other_test, read_part, refuse_broken, resolve_dataset
from kdbench.data.splits import ResidentSplit, Split, StreamSplit, memory_bytes
from kdbench.data.views import PLAIN, Augment, Look, augment_for, augment_of
from kdbench.errors import BadInput
from kdbench.host import default_cache

SMALL = 2**25
"""Bytes of a corrupted test split that is made at once, and kept for the next run, instead of while it is read."""


@dataclass(frozen=True)
class TaskData:
    """What a run trains on and is selected by."""

    spec: DatasetSpec
    classes: int
    channels: int
    input_size: int
    """Pixels of a side that the network sees."""
    train: Split
    val: Split
    device: torch.device
    cache: Path
    skip_corrupt: bool = False
    test_crop: float | None = None
    made: dict[str, Split] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Corrupted test splits so far."""

    def test(self) -> Split:
        """The test split, read now and not before: only the confirm phase may ask."""
        samples, looks = _require(self.spec, "test", self.skip_corrupt), (self.val.look, self.val.shown)
        return _split(self.spec, samples, *looks, PLAIN, self.device, self.cache, self.test_crop)

    def shifted(self, name: str, source: str) -> Split:
        """Another test set: ``gaussian-noise 3`` of the test split, or the folder ``source`` (``folder:/path``)."""
        look = self.val.look
        if name.startswith("folder:"):
            found, samples = other_test(self.spec, source)
            if found != name:
                raise BadInput(f"also-test: the images in {source} have changed since this sweep began: name it again")
            return _split(self.spec, samples, look, self.val.shown, PLAIN, self.device, self.cache, self.test_crop)
        fit = Fit(look.size, len(look.mean), self.spec.fit, self.test_crop)
        kind, severity = name.split()
        changed = Corrupted(_require(self.spec, "test", self.skip_corrupt), fit, kind, int(severity))
        shape = (len(changed.labels), look.size, look.size, fit.channels)
        if np.prod(shape) <= SMALL:  # forking readers for each of forty small sets takes longer than they do
            if name not in self.made:
                decode_into(pixels := np.empty(shape, np.uint8), changed, fit)
                self.made[name] = ResidentSplit(pixels, changed.labels, look, PLAIN, self.device, self.val.shown)
            return self.made[name]
        return StreamSplit(changed, fit, look, PLAIN, self.device, self.val.shown)


def looks_of(spec: DatasetSpec, cfg: DataConfig, recipe: Recipe) -> tuple[Look, Look]:
    """How views are cut, and how the network of ``recipe`` sees them."""
    spec = in_colour(spec, cfg, recipe)
    mean, std = recipe.mean or spec.mean, recipe.std or spec.std
    if not len(mean) == len(std) == spec.shape[0]:
        raise BadInput(
            f"recipe.mean {mean} and std {std} must have one value for each of {spec.shape[0]} channels (where "
            "they are given weights' own: set teacher-recipe.mean and teacher-recipe.std)"
        )
    cut = Look(recipe.input_size or spec.input_size, mean, std, recipe.network_interpolation)
    return cut, replace(cut, size=recipe.network_size or cut.size)


def seen_by(cfg: DataConfig, recipe: Recipe) -> str:
    """What tells apart the samples and views that runs see."""
    r, views = recipe, augment_of(recipe, flip=True)
    shown = f"{r.network_size}{r.network_interpolation}{r.mean}{r.std}"
    return f"{cfg.model_dump_json()}{r.input_size}{r.test_crop}{r.flip}{views}{shown}"


def network_shape(spec: DatasetSpec, cfg: DataConfig, recipe: Recipe) -> dict[str, int]:
    """What ``kdbench.models.build`` must know of a network's input and output."""
    shown = looks_of(spec, cfg, recipe)[1]
    return {"classes": spec.classes, "channels": len(shown.mean), "input_size": shown.size}


def load(
    spec: DatasetSpec, cfg: DataConfig, recipe: Recipe, device: torch.device, cache: Path | None = None
) -> TaskData:
    """Reads the training data of ``spec`` and cuts the validation split from it.

    Args:
        cache: folder whose ``decoded`` holds the pixels of images from files; ``$KDBENCH_CACHE`` when None.

    Raises:
        BadInput: damaged data, labels out of range, a limit below the number of classes.
        MachineFault: the data set is nowhere, or does not fit.
    """
    looks, skip, cache = looks_of(spec, cfg, recipe), cfg.skip_corrupt, cache or default_cache()
    if cfg.digest is not None and (found := resolve_dataset(spec.name, skip_corrupt=skip)[1]) != cfg.digest:
        raise BadInput(
            f"the data of '{spec.name}' have changed since this sweep was made: digest {found}, not {cfg.digest}; "
            "put the old files back, or start a sweep under another --name"
        )
    samples = _require(spec, "train", skip)
    own_val = _require(spec, "test", skip) if cfg.validate_on == "test" else read_part(spec, "val", skip_corrupt=skip)
    if own_val is None:
        kept, held = stratified_cut(samples.labels, cfg.val_fraction, cfg.split_seed)
        own_val = samples.take(held)
    else:
        _check_labels(spec, own_val, "val")
        kept = np.arange(len(samples.labels))
    refuse_broken(samples, own_val)
    if cfg.limit is not None:
        kept = kept[stratified_limit(samples.labels[kept], cfg.limit, cfg.split_seed)]
    if cfg.train_classes is not None:
        kept = _of_classes(spec, samples.labels, kept, cfg.train_classes)
    train = _split(spec, samples.take(kept), *looks, augment_for(spec, recipe), device, cache)
    val = _split(spec, own_val, *looks, PLAIN, device, cache, recipe.test_crop)
    return TaskData(spec, **network_shape(spec, cfg, recipe), train=train, val=val, device=device, cache=cache,
                    skip_corrupt=skip, test_crop=recipe.test_crop)  # fmt: skip


def in_colour(spec: DatasetSpec, cfg: DataConfig, recipe: Recipe | None = None) -> DatasetSpec:
    """``spec`` with its one channel repeated where ``cfg`` or three values of ``recipe.mean`` ask for that."""
    channels = cfg.channels or (3 if recipe and len(recipe.mean or ()) == 3 else spec.shape[0])
    if spec.shape[0] == channels:
        return spec
    if spec.shape[0] != 1:
        raise BadInput(f"'{spec.name}' has {spec.shape[0]} channels: only grey images can be shown as {channels}")
    shape = (channels, *spec.shape[1:])
    return spec.model_copy(update={"shape": shape, "mean": spec.mean * channels, "std": spec.std * channels})


def _of_classes(spec: DatasetSpec, labels: Rows, kept: Rows, classes: tuple[int, ...]) -> Rows:
    """Those of ``kept`` whose class is in the transfer set."""
    strange = sorted(set(classes) - set(range(spec.classes)))
    if strange or not classes:
        what = f"class {strange[0]}" if strange else "no class at all"
        raise BadInput(f"the transfer set asks for {what}, but '{spec.name}' has classes 0 to {spec.classes - 1}")
    return kept[np.isin(labels[kept], classes)]


def check_parts(
    spec: DatasetSpec, cfg: DataConfig | None = None, recipe: Recipe | None = None, cache: Path | None = None
) -> None:
    """Find what is wrong with any split before anything is trained: files absent, damaged, mislabelled.

    With a ``recipe``, images of the test split that come from files are decoded here, once for all runs.

    Raises:
        BadInput: damaged data (every broken image at once), labels out of range. MachineFault: the data are nowhere.
    """
    skip = cfg is not None and cfg.skip_corrupt
    parts = {part: read_part(spec, part, skip_corrupt=skip) for part in PARTS}
    refuse_broken(*parts.values())
    for part, samples in parts.items():
        if samples is not None or part != "val":
            _checked(spec, samples, part)
    test = parts["test"]
    if recipe is not None and test is not None and not isinstance(test, ArraySamples):
        fit = Fit(recipe.input_size or spec.input_size, spec.shape[0], spec.fit, recipe.test_crop)
        if stored(test, fit, cache or default_cache()) is None:
            decode_into(None, test, fit)


def _require(spec: DatasetSpec, part: str, skip_corrupt: bool) -> Samples:
    return _checked(spec, read_part(spec, part, skip_corrupt=skip_corrupt), part)


def _checked(spec: DatasetSpec, samples: Samples | None, part: str) -> Samples:
    if samples is None:
        raise BadInput(f"the data set '{spec.name}' has no {part} split")
    _check_labels(spec, samples, part)
    return samples


def _check_labels(spec: DatasetSpec, samples: Samples, part: str) -> None:
    labels, own = samples.labels, spec.name.startswith(("folder:", "hf:"))
    if len(labels) == 0:
        raise BadInput(f"the {part} split of '{spec.name}' is empty")
    if labels.min() < 0 or labels.max() >= spec.classes:
        hidden = "; labels of -1 are those that its publisher keeps back: this split cannot be measured on"
        raise BadInput(
            f"the {part} split of '{spec.name}' has labels {labels.min()} to {labels.max()}, "
            f"but the data set has {spec.classes} classes{hidden if labels.max() == -1 else ''}"
        )
    absent = np.flatnonzero(np.bincount(labels, minlength=spec.classes) == 0)
    if part == "train" and len(absent):
        fix = "add some or leave the class out" if own else "the data are incomplete; fetch them again"
        raise BadInput(
            f"the training split of '{spec.name}' has no image of class {absent[0]} (of {spec.classes}): {fix}"
        )


def _split(
    spec: DatasetSpec, samples: Samples, look: Look, shown: Look, augment: Augment, device: torch.device, cache: Path,
    crop: float | None = None,
) -> Split:  # fmt: skip
    """In memory where views are cut from there and fit; one view of files mapped from a file; else streamed."""
    fit = Fit(look.size, len(look.mean), spec.fit, crop)
    pixels = len(samples.labels) * (look.size + 2 * augment.pad) ** 2 * fit.channels
    room = splits.MEMORY_SHARE * min(memory_bytes(device), memory_bytes(torch.device("cpu")))
    held = None
    if augment.gathered and pixels <= room:
        held = decoded(samples, fit, cache)
    elif augment.n_views == 1 and not isinstance(samples, ArraySamples):
        held = stored(samples, fit, cache)
    if held is None:
        return StreamSplit(samples, fit, look, augment, device, shown)
    return ResidentSplit(held, samples.labels, look, augment, device, shown)
