"""Weights from timm's hub or a local file: all of them fit, or it is an error. Never a silent random head.

timm drops a classifier whose class count differs from the data set's and says so only at log level INFO; here
that is refused before anything is loaded, and a network that is random in any part is refused afterwards.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kdbench.errors import BadInput, MachineFault, unknown
from kdbench.models.build import build, construct, explained, fit_to, known_models, seeded

PRETRAINED = "pretrained"
_ADVICE = (
    "give a local file with --teacher-weights PATH, train the teacher here by leaving it out, or fetch the weights "
    "once on a machine with a network and copy its Hugging Face cache"
)


class Ensemble(nn.Module):
    """Several networks as one teacher: (B, ...) -> logits (B, C), the mean of the members' logits.

    Its softmax is the geometric mean of the members' predictions, normalised: one of the two ways in which Hinton,
    Vinyals & Dean 2015 (section 2) make the soft targets of an ensemble.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


def load_weights(name: str, *, classes: int, channels: int, input_size: int, stem: str, source: str) -> nn.Module:
    """The network ``name`` with the weights of ``source``, in eval mode on the CPU.

    ``source`` is ``pretrained`` or ``pretrained:TAG`` (a tag may follow the name instead: ``resnet50.a1_in1k``), which
    timm adapts to other channels and sizes; or a file that must fit exactly: ``.safetensors``, a torch file read with
    ``weights_only``, or a folder with one as the hub has them (``local-dir:PATH`` too). A dictionary in it under
    ``state_dict_ema``, ``model_ema``, ``state_dict`` or ``model`` is unwrapped, a prefix that all names share
    (``module.``) taken off. Several, with commas between them, make an ``Ensemble``.

    Raises:
        BadInput: no such weights, another number of classes, or names or shapes that do not fit.
        MachineFault: pretrained weights that are not on this machine, and no network.
    """
    shape: dict[str, Any] = {"classes": classes, "channels": channels, "input_size": input_size, "stem": stem}
    if len(parts := members(source)) > 1:
        return Ensemble(load_weights(name, **shape, source=part) for part in parts).eval()
    if source.split(":")[0] == PRETRAINED:
        return _pretrained(*_described(name, source), **shape).eval()
    model, path = build(name, **shape, seed=0), _file(source)
    _fill(model, _read(path), classes, str(path))
    return model.eval()


def weights_digest(source: str, name: str) -> str:
    """What identifies the weights: ``pretrained:<timm tag>``, ``file:<12 hex digits of SHA-256>``, or, sorted and with
    commas between them, those of an ensemble's members.

    Raises:
        BadInput: no such file, no such pretrained weights, or the same twice.
    """
    if len(parts := members(source)) > 1:
        each = [weights_digest(part, name) for part in parts]
        twice = [part for k, part in enumerate(parts) if each[k] in each[:k]]
        if twice:
            raise BadInput(f"teacher weights '{twice[0]}' are in the ensemble already")
        return ",".join(sorted(each))
    if source.split(":")[0] == PRETRAINED:
        return f"{PRETRAINED}:{_described(name, source)[1].tag}"
    with _file(source).open("rb") as stream:
        return f"file:{hashlib.file_digest(stream, 'sha256').hexdigest()[:12]}"


def members(source: str) -> list[str]:
    """The parts of ``source`` (or of its digest): one, or the members of an ensemble."""
    whole = os.path.isfile(os.path.expanduser(source))  # a file's name may hold a comma; Path refuses long texts
    return [source] if whole else [part.strip() for part in source.split(",")]


def _file(source: str) -> Path:
    """``source`` as the path of an existing file: itself, or the one in a folder."""
    path = Path(source.removeprefix("local-dir:")).expanduser()
    for place in (path, path / "model.safetensors", path / "pytorch_model.bin"):
        if place.is_file():
            return place
    raise BadInput(f"teacher weights '{source}': no such file (give a .safetensors or torch file, or 'pretrained')")


def _read(path: Path) -> dict[str, Tensor]:
    """Named tensors of a file, without running any code in it."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is no readable safetensors file: {error}") from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm keeps its arguments beside the weights
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"{path} is no torch file of plain tensors (code in a file is never run); save model.state_dict() "
            f"as .safetensors instead"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise BadInput(f"{path} is no whole torch file: it was cut, damaged, or is something else") from error
    inside = content if isinstance(content, Mapping) else {}
    keys = ("state_dict_ema", "model_ema", "state_dict", "model")  # the moving average first, as timm has it
    named = next((inside[key] for key in keys if isinstance(inside.get(key), Mapping)), inside)
    if not named or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in named.items()):
        raise BadInput(f"{path} holds something else than named tensors: save model.state_dict()")
    return dict(named)


def _fill(model: nn.Module, weights: dict[str, Tensor], classes: int, place: str) -> None:
    """Copy ``weights`` into ``model`` if they fit exactly, under what their names have in common."""
    own = model.state_dict()
    weights = {key: value for key, value in weights.items() if key != "n_averaged"}  # of torch's AveragedModel
    while weights and not own.keys() & weights.keys():  # data-parallel, compiled and wrapped training leave prefixes
        prefixes = ("module.", "_orig_mod.", "model.", "net.")
        prefix = next((p for p in prefixes if all(key.startswith(p) for key in weights)), None)
        if prefix is None:
            break
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    for head in (heads,) if isinstance(heads, str) else heads:
        if (got := weights.get(f"{head}.weight")) is not None and got.ndim and got.shape[0] != classes:
            raise BadInput(f"{place}: weights have {got.shape[0]} classes, the data set has {classes}")
    unlike = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    misfits = {
        "missing": [key for key in own if key not in weights and not key.endswith("num_batches_tracked")],
        "unknown": [key for key in weights if key not in own],
        "of another shape": [
            f"{key} ({_shape(weights[key])} in the file, {_shape(own[key])} in the model)" for key in unlike
        ],
    }
    faults = [
        f"{what} {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for what, keys in misfits.items()
        if keys
    ]
    if faults:
        raise BadInput(f"{place} does not fit this model, channels, input size and stem: {'; '.join(faults)}")
    bad = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise BadInput(f"{place}: not all values of {bad[0]} are finite")
    model.load_state_dict(weights, strict=False)  # compared above; only batch counters may be absent


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _described(name: str, source: str) -> tuple[str, Any]:
    """``name`` with the tag that ``source`` asks for, and timm's description of its pretrained weights."""
    base, tag = name.split(".")[0], source.partition(":")[2]
    name = f"{base}.{tag}" if tag else name
    if base not in known_models():
        raise unknown("model", name, known_models(), "any name of timm.list_models() will do")
    choices = timm.list_pretrained(f"{base}.*")
    if not choices:
        raise BadInput(f"timm publishes no pretrained weights for '{base}': train it, or give a local file")
    if "." in name and name not in choices:
        raise unknown("pretrained weights", name, choices, f"there are {', '.join(choices[:5])}")
    return name, timm.get_pretrained_cfg(name)


def _pretrained(name: str, config: Any, classes: int, channels: int, input_size: int, stem: str) -> nn.Module:
    """The weights that timm publishes, from its cache or the network."""
    if config.num_classes != classes:
        raise BadInput(
            f"pretrained {name}: weights have {config.num_classes} classes, the data set has {classes}; "
            f"train the teacher here (leave out --teacher-weights), or give a file trained on this data set"
        )
    with explained(name, input_size, stem):
        fit = fit_to(name, input_size, stem)
    more: dict[str, Any] = {"pretrained": True}
    if cached := _cached(config, name):
        more["pretrained_cfg_overlay"] = {"file": cached}
    built = []
    for seed in (0, 1):
        try:
            with seeded(seed):
                built.append(construct(name, fit, classes, channels, **more))
        except OSError as error:
            raise MachineFault(f"pretrained weights of {name} could not be fetched: {error}; {_ADVICE}") from error
        except RuntimeError as error:
            reason = f"{input_size}-pixel inputs, stem {stem}: {' '.join(str(error).split())[:300]}"
            raise BadInput(f"pretrained {name} does not fit {reason}") from error
    one, other = (model.state_dict() for model in built)
    random = [key for key in one if not torch.equal(one[key], other[key])]
    if random:  # whatever depends on the seed was not in the file
        raise BadInput(f"pretrained {name} leaves {', '.join(random[:3])} random at this size: give a fitting file")
    return built[0]


def _cached(config: Any, name: str) -> str | None:
    """The file with these weights in the Hugging Face or torch hub cache; None: the host that has them answers.

    It is asked here, for seconds: the hub's library tries again for a minute.
    """
    if config.hf_hub_id:
        for file in (config.hf_hub_filename or "model.safetensors", "pytorch_model.bin"):
            if isinstance(found := try_to_load_from_cache(config.hf_hub_id, file), str):
                return found
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(config.url or "").path).name
    if path.is_file():
        return str(path)
    if config.hf_hub_id and constants.HF_HUB_OFFLINE:
        raise MachineFault(f"pretrained weights of {name} are not here and HF_HUB_OFFLINE is set: {_ADVICE}")
    host = constants.ENDPOINT if config.hf_hub_id else config.url or ""
    try:
        urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        pass  # a refusal is an answer
    except (OSError, ValueError) as error:
        raise MachineFault(f"pretrained weights of {name} are not here and no network was found: {_ADVICE}") from error
    return None
