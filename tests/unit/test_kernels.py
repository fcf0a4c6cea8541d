"""Rewritten layers compute what PyTorch's own do: outputs, gradients, and everything around them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdbench.models import build, count_macs, count_params
from kdbench.train import fast_conv
from kdbench.train.fast_conv import FastConv2d, optimise, plan_for

CPU = torch.device("cpu")


def channels_last(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def close(got: Tensor, want: Tensor, what: str, tolerance: float = 1e-4, floor: float = 1e-6) -> None:
    """Within ``tolerance`` of the wanted tensor's length, or of ``floor`` where the wanted tensor is nearly 0."""
    assert got.shape == want.shape and got.dtype == want.dtype, what
    error = (got.double() - want.double()).norm() / want.double().norm().clamp_min(floor)
    assert error <= tolerance, f"{what}: {error:.2e}"


def pair(*arguments: int, **more: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A convolution and its rewritten copy."""
    conv = nn.Conv2d(*arguments, **more).to(memory_format=torch.channels_last)  # type: ignore[arg-type, call-overload]
    fast = optimise(copy.deepcopy(conv), CPU)
    assert type(fast) is FastConv2d
    return conv, fast


def gradients(conv: nn.Module, x: Tensor, layout: torch.memory_format = torch.channels_last) -> dict[str, Tensor]:
    """Output and every gradient, for an upstream gradient that depends on the shape alone."""
    x = x.detach().clone(memory_format=layout).requires_grad_()
    conv.zero_grad()
    out = conv(x)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    out.backward(upstream.to(out.dtype).contiguous(memory_format=layout))
    return {"out": out, "x": x.grad, **{name: parameter.grad for name, parameter in conv.named_parameters()}}


@settings(deadline=None, max_examples=150)
@given(
    kernel=st.tuples(st.sampled_from([1, 2, 3, 5, 7]), st.sampled_from([1, 2, 3, 5])),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 3)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.sampled_from([(2, 3), (4, 6), (6, 4)]),
    depthwise=st.booleans(),
    bias=st.booleans(),
    batch=st.integers(1, 3),
)
def test_every_shape_gives_the_same_output_and_gradients(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int],
    channels: tuple[int, int], depthwise: bool, bias: bool, batch: int,
) -> None:  # fmt: skip
    if any(s + 2 * p < k for s, p, k in zip(size, padding, kernel, strict=True)):
        return
    wide = (channels[0], channels[0], channels[0]) if depthwise else (*channels, 1)
    conv, fast = pair(*wide[:2], kernel, stride, padding, groups=wide[2], bias=bias)  # type: ignore[arg-type]
    x = channels_last(batch, channels[0], *size)
    # against fp64 in the plain layout: PyTorch's channels_last path is itself wrong for some one-channel inputs
    exact = copy.deepcopy(conv).double().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    want, got = gradients(exact, x.double(), torch.contiguous_format), gradients(fast, x)
    for name in want:
        close(got[name].double(), want[name], name, 1e-5)


@pytest.mark.parametrize(
    ("form", "size", "kernel", "stride", "padding", "depthwise"),
    [
        ("matmul", 4, 1, 1, 0, False), ("reference", 8, 1, 1, 0, False), ("full", 1, 3, 1, 1, False),
        ("full", 2, 3, 2, 1, False), ("full", 2, 1, 2, 0, False), ("reference", 4, 3, 1, 1, False),
        ("scale", 1, 5, 1, 2, True), ("trim", 3, 7, 1, 3, False), ("mix", 2, 5, 1, 2, True),
        ("mix", 2, 5, 2, 2, True), ("mix", 2, 3, 1, 1, True), ("mix", 3, 7, 1, 3, True),
        # with a margin: oneDNN's own gradient is a plain loop for these
        ("mix", 3, 5, 2, 2, True), ("trim", 4, 5, 1, 2, True), ("trim", 3, 3, 2, 1, True),
        ("reference", 3, 3, 1, 1, True), ("reference", 4, 3, 2, 1, True), ("reference", 7, 7, 1, 3, True),
    ],
)  # fmt: skip
def test_each_form_serves_the_shapes_it_is_for(
    form: str, size: int, kernel: int, stride: int, padding: int, depthwise: bool
) -> None:
    plan = plan_for((size, size), (kernel, kernel), (stride, stride), (padding, padding), depthwise)
    assert plan.form == form


def smooth(model: nn.Module) -> nn.Module:
    """Without kinks: one rounding error at a kink switches a unit's gradient on, in PyTorch's own path as well."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in ("ReLU", "ReLU6", "Hardswish"):
                setattr(parent, name, nn.SiLU())
            elif type(child).__name__ == "Hardsigmoid":
                setattr(parent, name, nn.Sigmoid())
    return model


def train_once(model: nn.Module, precision: torch.dtype) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy after one forward and backward pass, and its parameters' gradients."""
    model = copy.deepcopy(model).to(precision)
    x = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(precision)
    logits = model(x.contiguous(memory_format=torch.channels_last))
    F.cross_entropy(logits, torch.arange(32) % 10).backward()
    return model, {"logits": logits.detach()} | {key: p.grad for key, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "precision", "tolerance"),
    [
        ("mobilenetv3_small_050", torch.float32, 1e-4),
        *((name, torch.float64, 1e-9) for name in ("mobilenetv3_small_050", "resnet18", "efficientnet_lite0")),
    ],
)
def test_networks_train_the_same(name: str, precision: torch.dtype, tolerance: float) -> None:
    model = build(name, classes=10, channels=3, input_size=32, seed=0)
    model = smooth(model) if precision == torch.float32 else model
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fast = optimise(copy.deepcopy(model), CPU)
    assert any(isinstance(m, FastConv2d) for m in fast.modules())
    assert list(fast.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in fast.state_dict().items())
    assert count_params(fast) == count_params(model)
    assert count_macs(fast, 3, 32) < count_macs(model, 3, 32)  # so a model's size is counted before the rewrite
    (one, want), (other, got) = train_once(model, precision), train_once(fast, precision)
    # a bias in front of a batch normalisation has gradient 0: compare it to the size of the whole gradient
    length = float(torch.stack([g.norm() for key, g in want.items() if key != "logits"]).norm())
    for key in want:
        close(got[key], want[key], key, tolerance, floor=length * 1e-2)
    for key, value in one.state_dict().items():
        close(other.state_dict()[key], value, key, tolerance, floor=1e-2)
    x = torch.randn(4, 3, 32, 32, dtype=precision).contiguous(memory_format=torch.channels_last)
    close(other.eval()(x), one.eval()(x), "eval", tolerance)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "groups", "bias"),
    [(1, 5, 1, 8, True), (2, 5, 2, 8, False), (1, 3, 1, 1, True), (2, 3, 1, 1, True), (4, 1, 1, 1, False)],
)
def test_autocast_gives_bf16_and_fp32_gradients(size: int, kernel: int, stride: int, groups: int, bias: bool) -> None:
    conv, fast = pair(8, 8, kernel, stride, kernel // 2, groups=groups, bias=bias)  # type: ignore[arg-type]
    x = channels_last(16, 8, size, size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        want, got = gradients(conv, x), gradients(fast, x)
    assert got["out"].dtype == torch.bfloat16 and got["weight"].dtype == torch.float32
    for name in want:
        close(got[name], want[name], name, 2e-2)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(40, 30), (16, 40)),
        (nn.Linear(40, 30, bias=False), (2, 8, 40)),
        (nn.Conv2d(8, 16, 3, padding=1), (4, 8, 6, 6)),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), (4, 8, 2, 2)),  # by _Mix
    ],
)
def test_bf16_without_instructions_for_it_rounds_as_they_do(
    layer: nn.Module, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of exact products of rounded numbers, rounded once more: within a unit of bf16's last place."""
    monkeypatch.setattr(fast_conv, "MULTIPLIES_BF16", False)
    x, fast = torch.randn(shape), optimise(copy.deepcopy(layer), CPU)
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    exact = gradients(copy.deepcopy(layer).bfloat16().double(), x.bfloat16().double(), torch.contiguous_format)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gradients(fast, x, layout)
    assert type(fast) is not type(layer) and got["out"].dtype == torch.bfloat16
    for name, want in exact.items():
        assert torch.equal(got[name].bfloat16().to(got[name].dtype), got[name]), name
        assert torch.allclose(got[name].double(), want.double(), rtol=2**-8, atol=1e-5), name


def test_only_plain_convolutions_on_a_cpu_change() -> None:
    others = ({"groups": 2}, {"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}, {"dilation": 2})
    layers = [*(nn.Conv2d(4, 4, 3, **more) for more in others), nn.Conv1d(4, 4, 3)]  # type: ignore[arg-type]
    before = [type(m) for m in layers]
    assert [type(m) for m in optimise(nn.Sequential(*layers), CPU).children()] == before
    assert type(optimise(nn.Conv2d(4, 4, 1), torch.device("meta"))) is nn.Conv2d
    kinds = (nn.Hardswish, nn.SiLU, nn.ReLU)
    assert [optimise(kind(inplace=True), CPU).inplace for kind in kinds] == [False, False, True]


def test_hooks_stay_and_other_layouts_and_unbatched_inputs_work() -> None:
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    seen: list[torch.Size] = []
    conv.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    x = torch.randn(2, 6, 4, 4)
    want, lone = conv(x), conv(x[0])
    optimise(conv, CPU)
    torch.testing.assert_close(conv(x), want)
    torch.testing.assert_close(conv(x[0]), lone)
    assert len(seen) == 4
    with pytest.raises(RuntimeError, match="Kernel size"):
        optimise(nn.Conv2d(6, 6, 5), CPU)(channels_last(2, 6, 4, 4))
