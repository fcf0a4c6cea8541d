"""What weights say of themselves: which they are, and what changes their function but not their shapes."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm

from kdbench.catalog.datasets import DATASETS, IMAGENET_MEAN, IMAGENET_STD
from kdbench.config import RunConfig
from kdbench.errors import BadInput
from kdbench.models.weights import PRETRAINED, described, members, read_file, weights_file


class Given(NamedTuple):
    """Weights that somebody trained."""

    digest: str
    """What identifies them: ``pretrained:<timm tag>``, ``file:<12 hex digits of SHA-256>``, or, sorted and with commas
    between them, those of an ensemble's members."""
    recipe: dict[str, Any]
    """Fields of ``Recipe`` with which they must be used, as far as they are known: ``network_*``, mean,
    std, stem."""
    labels: tuple[str, ...] = ()
    """Names of their classes, in their order; empty: not known."""


def describe(source: str, name: str) -> Given:
    """What is known of the weights ``source`` (see ``load_weights``) for the network ``name``.

    From timm's registry; a ``config.json`` beside the file in timm's form or of a run of kdbench; or the arguments that
    timm's train.py keeps in its checkpoints.

    Raises:
        BadInput: no such weights, those of another network, or an ensemble whose members are used in different ways.
        MachineFault: weights of the hub that are not here, and no network.
    """
    if len(parts := members(source)) == 1:
        return _pretrained(source, name) if source.split(":")[0] == PRETRAINED else _file(source, name)
    each = [describe(part, name) for part in parts]
    for k, (one, part) in enumerate(zip(each, parts, strict=True)):
        if one.digest in [other.digest for other in each[:k]]:
            raise BadInput(f"teacher weights '{part}' are in the ensemble already")
        if one.recipe != each[0].recipe:
            raise BadInput(f"teacher weights '{part}' are used with {one.recipe}, '{parts[0]}' with {each[0].recipe}: "
                           "the members of an ensemble must see the same")  # fmt: skip
    return Given(",".join(sorted(one.digest for one in each)), each[0].recipe)


def weights_digest(source: str, name: str) -> str:
    """``describe(source, name).digest``."""
    return describe(source, name).digest


def _pretrained(source: str, name: str) -> Given:
    config = described(name, source)[1]
    return Given(f"{PRETRAINED}:{config.tag}", _recipe(config.to_dict()))


def _file(source: str, name: str) -> Given:
    path, key = weights_file(source)
    held = _beside(path)
    try:
        theirs = str(held.get("architecture") or held.get("model") or name)
        labels = held.get("label_names") or held.get("pretrained_cfg", {}).get("label_names") or ()
        labels = tuple(map(str, labels.values() if isinstance(labels, Mapping) else labels))
        if "recipe" in held:
            recipe = _of_run(held)
        elif held:
            recipe = _recipe(held.get("pretrained_cfg") or held)
        else:
            recipe = {} if path.suffix == ".safetensors" else _of_arguments(read_file(path), name)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise BadInput(f"what '{source}' says of its use is neither timm's nor a run's: {why}") from error
    if theirs.split(".")[0] != name.split(".")[0]:
        raise BadInput(f"weights '{source}' are of {theirs} (its config.json), not of {name}")
    with path.open("rb") as stream:
        sha = hashlib.file_digest(stream, "sha256")
    if key or labels:
        sha.update(json.dumps([key, labels]).encode())
    return Given(f"file:{sha.hexdigest()[:12]}", recipe, labels)


def _beside(path: Path) -> dict[str, Any]:
    """The config.json that belongs to a file of weights."""
    place = path.with_name("config.json")
    if not path.name.startswith(("model.", "pytorch_model.")) or not place.is_file():
        return {}
    try:
        held = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{place} cannot be read: {error}") from error
    return held if isinstance(held, dict) else {}


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """From timm's description of weights, fields of a recipe."""
    found: dict[str, Any] = {"stem": "native"}
    if size := config.get("input_size"):
        found["network_size"] = int(size[-1])
    if config.get("interpolation"):
        found["network_interpolation"] = "bicubic" if config["interpolation"] == "bicubic" else "bilinear"
    if config.get("mean") and config.get("std"):
        found |= {name: tuple(float(value) for value in config[name]) for name in ("mean", "std")}
    return found


def _of_run(held: Mapping[str, Any]) -> dict[str, Any]:
    """How a run of kdbench saw its images."""
    run = RunConfig.model_validate(held)
    r, spec = run.recipe, DATASETS.get(run.data.name) if run.data.name in DATASETS else None
    mean, std = (spec.mean, spec.std) if spec else (IMAGENET_MEAN, IMAGENET_STD)
    repeat = run.data.channels or len(mean)
    size = r.network_size or r.input_size or (spec.input_size if spec else None)
    mean, std = (values * max(1, repeat // len(values)) for values in (r.mean or mean, r.std or std))
    found = {"stem": r.stem, "network_interpolation": r.network_interpolation, "mean": mean, "std": std}
    return found | ({"network_size": size} if size else {})


def _of_arguments(content: Any, name: str) -> dict[str, Any]:
    """What timm's train.py was told, beside what it takes for ``name`` where it is told nothing."""
    args = content.get("args") if isinstance(content, Mapping) else None
    if not isinstance(args, argparse.Namespace) or "model" not in vars(args):
        return {}
    told = {key: value for key, value in vars(args).items() if value}
    usual = timm.get_pretrained_cfg(name)
    size = told.get("input_size") or (told.get("img_size") and (told["img_size"],))
    return _recipe({**(usual.to_dict() if usual else {}), **told, **({"input_size": size} if size else {})})
