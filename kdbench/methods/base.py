"""What a distillation method declares, what it is given, and what it returns. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast

from pydantic import AliasChoices, Field

from kdbench.catalog.types import Dimension
from kdbench.config import Frozen, Hyper
from kdbench.errors import BadInput

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn
else:

    class _Later:  # a module that is imported when something of it is first used
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(import_module(self._name), name)

    torch, F, nn = _Later("torch"), _Later("torch.nn.functional"), _Later("torch.nn")

__all__ = [
    "LOGITS", "BatchInfo", "F", "Loss", "Method", "Need", "Outputs", "Range", "Taps", "as_loss", "learned", "method",
    "nn", "torch",
]  # fmt: skip

Code = TypeVar("Code", bound=Callable[..., Any])
Need = Literal[
    "logits", "pooled", "maps", "averaged", "student-maps", "token", "reused", "average", "peer", "views",
    "sample-index", "halves",
]  # fmt: skip
"""Of the teacher: what it says (the first three). ``averaged``: networks whose classifier is given the mean of their
last map. Of the student: ``student-maps``; ``token``: its distillation token; ``reused``: the teacher's classifier.
In the teacher's place: ``average`` of the student's weights, or a ``peer`` that is trained with it. ``views``: also a
strongly augmented view; ``sample-index``: which samples these are; ``halves``: networks that can go on from a map."""
LOGITS: frozenset[Need] = frozenset({"logits"})


class Loss(NamedTuple):
    """A scalar to minimise and its unweighted parts (scalars, in nats), for the log."""

    total: Tensor
    parts: Mapping[str, Tensor] = MappingProxyType({})


def as_loss(found: Loss | Tensor) -> Loss:
    """What a method returned, with its parts."""
    return found if isinstance(found, Loss) else Loss(found)


@dataclass(frozen=True)
class Outputs:
    """What a network says of a batch, float32: ``logits`` always, the rest where the method needs it."""

    logits: Tensor
    """(B, classes)."""
    pooled: Tensor | None = None
    """(B, D): what the classifier is given."""
    maps: Mapping[int, Tensor] = field(default_factory=dict)
    """(B, C, H, W) by stage, 1 the first that timm's ``forward_intermediates`` gives."""
    other: Tensor | None = None
    """(B, classes): logits of the distillation token, or of a second view, where the method needs either."""


@dataclass(frozen=True)
class Taps:
    """Sizes of a network's ``Outputs``: D, and (C, H, W) by stage; 0 and {} where the method needs neither."""

    classes: int
    pooled: int = 0
    maps: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    kind: str = "any"
    """``cnn``, ``vit`` (whatever has attention) or ``mlp``."""
    head: Callable[[Tensor], Tensor] | None = None
    """From ``pooled`` to the logits; None where a network has no such module."""
    samples: int = 0
    """Of the training split."""
    batch: int = 0
    """Samples a step."""
    averaged: bool = False
    """Whether ``pooled`` is the mean of the last map."""
    rest: Callable[[], Callable[[int, Tensor], Outputs]] | None = None
    """Makes what gives the outputs of a batch from a stage's map on, (stage, map) -> what comes after it."""


@dataclass(frozen=True)
class BatchInfo:
    """Where in the training a batch stands: in ``epoch`` 1, 2, ... of ``epochs``."""

    epoch: int = 1
    epochs: int = 1
    label_smoothing: float = 0.0
    """Of the hard term (``Recipe.label_smoothing``)."""
    rows: Tensor | None = None
    """int64 (B,): the samples' positions in the training split, which has ``samples``; of mixed ones the larger's."""
    samples: int = 0
    mixed: Tensor | None = None
    """(B, classes): shares of the labels where images are mixed; ``targets`` then has the larger one's label."""
    bce: bool = False
    bce_threshold: float | None = None
    """See ``Recipe``."""


class Method(Frozen):
    """A distillation method: its name, what is searched for it, and its code."""

    name: str
    needs: frozenset[Need] = LOGITS
    """What it reads of teacher and student."""
    pairs: str = Field("any->any", pattern=r"^\w+->\w+$")
    """Kinds of teacher and student that it is made for: ``cnn->cnn``, ``any->vit``, ..."""
    space: dict[str, Dimension] = Field(default_factory=dict)
    """Hyper-parameters that a sweep searches, with their default ranges."""
    defaults: Hyper = Field(default_factory=dict, validation_alias=AliasChoices("defaults", "fixed"))
    """Hyper-parameters with a default value, which a sweep holds where it does not search."""
    bounds: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Values each hyper-parameter may take at all (closed; temperature's 0 is excluded separately)."""
    version: int = Field(1, ge=1)
    """Raised with every change that changes results: part of the runs' ids unless it is 1."""
    paper: str = ""
    builder: bool = False
    """The code makes the loss: it is called once, as the class of a module would be, and imports no torch before."""
    momenta: bool = False
    """Gradients of the labels' share of the total, the part ``task``, and of the rest have a momentum each: the
    recipe's less, and more, by ``delta``."""
    code: Any = Field(default=None, exclude=True, repr=False)
    """A function, or an ``nn.Module`` class; None: the entry point of that name in ``kdbench.losses``."""

    @property
    def knobs(self) -> set[str]:
        return {*self.space, *self.defaults, *self.bounds}

    @property
    def asks(self) -> frozenset[Need]:
        """What of its needs a teacher answers; nothing: none is asked."""
        return self.needs & {"logits", "pooled", "maps"}

    @property
    def costly(self) -> bool:
        """Whether its step is another network's, view's or backward pass more."""
        return self.momenta or bool(self.needs & {"average", "peer", "views"})

    @property
    def looks(self) -> bool:
        """Whether it is built by what the networks look like."""
        return self._made or self.pairs != "any->any"

    @property
    def _made(self) -> bool:
        return self.builder or isinstance(self.code, type)

    def build(
        self, hyper: Mapping[str, float], student: Taps | None, teacher: Taps | None
    ) -> Callable[..., Loss | Tensor]:
        """What is called as (student: Outputs, teacher: Outputs, targets (B,), BatchInfo); with state, a module.

        Raises:
            BadInput: as ``fits``.
        """
        self.fits(*("any" if taps is None else taps.kind for taps in (teacher, student)))
        for role, taps in (("teacher", teacher), ("student", student)):
            if "averaged" in self.needs and taps is not None and not taps.averaged:
                raise BadInput(
                    f"method '{self.name}' lets a network's classifier speak of parts of its last map: that of this "
                    f"{role} takes more than the map's mean; name another, or another method (`kdbench ls methods`)"
                )
        code = self.code or _of_last_release(self.name)
        made: Any = code(student, teacher, **hyper) if self._made else partial(code, **hyper)
        return cast("Callable[..., Loss | Tensor]", made)

    def fits(self, teacher: str, student: str) -> None:
        """Refuse, as BadInput, networks of a kind (see ``Taps``) that it is not made for; ``any``: not known yet."""
        for role, kind, found in zip(("teacher", "student"), self.pairs.split("->"), (teacher, student), strict=True):
            if "any" not in (kind, found) and kind != found:
                raise BadInput(f"method '{self.name}' is made for {self.pairs}: this {role} is a {found}")

    def check(self, *, head: bool = True, hyper: Hyper | None = None) -> None:
        """Try it on made-up outputs before anything is trained; BadInput names the code and what it did.

        ``head``: whether the teacher has a classifier, which an ensemble has not. ``hyper``: where not by its defaults.
        """
        kinds, pooled, maps = self.pairs.split("->"), "pooled" in self.needs, {"maps", "student-maps"} & self.needs
        student, teacher = (
            Taps(3, wide * pooled, {1: (4, 4, 4), 2: (wide, 2, 2)} if maps else {}, kind,
                 torch.nn.Linear(wide, 3) if has else None, 4, 4, True)
            for kind, wide, has in ((kinds[1], 5 if "reused" in self.needs else 6, True), (kinds[0], 5, head))
        )  # fmt: skip
        middle = {name: (one.choices or (one.low,))[0] or 1.0 for name, one in self.space.items()}
        place = f"{getattr(self.code, '__module__', 'kdbench.losses')}:{getattr(self.code, '__qualname__', self.name)}"
        where = f"the method '{self.name}' ({place})"
        try:
            code = self.build({**self.defaults, **middle} if hyper is None else hyper, student, teacher)
            batch = BatchInfo(rows=torch.arange(4), samples=4)
            found = code(_made_up(student, 1), _made_up(teacher, -1), torch.tensor([0, 1, 2, 0]), batch)
            total = as_loss(found).total
            whole = isinstance(total, torch.Tensor) and total.ndim == 0
        except BadInput:
            raise
        except Exception as error:  # whatever a plug-in raises is named as its fault
            raise BadInput(f"{where} fails on a batch: {error}; it is called as {CALLED}") from error
        wanted = {"delta": self.momenta, "decay": "average" in self.needs}
        if lacking := [name for name, asked in wanted.items() if asked and name not in self.knobs]:
            raise BadInput(f"{where} has no hyper-parameter {lacking[0]}, which what it declares is driven by")
        if self.momenta and "task" not in as_loss(found).parts:
            raise BadInput(f"{where} has two momenta, and no part 'task': what of its total the labels say")
        if not whole:
            raise BadInput(f"{where} returns {found!r:.60}: it is called as {CALLED}")


CALLED = "loss(student: Outputs, teacher: Outputs, targets, batch, *, ...hyper-parameters) -> Loss or a scalar"


def method(name: str, **declared: Any) -> Callable[[Code], Code]:
    """Declare a method: a decorator for its code, whose keywords are the other fields of ``Method``.

    The code is a function (student: Outputs, teacher: Outputs, targets int64 (B,), batch: BatchInfo) -> a scalar or a
    ``Loss``, with hyper-parameters as keywords; or, with state or parts to train, an ``nn.Module`` class made of
    (student: Taps, teacher: Taps, hyper-parameters as keywords) with such a ``forward``, or a ``builder`` of one.
    """

    def declare(code: Code) -> Code:
        setattr(code, "kd_method", Method(name=name, code=code, **declared))  # noqa: B010
        return code

    return declare


def learned(loss: Callable[..., Loss | Tensor], **owned: nn.Module | Tensor) -> nn.Module:
    """``loss``, called as a method is after the module itself, as one that owns modules, parameters and buffers."""
    made: nn.Module = import_module("kdbench.methods._learned").Learned(loss, owned)
    return made


def Range(low: float, high: float, *, log: bool = False) -> Dimension:
    """A range to search."""
    return Dimension(low=low, high=high, log=log)


def _made_up(taps: Taps, sign: int) -> Outputs:
    def values(*shape: int) -> Tensor:
        return sign * torch.linspace(-1, 1, 4 * prod(shape)).view(4, *shape)

    maps = {stage: values(*shape) for stage, shape in taps.maps.items()}
    return Outputs(values(taps.classes), values(taps.pooled) if taps.pooled else None, maps, values(taps.classes))


def _of_last_release(name: str) -> Callable[..., Loss | Tensor]:
    """The entry point ``name`` of the group that losses had in release 0.1: logits and a dictionary."""
    points = entry_points(group="kdbench.losses", name=name)
    if not points:
        raise BadInput(f"the method '{name}' has no loss: declare it with @kdbench.methods.method")
    given = next(iter(points)).load()

    def loss(student: Outputs, teacher: Outputs, targets: Tensor, batch: BatchInfo, **hyper: float) -> Any:
        more = {"label_smoothing": batch.label_smoothing, "epoch": batch.epoch}
        return given(student.logits, teacher.logits, targets, hyper, **more)

    return loss
