"""What a network says of a batch beside its logits: the pooled vector, and maps along the way."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdbench.errors import BadInput
from kdbench.methods import Outputs, Taps

Said = tuple[Tensor, Tensor | None, dict[int, Tensor], Tensor | None]
"""Logits, pooled, maps, the distillation token's logits."""
INSIDE = {"pooled", "maps", "student-maps", "token"}


class Tapped(nn.Module):
    """A network that also gives the inputs of its classifier, and its stages' maps, in one pass, or BadInput."""

    def __init__(self, network: nn.Module, fields: Collection[str]) -> None:
        super().__init__()
        self.network, self.maps = network, bool({"maps", "student-maps"} & set(fields))
        self._seen: Tensor | None = None
        what = type(network).__name__
        if self.maps and not hasattr(network, "forward_intermediates"):
            raise BadInput(f"{what} gives no maps of its stages: use a method without them")
        if "token" in fields:
            if not hasattr(network, "set_distilled_training"):
                raise BadInput(f"{what} has no distillation token: name a student of `deit` or `levit`")
            network.set_distilled_training(True)  # type: ignore[operator]
        if "pooled" in fields:
            classifier = classifier_of(network)
            if not isinstance(classifier, nn.Module):
                raise BadInput(f"{what} has no classifier of its own to look into: use a method without 'pooled'")
            classifier.register_forward_pre_hook(self._see)

    def _see(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self._seen = given[0]

    def forward(self, x: Tensor) -> Said:
        network: Any = self.network
        if self.maps:
            features, maps = network.forward_intermediates(x, norm=False, output_fmt="NCHW")
            logits = network.forward_head(features)
        else:
            logits, maps = network(x), []
        seen, self._seen = self._seen, None
        logits, token = logits if isinstance(logits, tuple) else (logits, None)
        return logits, seen, dict(enumerate(maps, 1)), token


def classifier_of(network: nn.Module) -> Any:
    """The module from the pooled vector to the logits (the first of several), None where a network has none."""
    found: Any = network.get_classifier() if hasattr(network, "get_classifier") else None  # type: ignore[operator]
    return found[0] if isinstance(found, tuple) else found


def asked(network: nn.Module, fields: Collection[str]) -> nn.Module:
    """What gives the fields: the network itself where logits are enough."""
    return Tapped(network, fields) if INSIDE & set(fields) else network


def outputs(said: Tensor | Said) -> Outputs:
    """In float32, whatever it was computed in."""
    if isinstance(said, Tensor):
        return Outputs(said.float())
    logits, pooled, maps, token = said
    pooled, token = (None if one is None else one.float() for one in (pooled, token))
    return Outputs(logits.float(), pooled, {k: m.float() for k, m in maps.items()}, token)


@torch.no_grad()
def taps_of(forward: Callable[[Tensor], Any], network: nn.Module, x: Tensor) -> Taps:
    """Sizes of what ``forward`` gives for images like ``x`` (1, C, S, S), which ``network`` computes."""
    x = torch.linspace(-1, 1, x.numel(), device=x.device).view(x.shape)  # of a black one every mean is nothing
    training = network.training
    network.eval()
    try:
        found = outputs(forward(x))
    finally:
        network.train(training)
    maps: Any = {stage: tuple(one.shape[1:]) for stage, one in found.maps.items()}
    pooled, head = 0 if found.pooled is None else found.pooled.shape[1], classifier_of(network)
    averaged = False
    if pooled and maps and found.pooled is not None:
        mean = found.maps[max(maps)].mean((2, 3))
        averaged = mean.shape == found.pooled.shape and torch.allclose(mean, found.pooled, rtol=1e-4, atol=1e-5)
    rest = partial(resumed, network, x[:1])
    return Taps(found.logits.shape[1], pooled, maps, kind_of(network), head, averaged=averaged, rest=rest)


def resumed(network: nn.Module, image: Tensor) -> Callable[[int, Tensor], Outputs]:
    """What goes on from a stage's map: (stage, map (B, C, H, W)) to the logits and the maps of later stages.

    The map takes the place of what the stage's module gives for two black images: what lies before costs little.
    Running statistics of batch norms stay as they are.

    Raises:
        BadInput: when asked for a stage whose map is no module's output.
    """
    whole = Tapped(network, {"maps"})
    made: dict[int, tuple[nn.Module, Any]] = {}

    def note(module: nn.Module, _: Any, out: Any) -> None:
        """The outermost module that ends with what made ``out``; later ones may hand it through."""
        if id(out) not in made or made[id(out)][0] in {*module.modules()}:
            made[id(out)] = module, out

    hooks = [one.register_forward_hook(note) for one in network.modules()]
    modes = {one: one.training for one in network.modules()}
    network.eval()
    with torch.no_grad():
        _, _, maps, _ = whole(image)
    for one, mode in modes.items():  # some may be frozen among others that train
        one.training = mode
    for hook in hooks:
        hook.remove()
    joints = {stage: made[id(one)][0] for stage, one in maps.items() if id(one) in made}
    made.clear()
    images = torch.zeros_like(image).expand(2, *image.shape[1:])
    norms = [one for one in network.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]

    def rest(stage: int, given: Tensor) -> Outputs:
        if stage not in joints:
            raise BadInput(f"{type(network).__name__} cannot go on from its stage {stage}: use a method without halves")
        hook = joints[stage].register_forward_hook(lambda *_: given)
        training = [one for one in norms if one.training]
        try:
            for one in training:
                one.track_running_stats = False
            found = outputs(whole(images))
        finally:
            hook.remove()
            for one in training:
                one.track_running_stats = True
        return replace(found, maps={k: one for k, one in found.maps.items() if k > stage})

    return rest


def check_rest(method: str, seen: Taps) -> None:
    """Refuse, as BadInput, a network that cannot go on from each of its maps but the first and the last."""
    rest = seen.rest() if seen.rest is not None else None
    for stage in sorted(seen.maps)[1:-1] if rest is not None else ():
        try:
            rest(stage, torch.zeros(2, *seen.maps[stage]))  # type: ignore[misc]
        except RuntimeError as error:
            raise BadInput(
                f"method '{method}' joins halves of networks; this one cannot go on from its stage {stage} "
                f"({str(error).splitlines()[0][:80]}): name another, or another method"
            ) from error


def kind_of(network: nn.Module) -> str:
    """``vit`` where there is attention, ``cnn`` where there are convolutions alone, else ``mlp``."""
    modules = list(network.modules())
    if any(hasattr(module, "fused_attn") or "attention" in type(module).__name__.lower() for module in modules):
        return "vit"
    return "cnn" if any(isinstance(module, nn.Conv2d) for module in modules) else "mlp"
