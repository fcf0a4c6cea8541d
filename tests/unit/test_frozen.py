"""What is trained of a network that starts from weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdbench.errors import BadInput
from kdbench.models import build
from tests.support.training import DEVICE, RECIPE, config_of, data_for, train


def test_frozen_groups_stay_as_they_came_and_the_rest_learns(tmp_path: Path) -> None:
    config = config_of(RECIPE.model_copy(update={"freeze": 2}), method="hard")
    data = data_for(config.recipe)
    shape = {"classes": 10, "channels": data.channels, "input_size": data.input_size}
    before = build(config.model, **shape, stem="native", seed=config.seed).to(DEVICE).state_dict()
    after = train(config, tmp_path / "some").model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    kept = ("conv1", "bn1", "layer1")
    assert not any(name.startswith(kept) for name in moved)
    assert moved == {name for name in before if not name.startswith(kept)}
    with pytest.raises(BadInput, match="has 6 groups of layers, the last its classifier: freeze at most 5"):
        train(config_of(RECIPE.model_copy(update={"freeze": 6}), method="hard"), tmp_path / "all")
