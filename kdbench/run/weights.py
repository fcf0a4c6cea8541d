"""Weights that somebody else trained, used as they are: loaded, and checked against the data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from kdbench.catalog.datasets import IMAGENET_MEAN, IMAGENET_STD
from kdbench.config import RunConfig, RunResult
from kdbench.data import Look, Split, TaskData
from kdbench.data.sources import class_names, natural_order
from kdbench.errors import BadInput, MachineFault
from kdbench.files import atomic
from kdbench.models import count_macs, count_params, describe, in_order, load_weights, members
from kdbench.models.reused import fitting
from kdbench.run.events import Handle, Note
from kdbench.run.store import WEIGHTS
from kdbench.train import RunOutcome, score
from kdbench.train.fast_conv import optimise
from kdbench.train.metrics import collect_logits
from kdbench.train.step import describe_hardware

PROBED = 512
"""Validation samples, about, on which other ways of using given weights are tried."""
FEW = 4
"""Of those every so many are tried first, evenly over all classes."""
_NAMED, _AT_ONCE = 12, 128
BETTER, SURE = 0.05, 3.0
"""Another way is better by so much accuracy, and by so many standard errors."""


def import_weights(config: RunConfig, data: TaskData, source: str, device: torch.device, report: Handle) -> RunOutcome:
    """A run whose weights are given: nothing is trained. The network's classes are in the data's order.

    Classes are put in order by their names where the weights carry them; else, of a user's own folders, in the natural
    order (timm's) where that is right and the data's is not.

    Raises:
        BadInput: another stem, or another normalisation where none is known, would be right: named with its option.
    """
    shape = {"classes": data.classes, "channels": data.channels, "input_size": data.input_size}
    names, theirs = class_names(data.spec) or (), [describe(part, config.model).labels for part in members(source)]
    for labels in theirs:
        if names and labels and {*names} != {*labels}:
            text = f"{_listed(labels)}; of the data, taken to be the same in this order: {_listed(names)}"
            report(Note(f"classes of the weights: {text}"))

    orders = [_order(names, labels) or range(data.classes) for labels in theirs]

    def loaded(stem: str) -> nn.Module:
        model = load_weights(config.model, **shape, stem=stem, source=source).to(device)
        for member, order in zip(getattr(model, "members", [model]), orders, strict=True):
            in_order(member, order)
        return model.eval()

    natural = _order(names, natural_order(names)) or list(range(data.classes))
    model = loaded(config.recipe.stem)
    logits, targets = collect_logits(model, data.val)
    right = logits.argmax(1) == targets
    if _better(in_natural := logits[:, natural].argmax(1) == targets, right):
        in_order(model, natural)
        report(Note(f"the weights' classes are in natural order ({_listed(natural_order(names))}): put in the data's"))
        logits, right = logits[:, natural], in_natural
    step = max(1, len(targets) // PROBED)
    images, y, right = _some(data.val, step), targets[::step], right[::step]
    plain = optimise(deepcopy(model), device)
    for option, other, look in _other_ways(config, data.val, lambda stem: optimise(loaded(stem), device)):
        for few in (FEW, 1):  # another stem may cost twenty times as much: first every few of them
            held, known = right[::few], y[::few]
            parts = images[::few].split(_AT_ONCE)
            with torch.inference_mode():
                said = torch.cat([(other or plain)(look.show(x, data.val.shown)) for x in parts])
            found = max((said.argmax(1) == known, said[:, natural].argmax(1) == known), key=torch.sum)
            if found.float().mean() < held.float().mean() + BETTER / 2:
                break
        if not _better(found, held):
            continue
        used, could = (f"{float(each.float().mean()):.1%}" for each in (held, found))
        text = f"'{source}' gets {used} of validation as it is used, {could} with --set teacher-recipe.{option}"
        if config.recipe.mean is None or other is not None:
            raise BadInput(f"{text}: give that, or a config.json beside the weights that says how they were trained")
        report(Note(text))
    return measured(config, data, model, (logits, targets))


def measured(
    config: RunConfig, data: TaskData, model: nn.Module, on_val: tuple[Tensor, Tensor] | None = None
) -> RunOutcome:
    """What a run comes to of which nothing is trained; ``on_val``: logits and labels where they are known."""
    s = score(*(on_val or collect_logits(model, data.val)))
    test = score(*collect_logits(model, data.test())) if config.phase == "confirm" else None
    final = test or s
    result = RunResult(
        id=config.id, status="complete", val_acc=s.acc, best_val_acc=s.acc, nll=final.nll, ece=final.ece,
        agreement=1.0, params=count_params(model), macs=count_macs(model, data.channels, data.input_size),
        hardware=describe_hardware(next(model.parameters()).device), test_acc=test and test.acc,
        test_top5=test and test.top5,
    )  # fmt: skip
    return RunOutcome(result, [], model)


def _other_ways(
    config: RunConfig, val: Split, load: Callable[[str], nn.Module]
) -> Iterator[tuple[str, nn.Module | None, Look]]:
    """(the option, the network where it is another, how it sees) of what shapes do not tell."""
    stem = "native" if config.recipe.stem == "small" else "small"
    try:
        yield f"stem={stem}", load(stem), val.shown
    except BadInput:  # there is no such stem, or it needs other weights: then these are of the one that fits
        pass
    channels = len(val.shown.mean)
    usual = {IMAGENET_MEAN: IMAGENET_STD, (0.5,) * 3: (0.5,) * 3, (0.0,) * 3: (1.0,) * 3}
    for mean, std in ((mean[:channels], std[:channels]) for mean, std in usual.items()):
        if mean != val.shown.mean:
            shown = ",".join(f"{value:g}" for value in mean), ",".join(f"{value:g}" for value in std)
            text = f"mean=[{shown[0]}] --set teacher-recipe.std=[{shown[1]}]"
            yield text, None, replace(val.shown, mean=mean, std=std)


def _some(split: Split, step: int) -> Tensor:
    """Every ``step``-th image of a split, un-augmented."""
    found, at = [], 0
    for batch in split.plain():
        found.append(batch.x[(-at) % step :: step])
        at += len(batch.y)
    return torch.cat(found)


def _better(one: Tensor, other: Tensor) -> bool:
    """Whether ``one`` is right surely and clearly more often than ``other``, sample by sample (bool (N,) each)."""
    gain = one.double() - other.double()
    return float(gain.mean()) > max(BETTER, SURE * float(gain.std()) / math.sqrt(len(gain)))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _order(names: tuple[str, ...], theirs: tuple[str, ...]) -> list[int]:
    """Where each of ``names`` stands in ``theirs``; empty where those are the same, or other names."""
    if names == theirs or sorted(names) != sorted(theirs):
        return []
    return [theirs.index(name) for name in names]


def with_weights(network: nn.Module, place: Path, digest: str | None, image: Tensor) -> nn.Module:
    """A run's network with the weights in its folder ``place``, whose SHA-256 is ``digest`` (None: not known).

    ``network``: as it is built; it comes back with what else the run ships around it. ``image``: see ``fitting``.

    Raises:
        MachineFault: weights that cannot be read, or are not those that the run left.
    """
    try:
        raw = (place / WEIGHTS).read_bytes()
        if digest not in (None, hashlib.sha256(raw).hexdigest()):
            raise OSError("their checksum does not fit")
        weights = load(raw)
        network = fitting(network, weights, image)
        network.load_state_dict(weights)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise MachineFault(
            f"the weights {place / WEIGHTS} cannot be read ({str(error).splitlines()[0]}): delete {place} and run again"
        ) from error
    return network


def save_weights(model: nn.Module, path: Path) -> str:
    """A network's state as safetensors, whole or not at all; the file's SHA-256."""
    data = save({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()})
    atomic(path, lambda aside: aside.write_bytes(data))
    return hashlib.sha256(data).hexdigest()


def save_arrays(aside: Path, arrays: dict[str, Any]) -> None:
    """``arrays`` as an .npz file."""
    with aside.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
