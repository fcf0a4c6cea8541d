"""Several methods at once, ``kd+crd``: the first with its own hard term, the terms of the others added to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdbench.errors import BadInput
from kdbench.methods.base import BatchInfo, Loss, Method, Outputs, Taps, as_loss, learned, nn

if TYPE_CHECKING:
    from torch import Tensor

_OWN_KD = ("kd_weight", "kd_temperature")
"""Of an added method, which is combined with kd by name."""


def prefix(method: Method) -> str:
    """What stands before an added method's hyper-parameters: ``crd_`` before ``weight``."""
    return method.name.replace("-", "_") + "_"


def combine(methods: Sequence[Method]) -> Method:
    """The method whose loss is the first one's plus the terms of the others, those of fitnet, at, rkd, crd, ...

    Hyper-parameters of the first keep their names, those of the others get theirs before: ``crd_weight``. Spaces,
    defaults, bounds and needs are united; of kinds of networks what all of them are made for remains.

    Raises:
        BadInput: one named twice, an added one that is no weight · term beside the cross-entropy, kinds that exclude
            each other.
    """
    first, *added = methods
    name = "+".join(method.name for method in methods)
    for method in added:
        if "kd_weight" not in method.knobs:
            raise BadInput(
                f"method '{name}': '{method.name}' has a hard term of its own; after the first only methods that add "
                "weight · term to the cross-entropy can stand, such as crd, rkd, at"
            )
    if len({method.name for method in methods}) < len(methods):
        raise BadInput(f"method '{name}' names one twice")
    if not first.asks:
        raise BadInput(f"method '{name}': '{first.name}' asks no teacher; begin with kd or another that does")
    united: dict[str, dict[str, Any]] = {
        field: dict(getattr(first, field)) for field in ("space", "defaults", "bounds")
    }
    for method in added:
        for field, held in united.items():
            more = {prefix(method) + key: v for key, v in getattr(method, field).items() if key not in _OWN_KD}
            if both := sorted({*more} & {*held}):
                raise BadInput(f"method '{name}': {both[0]} would be of two of them; combine others")
            held |= more

    def code(student: Taps, teacher: Taps, **hyper: float) -> Any:
        own = {key: value for key, value in hyper.items() if key in first.knobs}
        made = [first.build(own, student, teacher)]
        made += [method.build(_of(method, hyper), student, teacher) for method in added]

        def loss(_: Any, said: Outputs, taught: Outputs, targets: Tensor, batch: BatchInfo) -> Loss:
            losses = [as_loss(part(said, taught, targets, batch)) for part in made]
            total, parts = losses[0].total, dict(losses[0].parts)
            for method, one in zip(added, losses[1:], strict=True):
                total = total + one.total - one.parts["hard"]
                parts |= {f"{method.name}.{key}": value for key, value in one.parts.items() if key != "hard"}
            return Loss(total, parts)

        owned = {f"part{k}": part for k, part in enumerate(made) if isinstance(part, nn.Module)}
        return learned(loss, **owned)

    return Method(
        name=name, needs=frozenset().union(*(method.needs for method in methods)), pairs=_pairs(name, methods),
        version=1 + sum((method.version - 1) * 10**k for k, method in enumerate(methods)), builder=True, code=code,
        momenta=first.momenta, paper="; ".join(method.paper for method in methods), **united,
    )  # fmt: skip


def _of(method: Method, hyper: Mapping[str, float]) -> dict[str, float]:
    """An added method's hyper-parameters under their own names, without kd."""
    start = prefix(method)
    held = {key.removeprefix(start): value for key, value in hyper.items() if key.startswith(start)}
    return {**{key: method.defaults[key] for key in _OWN_KD}, **held, "kd_weight": 0.0}


def _pairs(name: str, methods: Sequence[Method]) -> str:
    sides = list(zip(*(method.pairs.split("->") for method in methods), strict=True))
    kinds = [{kind for kind in side if kind != "any"} for side in sides]
    if any(len(kind) > 1 for kind in kinds):
        told = ", ".join(f"{method.name} {method.pairs}" for method in methods)
        raise BadInput(f"method '{name}': no networks are of all kinds that its parts are made for ({told})")
    return "->".join(next(iter(kind), "any") for kind in kinds)
