"""Networks by timm name, fitted to a data set's classes, channels and image size; the small stem for small images."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from kdbench.errors import BadInput, suggestion, unknown

MIN_TOKENS = 16
"""Attention sees at least this many tokens, see ``build``."""


class Fit(NamedTuple):
    """How a network is brought to an input size."""

    options: dict[str, int]
    """Arguments for its constructor: ``img_size``, ``patch_size``."""
    halvings: int = 0
    """How often the first strided convolution is halved after construction."""
    small_stem: bool = False
    """Whether ``apply_small_stem`` follows."""


@lru_cache(maxsize=1)
def known_models() -> Collection[str]:
    """Names of every architecture of the installed timm and of those that kdbench registers with it."""
    return tuple(timm.list_models())


def build(
    name: str, *, classes: int, channels: int, input_size: int, stem: str = "native",
    seed: int | None = None, options: Mapping[str, float] | None = None,
) -> nn.Module:  # fmt: skip
    """A freshly initialised timm network: (B, channels, input_size, input_size) -> logits (B, classes).

    ``options`` are further arguments of its constructor (``drop_rate``, ...). With a ``seed`` the weights depend on
    nothing else and the global random state is left as it was. The network is on the CPU and in train mode.

    Stem ``native`` is timm's own, except that attention must have at least 16 tokens to look at. Of square patches
    (ViT, DeiT, Swin, EVA) one that leaves fewer, or does not divide the input, becomes the largest power of two that
    does (at 32 pixels 16 becomes 8; a smaller patch has fewer weights). After a convolutional stem (LeViT,
    EfficientFormerV2) its first strides are halved until 16 are left (LeViT at 32 pixels: reduction 8 instead of 16).

    Stem ``small`` halves the patch, or the first stride, once more (see ``apply_small_stem`` for convolutions).
    Networks made for small images (``cifar_*``, ``hinton_mlp_*``) are the same network with either stem.

    Raises:
        BadInput: an unknown name, stem or option, or a network that cannot work at this input size.
    """
    with seeded(seed), explained(name, input_size, stem):
        model = construct(name, fit_to(name, input_size, stem), classes, channels, **(options or {}))
        # classify one black image, so that a misfit shows here and not in a training loop
        with torch.no_grad():
            shape = tuple(model.eval()(torch.zeros(1, channels, input_size, input_size)).shape)
    if shape != (1, classes):
        raise BadInput(f"model '{name}' gives {shape} instead of (batch, classes): it is no plain classifier")
    return model.train()


@lru_cache(maxsize=256)
def fit_to(name: str, input_size: int, stem: str) -> Fit:
    """How ``name`` is brought to ``input_size``: decided by timm's description and, for attention, its layers.

    Raises:
        BadInput: an unknown name or stem.
        ValueError: attention of a fixed size, with no known way to refit it.
    """
    if stem not in ("native", "small"):
        raise BadInput(f"unknown stem '{stem}': use 'native' or 'small'")
    if name.split(".")[0] not in known_models():
        raise unknown("model", name, known_models(), "any name of timm.list_models() will do")
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size:
        return Fit({}, small_stem=stem == "small")
    with torch.device("meta"):  # layers without weights, and without touching the random state
        probe = timm.create_model(name)
    if getattr(probe, "native_only", False):
        return Fit({"img_size": input_size})
    patch = getattr(getattr(probe, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and len(set(patch)) == 1:
        side = patch_for(patch[0], input_size, stem)
        return Fit({"img_size": input_size} | ({} if side == patch[0] else {"patch_size": side}))
    reduction = getattr(getattr(probe, "stem", None), "stride", None)
    if not isinstance(reduction, int):
        if input_size == (own := config.input_size[-1]) and stem == "native":
            return Fit({})
        raise ValueError(f"its attention is made for {own} pixels, and how to refit it is not known")
    halvings = 0
    while (input_size * 2**halvings // reduction) ** 2 < MIN_TOKENS and 2**halvings < reduction:
        halvings += 1
    halvings += stem == "small" and 2**halvings < reduction
    # img_size counts as if the stem still had all its strides: attention then gets the size it will see
    return Fit({"img_size": input_size * 2**halvings}, halvings)


def patch_for(native: int, input_size: int, stem: str) -> int:
    """Side of a square patch (pixels), by the rule in ``build``; ``small`` halves it, down to 1."""
    patch = native
    if input_size % patch or (input_size // patch) ** 2 < MIN_TOKENS:
        powers = (2**k for k in reversed(range(native.bit_length())))
        patch = next(p for p in powers if p == 1 or (input_size % p == 0 and (input_size // p) ** 2 >= MIN_TOKENS))
    return patch // 2 if stem == "small" and patch % 2 == 0 else patch


@contextmanager
def explained(name: str, input_size: int, stem: str) -> Iterator[None]:
    """Turn what timm and torch raise at a size that a network cannot take into one message."""
    try:
        yield
    except NotImplementedError:  # torch's word for an operator that the meta device lacks: `planned` does without it
        raise
    except (AssertionError, ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if option := re.search(r"unexpected keyword argument '(\w+)'", reason):
            with torch.device("meta"):
                arguments = inspect.signature(type(timm.create_model(name))).parameters.values()
            taken = ("num_classes", "in_chans", "img_size", "patch_size")
            known = [a.name for a in arguments if isinstance(a.default, int | float) and a.name not in taken]
            hint = (
                suggestion(option[1], known)
                or f"; it has {', '.join(known) or 'none'}: leave it out, as --set 'recipe.model-options={{}}' does"
            )
            raise BadInput(f"model '{name}' has no option '{option[1]}' (recipe.model-options){hint}") from error
        raise BadInput(
            f"model '{name}' cannot take {input_size}x{input_size} images with the {stem} stem ({reason}): "
            f"use a larger recipe.input_size or another model"
        ) from error


def construct(name: str, fit: Fit, classes: int, channels: int, **more: Any) -> nn.Module:
    """Make timm's network and apply the fit; ``more`` goes to ``timm.create_model``."""
    model: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels, **{**fit.options, **more})
    for _ in range(fit.halvings):
        halve_first_stride(model)
    return apply_small_stem(model) if fit.small_stem else model


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Run with torch's CPU generator, which initialises networks, at ``seed``; put its state back (None: neither)."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield


@cache
def planned(name: str, *, options: tuple[tuple[str, float], ...] = (), **shape: Any) -> nn.Module:
    """``build`` without weights, on the meta device, once a process: to be counted and asked, not to be run."""
    try:
        with torch.device("meta"):
            return build(name, **shape, options=dict(options))
    except NotImplementedError:  # timm before 1.0.30 computes with the widths of a RegNet
        with torch.device("cpu"):
            return build(name, **shape, options=dict(options), seed=0)


def apply_small_stem(model: nn.Module) -> nn.Module:
    """Change ``model`` (and return it) so that it keeps more of a small image; weights keep their shapes.

    1. The first strided convolution in module order, and branches parallel to it (RepVGG, MobileOne), have their
       stride halved: 2 becomes 1, the 4 of a patch stem 2 (ConvNeXt). The padding becomes (kernel - stride + 1) // 2,
       so that an S x S image leaves it as S/stride x S/stride.
    2. A max-pool in the stem is dropped (ResNet).

    The final feature map of a 32-pixel image grows from 1 x 1 to 4 x 4 (ResNet; 16 times the cost) or 2 x 2
    (the others; 4 times). Where attention is concerned ``build`` does it, because there it changes weights. A network
    with a true ``native_only`` was made for small images and is returned as it is.

    Raises:
        BadInput: no convolution with a stride.
    """
    if getattr(model, "native_only", False):
        return model
    halve_first_stride(model)
    for name, module in model.named_modules():  # timm names a stem's max-pool so, or the module that it is in
        if isinstance(module, nn.MaxPool2d) and name.startswith(("maxpool", "stem", "features.pool0")):
            model.set_submodule("maxpool" if name.startswith("maxpool") else name, nn.Identity())
            break
    return model


def halve_first_stride(model: nn.Module) -> None:
    """Halve the stride of the first strided convolution and of the branches parallel to it, in place.

    Raises:
        BadInput: there is none.
    """
    convs = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1}
    if not convs:
        raise BadInput(f"{type(model).__name__} has no strided convolution: there is no small stem for it")

    def kind(name: str) -> tuple[object, ...]:
        conv = convs[name]
        return name.split(".")[0], conv.in_channels, conv.out_channels, conv.stride

    first = next(iter(convs))
    # channels grow on the way in, so a layer of the same shape stands beside the first, not after it
    beside = convs[first].in_channels < convs[first].out_channels
    for name in [name for name in convs if name == first or (beside and kind(name) == kind(first))]:
        conv, old = convs[name], convs[name].stride[0]
        conv.stride = tuple(max(1, s // 2) for s in conv.stride)
        if not isinstance(conv.padding, str) and max(conv.padding) + max(conv.kernel_size) > 1:
            conv.padding = tuple((k - s + 1) // 2 for k, s in zip(conv.kernel_size, conv.stride, strict=True))
        # blocks that fold their branches later (RepVGG, MobileOne) note the stride themselves: keep it true
        parts = name.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            parent: Any = model.get_submodule(".".join(parts[:depth]))
            if getattr(parent, "stride", None) in (old, (old, old)):
                parent.stride = conv.stride[0] if parent.stride == old else (conv.stride[0],) * 2
