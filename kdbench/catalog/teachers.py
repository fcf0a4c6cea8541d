"""A teacher as ``--pair`` writes it: a network, several (``a+b``), assistants (``a>b>c``), one stopped (``a@5``)."""

from __future__ import annotations

from typing import NamedTuple

from kdbench.errors import BadInput

_FORMS = "write resnet50, resnet50+resnet34 (an ensemble), resnet50>resnet18 (an assistant) or resnet50@5 (stopped)"


class Network(NamedTuple):
    """A network that teaches, or helps to."""

    model: str
    """timm name."""
    stop_at: int | None = None
    """The epoch after which its training is stopped."""

    def __str__(self) -> str:
        return self.model if self.stop_at is None else f"{self.model}@{self.stop_at}"


Chain = tuple[tuple[Network, ...], ...]
"""Stages: the first is taught by nobody, each further one by the one before it, the last teaches the students. One of
several networks is their ensemble."""


def chain_of(teacher: str) -> Chain:
    """What a teacher is made of.

    Raises:
        BadInput: a sign with no name beside it, an ensemble that is to be taught, or no epoch after ``@``.
    """
    chain = tuple(tuple(_network(part, teacher) for part in stage.split("+")) for stage in teacher.split(">"))
    if any(len(stage) > 1 for stage in chain[1:]):
        raise BadInput(f"teacher '{teacher}': an ensemble comes first in a chain; assistants are single networks")
    return chain


def networks_of(teacher: str) -> tuple[Network, ...]:
    """All networks of a teacher, in the order in which they are trained."""
    return tuple(network for stage in chain_of(teacher) for network in stage)


def written(chain: Chain) -> str:
    """The inverse of ``chain_of``."""
    return ">".join("+".join(map(str, stage)) for stage in chain)


def _network(text: str, whole: str) -> Network:
    name, at, epoch = (part.strip() for part in text.partition("@"))
    if not name:
        raise BadInput(f"teacher '{whole}' has a sign with no network beside it: {_FORMS}")
    if at and not (epoch.isascii() and epoch.isdigit() and int(epoch)):
        raise BadInput(f"teacher '{whole}': after @ comes the epoch after which training is stopped, not '{epoch}'")
    return Network(name, int(epoch) if at else None)
