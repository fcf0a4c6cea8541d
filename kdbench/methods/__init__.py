"""Distillation methods, one module per kind: name, search space, defaults, bounds and code of each in one place.

Importing this imports no torch: a method's code does, when it is first called. Third parties' methods are entry
points of the group ``kdbench.methods``.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from kdbench.catalog.registry import Registry
from kdbench.methods.base import LOGITS, BatchInfo, Loss, Method, Need, Outputs, Range, Taps, as_loss, method
from kdbench.methods.combined import combine

__all__ = [
    "LOGITS", "METHODS", "BatchInfo", "Loss", "Method", "Need", "Outputs", "Range", "Taps", "as_loss", "method",
    "ships_more",
]  # fmt: skip


class Methods(Registry[Method]):
    """Holds what ``@method`` declared, of a function or class; ``kd+crd`` is made of what it holds."""

    def get(self, name: str) -> Method:
        if "+" not in name:
            return super().get(name)
        if name not in self._made:
            self._made[name] = combine([super(Methods, self).get(part.strip()) for part in name.split("+")])
        return self._made[name]

    @cached_property
    def _made(self) -> dict[str, Method]:
        return {}

    def unwrap(self, given: Any) -> Any:
        return getattr(given, "kd_method", None) or super().unwrap(given)


def ships_more(method: str) -> bool:
    """Whether what it trains ships with more than the student's own network: sizes and costs are then others."""
    return any("reused" in METHODS.get(part).needs for part in method.split("+") if part in METHODS.entries)


_MODULES = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__) if found.name[0] != "_"]
_CODE = [code for module in _MODULES for code in vars(module).values() if callable(code)]
_FOUND = [code.kd_method for code in _CODE if hasattr(code, "kd_method")]
METHODS = Methods("method", {one.name: one for one in _FOUND}, "kdbench.methods", Method)
