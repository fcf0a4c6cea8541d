"""Rebuilds the student beside this file with torch, timm and safetensors alone.

from load import load
network = load()  # eval mode; images as preprocess.json says -> logits
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file


def load(folder: str | Path = Path(__file__).parent) -> torch.nn.Module:
    """The network with its weights, its changed layers in place."""
    config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if "needs" in config:  # an architecture that timm does not have
        importlib.import_module(config["needs"])
    name = config.get("built_from", config["architecture"])
    network: torch.nn.Module = timm.create_model(name, num_classes=config["num_classes"], **config["model_args"])
    for place, change in config.get("changed_layers", {}).items():
        if change == "identity":
            network.set_submodule(place, torch.nn.Identity())
            continue
        layer: Any = network.get_submodule(place)
        layer.stride = tuple(change["stride"])
        layer.padding = change["padding"] if isinstance(change["padding"], str) else tuple(change["padding"])
    network.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    return network.eval()
