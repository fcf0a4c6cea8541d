"""Every published recipe, shortened, on tiny networks: what holds of a run holds of it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from kdbench.catalog.datasets import DATASETS
from kdbench.catalog.recipes import PRESETS, recipe_for
from kdbench.config import Recipe
from kdbench.teacher import make_teacher
from tests.support.training import DEVICE, Watched, config_of, data_for, live, same, train


def shortened(name: str) -> Recipe:
    """All of it but how long and how many at once."""
    recipe = recipe_for("student", DATASETS.get("digits"), "quick", name)
    small = {"epochs": 2, "batch_size": 48, "lr": recipe.lr / 10, "warmup_epochs": 1, "input_size": 32}
    milestones = {"milestones": (1,)} if recipe.milestones else {}
    return recipe.model_copy(update=small | milestones | {"precision": "fp32"})


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_same_run_cached_or_live_interrupted_or_not_whatever_ran_before(tmp_path, name):
    recipe = shortened(name)
    config, network = config_of(recipe, hyper={"temperature": 4.0, "alpha": 0.7}), Watched()

    def kept():
        split = data_for(recipe).train
        return make_teacher(lambda: network, DEVICE, 10, root=tmp_path / "t", teacher_id="t", split=split, passes=2)

    whole = train(config, tmp_path / "whole", kept())
    before = network.images
    assert whole.result.status == "complete" and before > 0
    random.seed(1), np.random.seed(1), torch.manual_seed(1)

    def interrupt(log, replayed):
        if not replayed:
            raise KeyboardInterrupt
        return False

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts", kept(), interrupt)
    assert same(whole, train(config, tmp_path / "parts", kept())) and network.images == before
    other = train(config, tmp_path / "live", live())
    if kept().fills(data_for(recipe).train):  # chunks of another size: the last of 16 bits may differ
        assert other.logs[-1].train_loss == pytest.approx(whole.logs[-1].train_loss, rel=1e-3)
    else:
        assert same(whole, other)


def test_each_preset_says_where_it_is_from():
    assert {"rsb-a2", "rsb-a3", "deit", "funmatch", "usi", "crd"} <= PRESETS.keys()
    for preset in PRESETS.values():
        assert "arXiv:" in preset.source and Recipe.model_validate(preset.recipe)
