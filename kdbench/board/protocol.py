"""What two results must share to be ranked against each other, and how protocols differ, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.config import RunConfig
from kdbench.files import identify
from kdbench.tracking.record import flatten

Protocol = dict[str, Any]
"""``recipe.epochs`` and the like (the keys that ``--set`` takes) to values."""


def protocol_of(config: RunConfig, teacher: RunConfig | None, searched: int) -> Protocol:
    """The protocol of one confirm run: data, recipe, how the teacher was made, the budget of the selection.

    Left out: what is compared (teacher, student, method, hyper-parameters), the seed, and the precision, which is
    measured per machine. ``teacher`` is the teacher's own run, None where nobody sent it.
    """
    protocol = {
        "data": config.data.model_dump(mode="json", exclude={"name"}),
        "recipe": config.recipe.model_dump(mode="json", exclude={"precision"}),
        "budget": {"trials": searched},
    }
    if teacher is None:
        protocol["teacher"] = {"weights": f"unknown ({config.teacher_id})"}
    elif teacher.teacher_id is not None:  # weights given by the user
        several = teacher.teacher_id.count(",") + 1
        protocol["teacher"] = {"weights": "given" if several == 1 else f"an ensemble of {several}, weights given"}
    else:
        protocol["teacher"] = {"weights": "trained"}
        protocol["teacher-recipe"] = teacher.recipe.model_dump(mode="json", exclude={"precision"})
    return flatten(protocol, separator=".")


def protocol_id(protocol: Protocol) -> str:
    """Six hexadecimal digits, the same in every leaderboard."""
    return identify(protocol)[:6]


def describe(protocol: Protocol) -> str:
    """The heart of a protocol in a sentence."""
    p = protocol
    teacher = {
        "trained": f"teacher trained {_epochs(p.get('teacher-recipe.epochs'))}",
        "given": "teacher's weights given",
    }
    samples = "all training samples" if p["data.limit"] is None else f"{p['data.limit']} training samples"
    held_out = f"{100 * p['data.val_fraction']:g}% of the training split for validation (seed {p['data.split_seed']})"
    if p.get("data.validate_on") == "test":
        held_out = "settings fixed beforehand (no validation split)"
    searched = f"{p['budget.trials']} search trials a size" if p["budget.trials"] else "settings given, not searched"
    return (
        f"{_epochs(p['recipe.epochs'])} of {p['recipe.optimizer']} at learning rate {p['recipe.lr']:g}, batch size "
        f"{p['recipe.batch_size']}, {samples}, {held_out}, {searched}, "
        f"{teacher.get(p['teacher.weights'], 'teacher ' + p['teacher.weights'])}"
    )


def _epochs(count: object) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def differences(first: Protocol, other: Protocol) -> list[str]:
    """``recipe.epochs 2 → 15``: every key in which ``other`` differs from ``first``."""
    keys = list(dict.fromkeys([*first, *other]))
    if other["teacher.weights"] != first["teacher.weights"]:  # the teacher's recipe is there in one of them only
        keys = [key for key in keys if not key.startswith("teacher-recipe.")]
    changed = [key for key in keys if first.get(key) != other.get(key)]
    return [f"{key} {_value(first.get(key))} → {_value(other.get(key))}" for key in changed]


def _value(value: object) -> str:
    return "none" if value is None or value == [] else str(value)


def letters(protocols: Sequence[str]) -> Mapping[str, str]:
    """A, B, ... Z, A2, B2, ... in the order of ``protocols`` (ids)."""
    return {name: chr(ord("A") + k % 26) + (str(k // 26 + 1) if k >= 26 else "") for k, name in enumerate(protocols)}
