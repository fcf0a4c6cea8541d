"""The base of all types, and the words that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

Phase = Literal["teacher", "baseline", "search", "confirm"]
PHASES: tuple[Phase, ...] = ("teacher", "baseline", "search", "confirm")
Status = Literal["complete", "pruned", "failed"]
Hyper = dict[str, float]


def is_default(default: object) -> Callable[[object], bool]:
    """Leaves a field out of dumps at its default: a field added later must not change the ids of earlier runs."""
    return lambda value: value == default


unset = is_default(None)


class Frozen(BaseModel):
    """Base of all types here: immutable, no unknown fields, every field documented."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
