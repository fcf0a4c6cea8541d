"""Teachers of several networks: how they are written, which runs make them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdbench.catalog.teachers import chain_of, written
from kdbench.config import RunResult
from kdbench.errors import BadInput, KdbenchError
from kdbench.models import Ensemble
from kdbench.sweeps.plan import SweepPlan
from kdbench.sweeps.run import check_inputs
from kdbench.sweeps.teachers import lessons, teacher_config
from tests.support.sweeps import LARGE, SMALL, TEACHER, ended, spec, walk


def taught_by(teacher: str, **options: Any) -> SweepPlan:
    return SweepPlan(spec(pair=f"{teacher}:{SMALL}", teacher_epochs=3, **options))


@pytest.mark.parametrize("text", ["a", "a@3", "a+b", "a+a@2>b>c", "a@1>a"])
def test_what_is_read_is_what_is_written(text: str) -> None:
    assert written(chain_of(text)) == text == written(chain_of(text.replace(">", " > ").replace("+", " + ")))


@pytest.mark.parametrize(
    ("text", "says"),
    [("a+", "no network beside it"), (">a", "no network"), ("a@", "not ''"), ("a@0", "not '0'"), ("a@x", "not 'x'"),
     ("a>b+c", "an ensemble comes first")],
)  # fmt: skip
def test_what_cannot_be_read_is_named(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        chain_of(text)


def test_each_network_is_a_run_that_other_teachers_share() -> None:
    """A member is the very run that teaches alone; an assistant is one with a teacher; the mean trains nothing."""
    plan = taught_by(f"{TEACHER}+{LARGE}>{SMALL}")
    member, other, mean, assistant = (lesson.config for lesson in lessons(plan.sweep))
    assert [member.id, other.id] == [taught_by(name).teacher.id for name in (TEACHER, LARGE)]
    assert (mean.model, mean.teacher_id) == (f"{TEACHER}+{LARGE}", f"{member.id}+{other.id}")
    assert mean.given and mean.averaged == (member.id, other.id) and not member.given and not member.averaged
    assert (assistant.teacher, assistant.teacher_id, assistant.method) == (mean.model, mean.id, "kd")
    assert assistant.hyper == {"temperature": 4.0, "alpha": 0.9} and assistant.recipe == member.recipe
    jobs = walk(plan, {})
    assert [job.config for job in jobs[:4]] == [member, other, mean, assistant]
    assert [job.teacher for job in jobs[:4]] == [None, None, None, mean] and assistant in jobs[2].serves
    assert {job.config.teacher for job in jobs if job.config.method == "kd" and job.config.phase != "teacher"} == {
        f"{TEACHER}+{LARGE}>{SMALL}"
    }  # fmt: skip
    assert [job.config for job in jobs if job.task == "test"] == [assistant]


def test_a_network_twice_is_trained_on_two_seeds_and_no_two_teachers_share_one() -> None:
    sweep = taught_by(f"{TEACHER}+{TEACHER}>{TEACHER}", teacher_seeds=2, seeds=2).sweep
    runs = [lesson.config for number in (0, 1) for lesson in lessons(sweep, number) if not lesson.config.averaged]
    assert [run.seed for run in runs] == [0, 1, 2, 3, 4, 5] and len({run.id for run in runs}) == 6


def test_stopping_is_one_spec_however_it_is_asked_for() -> None:
    by_sign, by_key = taught_by(f"{TEACHER}@2"), taught_by(TEACHER, **{"teacher-recipe__stop_at": 2})
    assert by_sign.spec() == by_key.spec() and by_sign.teacher.recipe.stop_at == 2
    assert by_sign.sweep.recipe.stop_at is None and by_sign.teacher.written == f"{TEACHER}@2"
    assert by_sign.teacher.id != taught_by(TEACHER).teacher.id


@pytest.mark.parametrize(
    ("teacher", "options", "says"),
    [
        (TEACHER, {"recipe__stop_at": 1}, "students are trained to the end"),
        (f"{TEACHER}@3", {}, "before the last of its 3 epochs"),
        (f"{TEACHER}>{LARGE}", {"teacher_weights": "pretrained"}, "of one network"),
        (f"{TEACHER}+nobody", {}, "unknown teacher 'nobody'"),
        ("vit>resnet18", {}, "'vit' is a family"),
    ],
)
def test_a_teacher_that_cannot_be_is_refused(teacher: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        taught_by(teacher, **options)


@pytest.mark.parametrize(
    ("teacher", "weights", "method", "says"),
    [
        (f"{TEACHER}+{LARGE}", None, "srrl", "'srrl' reads pooled of its teacher, an ensemble gives logits alone"),
        (TEACHER, "file:a,file:b", "reviewkd", "'reviewkd' reads maps and pooled of its teacher"),
        (f"{TEACHER}+{LARGE}", None, "wkd-l", "'wkd-l' needs a teacher whose classifier is one linear layer"),
        (LARGE, "file:a", "at", "'at' is made for cnn->cnn: this teacher is a vit"),
    ],
)
def test_a_method_that_a_teacher_does_not_fit_is_refused_in_the_plan(
    teacher: str, weights: str | None, method: str, says: str, tmp_path: Path
) -> None:
    sweep = taught_by(teacher, method=method).sweep.model_copy(update={"teacher_weights": weights})
    with pytest.raises(BadInput, match=says):
        check_inputs(sweep, tmp_path, {})


def test_only_who_teaches_students_must_reach_the_floor() -> None:
    finished: dict[str, RunResult] = {}
    plan = taught_by(f"{TEACHER}>{LARGE}", teacher_floor=0.8)
    first = next(iter(plan.jobs(finished)))
    finished[first.id] = ended(first, val_acc=0.3)
    plan.ended(first, finished[first.id])
    second = next(iter(plan.jobs(finished)))
    with pytest.raises(KdbenchError, match=rf"{TEACHER}>{LARGE} reached 30.00%"):
        plan.ended(second, ended(second, val_acc=0.3))


def test_the_mean_of_probabilities() -> None:
    networks = [nn.Linear(4, 3) for _ in range(3)]
    x = torch.randn(5, 4)
    mean = torch.stack([network(x).softmax(1) for network in networks]).mean(0)
    torch.testing.assert_close(Ensemble(networks, arithmetic=True)(x).exp(), mean)
    torch.testing.assert_close(Ensemble(networks)(x), torch.stack([network(x) for network in networks]).mean(0))


def test_teacher_config_is_the_last_lesson() -> None:
    sweep = taught_by(f"{TEACHER}>{LARGE}", teacher_seeds=2, seeds=2).sweep
    assert teacher_config(sweep, 1) == lessons(sweep, 1)[-1].config != teacher_config(sweep)
