"""Several sweeps asked for at once: several pairs, several numbers of epochs, or each of one with each of the other.

A series is a folder with one ordinary sweep for each. What they share (hard labels, a teacher) is trained once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from kdbench.catalog.types import Pair
from kdbench.errors import BadInput
from kdbench.sweeps.config import SweepConfig
from kdbench.sweeps.overrides import asked_for, merge
from kdbench.sweeps.types import sweep_name


@dataclass(frozen=True)
class Sweeps:
    """Sweeps side by side."""

    folder: Path
    """The folder that holds theirs."""
    each: tuple[SweepConfig, ...]


def read_sweeps(
    config: str | None = None, sets: Iterable[str] = (), given: Mapping[str, Any] | None = None
) -> SweepConfig | Sweeps:
    """What ``read_config`` reads, or a series of it where ``pair`` or ``epochs`` are several.

    Raises:
        BadInput: for anything that cannot be read, is not known or cannot be, naming it.
    """
    values = merge(config, sets, given)
    pairs, epochs = _several(values.get("pair"), "pair"), _several(values.get("epochs"), "epochs")
    rest = {key: value for key, value in values.items() if key not in ("pair", "epochs")}
    several = [rest | _given(pair=pair, epochs=count) for pair, count in product(pairs, epochs)]
    first = asked_for(several[0])
    if len(several) == 1:
        return first
    sides = [[side.strip() for side in str(pair or "").partition(":")[::2]] for pair in pairs]
    teachers, students = (list(dict.fromkeys(side)) for side in zip(*sides, strict=True))
    whole = Pair(
        teacher=teachers[0] if len(teachers) == 1 else "teachers",
        students=(students[0] if len(students) == 1 else "students",),
    )
    name = sweep_name(first.name, first.dataset.strip(), whole, first.method)
    name += "-epochs" if first.name is None and len(epochs) > 1 else ""
    sweeps = []
    for asked, ((teacher, student), count) in zip(several, product(sides, epochs), strict=True):
        parts = [teacher] * (len(teachers) > 1) + [student] * (len(students) > 1)
        parts += [f"{count}-epochs"] * (len(epochs) > 1)
        own = re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join([name, *parts])).strip("-.")
        sweeps.append(asked_for(asked | {"name": own, "out": first.out / name}))
    twice = next((one.name for k, one in enumerate(sweeps) if one.name in [other.name for other in sweeps[:k]]), None)
    if twice is not None:
        raise BadInput(f"the sweep '{twice}' is asked for twice: name each --pair and each of --epochs once")
    return Sweeps(first.out / name, tuple(sweeps))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _several(value: Any, name: str) -> list[Any]:
    """The values of an option that may be given several of; one of None where it is not given."""
    if name == "epochs" and isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple):
        return [value]
    if name == "pair" and not all(isinstance(one, str) for one in value):
        raise BadInput(f"pair must be TEACHER:STUDENTS or a list of such, not {value!r}")
    return [one.strip() if isinstance(one, str) else one for one in value] or [None]
