"""One run in two processes (gloo, on the CPU) beside the same run in one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from kdbench.config import Recipe
from kdbench.data import StreamSplit
from kdbench.errors import BadInput
from kdbench.methods import METHODS
from kdbench.models import build
from kdbench.teacher import Keyed, Teacher
from kdbench.train import Step
from kdbench.train.loop import Trainer
from kdbench.train.parallel import ALONE, Group
from tests.support.processes import fork
from tests.support.training import RECIPE, config_of, data_for

CPU = torch.device("cpu")
Found = dict[str, tuple[Tensor, list[Tensor]]]
LOW = RECIPE.model_copy(update={"epochs": 2, "lr": 0.002, "input_size": 16})


class Case(NamedTuple):
    method: str
    student: str = "test_resnet"
    keyed: Keyed = "view"
    recipe: Recipe = LOW


CASES = {
    "hard": Case("hard"),
    "kd cached": Case("kd"),
    "kd live": Case("kd", keyed="live"),
    "streamed": Case("kd", keyed="epoch", recipe=LOW.model_copy(update={"views": "resized-crop"})),
    "compares samples": Case("rkd"),
    "learns, remembers samples": Case("crd"),
    "learns, reads maps": Case("vid"),
    "attention": Case("kd", "test_vit", recipe=LOW.model_copy(update={"optimizer": "adamw", "clip_grad": 1.0})),
    "average and parts of an update": Case("kd", recipe=LOW.model_copy(update={"ema": 0.9, "accumulate": 2})),
}


def trained(case: Case, root: Path, group: Group) -> tuple[Tensor, list[Tensor]]:
    """(Loss, accuracy and parts of every step of two epochs; the trained weights, and the method's own.)"""
    torch.set_num_threads(1)
    network = build("test_resnet", classes=10, channels=1, input_size=16, seed=1)
    teacher = Teacher(lambda: network, CPU, 10, keyed=case.keyed, root=root, teacher_id="teacher")
    spec = METHODS.get(case.method)
    hyper = {name: one.low or 0.5 for name, one in spec.space.items()} | spec.defaults
    config = config_of(case.recipe, model=case.student, method=case.method, hyper=hyper)
    step, data = group.step(Step(kernels=False)), data_for(case.recipe)
    trainer = Trainer(config, data, teacher if spec.needs else None, CPU, step, None, group)
    assert isinstance(data.train, StreamSplit) == (case.recipe.views != "crop")
    rows = []
    for epoch in (1, 2):
        trainer.train(epoch)
        rows += trainer._rows
    return torch.stack(rows), [p.detach().clone() for p in (*trainer.shown.parameters(), *trainer.part.parameters())]


def one_of_two(rank: int, root: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{root}/meet", rank=rank, world_size=2)
    group = Group(rank, 2)
    assert group.agreed(rank == 0) and not group.agreed(rank == 1)
    found = {name: trained(case, root / name, group) for name, case in CASES.items()}
    torch.save(found, root / f"{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    root = tmp_path_factory.mktemp("both")
    for process in [fork(one_of_two, rank, root) for rank in (0, 1)]:
        process.join()
    return [torch.load(root / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(
    name: str, both: list[dict[str, tuple[Tensor, list[Tensor]]]], tmp_path: Path
) -> None:
    """Losses of two epochs to 1e-3 (the gradient of a batch norm in fp32 is itself good to 3e-4 here)."""
    rows, weights = trained(CASES[name], tmp_path, ALONE)
    torch.testing.assert_close(both[0][name][0], rows, rtol=1e-3, atol=2e-3)
    for one, other, alone in zip(both[0][name][1], both[1][name][1], weights, strict=True):
        assert torch.equal(one, other)
        assert float((one - alone).norm()) <= 2e-3 * float(alone.norm()) + 1e-4


@pytest.mark.parametrize(("more", "method", "says"), [
    ({"batch_size": 63}, "hard", "batches of 63 images do not divide by it"),
    ({"mixup": 0.2}, "hard", "recipe.mixup=0.2 joins images of one batch"),
    ({"model_options": {"drop_rate": 0.1}}, "hard", "draws noise"),
    ({}, "sdd", "sdd learns from more than gathered outputs"),
])  # fmt: skip
def test_what_would_be_another_run_is_refused(more: dict[str, object], method: str, says: str) -> None:
    recipe = Recipe.model_validate(LOW.model_dump() | more)
    teacher = Teacher(lambda: build("test_resnet", classes=10, channels=1, input_size=16, seed=1), CPU, 10)
    with pytest.raises(BadInput, match=f"--gpus-per-run 2: .*{says}"):
        Trainer(config_of(recipe, method=method), data_for(recipe), teacher, CPU, Step(), None, Group(0, 2))
