"""The runs that make a sweep's teacher: one, or those of an ensemble's members, or of a chain of assistants."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from kdbench.catalog.teachers import Network, chain_of, networks_of, written
from kdbench.catalog.types import Pair
from kdbench.config import HARD, Recipe, RunConfig
from kdbench.errors import BadInput
from kdbench.methods import METHODS
from kdbench.run.words import counted
from kdbench.sweeps.controls import BORN_AGAIN
from kdbench.sweeps.types import Sweep

TEACHES_ASSISTANTS = "kd"
"""The method by which an assistant learns (Mirzadeh et al. 2020, arXiv:1902.03393), at ``BORN_AGAIN``'s T and alpha."""


class Lesson(NamedTuple):
    """A run that a teacher is made of, or is, and whose weights guide it."""

    config: RunConfig
    guide: RunConfig | None = None


def with_precision(sweep: Sweep, model: str, recipe: Recipe) -> Recipe:
    """The recipe with the precision that holds for this network."""
    if recipe.precision != "auto":
        return recipe
    return recipe.model_copy(update={"precision": sweep.precisions.get(model, "fp32")})


def lessons(sweep: Sweep, number: int = 0) -> tuple[Lesson, ...]:
    """What is run for a teacher, in order; the last one teaches the students.

    A network that a teacher has twice is trained on two seeds; ``number`` counts the teachers of ``teacher_seeds``.
    """
    chain, guide, found = chain_of(sweep.pair.teacher), None, list[Lesson]()
    wanted, seen = Counter(one.model for stage in chain for one in stage), Counter[str]()
    for stage in chain:
        trained = []
        for network in stage:
            seed = sweep.teacher_seed + number * wanted[network.model] + seen[network.model]
            seen[network.model] += 1
            trained.append(_trained(sweep, network, seed, guide))
        found += [Lesson(config, guide) for config in trained]
        guide = trained[0]
        if len(trained) > 1:
            guide = _averaged(trained, sweep.teacher_seed + number)
            found.append(Lesson(guide))
    return tuple(found)


def teacher_config(sweep: Sweep, number: int = 0) -> RunConfig:
    """The run whose network teaches the students (or, with given weights used as they are, that names them)."""
    return lessons(sweep, number)[-1].config


def _trained(sweep: Sweep, network: Network, seed: int, guide: RunConfig | None) -> RunConfig:
    tuned, spec = sweep.teacher_tune is not None, METHODS.get(HARD if guide is None else TEACHES_ASSISTANTS)
    recipe = sweep.teacher_recipe.model_copy(update={"stop_at": network.stop_at})
    return RunConfig(
        data=sweep.data,
        model=network.model,
        teacher=guide.written if guide else None,
        teacher_id=guide.id if guide else None if tuned else sweep.teacher_weights,
        start=sweep.teacher_weights if tuned else None,
        tune=sweep.teacher_tune or "full",
        method=spec.name,
        method_version=spec.version,
        hyper={**spec.defaults, **BORN_AGAIN} if guide else {},
        recipe=with_precision(sweep, network.model, recipe),
        seed=seed,
        phase="teacher",
    )


def _averaged(members: list[RunConfig], seed: int) -> RunConfig:
    """The mean of the members' probabilities, as a run of which nothing is trained."""
    return RunConfig(
        data=members[0].data,
        model="+".join(one.written for one in members),
        teacher_id="+".join(one.id for one in members),
        recipe=members[0].recipe.model_copy(update={"stop_at": None}),
        seed=seed,
        phase="teacher",
    )


def stopped(pair: Pair, stop: int | None) -> Pair:
    """The pair with what ``teacher-recipe.stop-at`` says written where ``--pair`` says it: one spec, however asked."""
    if stop is None:
        return pair
    chain = tuple(tuple(n._replace(stop_at=n.stop_at or stop) for n in stage) for stage in chain_of(pair.teacher))
    return pair.model_copy(update={"teacher": written(chain)})


def check_teacher(sweep: Sweep) -> None:
    """Refuse what a teacher, or one of several networks, cannot be.

    Raises:
        BadInput: weights given for several networks, training stopped that is none or ends there anyway, what is only
            of the other role, or a floor that is no share.
    """
    if sweep.recipe.stop_at is not None:
        raise BadInput("recipe.stop-at: students are trained to the end; teacher-recipe.stop-at stops a teacher")
    if sweep.teacher_recipe.teacher_top_k is not None:
        raise BadInput("teacher-recipe.teacher-top-k: the teacher has no teacher; students have recipe.teacher-top-k")
    if not 0 <= sweep.teacher_floor <= 1:
        raise BadInput(f"teacher-floor must lie in [0, 1], not at {sweep.teacher_floor}")
    networks, epochs = networks_of(sweep.pair.teacher), sweep.teacher_recipe.epochs
    if sweep.teacher_weights is not None and len(networks) > 1:
        raise BadInput(
            f"teacher-weights are of one network, not of '{sweep.pair.teacher}': name one in --pair (several files of "
            "it, with commas, are an ensemble)"
        )
    for network in networks:
        if network.stop_at is not None and sweep.teacher_weights is not None and sweep.teacher_tune is None:
            raise BadInput(f"teacher '{network}': there is no training to stop, its weights are used as they are")
        if network.stop_at is not None and network.stop_at >= epochs:
            raise BadInput(
                f"teacher '{network}' must be stopped before the last of its {counted(epochs, 'epoch')} "
                "(--teacher-epochs)"
            )
