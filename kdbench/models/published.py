"""Under which names weights come: prefixes that training leaves, and what the CIFAR-100 tables' own repositories,
RepDistiller and mdistiller, call the layers of ``kdbench.models.cifar`` (both alike).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

from torch import Tensor

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "student.")
_STEM = "conv1 body.stem.0 bn1 body.stem.1"
_THREE = "conv1 {0}.0 bn1 {0}.1 conv2 {1}.0 bn2 {1}.1 conv3 {2}.0 bn3 {2}.1"
_RESIDUAL = _THREE.format("branch.0", "branch.1", "branch.2")

_OUTSIDE: dict[str, str] = {
    "resnet": f"{_STEM} fc fc linear fc",
    "wrn": "conv1 body.stem bn1 body.last.0 fc fc",
    "vgg": "classifier fc",
    "mobilenetv2": "conv1.0 body.stem.0 conv1.1 body.stem.1 conv2.0 body.last.0 conv2.1 body.last.1 classifier.0 fc",
    "shufflev1": f"{_STEM} linear fc",
    "shufflev2": f"{_STEM} conv2 body.last.0 bn2 body.last.1 linear fc",
}
"""Their name and ours by turns, of layers outside of the stages."""
_INSIDE: dict[str, str] = {
    "resnet": f"{_RESIDUAL} downsample.0 shortcut.0 downsample.1 shortcut.1",
    "wrn": "bn1 before.0 conv1 branch.0 bn2 branch.1 conv2 branch.3 convShortcut shortcut",
    "mobilenetv2": " ".join(f"conv.{3 * i + j} branch.{i}.{j}" for i in range(3) for j in range(2)),
    "shufflev1": _THREE.format("reduce", "expand.0", "expand.1"),
    "shufflev2": _RESIDUAL,
    "shufflev2 down": "conv1 short.0.0 bn1 short.0.1 conv2 short.1.0 bn2 short.1.1 "
    "conv3 branch.0.0 bn3 branch.0.1 conv4 branch.1.0 bn4 branch.1.1 conv5 branch.2.0 bn5 branch.2.1",
}
"""Likewise of a block in a stage; ``down``: of a stage's first."""
_FIRST_STAGE = {"vgg": 0, "mobilenetv2": 0}
_BLOCK = re.compile(r"(?:layer|blocks?)\.?(\d+)\.(?:layer\.)?(\d+)\.?(.*)")


def unwrapped(model: str, weights: Mapping[str, Tensor], own: Set[str]) -> dict[str, Tensor]:
    """``weights`` as near as can be to ``own``, the names that the network ``model`` has here.

    Data-parallel, compiled and wrapped training leave prefixes; what has none of them where others do is no part of
    the network (a loss with weights, a teacher).
    """
    held = {key: value for key, value in weights.items() if key != "n_averaged"}  # of torch's AveragedModel
    while not own & held.keys():
        prefix = next((p for p in _PREFIXES if any(key.startswith(p) for key in held)), None)
        if prefix is None:
            break
        held = {key.removeprefix(prefix): value for key, value in held.items() if key.startswith(prefix)}
    return renamed(model, held)


def renamed(model: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` of the CIFAR-100 tables' networks (``cifar_resnet32x4``, ...) under the names they have here."""
    kind = next((kind for kind in _OUTSIDE if model.startswith(f"cifar_{kind}")), None)
    return {key if kind is None else _name(kind, key): value for key, value in weights.items()}


def _name(kind: str, key: str) -> str:
    layer, _, leaf = key.rpartition(".")
    if (found := _BLOCK.fullmatch(layer)) is None:
        return f"{_pairs(_OUTSIDE[kind]).get(layer, layer)}.{leaf}"
    stage, block, inner = int(found[1]) + (1 - _FIRST_STAGE.get(kind, 1)), found[2], found[3]
    if kind != "vgg":
        table = _INSIDE[f"{kind} down" if block == "0" and f"{kind} down" in _INSIDE else kind]
        inner = _pairs(table).get(inner, inner)
    return ".".join(part for part in (f"body.stage{stage}", block, inner, leaf) if part)


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))
