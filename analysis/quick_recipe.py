"""Which student recipe the quick preset of digits should have: validation accuracy on hard labels, no test split read.

The rows differ from the preset in what their name says; every network is trained from ``--seeds`` seeds, each on the
same cut as a sweep's. ``python analysis/quick_recipe.py`` takes about ten minutes on two cores and prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from kdbench.catalog.recipes import recipe_for
from kdbench.config import DataConfig, RunConfig
from kdbench.data import load, resolve_dataset
from kdbench.train import run_training

MODELS = ("mobilenetv3_small_050", "mobilenetv3_small_100", "mobilenetv3_large_100")
CHANGES: dict[str, dict[str, Any]] = {
    "the preset": {},
    "rate 0.4": {"lr": 0.4},
    "rate 0.1": {"lr": 0.1},
    "8 epochs": {"epochs": 8},
    "batches of 64, rate 0.4, 8 epochs": {"batch_size": 64, "lr": 0.4, "epochs": 8},
    "crops (1 pixel)": {"pad": 1},
    "8 pixels": {"input_size": 8},
    "16 pixels": {"input_size": 16},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    device, data_config, (spec, _) = torch.device("cpu"), DataConfig(name="digits"), resolve_dataset("digits")
    preset = recipe_for("student", spec, "quick")
    print(f"Validation accuracy in percent on hard labels, mean and standard deviation over {seeds} seeds.\n")
    print("| students' recipe | " + " | ".join(MODELS) + " |\n|---" + "|---:" * len(MODELS) + "|", flush=True)
    for name, change in CHANGES.items():
        recipe = preset.model_copy(update={"precision": "fp32", **change})
        cells = []
        for model in MODELS:
            accuracies = []
            for seed in range(seeds):
                config = RunConfig(data=data_config, model=model, recipe=recipe, seed=seed, phase="search")
                with tempfile.TemporaryDirectory() as folder:
                    data = load(spec, data_config, recipe, device, Path(folder) / "cache")
                    outcome = run_training(config, data=data, teacher=None, workdir=Path(folder), device=device)
                accuracies.append(100 * (outcome.result.val_acc or 0))
            cells.append(f"{statistics.mean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
