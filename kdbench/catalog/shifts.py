"""Further test sets by name: common corruptions of the test split, and a user's own folders of the same classes."""

from __future__ import annotations

from collections.abc import Iterable

CORRUPTIONS = (
    "gaussian-noise", "shot-noise", "impulse-noise", "gaussian-blur", "contrast", "brightness", "pixelate", "jpeg",
)  # fmt: skip
SEVERITIES = (1, 2, 3, 4, 5)
ALL = "corruptions"


def parts_of(asked: Iterable[str]) -> tuple[str, ...]:
    """Each test set that ``--also-test`` stands for: ``corruptions`` is one for each kind and severity."""
    every = [f"{name} {severity}" for name in CORRUPTIONS for severity in SEVERITIES]
    return tuple(part for name in asked for part in (every if name == ALL else [name]))
