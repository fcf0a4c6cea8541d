"""Weights of other data, classes, normalisation and size as a teacher: probed, fine-tuned, distilled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from kdbench.config import RunConfig
from kdbench.data import load, resolve_dataset
from kdbench.run.store import WEIGHTS, load_runs, read_config, read_result
from kdbench.sweeps.store import read_spec
from kdbench.teacher import CacheKey, LogitCache
from tests.support.sweeps import TEACHER, sweep_here
from tests.support.training import DEVICE, DIGITS, RECIPE

MEAN, STD, SIDE = (0.9, 0.8, 0.7), (0.15, 0.1, 0.12), 24


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has them: timm's network trained to tell 5 digits, drawn in blue on white, 24 pixels."""
    torch.set_num_threads(1)
    data = load(resolve_dataset("digits")[0], DIGITS.model_copy(update={"limit": None}), RECIPE, DEVICE)
    raw = torch.cat([batch.x for batch in data.train.plain()]).cpu()
    ink, y = raw * data.train.look.std[0] + data.train.look.mean[0], data.train.labels.cpu()
    ink, y = F.interpolate(ink[y < 5], (SIDE, SIDE), mode="bilinear", antialias=True), y[y < 5]
    picture = 1 - ink * torch.tensor([1.0, 1.0, 0.3]).view(1, 3, 1, 1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    x = (picture - mean) / std
    torch.manual_seed(0)
    network = timm.create_model(TEACHER, num_classes=5)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
    folder = tmp_path_factory.mktemp("published")
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / WEIGHTS)
    about = {"mean": MEAN, "std": STD, "input_size": [3, SIDE, SIDE], "interpolation": "bilinear", "num_classes": 5}
    (folder / "config.json").write_text(json.dumps({"architecture": TEACHER, "pretrained_cfg": about}))
    return folder


def teacher_of(place: Path) -> tuple[RunConfig, float, Path]:
    """The teacher's run in the cache, its accuracy on validation, where it is."""
    (file,) = place.glob("cache/teachers/*/result.json")
    config, result = read_config(file.parent), read_result(file.parent)
    assert config is not None and result is not None and result.val_acc is not None
    return config, result.val_acc, file.parent


def taught(place: Path, source: Path, **options: Any) -> tuple[RunConfig, float, Path]:
    about = {"limit": 600, "teacher_floor": 0.0, "teacher_epochs": 12, "trials": 1, "seeds": 2}
    sweep_here(place, teacher_weights=str(source), name="tuned", **about, **options)
    return teacher_of(place)


def as_seen(x: Tensor, side: int) -> Tensor:
    """Grey views of 32 pixels as the published network wants them."""
    look = load(resolve_dataset("digits")[0], DIGITS, RECIPE, DEVICE).train.look
    pixels = x * look.std[0] + look.mean[0]
    pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def test_a_probe_leaves_the_backbone_and_feeds_it_as_it_was_trained(published: Path, tmp_path: Path) -> None:
    config, accuracy, place = taught(tmp_path, published, teacher_tune="head")
    recipe = config.recipe
    assert (recipe.mean, recipe.std, recipe.network_size, recipe.input_size) == (MEAN, STD, SIDE, 32)
    assert (config.tune, config.teacher_id) == ("head", None) and str(config.start).startswith("file:")
    before, after = load_file(published / WEIGHTS), load_file(place / WEIGHTS)
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed == {"fc.weight", "fc.bias"} and len(after["fc.bias"]) == 10

    network = timm.create_model(TEACHER, num_classes=10).eval()
    network.load_state_dict(after)
    sweep, _ = read_spec(tmp_path / "results" / "tuned")
    val = load(resolve_dataset("digits")[0], sweep.data, sweep.recipe, DEVICE).val
    with torch.no_grad():
        logits = torch.cat([network(as_seen(batch.x, SIDE)) for batch in val.plain(256)])
    assert float((logits.argmax(1) == val.labels).float().mean()) == pytest.approx(accuracy, abs=0.011)
    for folder in (place / "logits").iterdir():  # what students were told is what this network says of their views
        key = CacheKey.model_validate_json((folder / "key.json").read_text())
        if key.split_digest == val.digest:
            rows = torch.arange(len(val)).numpy()
            kept = torch.from_numpy(LogitCache(place / "logits", key).read(rows, 0 * rows)).float()
    torch.testing.assert_close(kept, logits, rtol=1e-2, atol=2e-2)
    runs = load_runs(tmp_path / "results" / "tuned")
    assert {run.config.teacher_id for run in runs if run.config.method == "kd"} == {config.id}

    naive = {"teacher-recipe": {"mean": [0.3] * 3, "std": [0.38] * 3, "network-size": 32}}
    _, fed_wrongly, _ = taught(tmp_path / "naive", published, teacher_tune="head", **naive)
    assert accuracy > fed_wrongly + 0.1, (accuracy, fed_wrongly)


def test_fine_tuning_begins_where_the_weights_are(published: Path, tmp_path: Path) -> None:
    config, accuracy, place = taught(tmp_path, published, teacher_tune="full")
    before, after = load_file(published / WEIGHTS), load_file(place / WEIGHTS)
    assert config.tune == "full" and not torch.equal(before["conv1.0.weight"], after["conv1.0.weight"])
    assert accuracy > 0.8


def test_students_start_from_weights_of_their_own(published: Path, tmp_path: Path) -> None:
    folder = sweep_here(
        tmp_path, pair=f"{TEACHER}:{TEACHER}", student_weights=str(published), name="started", lr=1e-9, trials=1
    )
    runs = [run for run in load_runs(folder) if run.config.phase != "teacher"]
    starts = {run.config.start for run in runs}
    assert len(starts) == 1 and str(starts.pop()).startswith("file:")
    assert {(run.config.recipe.mean, run.config.recipe.network_size) for run in runs} == {(MEAN, None)}
    (kept, *_) = folder.glob(f"trials/*/{WEIGHTS}")
    weights, before = load_file(kept), load_file(published / WEIGHTS)
    torch.testing.assert_close(weights["conv1.0.weight"], before["conv1.0.weight"], atol=1e-6, rtol=1e-5)
