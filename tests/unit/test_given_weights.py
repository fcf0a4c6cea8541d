"""What changes the function but not the shapes travels with weights, and is checked against the data."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kdbench.config import DataConfig, Recipe, RunConfig
from kdbench.data import TaskData, load, resolve_dataset
from kdbench.errors import BadInput
from kdbench.models import build, count_macs, describe, load_start
from kdbench.run.events import Event, Note
from kdbench.run.weights import import_weights
from kdbench.train.metrics import collect_logits

CPU = torch.device("cpu")
MODEL = "test_resnet"


def keep(network: nn.Module, folder: Path, /, **config: Any) -> str:
    """A folder as the hub has them."""
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "model.safetensors")
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_what_is_known_of_weights(tmp_path: Path) -> None:
    network = build(MODEL, classes=4, channels=3, input_size=32, seed=0)
    about = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 48, 48], "interpolation": "bicubic"}
    plain, known = keep(network, tmp_path / "plain"), {"mean": (0.5,) * 3, "std": (0.25,) * 3, "network_size": 48}
    known |= {"network_interpolation": "bicubic", "stem": "native"}
    assert describe(plain, MODEL).recipe == {} and describe(plain, MODEL).labels == ()
    hub = keep(network, tmp_path / "hub", architecture=MODEL, pretrained_cfg=about, label_names=["a", "b", "c", "d"])
    assert describe(hub, MODEL)[1:] == (known, ("a", "b", "c", "d"))
    assert describe(hub, MODEL).digest != describe(plain, MODEL).digest  # another order is another teacher
    flat = keep(network, tmp_path / "flat", architecture=MODEL, num_classes=4, **about)
    assert describe(f"local-dir:{flat}", MODEL).recipe == known
    with pytest.raises(BadInput, match=r"are of test_resnet .* not of resnet18"):
        describe(hub, "resnet18")
    with pytest.raises(BadInput, match="members of an ensemble must see the same"):
        describe(f"{keep(build(MODEL, classes=4, channels=3, input_size=32, seed=1), tmp_path / 'other')},{hub}", MODEL)
    for wrong in (
        {"pretrained_cfg": {"mean": "grey", "std": 1}},
        {"pretrained_cfg": [1]},
        {"recipe": {}, "model": MODEL},
    ):
        with pytest.raises(BadInput, match=r"says of its use is neither timm's nor a run's"):
            describe(keep(network, tmp_path / "wrong", **wrong), MODEL)
    run = RunConfig(
        data=DataConfig(name="digits"), model=MODEL, recipe=Recipe(stem="small", input_size=12), seed=0, phase="confirm"
    )
    seen = run.model_copy(update={"recipe": Recipe(mean=(0.5,) * 3, std=(0.5,) * 3)}).model_dump(mode="json")
    assert describe(keep(network, tmp_path / "seen", **seen), MODEL).recipe["mean"] == (0.5,) * 3
    of_run = describe(keep(network, tmp_path / "run", **run.model_dump(mode="json")), MODEL).recipe
    assert (of_run["stem"], of_run["network_size"], of_run["mean"]) == ("small", 12, resolve_dataset("digits")[0].mean)
    usual = timm.get_pretrained_cfg(MODEL)
    own = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "img_size": 40}
    for told, mean in (({}, usual.mean), (own, (0.1, 0.2, 0.3))):
        torch.save({"state_dict": network.state_dict(), "args": Namespace(model=MODEL, **told)}, tmp_path / "t.pth.tar")
        found = describe(str(tmp_path / "t.pth.tar"), MODEL).recipe
        assert found["mean"] == mean and found["network_size"] == told.get("img_size", usual.input_size[-1])
    assert describe("pretrained", "vit_base_patch16_224").recipe["mean"] == (0.5, 0.5, 0.5)


def test_a_new_classifier_stands_on_the_weights_that_were_given(tmp_path: Path) -> None:
    """Whatever classifier the file has, or none; all else must fit as ever."""
    network = build(MODEL, classes=7, channels=3, input_size=32, seed=1)
    headless = {key: value.contiguous() for key, value in network.state_dict().items() if not key.startswith("fc.")}
    save_file(headless, tmp_path / "backbone.safetensors")
    shape: dict[str, Any] = {"classes": 4, "channels": 3, "input_size": 32, "stem": "native", "seed": 5}
    for source in (keep(network, tmp_path / "seven"), str(tmp_path / "backbone.safetensors")):
        begun = load_start(MODEL, source=source, options={"drop_rate": 0.3}, **shape)
        assert torch.equal(begun.conv1[0].weight, network.conv1[0].weight) and begun.drop_rate == 0.3
        assert torch.equal(begun.fc.weight, build(MODEL, **shape).fc.weight)
    del headless["conv1.0.weight"]
    save_file(headless, tmp_path / "backbone.safetensors")
    with pytest.raises(BadInput, match=r"missing conv1\.0\.weight"):
        load_start(MODEL, source=str(tmp_path / "backbone.safetensors"), **shape)


NAMES = [str(number) for number in range(1, 13)]
OTHER = ((0.5,) * 3, (0.5,) * 3)


def write_pictures(root: Path) -> str:
    """Twelve classes called 1 to 12 in the order of their grey levels: two shades side by side, with noise."""
    random = np.random.default_rng(0)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(25):
            pixels = random.normal(120, 6, (32, 32, 3))
            pixels[:, :16] += 40 * (label % 4) - 60
            pixels[:16] += 40 * (label // 4) - 40
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return f"folder:{root}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, nn.Module]:
    """Pictures, and timm's network trained on all of them by its own habits: natural order, another normalisation."""
    torch.set_num_threads(1)
    name = write_pictures(tmp_path_factory.mktemp("pictures"))
    data = task_of(name, mean=OTHER[0], std=OTHER[1])
    natural = torch.tensor([NAMES.index(one) for one in sorted(NAMES)])
    images = [torch.cat([getattr(b, key) for b in split.plain()]) for key in "xy" for split in (data.train, data.val)]
    x, y = torch.cat(images[:2]), natural[torch.cat(images[2:])]
    torch.manual_seed(0)
    model = timm.create_model(MODEL, num_classes=12)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(12):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        assert (model(x).argmax(1) == y).float().mean() > 0.97
    return name, model


def task_of(name: str, **recipe: Any) -> TaskData:
    spec, digest = resolve_dataset(name)
    return load(spec, DataConfig(name="folder:pictures", digest=digest), Recipe(pad=0, **recipe), CPU)


def imported(name: str, source: str, **recipe: Any) -> tuple[float, nn.Module, list[str]]:
    """Validation accuracy, network and notes."""
    data, given = task_of(name, **recipe), describe(source, MODEL).digest
    config = RunConfig(
        data=DataConfig(name="folder:pictures"), model=MODEL, teacher_id=given, recipe=Recipe(**recipe), seed=0,
        phase="teacher",
    )  # fmt: skip
    told: list[Event] = []
    outcome = import_weights(config, data, source, CPU, lambda event: bool(told.append(event)))
    logits, labels = collect_logits(outcome.model, data.val)
    accuracy = float((logits.argmax(1) == labels).float().mean())
    assert outcome.result.val_acc == pytest.approx(accuracy)
    plain = build(MODEL, classes=12, channels=3, input_size=data.input_size, seed=0, stem=config.recipe.stem)
    assert outcome.result.macs == count_macs(plain, 3, data.input_size)
    return accuracy, outcome.model, [event.text for event in told if isinstance(event, Note)]


def test_classes_are_put_in_the_data_s_order(trained: tuple[str, nn.Module], tmp_path: Path) -> None:
    name, model = trained
    fed: dict[str, Any] = dict(zip(("mean", "std"), OTHER, strict=True))
    accuracy, network, notes = imported(name, keep(model, tmp_path / "plain"), **fed)
    assert accuracy > 0.95 and "natural order (1, 2, 3, 4" in notes[0]
    rows = [NAMES.index(one) for one in sorted(NAMES)]
    assert torch.equal(network.fc.weight, model.fc.weight[rows])  # the folder's order is 1, 10, 11, 12, 2, ...
    named = keep(model, tmp_path / "named", architecture=MODEL, label_names=NAMES)
    accuracy, network, notes = imported(name, named, **fed)
    assert accuracy > 0.95 and notes == [] and torch.equal(network.fc.weight, model.fc.weight[rows])
    other = keep(model, tmp_path / "other", architecture=MODEL, label_names=[f"shade {one}" for one in NAMES])
    notes = imported(name, other, **fed)[2]
    assert notes[0].startswith("classes of the weights: shade 1, shade 2") and "in this order: 1, 10, 11" in notes[0]


def test_another_stem_or_normalisation_is_refused_with_the_option(
    trained: tuple[str, nn.Module], tmp_path: Path
) -> None:
    """Both load, and would teach next to nothing."""
    name, model = trained
    named = keep(model, tmp_path / "named", architecture=MODEL, label_names=NAMES)
    fed: dict[str, Any] = dict(zip(("mean", "std"), OTHER, strict=True))
    with pytest.raises(BadInput, match=r"of validation as it is used, \d+\.\d% with --set teacher-recipe.stem"):
        imported(name, named, **fed, stem="small")
    with pytest.raises(BadInput, match=r", \d+\.\d% with --set teacher-recipe.mean=\[0.5,0.5,0.5\] --set teacher-rec"):
        imported(name, named)
    stated: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert "with --set teacher-recipe.mean=[0.5,0.5,0.5]" in imported(name, named, **stated)[2][-1]  # told, and obeyed
