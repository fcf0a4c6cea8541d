"""Weights of the CIFAR-100 tables' own repositories: every name finds its layer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import timm
import torch

from kdbench.catalog.pairs import CIFAR_NETS, cifar_model
from kdbench.errors import BadInput
from kdbench.models import apply_small_stem, build, load_weights
from kdbench.models.published import renamed

LINEAR = ("weight", "bias")
NORM = (*LINEAR, "running_mean", "running_var", "num_batches_tracked")
DEPTH = {"resnet8x4": 1, "resnet20": 3, "resnet32": 5, "resnet32x4": 5, "resnet56": 9, "resnet110": 18}


def pair(conv: str, norm: str, bias: bool = False) -> Iterator[str]:
    """A convolution and the norm after it."""
    yield from (f"{conv}.weight", *([f"{conv}.bias"] if bias else []), *(f"{norm}.{leaf}" for leaf in NORM))


def convs(place: str, count: int) -> Iterator[str]:
    for k in range(1, count + 1):
        yield from pair(f"{place}conv{k}", f"{place}bn{k}")


def theirs(name: str) -> Iterator[str]:
    """Names in a checkpoint of RepDistiller or mdistiller, as their model files define the modules."""
    linear = {"ResNet50": "linear", "ShuffleV1": "linear", "ShuffleV2": "linear", "MobileNetV2": "classifier.0"}
    yield from (f"{linear.get(name, 'classifier' if name.startswith('vgg') else 'fc')}.{leaf}" for leaf in LINEAR)
    if name.startswith("vgg"):
        for stage, k in product(range(5), range({"vgg8": 1, "vgg13": 2}[name])):
            yield from pair(f"block{stage}.{3 * k}", f"block{stage}.{3 * k + 1}", bias=True)
    elif name.startswith("wrn"):
        yield from pair("conv1", "bn1")
        for stage, block in product((1, 2, 3), range({"16": 2, "40": 6}[name[4:6]])):
            yield from convs(place := f"block{stage}.layer.{block}.", 2)
            if block == 0 and (stage > 1 or name != "wrn_40_1"):  # of width 1 the first stage keeps the channels
                yield f"{place}convShortcut.weight"
    elif name == "MobileNetV2":
        for layer in ("conv1", "conv2"):
            yield from pair(f"{layer}.0", f"{layer}.1")
        for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1)):
            for block, k in product(range(count), (0, 3, 6)):
                yield from pair(f"blocks.{stage}.{block}.conv.{k}", f"blocks.{stage}.{block}.conv.{k + 1}")
    elif name == "ShuffleV2":
        yield from convs("", 2)
        for stage, count in ((1, 4), (2, 8), (3, 4)):
            for block in range(count):
                yield from convs(f"layer{stage}.{block}.", 3 if block else 5)
    else:
        deep = {"ResNet50": (3, 4, 6, 3), "ShuffleV1": (4, 8, 4)}.get(name) or (DEPTH[name],) * 3
        yield from convs("", 1)
        for stage, count in enumerate(deep, 1):
            for block in range(count):
                yield from convs(place := f"layer{stage}.{block}.", 2 if name in DEPTH else 3)
                if block == 0 and (name == "ResNet50" or (name in DEPTH and (stage > 1 or "x4" in name))):
                    short = f"{place}{'downsample' if name in DEPTH else 'shortcut'}"
                    yield from pair(f"{short}.0", f"{short}.1")


@pytest.mark.parametrize("name", CIFAR_NETS)
def test_every_name_finds_its_layer(name: str) -> None:
    with torch.device("meta"):
        own = timm.create_model(cifar_model(name)).state_dict()
    found = renamed(cifar_model(name), {key: torch.zeros(1) for key in theirs(name)})
    assert found.keys() == own.keys()
    assert renamed(cifar_model(name), own).keys() == own.keys()  # a file of ours is one already


GOLDEN = {
    ("ShuffleV2", "layer2.0.conv3.weight"): "body.stage2.0.branch.0.0.weight",
    ("ShuffleV2", "layer2.0.bn2.bias"): "body.stage2.0.short.1.1.bias",
    ("ShuffleV2", "layer2.1.conv3.weight"): "body.stage2.1.branch.2.0.weight",
    ("ShuffleV1", "layer1.1.bn2.weight"): "body.stage1.1.expand.0.1.weight",
    ("wrn_40_2", "block3.layer.5.conv2.weight"): "body.stage3.5.branch.3.weight",
    ("wrn_40_2", "block3.layer.5.bn2.weight"): "body.stage3.5.branch.1.weight",
    ("MobileNetV2", "blocks.6.0.conv.4.running_var"): "body.stage7.0.branch.1.1.running_var",
    ("vgg13", "block4.3.weight"): "body.stage5.3.weight",
}
"""Where shapes alone would let two layers change places. All networks were run once beside the authors' own code, with
random weights and running statistics: the largest difference was 1e-6 of the logits' spread."""


@pytest.mark.parametrize(("name", "key"), GOLDEN)
def test_layers_of_one_shape_do_not_change_places(name: str, key: str) -> None:
    assert list(renamed(cifar_model(name), {key: torch.zeros(1)})) == [GOLDEN[name, key]]


def test_a_checkpoint_of_theirs_computes_here_what_it_computed_there(tmp_path: Path) -> None:
    """timm's ResNet-50 without its stem's strides is their ResNet50, under nearly their names."""
    there = apply_small_stem(timm.create_model("resnet50", num_classes=100)).eval()
    there.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    state = {f"module.{key.replace('fc.', 'linear.')}": value for key, value in there.state_dict().items()}
    torch.save({"epoch": 240, "model": state, "best_acc": torch.tensor(79.3)}, tmp_path / "ResNet50_best.pth")
    shape = {"classes": 100, "channels": 3, "input_size": 32, "stem": "native"}
    here = load_weights("cifar_resnet50", source=str(tmp_path / "ResNet50_best.pth"), **shape)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(here(x), there(x))
    torch.save({"model": build("cifar_vgg8", **shape).state_dict()}, tmp_path / "other.pth")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="does not fit this model"):
        load_weights("cifar_resnet50", source=str(tmp_path / "other.pth"), **shape)  # type: ignore[arg-type]
