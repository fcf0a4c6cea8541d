"""Hinton's MNIST networks: sizes by hand, any input, dropout where the paper has it."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from kdbench.models import apply_small_stem, build, count_macs, count_params
from kdbench.models.hinton import CoarseDropout, HintonMLP

WIDTHS = (30, 300, 800, 1200)


def mlp(width: int, **more: object) -> HintonMLP:
    options = {"classes": 10, "channels": 1, "input_size": 28, "seed": 0, **more}
    model = build(f"hinton_mlp_{width}", **options)  # type: ignore[arg-type]
    assert isinstance(model, HintonMLP)
    return model


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 100), (1, 8, 10)])
def test_size_and_cost_by_hand(width: int, channels: int, size: int, classes: int) -> None:
    shape = {"channels": channels, "input_size": size, "classes": classes}
    with torch.device("meta"):
        model = mlp(width, **shape)
        macs = channels * size**2 * width + width**2 + width * classes
        assert count_params(model) == macs + width + width + classes
        assert count_macs(model, channels, size) == macs
        assert str(apply_small_stem(mlp(width, stem="small", **shape))) == str(model)


def test_the_teacher_of_the_paper() -> None:
    model = timm.create_model("hinton_mlp_1200")  # without arguments: 28 x 28 grey pixels, ten digits
    assert count_params(model) == 784 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 10 + 10 == 2_395_210
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.2, 0.5, 0.5]
    gentle = timm.create_model("hinton_mlp_1200", drop_rate=0.25, input_drop_rate=0.0)
    assert [m.p for m in gentle.modules() if isinstance(m, nn.Dropout)] == [0.0, 0.25, 0.25]


@pytest.mark.parametrize("width", WIDTHS)
def test_dropout_only_in_the_teacher_and_only_in_training(width: int) -> None:
    torch.manual_seed(0)
    model, x = mlp(width), torch.randn(4, 1, 28, 28)
    trained, plain = model(x), model.eval()(x)
    assert torch.equal(trained, plain) == (width != 1200)
    assert torch.equal(model(x), plain)
    plain.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_the_layout_of_the_image_in_memory_does_not_matter() -> None:
    model, x = mlp(30, channels=3, input_size=8), torch.randn(4, 3, 8, 8)
    assert torch.equal(model(x), model(x.contiguous(memory_format=torch.channels_last)))


def test_what_a_max_norm_constraint_is_about() -> None:
    model = mlp(30)
    assert [tuple(w.shape) for w in model.max_norm_weights()] == [(30, 784), (30, 30)]  # a row a hidden unit
    before = model(torch.ones(1, 1, 28, 28))
    with torch.no_grad():
        for weight in model.max_norm_weights():
            weight.zero_()
    assert not torch.equal(model(torch.ones(1, 1, 28, 28)), before)


def test_weights_begin_he_normal() -> None:
    model = mlp(1200)
    for layer, variance in ((model.hidden1, 2 / 784), (model.hidden2, 2 / 1200), (model.fc, 1 / 1200)):
        assert layer.weight.var().item() == pytest.approx(variance, rel=0.05)  # type: ignore[union-attr, operator]
        assert not layer.bias.any()  # type: ignore[union-attr, operator]


def test_the_networks_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer, x = CoarseDropout(0.3), torch.ones(1000, 1003, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7], rel=1e-4)
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.002)  # four standard errors of a million
    assert float(out.mean()) == pytest.approx(1, abs=0.003)
    assert torch.equal(x.grad, out.detach())
    columns = (out == 0).float().mean(0)  # no pattern in the four numbers of one draw
    assert all(float(columns[k::4].mean()) == pytest.approx(0.3, abs=0.004) for k in range(4))
    assert torch.equal(layer.eval()(x), x) and torch.equal(CoarseDropout(0)(x), x)
    assert float(CoarseDropout(1.0)(x).sum()) == 0 and layer.train()(x.bfloat16()).dtype == torch.bfloat16
    torch.manual_seed(0)
    assert torch.equal(layer(x), out)
