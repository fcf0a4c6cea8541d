"""Faster forms of layers on a CPU: the same function to rounding, the same parameters.

PyTorch's CPU convolutions are made for large images. Students here end in maps of 1 x 1 to 4 x 4 pixels, where
most taps of a kernel only ever see padding and where setting up a convolution costs more than the arithmetic. What is
computed depends on the layer and the input's shape and layout alone, never on a timing: runs stay repeatable.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MATMUL_PIXELS = 16
"""Up to so many pixels a 1 x 1 convolution is a matrix product; from 8 x 8 on oneDNN's convolution keeps up."""
FULL_PIXELS = 4
"""Up to so many pixels in and out a dense convolution is one matrix product for each output pixel."""
MIX_PAIRS = 16
"""Up to so many (output, input) pairs of pixels a depthwise convolution is a weighted sum of pixels a channel."""
MIX_SLOW_PAIRS = 81
"""The same where oneDNN has only its reference loop for the gradient, up to 12 times slower than this."""

MULTIPLIES_BF16: bool = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Whether oneDNN multiplies bf16 on this processor. Elsewhere PyTorch's own loops do, up to 40 times slower."""


class Side(NamedTuple):
    """One output position along one side: the input pixels it reads and the taps that read them."""

    pixels: slice
    taps: slice


def positions(size: int, kernel: int, stride: int, padding: int) -> list[Side]:
    """What each output position along one side reads."""
    sides = []
    for start in range(-padding, size + padding - kernel + 1, stride):
        first, last = max(0, start), min(size, start + kernel)
        sides.append(Side(slice(first, last), slice(first - start, last - start)))
    return sides


def margin(size: int, kernel: int, stride: int, padding: int) -> int:
    """Pixels of the padding along one side that must be there as zeros for oneDNN's fast depthwise gradient."""
    return next(q for q in range(padding + 1) if size + 2 * q >= kernel + (q - padding) % stride)


class Plan(NamedTuple):
    """How one layer treats one input size: in which form, and with which part of its kernel."""

    form: str
    """``reference``; ``trim``: a convolution with the live taps only, on a map with a margin of zeros where that is
    faster; ``scale``: depthwise with one live tap, a factor a channel; ``mix``: depthwise, each output pixel a
    weighted sum of all input pixels; ``matmul``: 1 x 1; ``full``: one matrix product for each output pixel."""
    rows: slice = slice(None)
    cols: slice = slice(None)
    padding: tuple[int, int] = (0, 0)
    margin: tuple[int, int] = (0, 0)
    out: tuple[int, int] = (0, 0)
    outputs: tuple[tuple[Side, Side], ...] = ()
    taps: tuple[tuple[int, ...], ...] = ()
    """For each output pixel and each input pixel (row by row), the tap that joins them, or one past the last."""


@lru_cache(maxsize=4096)
def plan_for(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], depthwise: bool
) -> Plan:
    """The plan for a layer without dilation on a ``size`` (height, width) input; a function of the shapes alone."""
    sides = list(zip(size, kernel, stride, padding, strict=True))
    height, width = ((s + 2 * p - k) // d + 1 for s, k, d, p in sides)
    if min(height, width) < 1 or any(k <= p for _, k, _, p in sides):
        return Plan("reference")  # an error for PyTorch to report, or outputs that read padding only
    if kernel == (1, 1) and stride == (1, 1) and not depthwise:
        return Plan("matmul" if size[0] * size[1] <= MATMUL_PIXELS else "reference")
    along = [positions(*side) for side in sides]
    if not depthwise and max(size[0] * size[1], height * width) <= FULL_PIXELS:
        return Plan("full", out=(height, width), outputs=tuple(product(*along)))  # type: ignore[arg-type]
    # a tap is dead if it meets padding alone, whatever the output
    rows, cols = (slice(min(at.taps.start for at in one), max(at.taps.stop for at in one)) for one in along)
    window, rest = (rows.stop - rows.start, cols.stop - cols.start), (padding[0] - rows.start, padding[1] - cols.start)
    # a convolution pads both ends alike: where the live taps are not that symmetric, all of them stay
    live = list(zip(size, window, stride, rest, strict=True))
    same = [(s + 2 * p - k) // d + 1 for s, k, d, p in live] == [height, width]
    if fewer := window != kernel and min(rest) >= 0 and same:
        sides = live
    else:
        rows = cols = slice(None)
    if fewer and depthwise and size == window == (1, 1):
        return Plan("scale", rows, cols)
    zeros = [margin(*side) if depthwise else 0 for side in sides]
    if not fewer and not any(zeros):
        return Plan("reference")
    pixels, all_taps = size[0] * size[1], sides[0][1] * sides[1][1]
    most = MIX_SLOW_PAIRS if any(zeros) and pixels < all_taps else MIX_PAIRS
    if not depthwise or pixels * height * width > most:
        left = [side[3] - zero for side, zero in zip(sides, zeros, strict=True)]
        return Plan("trim", rows, cols, tuple(left), tuple(zeros))  # type: ignore[arg-type]
    taps = []
    for v, h in product(range(height), range(width)):
        joined = []
        for y, x in product(range(size[0]), range(size[1])):
            dy, dx = y + padding[0] - v * stride[0], x + padding[1] - h * stride[1]
            meet = 0 <= dy < kernel[0] and 0 <= dx < kernel[1]
            joined.append(dy * kernel[1] + dx if meet else kernel[0] * kernel[1])
        taps.append(tuple(joined))
    return Plan("mix", out=(height, width), taps=tuple(taps))


def _product(form: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A layer; in bf16, on a processor that multiplies none, by what its instructions would compute.

    That is: fp32 sums of products of bf16 numbers, rounded to bf16; and the gradients likewise.
    """
    kind = x.device.type
    if MULTIPLIES_BF16 or not torch.is_autocast_enabled(kind) or torch.get_autocast_dtype(kind) != torch.bfloat16:
        return form(x, weight, bias)
    with torch.autocast(kind, enabled=False):
        rounded = [None if t is None else t.bfloat16().float() for t in (x, weight, bias)]
        return form(*rounded).bfloat16()


class FastLinear(nn.Linear):
    """``nn.Linear`` where bf16 is slow; made by ``optimise`` only."""

    def forward(self, input: Tensor) -> Tensor:
        return _product(F.linear, input, self.weight, self.bias)


class FastConv2d(nn.Conv2d):
    """``nn.Conv2d`` on channels_last maps by the cheapest equivalent form; made by ``optimise`` only."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(self._cheapest, input, weight, bias)

    def _cheapest(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plan, padding = Plan("reference"), self.padding
        if input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last):
            size = (input.shape[2], input.shape[3])
            # a compiler computes the plan once, while it traces, and cannot look into a cache
            find = plan_for.__wrapped__ if torch.compiler.is_compiling() else plan_for
            plan = find(size, self.kernel_size, self.stride, padding, self.groups > 1)
        if plan.form == "matmul":
            return _matmul(input, weight, bias)
        if plan.form in ("full", "scale", "mix"):
            return _by_pixels(input, weight, bias, plan)
        if plan.form == "trim":
            weight, padding = weight[:, :, plan.rows, plan.cols], plan.padding
            if any(plan.margin):
                y, x = plan.margin
                input = F.pad(input, (x, x, y, y))
        return F.conv2d(input, weight, bias, self.stride, padding, 1, self.groups)


def _matmul(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1 x 1 convolution as one matrix product: channels_last pixels already are the rows of a matrix."""
    batch, channels, height, width = x.shape
    flat = weight.flatten(1)  # a view: on the way back, indexing would fill whole tensors of zeros
    if height == width == 1:  # no view of the product: an activation in place on one copies it, there and back
        found: Tensor = torch.ops.aten._unsafe_view(F.linear(x.flatten(1), flat, bias), (batch, weight.shape[0], 1, 1))
        return found
    rows = F.linear(x.permute(0, 2, 3, 1).reshape(-1, channels), flat, bias)
    return rows.view(batch, height, width, weight.shape[0]).permute(0, 3, 1, 2)


class _Full(torch.autograd.Function):
    """A dense convolution on a tiny map: (B, H, W, I) and (O, kh, kw, I) -> (B, outputs, O).

    The pixels that an output reads, as one row, times their taps. By hand, because autograd would fill the whole
    kernel with zeros twice for each output.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, taps: Tensor, outputs: tuple[tuple[Side, Side], ...]) -> Tensor:
        ctx.save_for_backward(pixels, taps)
        ctx.outputs = outputs
        rows = [
            F.linear(pixels[:, v.pixels, h.pixels].flatten(1), taps[:, v.taps, h.taps].flatten(1)) for v, h in outputs
        ]
        return torch.stack(rows, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pixels, taps = ctx.saved_tensors
        to_pixels, to_taps = torch.zeros_like(pixels), torch.zeros_like(taps)
        for grad, (v, h) in zip(grads[0].unbind(1), ctx.outputs, strict=True):
            read, live = pixels[:, v.pixels, h.pixels], taps[:, v.taps, h.taps]
            if ctx.needs_input_grad[0]:
                to_pixels[:, v.pixels, h.pixels] += (grad @ live.flatten(1)).view(read.shape)
            if ctx.needs_input_grad[1]:  # frozen weights ask for none
                to_taps[:, v.taps, h.taps] += (grad.mT @ read.flatten(1)).view(live.shape)
        return to_pixels, to_taps, None


class _Mix(torch.autograd.Function):
    """Weighted sums of a few pixels, channel by channel: (B, I, C) and (O, I, C) -> (B, O, C).

    By hand, because the derivative that autograd would make of the sums keeps and adds whole products.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(pixels, factors)
        return torch.stack([(pixels * f).sum(1) for f in factors], 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,), (pixels, factors) = grads, ctx.saved_tensors
        to_pixels = torch.stack([(grad * f).sum(1) for f in factors.unbind(1)], 1)
        to_factors = torch.stack([(g.unsqueeze(1) * pixels).sum(0) for g in grad.unbind(1)])
        return to_pixels, to_factors


def _by_pixels(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
    """``full``, ``scale`` or ``mix``: every output pixel reads all or nearly all of the map."""
    if torch.is_autocast_enabled(x.device.type):  # it knows of convolutions, not of the products in their place
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    channels = weight.shape[0]
    if plan.form == "scale":
        out = x * weight[:, :, plan.rows, plan.cols].reshape(1, -1, 1, 1)
        return out if bias is None else out + bias.view(1, -1, 1, 1)
    pixels = x.permute(0, 2, 3, 1)
    if plan.form == "full":
        found: Tensor = _Full.apply(pixels, weight.permute(0, 2, 3, 1), plan.outputs)
    else:  # one row of zeros past the last tap, for pixels that do not meet
        taps = F.pad(weight.reshape(channels, -1).t(), (0, 0, 0, 1))
        found = _Mix.apply(pixels.flatten(1, 2), taps[torch.tensor(plan.taps, device=x.device)])
    found = found if bias is None else found + bias
    return found.view(-1, *plan.out, channels).permute(0, 3, 1, 2)


def optimise(model: nn.Module, device: torch.device) -> nn.Module:
    """Change ``model`` in place (and return it) to train faster on ``device``; nothing changes off the CPU.

    Plain convolutions change their class: with zero padding and no dilation, dense or depthwise with one filter a
    channel; linear layers do where bf16 is slow. Activations whose gradient takes their input no longer work in place:
    PyTorch would copy the input first. Parameters, hooks and ``state_dict`` keys stay. Maps that are not channels_last
    take PyTorch's own path.
    """
    for module in model.modules() if device.type == "cpu" else ():
        if type(module) is nn.Linear and not MULTIPLIES_BF16:
            module.__class__ = FastLinear
        elif (
            type(module) is nn.Conv2d
            and isinstance(module.padding, tuple)
            and module.padding_mode == "zeros"
            and module.dilation == (1, 1)
            and (module.groups == 1 or module.groups == module.in_channels == module.out_channels)
        ):
            module.__class__ = FastConv2d
        elif isinstance(module, nn.Hardswish | nn.SiLU | nn.Hardsigmoid | nn.Mish):
            module.inplace = False
    return model
