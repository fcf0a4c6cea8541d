"""The controls of a sweep: what else than the teacher's knowledge could explain a gain."""

from __future__ import annotations

from collections.abc import Mapping

from kdbench.config import Hyper
from kdbench.sweeps.types import Sweep

SMOOTHING = 0.1
"""Label smoothing of the control ``smoothing`` (Szegedy et al. 2016, arXiv:1512.00567)."""
BORN_AGAIN: Hyper = {"temperature": 4.0, "alpha": 0.9}
"""Of the control ``self`` (Furlanello et al. 2018, arXiv:1805.04770) where the sweep has no kd, whose winner it shares;
the values that the authors of CRD compare methods under."""
LONGEST = 20
"""Times the recipe's epochs that the control ``compute`` trains at most."""


def compute_epochs(
    sweep: Sweep, macs: Mapping[str, int], teacher_macs: int, views: int | None, trials: int, passed: int | None = None
) -> dict[str, int]:
    """Epochs on hard labels, by student, that cost as much computing as distilling did; ``LONGEST`` times at most.

    Counted, never timed: an image costs three forward passes to train on (one forward, two backward), one to ask the
    teacher about. The teacher's training (none where its weights were given) and its views of two seeds, the search's
    and one of confirm, are shared evenly by the students; each adds its search, none of it pruned, and one confirm run.

    Args:
        sweep: the sweep.
        macs: of a forward pass of one image, by student.
        teacher_macs: the teacher's (of an ensemble all members').
        views: distinct views of a sample that the teacher is asked about at most; None: every epoch has its own.
        trials: search trials of a student and method.
        passed: forward passes of the training of the teacher and its assistants, in multiply-accumulates of an image,
            where that is not one network's training.
    """
    epochs, students = sweep.recipe.epochs, sweep.pair.students
    passes = {"head": 1, "full": 3}[sweep.teacher_tune or "full"]
    passed = teacher_macs * sweep.teacher_recipe.epochs if passed is None else passed
    taught = 0 if sweep.teacher_weights and not sweep.teacher_tune else passes * passed
    asked = 2 * epochs if views is None else min(2 * epochs, views)
    shared = (taught + teacher_macs * asked) / len(students)
    whole = {student: (trials + 1) * epochs + shared / (3 * max(macs[student], 1)) for student in students}
    return {student: min(LONGEST * epochs, round(count)) for student, count in whole.items()}


def capped(lengthened: Mapping[str, int], epochs: int) -> list[str]:
    """A note on students whose ``compute_epochs`` are all that is allowed beside the recipe's ``epochs``."""
    short = [student for student, count in lengthened.items() if count >= LONGEST * epochs]
    return [f"The control compute ends at {LONGEST} times the recipe's epochs, below what distilling cost, for "
            f"{', '.join(short)}."] if short else []  # fmt: skip
