"""A lazy registry: built-in entries, third parties' entry points, and "did you mean"."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from kdbench.errors import BadInput, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to specs. Entry points of ``group`` are loaded when a name or the list is first asked for.

    An entry point's object is a spec, a list of specs, or a function without arguments that returns
    either; each spec is filed under its ``name``.
    """

    def __init__(self, kind: str, builtin: Mapping[str, T], group: str, accepts: type[T]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)
        self._accepts = accepts

    @cached_property
    def entries(self) -> dict[str, T]:
        """All entries by name, built-in ones first; a third party cannot replace a built-in one."""
        found = dict(self._builtin)
        for point in entry_points(group=self.group):
            try:
                value = self.unwrap(point.load())
                specs = [self.unwrap(one) for one in value] if isinstance(value, list | tuple) else [value]
            except Exception as error:  # whatever a plug-in raises is named as its fault
                where = f"entry point '{point.name}' ({point.value}) of group '{self.group}'"
                raise BadInput(f"{where} failed: {error}") from error
            for spec in specs:
                if not isinstance(spec, self._accepts):
                    raise BadInput(
                        f"entry point '{point.name}' of group '{self.group}' gave {type(spec).__name__}, "
                        f"not {self._accepts.__name__}"
                    )
                found.setdefault(spec.name, spec)  # type: ignore[attr-defined]
        return found

    def unwrap(self, given: Any) -> Any:
        """What an entry point's object, or an item of its list, stands for."""
        return given() if callable(given) else given

    def names(self) -> list[str]:
        """All names in the order of registration."""
        return list(self.entries)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def get(self, name: str) -> T:
        """The entry called ``name``.

        Raises:
            BadInput: when there is none, with the closest name.
        """
        if name in self._builtin:
            return self._builtin[name]
        try:
            return self.entries[name]
        except KeyError:
            raise unknown(self.kind, name, self.entries, f"`kdbench ls {self.kind}s` lists them") from None
