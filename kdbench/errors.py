"""Errors that a user reads: each names the value, the place and the fix.

The command line turns them into one line on stderr and an exit code, never a traceback.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from pydantic import ValidationError


class KdbenchError(Exception):
    """A failure that kdbench foresaw. ``exit_code`` is what the process ends with."""

    exit_code = 1


class BadInput(KdbenchError):
    """The user asked for something that cannot be done as written (exit code 2)."""

    exit_code = 2


class NameTaken(BadInput):
    """``<out>/<name>`` holds other work than what is asked for; ``difference``: in what."""

    def __init__(self, name: str, out: Path, difference: str) -> None:
        self.difference = difference
        free = next(other for k in count(2) if not (out / (other := f"{name}-{k}")).exists())
        super().__init__(
            f"'{name}' in {out} holds another sweep; add `--name {free}`, or ask for the same: {difference}"
        )


class MachineFault(KdbenchError):
    """The machine refused: no space, no network, no permission (exit code 1)."""


class TrialFailed(KdbenchError):
    """One training run could not finish (a non-finite loss, say); the sweep goes on without it."""


def suggestion(name: str, choices: Iterable[str]) -> str:
    """``": did you mean 'mobilenetv3'?"`` or, with nothing close, an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f": did you mean '{close[0]}'?" if close else ""


def unknown(kind: str, name: str, choices: Iterable[str], hint: str = "") -> BadInput:
    """The error for a name that no registry holds; ``hint`` says where to look when nothing is close."""
    found = suggestion(name, choices)
    return BadInput(f"unknown {kind} '{name}'{found or (' (' + hint + ')' if hint else '')}")


def readable(error: ValidationError, prefix: str = "") -> str:
    """A pydantic error as one line: where, what is wrong, and the value, for every problem found."""
    problems = []
    for item in error.errors(include_url=False):
        place = ".".join([*([prefix] if prefix else []), *(str(part).replace("_", "-") for part in item["loc"])])
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        shown = "" if isinstance(item["input"], dict | list | tuple) else f", not {reprlib.repr(item['input'])}"
        problems.append(f"{place}: {message}{shown}" if place else f"{message}{shown}")
    return "; ".join(problems)
