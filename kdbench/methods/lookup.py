"""Names of losses to functions, third parties' included."""

from __future__ import annotations

from importlib.metadata import entry_points

from kdbench.errors import unknown
from kdbench.methods.base import LossFunction, hard
from kdbench.methods.dist import dist
from kdbench.methods.dkd import dkd
from kdbench.methods.kd import kd, kd_ls

GROUP = "kdbench.losses"
_BUILTIN: dict[str, LossFunction] = {"hard": hard, "kd": kd, "kd-ls": kd_ls, "dkd": dkd, "dist": dist}


def loss_function(name: str) -> LossFunction:
    """The loss called ``name``: built in, or an entry point of the group ``kdbench.losses``.

    Raises:
        BadInput: when no loss has that name.
    """
    if name in _BUILTIN:
        return _BUILTIN[name]
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name in points:
        loaded: LossFunction = points[name].load()
        return loaded
    raise unknown("method", name, [*_BUILTIN, *points], "`kdbench ls methods` lists them")
