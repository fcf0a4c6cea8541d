"""What two results must share to be ranked against each other, and how protocols differ, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.catalog.datasets import DATASETS
from kdbench.config import HARD, RunConfig
from kdbench.files import identify
from kdbench.run.words import counted
from kdbench.tracking.record import flatten

Protocol = dict[str, Any]
"""``recipe.epochs`` and the like (the keys that ``--set`` takes) to values."""


SEARCHED = "searched"
"""In the place of a recipe's value that a sweep tuned for each method, hard labels included."""


def protocol_of(config: RunConfig, teacher: RunConfig | None, searched: int, tuned: Sequence[str] = ()) -> Protocol:
    """The protocol of one confirm run: data, recipe, how the teacher was made, the budget of the selection.

    Left out: what is compared (teacher, student, method, hyper-parameters), every seed, and the precision, which
    follows the machine. ``teacher`` is the teacher's own run, whatever its phase; None where nobody sent it. Hard
    labels alone have no teacher and no search: what they share with a distilled run's protocol is ``fair``. ``tuned``:
    fields of the recipe that were searched too.
    """
    data = config.data.model_dump(mode="json", exclude={"name"})
    begun = {"start": "given weights"} if config.start else {}
    recipe = _recipe(config) | dict.fromkeys(tuned, SEARCHED)
    protocol: dict[str, Any] = {"data": data, "recipe": recipe | begun, "budget": {"trials": searched}}
    if config.method == HARD:
        protocol |= {"budget": {"trials": 0}, "teacher": {"weights": "none"}}
    elif teacher is None:
        protocol["teacher"] = {"weights": f"unknown ({config.teacher_id})"}
    elif _given(teacher):
        several = str(teacher.teacher_id).count(",") + 1
        protocol["teacher"] = {"weights": "given" if several == 1 else f"an ensemble of {several}, weights given"}
    else:
        taught = {} if teacher.method == HARD else {"method": teacher.method}
        seen = teacher.data.model_dump(mode="json", exclude={} if teacher.data.name != config.data.name else {"name"})
        other = {key: seen.get(key) for key in {**data, **seen} if seen.get(key) != data.get(key)}
        begun = {} if teacher.start is None else {"start": "given weights", "tune": teacher.tune}
        protocol |= {"teacher": {"weights": "trained", **taught, **begun}, "teacher-recipe": _recipe(teacher)}
        protocol["teacher-data"] = other
    return flatten(protocol, separator=".")


def fair(protocol: Protocol) -> Protocol:
    """What a distilled run and its baseline on hard labels share: data and recipe."""
    return {key: value for key, value in protocol.items() if key.startswith(("data.", "recipe."))}


def teacher_of(config: RunConfig, teacher: RunConfig | None) -> str:
    """Who teaches a run, as a name that teachers of one model, recipe and data share on all seeds.

    Empty for hard labels. Weights that were given are themselves alone, and so is a teacher whose run nobody sent.
    """
    if config.method == HARD:
        return ""
    if teacher is None:
        return str(config.teacher_id)
    if _given(teacher):
        return identify([teacher.model, teacher.teacher_id])
    held = teacher.model_dump(mode="json", exclude={"seed", "phase", "teacher_id", "recipe"})
    return identify({**held, "recipe": _recipe(teacher)})


def _given(teacher: RunConfig) -> bool:
    """Whether a teacher's weights are a file of the user's."""
    return teacher.given and not teacher.averaged


def _recipe(config: RunConfig) -> dict[str, Any]:
    return config.recipe.model_dump(mode="json", exclude={"precision"})


def protocol_id(protocol: Protocol) -> str:
    """Six hexadecimal digits, the same in every leaderboard."""
    return identify(protocol)[:6]


def describe(protocol: Protocol, dataset: str) -> str:
    """The heart of a protocol in a sentence."""
    p, weights = protocol, protocol["teacher.weights"]
    teacher = {
        "trained": f"teacher trained {_epochs(p.get('teacher-recipe.epochs'))}",
        "given": "teacher's weights given",
        "none": "hard labels alone",
    }
    trials = p["budget.trials"]
    searched = f"{counted(trials, 'search trial')} a size" if trials else "settings given, not searched"
    rate = p["recipe.lr"]
    lr = "a learning rate searched for each method" if rate == SEARCHED else f"learning rate {rate:g}"
    parts = [
        f"{_epochs(p['recipe.epochs'])} of {p['recipe.optimizer']} at {lr}",
        f"batch size {p['recipe.batch_size']}", *_samples(p, dataset),
        *([searched] if weights != "none" else ()),
        teacher.get(weights, f"teacher {weights}") + (f" by {p['teacher.method']}" if "teacher.method" in p else ""),
    ]  # fmt: skip
    return ", ".join(parts)


def _samples(p: Protocol, dataset: str) -> list[str]:
    """What is trained on and what is held out, in numbers where the data set's size is known."""
    total = DATASETS.get(dataset).sizes.get("train", 0) if dataset in DATASETS else 0
    held, limit, share = round(p["data.val_fraction"] * total), p["data.limit"], f"{100 * p['data.val_fraction']:g}%"
    out = f"{f'{held:,} of the {total:,}' if total else f'{share} of the training split'} held out for validation "
    out += f"(seed {p['data.split_seed']})"
    if p.get("data.validate_on") == "test":
        held, out = 0, "settings fixed beforehand (no validation split)"
    count = min(limit or total, total - held) if total else limit
    text = f"{count:,} training samples" if count else "all other training samples"
    if classes := p.get("data.train_classes"):
        text += f" (of these, classes {', '.join(map(str, classes))} alone)"
    return [text, out]


def _epochs(count: object) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def differences(first: Protocol, other: Protocol) -> list[str]:
    """``recipe.epochs 2 → 15``: every key in which ``other`` differs from ``first``."""
    keys = list(dict.fromkeys([*first, *other]))
    if other["teacher.weights"] != first["teacher.weights"]:  # the teacher's recipe is there in one of them only
        keys = [key for key in keys if not key.startswith("teacher-")]
    changed = [key for key in keys if first.get(key) != other.get(key)]
    return [f"{key} {_value(first.get(key))} → {_value(other.get(key))}" for key in changed]


def _value(value: object) -> str:
    return "none" if value is None or value == [] else str(value)


def letters(protocols: Sequence[str]) -> Mapping[str, str]:
    """A, B, ... Z, A2, B2, ... in the order of ``protocols`` (ids)."""
    return {name: chr(ord("A") + k % 26) + (str(k // 26 + 1) if k >= 26 else "") for k, name in enumerate(protocols)}
