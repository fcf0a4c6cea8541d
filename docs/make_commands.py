"""Writes docs/commands.md from the command line itself: ``python docs/make_commands.py``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from kdbench.cli.main import app

HEAD = """# Commands

Made by `python docs/make_commands.py` from the command line's own help. Every option of `kdbench sweep` is also a key
of a YAML file (`--config`) and, with underscores, a keyword of `kdbench.sweep`; any field of a recipe is
`--set recipe.FIELD=VALUE` or `--set teacher-recipe.FIELD=VALUE` (`kdbench ls recipes`).
"""


def pages() -> str:
    """The reference as Markdown: every verb with its examples and options."""
    root: Any = typer.main.get_command(app)
    return HEAD + "".join(_verb(command, f"kdbench {name}") for name, command in root.commands.items())


def _verb(command: Any, path: str) -> str:
    told, _, examples = inspect.cleandoc(command.help or "").partition("Examples:")
    text = f"\n## {path}\n\n{_plain(told)}\n"
    if examples:
        text += f"\n```\n{inspect.cleandoc(re.sub(chr(10) * 2 + '(?= +kdbench)', chr(10), examples))}\n```\n"
    rows = list(_rows(command))
    if rows:
        text += "\n| option | value | |\n|---|---|---|\n" + "".join(rows)
    return text + "".join(_verb(inner, f"{path} {name}") for name, inner in getattr(command, "commands", {}).items())


def _rows(command: Any) -> Iterator[str]:
    for param in command.params:
        if not getattr(param, "hidden", False):
            names = ", ".join(f"`{name}`" for name in param.opts if name.startswith("-"))
            value = (param.metavar or "").replace("|", r"\|")
            help_text = _plain(param.help or "").replace("|", r"\|")
            first = names or f"`{value or param.name.upper()}`"
            yield f"| {first} | {value and names and f'`{value}`'} | {help_text} |\n"


def _plain(text: str) -> str:
    """Without the terminal's markup; defaults, which it dims, keep their brackets."""
    return re.sub(r"\[/?(dim|bold)\]", "", text).strip()


if __name__ == "__main__":
    (Path(__file__).parent / "commands.md").write_text(pages(), encoding="utf-8")
