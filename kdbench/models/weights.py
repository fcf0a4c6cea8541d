"""Weights from a hub or a local file: all of them fit, or it is an error. Never a silent random head.

timm drops a classifier whose class count differs from the data set's and says so only at log level INFO; here
that is refused before anything is loaded, and a network that is random in any part is refused afterwards. Training that
starts from weights (``load_start``) asks for a new classifier by name.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import pickle
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import timm
import torch
from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kdbench.errors import BadInput, MachineFault, unknown
from kdbench.models.build import build, construct, explained, fit_to, known_models, seeded
from kdbench.models.published import unwrapped

PRETRAINED = "pretrained"
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_NEW_HEAD = "put a new classifier on them with --teacher-tune head (or full)"
_SCALAR: Any = np.float64().__reduce__()[0]
_PLAIN: list[Any] = [
    argparse.Namespace, (_SCALAR, "numpy.core.multiarray.scalar"), (_SCALAR, "numpy._core.multiarray.scalar"), np.dtype,
    type(np.dtype(np.float64)), type(np.dtype(np.float32)),
]  # fmt: skip
"""What torch files may hold beside tensors and containers, and runs nothing: timm's arguments, scores as numbers."""
_ADVICE = (
    "give a local file (PATH), leave the option out, or fetch the weights "
    "once on a machine with a network and copy its Hugging Face cache"
)


class Ensemble(nn.Module):
    """Several networks as one teacher: (B, ...) -> logits (B, C), the mean of the members' logits.

    Its softmax is the geometric mean of the members' predictions, normalised; with ``arithmetic`` their mean, whose
    logarithm is the logits: the two ways in which Hinton, Vinyals & Dean 2015 (section 2) make soft targets of several.
    """

    def __init__(self, members: Iterable[nn.Module], *, arithmetic: bool = False) -> None:
        super().__init__()
        self.members, self.arithmetic = nn.ModuleList(members), arithmetic

    def forward(self, x: Tensor) -> Tensor:
        said = torch.stack([member(x) for member in self.members])
        return said.log_softmax(-1).logsumexp(0) - math.log(len(said)) if self.arithmetic else said.mean(0)


def load_weights(name: str, *, classes: int, channels: int, input_size: int, stem: str, source: str) -> nn.Module:
    """The network ``name`` with the weights of ``source``, in eval mode on the CPU.

    ``source`` is ``pretrained`` or ``pretrained:TAG`` (a tag may follow the name instead: ``resnet50.a1_in1k``), which
    timm adapts to other channels and sizes; or a file that must fit exactly: ``.safetensors``, a torch file read with
    ``weights_only``, or a folder with one as the hub has them (``local-dir:PATH`` too, ``hf-hub:NAME`` one of the hub).
    A dictionary in it under ``state_dict_ema``, ``model_ema``, ``state_dict`` or ``model`` is unwrapped (PATH#KEY names
    another), a prefix that all names share (``module.``) taken off; the names of the CIFAR-100 tables' repositories are
    translated. Several, with commas between them, make an ``Ensemble``.

    Raises:
        BadInput: no such weights, another number of classes, or names or shapes that do not fit.
        MachineFault: pretrained weights that are not on this machine, and no network.
    """
    shape: dict[str, Any] = {"classes": classes, "channels": channels, "input_size": input_size, "stem": stem}
    if len(parts := members(source)) > 1:
        return Ensemble(load_weights(name, **shape, source=part) for part in parts).eval()
    if source.split(":")[0] == PRETRAINED:
        return _pretrained(*described(name, source), **shape).eval()
    model = build(name, **shape, seed=0)
    _fill(model, unwrapped(name, read_weights(source), model.state_dict().keys()), classes, source)
    return model.eval()


def load_start(
    name: str, *, classes: int, channels: int, input_size: int, stem: str, source: str, seed: int,
    options: Mapping[str, float] | None = None,
) -> nn.Module:  # fmt: skip
    """The network ``name`` with one ``source``'s weights (see ``load_weights``) and a new classifier, on the CPU.

    Whatever the classes of ``source`` are; the classifier depends on ``seed`` alone.

    Raises:
        BadInput: no such weights, or they do not fit. MachineFault: they are not on this machine, and no network.
    """
    shape: dict[str, Any] = {"classes": classes, "channels": channels, "input_size": input_size, "stem": stem}
    if source.split(":")[0] == PRETRAINED:
        return _pretrained(*described(name, source), **shape, seed=seed, options=options).train()
    model = build(name, **shape, seed=seed, options=options)
    if not head_names(model):
        raise BadInput(f"'{name}' does not say which layer is its classifier: it cannot get a new one")
    _fill(model, unwrapped(name, read_weights(source), model.state_dict().keys()), None, source)
    return model


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that timm calls a network's classifier: several where it has several."""
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return (heads,) if isinstance(heads, str) else tuple(heads)


def in_order(model: nn.Module, order: Sequence[int]) -> None:
    """Let class k of ``model`` (or of an ensemble's members) be what was ``order[k]``, in place."""
    for member in model.members if isinstance(model, Ensemble) else [model]:
        for head in head_names(member):
            for value in member.get_submodule(head).parameters():
                value.data = value.data[list(order)]


def members(source: str) -> list[str]:
    """The parts of ``source`` (or of its digest): one, or the members of an ensemble."""
    whole = os.path.isfile(os.path.expanduser(source))  # a file's name may hold a comma; Path refuses long texts
    return [source] if whole else [part.strip() for part in source.split(",")]


def weights_file(source: str) -> tuple[Path, str]:
    """``source`` as the path of an existing file, itself or the one in a folder, and the key asked for (PATH#KEY)."""
    if source.startswith("hf-hub:"):
        return _of_hub(source.removeprefix("hf-hub:")), ""
    path, key = Path(source.removeprefix("local-dir:")).expanduser(), ""
    if not path.exists() and "#" in path.name:
        text, _, key = str(path).rpartition("#")
        path = Path(text)
    for place in (path, *(path / name for name in _HUB_FILES)):
        if place.is_file():
            return place, key
    if path.is_dir():
        raise BadInput(f"weights '{source}': the folder holds neither {' nor '.join(_HUB_FILES)}: name the file in it")
    raise BadInput(f"weights '{source}': no such file (give a .safetensors or torch file, or 'pretrained')")


def read_weights(source: str) -> dict[str, Tensor]:
    """Named tensors of a file, without running any code in it."""
    path, asked = weights_file(source)
    content = read_file(path)
    inside = content if isinstance(content, Mapping) else {}
    keys = [asked] if asked else _weights_in(inside)
    named = inside.get(keys[0]) if keys else inside
    if not isinstance(named, Mapping):
        close = difflib.get_close_matches(asked, map(str, inside), n=3, cutoff=0)
        held = (", ".join(close) or "no names") + (f" and {len(inside) - 3:,} more" if len(inside) > 3 else "")
        raise BadInput(f"{path} has no weights under '{asked}': it holds {held}")
    if not named or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in named.items()):
        raise BadInput(f"{path} holds something else than named tensors: save model.state_dict()")
    return dict(named)


def _weights_in(inside: Mapping[Any, Any]) -> list[str]:
    """Keys that weights are kept under, the moving average first, as timm has it."""
    return [
        key for key in ("state_dict_ema", "model_ema", "state_dict", "model") if isinstance(inside.get(key), Mapping)
    ]


def several_in(source: str) -> str:
    """A line on which of several weights in a file of ``source`` are used; empty where there is no choice."""
    for part in members(source) if not source.startswith((PRETRAINED, "hf-hub:")) else ():
        path, asked = weights_file(part)
        content = read_file(path) if not asked and path.suffix != ".safetensors" else None
        if isinstance(content, Mapping) and len(keys := _weights_in(content)) > 1:
            return f"{path}: its {keys[0]} is used ({part}#{keys[1]} takes the other)"
    return ""


def read_file(path: Path) -> Any:
    """What a file of weights holds, without running any code in it.

    Raises:
        BadInput: it is damaged, or could only be read by running code.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is no readable safetensors file: {error}") from error
    try:
        with torch.serialization.safe_globals(_PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"{path} is no torch file of plain tensors (code in a file is never run); save model.state_dict() "
            f"as .safetensors instead"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise BadInput(f"{path} is no whole torch file: it was cut, damaged, or is something else") from error


def _fill(model: nn.Module, weights: dict[str, Tensor], classes: int | None, place: str) -> None:
    """Copy ``weights`` into ``model`` if they fit exactly; all but the classifier's without ``classes``."""
    own, heads = model.state_dict(), head_names(model)
    for head in heads:
        got = weights.get(f"{head}.weight")
        if classes is not None and got is not None and got.ndim and got.shape[0] != classes:
            raise BadInput(f"{place}: weights have {got.shape[0]} classes, the data set has {classes}; {_NEW_HEAD}")
    if classes is None:
        old = tuple(f"{head}." for head in heads)
        own, weights = ({k: v for k, v in held.items() if not k.startswith(old)} for held in (own, weights))
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


def described(name: str, source: str) -> tuple[str, Any]:
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


def _pretrained(
    name: str, config: Any, classes: int, channels: int, input_size: int, stem: str, *,
    seed: int | None = None, options: Mapping[str, float] | None = None,
) -> nn.Module:  # fmt: skip
    """The weights that timm publishes, from its cache or the network; with a ``seed`` a new classifier on top."""
    if config.num_classes != classes and seed is None:
        raise BadInput(
            f"pretrained {name}: weights have {config.num_classes} classes, the data set has {classes}; {_NEW_HEAD}"
        )
    with explained(name, input_size, stem):
        fit = fit_to(name, input_size, stem)
    more: dict[str, Any] = {**(options or {}), "pretrained": True}
    if cached := _cached(config, name):
        more["pretrained_cfg_overlay"] = {"file": cached}
    built: list[nn.Module] = []
    for each in (seed or 0, (seed or 0) + 1):
        try:
            with seeded(each):
                model: Any = construct(name, fit, classes, channels, **more)
                if seed is not None and config.num_classes == classes:
                    model.reset_classifier(classes)
                built.append(model)
        except OSError as error:
            raise MachineFault(f"pretrained weights of {name} could not be fetched: {error}; {_ADVICE}") from error
        except RuntimeError as error:
            reason = f"{input_size}-pixel inputs, stem {stem}: {' '.join(str(error).split())[:300]}"
            raise BadInput(f"pretrained {name} does not fit {reason}") from error
    one, other = (model.state_dict() for model in built)
    new = () if seed is None else tuple(f"{head}." for head in head_names(built[0]))
    random = [key for key in one if not key.startswith(new) and not torch.equal(one[key], other[key])]
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
    _reach(name, None if config.hf_hub_id else config.url or "")
    return None


def _of_hub(name: str) -> Path:
    """The file with the weights of ``owner/name[@revision]``, its config.json beside it, from the hub or its cache.

    Raises:
        MachineFault: it is not on this machine, and cannot be fetched.
        BadInput: what is no name there, or a place without weights.
    """
    repo, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise BadInput(f"'hf-hub:{name}' is no name on the hub: write hf-hub:OWNER/NAME or hf-hub:OWNER/NAME@REVISION")
    for fetch in (False, True):
        for file in _HUB_FILES:
            found = try_to_load_from_cache(repo, file, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
        if not fetch:
            _reach(name)
            try:
                snapshot_download(repo, revision=revision or None, allow_patterns=[*_HUB_FILES, "config.json"])
            except (OSError, ValueError) as error:
                raise MachineFault(f"weights of {name} could not be fetched: {str(error).splitlines()[0]}") from error
    raise BadInput(f"hf-hub:{name} holds neither {' nor '.join(_HUB_FILES)}: it has no weights in timm's form")


def _reach(name: str, host: str | None = None) -> None:
    """MachineFault unless ``host`` (None: the hub) answers within seconds."""
    if host is None and constants.HF_HUB_OFFLINE:
        raise MachineFault(f"pretrained weights of {name} are not here and HF_HUB_OFFLINE is set: {_ADVICE}")
    host = constants.ENDPOINT if host is None else host
    try:
        urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        pass  # a refusal is an answer
    except (OSError, ValueError) as error:
        raise MachineFault(f"pretrained weights of {name} are not here and no network was found: {_ADVICE}") from error
