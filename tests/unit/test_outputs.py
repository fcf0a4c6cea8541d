"""Methods that read more than logits, or have parts of their own to train."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.utils import counters

from kdbench.data import Split
from kdbench.errors import BadInput
from kdbench.methods import METHODS, BatchInfo, Loss, Method, Outputs, Range, Taps, method
from kdbench.models import build
from kdbench.teacher import Teacher, asked, cache_bytes, make_teacher, outputs, taps_of
from kdbench.train import Step, run_training
from kdbench.train import checkpoint as checkpoints
from kdbench.train.loop import Trainer
from tests.support.training import DEVICE, RECIPE, Watched, cached, config_of, data_of, live, numbers, same, train


@method("hint", needs={"logits", "pooled"}, space={"weight": Range(0.1, 10)})
class Hint(nn.Module):
    """The teacher's pooled vector from the student's, through a projection and a running mean."""

    def __init__(self, student: Taps, teacher: Taps, *, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.project = nn.Sequential(nn.Linear(student.pooled, teacher.pooled), nn.BatchNorm1d(teacher.pooled))

    def forward(self, student: Outputs, teacher: Outputs, targets: torch.Tensor, batch: BatchInfo) -> Loss:
        hint = F.mse_loss(self.project(student.pooled), teacher.pooled)
        hard = F.cross_entropy(student.logits, targets, label_smoothing=batch.label_smoothing)
        return Loss(hard + self.weight * hint, {"hint": hint, "hard": hard})


@method("attention", needs={"maps"}, pairs="cnn->cnn")
def attention(student: Outputs, teacher: Outputs, targets: torch.Tensor, batch: BatchInfo) -> torch.Tensor:
    (*_, ours), (*_, theirs) = student.maps.values(), teacher.maps.values()
    assert ours.dim() == theirs.dim() == 4 and batch.rows is not None
    gap = F.mse_loss(F.adaptive_avg_pool2d(ours, 1).mean(1), F.adaptive_avg_pool2d(theirs, 1).mean(1))
    return gap + F.cross_entropy(student.logits, targets)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in (Hint, attention):
        monkeypatch.setitem(METHODS.entries, code.kd_method.name, code.kd_method)
    monkeypatch.setattr(checkpoints, "INTERVAL", 0)


class Pooled(Watched):
    """A teacher whose classifier can be looked into."""

    def made(self) -> nn.Module:
        return build("test_efficientnet", classes=10, channels=1, input_size=32, seed=5)

    def get_classifier(self) -> nn.Module:
        return self.body.get_classifier()


HINT = {"method": "hint", "hyper": {"weight": 2.0}}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_part_of_the_method_is_trained_kept_and_resumed_bit_for_bit(tmp_path, optimizer):
    recipe = RECIPE.model_copy(update={"epochs": 3, "optimizer": optimizer, "lr": 0.01, "clip_grad": 1.0})
    config = config_of(recipe, **HINT)
    whole = train(config, tmp_path / "whole", cached(tmp_path / "one", Pooled()))

    def interrupt(log, replayed):
        if not replayed:
            raise KeyboardInterrupt
        return False

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts", cached(tmp_path / "two", Pooled()), interrupt)
    saved = checkpoints.load_checkpoint(tmp_path / "parts", DEVICE)
    fresh = Trainer(config, data_of(), live(Pooled()), DEVICE, Step()).part.state_dict()
    assert saved is not None and saved.method.keys() == fresh.keys()
    assert all(not torch.equal(saved.method[name], value) for name, value in fresh.items())  # running statistics too
    assert same(whole, train(config, tmp_path / "parts", cached(tmp_path / "two", Pooled())))
    plain = train(config_of(), tmp_path / "kd", live())
    assert (whole.result.params, whole.result.macs) == (plain.result.params, plain.result.macs)
    assert whole.model.state_dict().keys() == plain.model.state_dict().keys()
    assert whole.logs[-1].parts["hint"] < whole.logs[0].parts["hint"]


def test_pooled_vectors_come_from_the_cache_as_from_the_live_teacher(tmp_path):
    config, network = config_of(**HINT), Pooled()
    first = train(config, tmp_path / "a", cached(tmp_path, network))
    before = network.images
    assert same(first, train(config, tmp_path / "b", cached(tmp_path, network)))
    assert network.images == before + 2  # one image each to see how long the vector is
    for one, other in zip(numbers(first), numbers(train(config, tmp_path / "c", live(Pooled()))), strict=True):
        assert one["val_acc"] == other["val_acc"]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_step_compiles_the_part_too(tmp_path, monkeypatch, backend):
    """``aot_eager`` traces forward and backward as ``inductor`` does, and leaves out half a minute of C++."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    counters.clear()
    config = config_of(**HINT, model="hinton_mlp_30")
    runs = [
        run_training(config, data=data_of(), teacher=live(Pooled()), workdir=tmp_path, device=DEVICE, step=step)
        for step in (Step(compiled=True), Step())
        if not (tmp_path / "checkpoint.pt").unlink(missing_ok=True)
    ]
    assert counters["stats"]["unique_graphs"] == 2  # the student's and the part's
    assert runs[0].logs[0].train_loss == pytest.approx(runs[1].logs[0].train_loss, rel=2e-4)


def test_maps_come_live_and_only_where_the_pair_is_the_method_s(tmp_path):
    teacher = Teacher(lambda: build("test_resnet", classes=10, channels=1, input_size=32, seed=1), DEVICE, 10)
    config = config_of(method="attention", hyper={})
    assert same(train(config, tmp_path / "a", teacher), train(config, tmp_path / "b", teacher))
    with pytest.raises(BadInput, match=r"'attention' is made for cnn->cnn: this student is a vit"):
        train(config_of(method="attention", hyper={}, model="test_vit"), tmp_path / "c", teacher)
    with pytest.raises(BadInput, match="gives no maps"):
        train(config, tmp_path / "d", live())


@pytest.mark.parametrize("name", [
    "test_resnet", "test_vit", "mobilenetv3_small_050", "levit_128s", "deit_tiny_distilled_patch16_224",
    "mobilenetv4_conv_small_035", "cifar_resnet8x4", "hinton_mlp_30",
])  # fmt: skip
def test_a_look_inside_changes_nothing(name):
    """The classifier's input is what its logits are made of; maps are (C, H, W) and come in order."""
    size = 28 if name.startswith("hinton") else 32
    network, x = build(name, classes=10, channels=1, input_size=size, seed=0).eval(), torch.randn(2, 1, size, size)
    want = network(x)
    classifier = network.get_classifier()
    classifier = classifier[0] if isinstance(classifier, tuple) else classifier
    found = outputs(asked(network, {"pooled"})(x))
    assert torch.equal(found.logits, want) and found.pooled is not None
    if "distilled" not in name and not name.startswith("levit"):  # theirs are means of two heads; a norm comes first
        torch.testing.assert_close(classifier(found.pooled), want)
    if name.startswith("hinton"):
        return
    whole = asked(network, {"pooled", "maps"})
    torch.testing.assert_close(outputs(whole(x)).logits, want)
    taps = taps_of(whole, network, x[:1])
    assert taps.pooled == found.pooled.shape[1] and list(taps.maps) == list(range(1, len(taps.maps) + 1))
    assert taps.maps and all(len(shape) == 3 for shape in taps.maps.values())
    assert taps.kind == ("vit" if any(part in name for part in ("vit", "deit")) else "cnn")


def test_a_version_of_a_loss_is_part_of_the_id_unless_it_is_the_first():
    base = config_of()
    assert base.method_version == 1 and "method_version" not in base.model_dump()
    assert config_of(method_version=2).id != base.id
    assert Method(name="x").version == 1


def test_a_disk_without_room_for_a_record_means_a_live_teacher(tmp_path, monkeypatch):
    """Whatever the record itself has taken meanwhile; and of numbered views no more is reserved than will be read."""
    split = data_of(0, None, None, "resized-crop").train
    few, many = data_of(0, True).train, data_of(1).train
    enough = 2 * cache_bytes(len(split), 10, 3)

    def keyed(free: int, split: Split = split, root: Path = tmp_path / "not" / "yet") -> str:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
        return make_teacher(Watched, DEVICE, 10, root=root, teacher_id="t", split=split, passes=3).keyed

    assert [keyed(enough), keyed(enough - 1)] == ["epoch", "live"]
    assert (few.n_views, many.n_views) == (2, 9) and [keyed(enough, few), keyed(enough, many)] == ["view", "epoch"]
    (tmp_path / "record").write_bytes(bytes(999))
    assert [keyed(enough - 999, root=tmp_path), keyed(enough - 1000, root=tmp_path)] == ["epoch", "live"]


def test_pooled_vectors_without_room_are_asked_live_and_logits_are_kept(tmp_path, monkeypatch):
    split = data_of(0, True).train
    free = 2 * (cache_bytes(len(split), 10, 2, pooled=128) - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    network = Watched()
    teacher = make_teacher(lambda: network, DEVICE, 10, root=tmp_path, teacher_id="t", split=split, passes=3)
    monkeypatch.setattr(teacher, "_pooled", 128)
    assert teacher.keyed == "view" and teacher.fills(split) and not teacher.fills(split, {"logits", "pooled"})
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free + 4))
    monkeypatch.setattr(teacher, "_roomy", None)
    assert teacher.fills(split, {"logits", "pooled"})
