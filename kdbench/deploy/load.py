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
    # an architecture that timm does not have
    needs: Any = importlib.import_module(config["needs"]) if "needs" in config else None
    name = config.get("built_from", config["architecture"])
    network: torch.nn.Module = timm.create_model(name, num_classes=config["num_classes"], **config["model_args"])
    for place, change in config.get("changed_layers", {}).items():
        if change == "identity":
            network.set_submodule(place, torch.nn.Identity())
            continue
        layer: Any = network.get_submodule(place)
        layer.stride = tuple(change["stride"])
        layer.padding = change["padding"] if isinstance(change["padding"], str) else tuple(change["padding"])
    weights = load_file(Path(folder) / "model.safetensors")
    if hasattr(needs, "fitting"):  # around it a projector and its teacher's classifier
        network = needs.fitting(network, weights, torch.zeros(1, *config["pretrained_cfg"]["input_size"]))
    network.load_state_dict(weights)
    return network.eval()
