"""Options of the verbs: those that are fields of a model are made from its fields, the rest stand here."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from kdbench.config import Flag
from kdbench.run.launch import WHERE, RunOptions
from kdbench.sweeps.config import HOW, WHAT
from kdbench.sweeps.overrides import GONE, flags_of

RESULTS = Path("results")
"""Where sweeps are kept unless --out says otherwise."""
JsonFlag = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON on stdout, for scripts.")]
LinesFlag = Annotated[bool, typer.Option("--json", metavar="", help="A JSON object a line on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="Print nothing but the result.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder that holds one folder per sweep.")]
WhyOption = Annotated[
    str, typer.Option(metavar="TEXT", help="Why a record is made again; its history.md then keeps what it said.")
]
SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name under --out, or its folder.")]


class Command(TyperCommand):
    """A verb whose ``--help`` is a switch like the others."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""
        return option


Verb = TypeVar("Verb", bound=Callable[..., Any])
_TYPES = {int: "N", float: "X", Path: "DIR"}


def options_of(kind: type[RunOptions], *, but: tuple[str, ...] = ()) -> Callable[[Verb], Verb]:
    """A verb gets ``kind``'s flags as options, and what was typed of them in its ``**flags``; ``but`` are left out."""

    def decorate(verb: Verb) -> Verb:
        ctx, *own = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.name != "flags"]
        flags = {name: flag for name, flag in flags_of(kind).items() if name not in but}
        order = sorted(flags, key=lambda name: (WHAT, HOW, WHERE).index(flags[name].panel))
        made = [_option(name, kind.model_fields[name.replace("-", "_")], flags[name]) for name in order]
        gone = [_parameter(name, str, typer.Option(f"--{name}", hidden=True)) for name in GONE]
        verb.__signature__ = inspect.Signature([ctx, *made, *own, *gone])  # type: ignore[attr-defined]
        verb.__annotations__ = {p.name: p.annotation for p in (ctx, *made, *own, *gone)}
        return verb

    return decorate


def choices_of(field: FieldInfo) -> list[str]:
    """What a field may be, where its type lists it."""
    inner = _members(field.annotation)
    return [choice for one in inner if get_origin(one) is Literal for choice in get_args(one)]


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def metavar_of(field: FieldInfo, flag: Flag) -> str:
    """What a flag's value is called; nothing for a switch."""
    kinds = _members(field.annotation)
    named = flag.metavar or "|".join(choices_of(field)) or next((_TYPES[kind] for kind in kinds if kind in _TYPES), "")
    return named or ("" if bool in kinds else "TEXT")


def default_of(field: FieldInfo, flag: Flag) -> str:
    """What holds where the flag is not given; empty where that goes without saying."""
    plain = field.default_factory is None and isinstance(field.default, str | int | float | Path)
    return flag.shown or (str(field.default) if plain and field.annotation is not bool else "")


def _option(name: str, field: FieldInfo, flag: Flag) -> inspect.Parameter:
    default, choices = default_of(field, flag), choices_of(field)
    option = typer.Option(
        f"--{name}",
        metavar=metavar_of(field, flag),
        help=" ".join((field.description or "").split()) + (f" [dim]({default})[/dim]" if default else ""),
        rich_help_panel=flag.panel,
        autocompletion=(lambda incomplete: [c for c in choices if c.startswith(incomplete)]) if choices else None,
        show_default=False,
    )
    kind = list[str] if flag.repeated else bool if field.annotation is bool else str
    return _parameter(name, kind, option)


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    """None where the option was not given: only what was typed goes over a file's value."""
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(
        name.replace("-", "_"), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
