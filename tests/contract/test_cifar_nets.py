"""Every network of the CIFAR-100 tables: its published size, what it computes and costs, and how it begins."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import Tensor, nn

from kdbench.catalog.pairs import CIFAR_NETS, PAIRS, cifar_model, parse_pair
from kdbench.errors import BadInput
from kdbench.models import apply_small_stem, build, count_macs, count_params, known_models
from kdbench.models.cifar import shuffle

# Trainable parameters at 100 classes and 3 channels as published, and the side of the last map of 32 pixels.
PUBLISHED = {
    "resnet8x4": (1_233_540, 8),
    "resnet20": (278_324, 8),
    "resnet32": (472_756, 8),
    "resnet32x4": (7_433_860, 8),
    "resnet56": (861_620, 8),
    "resnet110": (1_736_564, 8),
    "ResNet50": (23_705_252, 4),
    "wrn_16_2": (703_284, 8),
    "wrn_40_1": (569_780, 8),
    "wrn_40_2": (2_255_156, 8),
    "vgg8": (3_965_028, 4),
    "vgg13": (9_462_180, 4),
    "MobileNetV2": (812_836, 2),
    "ShuffleV1": (949_258, 4),
    "ShuffleV2": (1_355_528, 4),
}


def made(paper_name: str, channels: int = 3, classes: int = 100, **more: object) -> nn.Module:
    options = {"classes": classes, "channels": channels, "input_size": 32, **more}
    return build(cifar_model(paper_name), **options)  # type: ignore[arg-type]


def test_all_are_registered_under_names_that_timm_does_not_have() -> None:
    assert set(PUBLISHED) == set(CIFAR_NETS)
    names = set(map(cifar_model, CIFAR_NETS))
    assert names == {name for name in known_models() if name.startswith("cifar_")}
    # timm.models holds each of timm's own entry points; one that ours had replaced would still be there
    assert hasattr(timm.models, "resnet50") and not [name for name in names if hasattr(timm.models, name)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_cost_and_stem(name: str) -> None:
    params, side = PUBLISHED[name]
    with torch.device("meta"):
        native, small = made(name), made(name, stem="small")
        assert count_params(native) == params and native.in_chans == 3
        assert native.forward_features(torch.zeros(2, 3, 32, 32)).shape[2:] == (side, side)  # type: ignore[operator]
        assert str(apply_small_stem(small)) == str(native)  # native only: "small" is the same network
    macs = []

    def count(layer: nn.Module, _: object, out: Tensor) -> None:
        macs.append(out.numel() * layer.weight[0].numel())  # type: ignore[operator, union-attr]

    for layer in native.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    assert count_macs(native, 3, 32) == sum(macs) > 0


def test_macs_by_hand() -> None:
    stage = 6 * 32**2 * 16 * 16 * 9
    step = 16**2 * (16 * 32 * 9 + 5 * 32 * 32 * 9 + 16 * 32)  # the next stage costs the same: half the side, twice wide
    vgg = 32**2 * 3 * 64 + 16**2 * 64 * 128 + 8**2 * 128 * 256 + 4**2 * (256 * 512 + 512 * 512)
    with torch.device("meta"):
        assert count_macs(made("resnet20"), 3, 32) == 32**2 * 3 * 16 * 9 + stage + 2 * step + 6400 == 40_818_944
        assert count_macs(made("vgg8"), 3, 32) == 9 * vgg + 51_200


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_net_runs_forward_and_backward(name: str) -> None:
    model = made(name, channels=1, classes=10, seed=1)
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    out = model(x.contiguous(memory_format=torch.channels_last))
    assert model.training and out.shape == (2, 10) and out.isfinite().all()
    nn.functional.cross_entropy(out, torch.tensor([0, 1])).backward()
    grads = {key: p.grad for key, p in model.named_parameters()}
    assert not [key for key, grad in grads.items() if grad is None or not grad.isfinite().all()]
    assert not [key for key, grad in grads.items() if grad.ndim == 4 and not grad.any()]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"])
def test_a_net_begins_as_in_the_tables(name: str) -> None:
    model, again = made(name, seed=3), made(name, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    largest = max(convs, key=lambda m: m.weight.numel())
    outs, ins, side, _ = largest.weight.shape
    if name.startswith("Shuffle"):  # PyTorch's own: uniform within 1 / sqrt(fan-in)
        bound = 1 / math.sqrt(ins * side**2)
        assert 0.99 * bound < largest.weight.abs().max() <= bound
    else:
        assert largest.weight.std().item() == pytest.approx(math.sqrt(2 / (outs * side**2)), rel=0.02)
        assert largest.weight.abs().max() > 3 * largest.weight.std()  # normal, not uniform
    head = model.get_classifier()  # type: ignore[operator]
    assert (head.bias == 0).all() == (name[:3] in ("wrn", "vgg", "Mob"))
    if name[:3] in ("vgg", "Mob"):
        assert head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    else:
        assert head.weight.abs().max() <= 1 / math.sqrt(head.in_features)


def same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy by position: both list stem, branches, shortcut, classifier in the same order."""
    keys, values = ours.state_dict(), theirs.state_dict().values()
    assert [t.shape for t in keys.values()] == [t.shape for t in values]
    ours.load_state_dict(dict(zip(keys, values, strict=True)))


def test_the_resnet50_computes_what_timm_s_does_after_a_small_stem() -> None:
    theirs = timm.create_model("resnet50", num_classes=100)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = made("ResNet50")
    same_weights(ours, theirs)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_the_shufflenet_v2_computes_what_torchvision_s_does_after_another_stem() -> None:
    from torchvision.models import shufflenet_v2_x1_0

    theirs = shufflenet_v2_x1_0(num_classes=100)
    theirs.conv1[0], theirs.maxpool = nn.Conv2d(3, 24, 1, bias=False), nn.Identity()
    ours = made("ShuffleV2")
    same_weights(ours, theirs)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_shuffling_is_pytorch_s_and_stays_channels_last() -> None:
    x = torch.arange(2 * 12 * 3 * 5.0).view(2, 12, 3, 5)
    for groups in (2, 3):
        mixed = shuffle(x, groups)
        assert torch.equal(mixed, nn.ChannelShuffle(groups)(x))
        assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_there_are_no_pretrained_weights_to_be_had_silently() -> None:
    with pytest.raises(RuntimeError, match="pretrained"):
        timm.create_model("cifar_resnet20", pretrained=True)


def test_pairs_of_the_tables_have_names() -> None:
    pair = parse_pair("cifar_vgg13:cifar_mobilenetv2", list)
    assert (pair.teacher, pair.students) == ("cifar_vgg13", ("cifar_mobilenetv2",))
    assert len([p for p in PAIRS.names() if p.startswith("cifar_") and PAIRS.get(p).ladder is None]) == 17
    with pytest.raises(BadInput, match="did you mean 'ShuffleV1'"):
        cifar_model("shufflev1")
