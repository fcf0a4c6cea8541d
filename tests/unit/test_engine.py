"""A training run: the same however often it is interrupted, cached teacher or live, and sensitive to every knob."""

from __future__ import annotations

import math
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.config import DataConfig, Recipe, RunConfig
from kdbench.data import TaskData, load, resolve_dataset
from kdbench.errors import BadInput, TrialFailed
from kdbench.methods import LOGITS, METHODS
from kdbench.models import build
from kdbench.teacher import Teacher, make_teacher
from kdbench.teacher.logit_cache import CHUNK
from kdbench.train import Step, beside
from kdbench.train.checkpoint import NAME
from kdbench.train.metrics import calibration_temperature, collect_logits
from kdbench.train.optim import FLOOR, make_optimizer, make_schedule
from tests.support.training import (
    DEVICE,
    KD,
    RECIPE,
    STEPS,
    Watched,
    cached,
    config_of,
    data_of,
    live,
    numbers,
    same,
    train,
)


@pytest.mark.parametrize("keyed", ["view", "epoch"])
def test_the_cache_gives_the_training_that_the_live_teacher_gives(tmp_path, keyed):
    """Logits of a batch cut otherwise differ in the last bits, which 16 bits round away or not: 1e-3 is ample."""
    config = config_of(RECIPE.model_copy(update={"epochs": 2}))
    network = Watched()
    a, b = train(config, tmp_path / "a", live()), train(config, tmp_path / "b", cached(tmp_path, network, keyed))
    for x, y in zip(a.logs, b.logs, strict=True):
        assert x.parts.keys() == {"soft", "hard"} and x.parts["soft"] > 0.01
        pairs = [(x.train_loss, y.train_loss), (x.val_loss, y.val_loss), (x.val_kl, y.val_kl)]
        for one, other in [*pairs, *((x.parts[k], y.parts[k]) for k in x.parts)]:
            assert one == pytest.approx(other, rel=1e-3)
    assert abs(a.result.val_acc - b.result.val_acc) <= 1 / len(data_of().val)
    before = network.images
    assert same(b, train(config, tmp_path / "c", cached(tmp_path, network, keyed))) and network.images == before


def test_two_workers_share_the_teacher_s_pass_over_a_split(tmp_path):
    """One stops half way; the other leaves out what is there, and reads what a live teacher says."""
    val = load(resolve_dataset("digits")[0], DataConfig(name="digits", val_fraction=0.6), RECIPE, DEVICE).val
    assert len(val) > 3 * CHUNK

    class Stopping(Watched):
        def forward(self, x):
            if self.images >= 2 * CHUNK:
                raise KeyboardInterrupt
            return super().forward(x)

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, first := Stopping()).plain(val)
    network = Watched()
    logits = cached(tmp_path, network).plain(val)
    assert network.images == len(val) - first.images > 0
    assert torch.equal(logits, live().plain(val))


def test_views_without_numbers_cost_one_teacher_pass_an_epoch_however_many_trials(tmp_path):
    config = config_of(RECIPE.model_copy(update={"epochs": 2, "views": "resized-crop", "pad": 0}))
    network = Watched()
    train_split = data_of(0, None, None, "resized-crop").train
    assert train_split.n_views is None

    def recorded() -> Teacher:
        return make_teacher(lambda: network, DEVICE, 10, root=tmp_path, teacher_id="t", split=train_split, passes=2)

    first = train(config, tmp_path / "a", recorded())
    before = network.images
    assert same(first, train(config, tmp_path / "b", recorded())) and network.images == before
    assert same(first, train(config, tmp_path / "c", live()))
    other = config.model_copy(update={"seed": 4})
    assert not same(first, train(other, tmp_path / "d", recorded())) and network.images > before


@pytest.mark.parametrize("views", ["crop", "resized-crop"])
def test_a_few_logits_of_a_view_are_the_same_kept_or_computed(tmp_path, views):
    config = config_of(RECIPE.model_copy(update={"views": views, "pad": 0, "teacher_top_k": 3}))
    split, network = data_of(0, None, None, views).train, Watched()

    def kept(top_k: int | None) -> Teacher:
        root = tmp_path / str(top_k)
        return make_teacher(lambda: network, DEVICE, 10, root=root, teacher_id="t", split=split, passes=1, top_k=top_k)

    first = train(config, tmp_path / "a", kept(3))
    before = network.images
    assert same(first, train(config, tmp_path / "b", kept(3))) and network.images == before
    assert same(first, train(config, tmp_path / "c", kept(None))) and same(first, train(config, tmp_path / "d", live()))
    for k in (10, 11):
        with pytest.raises(BadInput, match=rf"recipe.teacher-top-k={k}: of 10 classes, give 1 to 9"):
            kept(k)


@pytest.mark.parametrize(("model", "optimizer"), [("test_resnet", "sgd"), ("test_vit", "adamw")])
def test_interrupted_after_every_epoch_equals_uninterrupted_bit_for_bit(tmp_path, model, optimizer):
    recipe = RECIPE.model_copy(update={"epochs": 3, "optimizer": optimizer, "lr": 0.01, "warmup_epochs": 1.0})
    config = config_of(recipe, model=model)
    whole = train(config, tmp_path / "whole", cached(tmp_path / "one"))
    told: list[tuple[int, bool]] = []

    def interrupt(log, replayed):
        told.append((log.epoch, replayed))
        if not replayed:
            raise KeyboardInterrupt
        return False

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts", cached(tmp_path / "two"), interrupt)
    pieced = train(config, tmp_path / "parts", cached(tmp_path / "two"))
    assert same(whole, pieced) and (whole.result.attempts, pieced.result.attempts) == (1, 4)
    assert told == [(1, False), (1, True), (2, False), (1, True), (2, True), (3, False)]
    assert len((tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()) == 3


def saved(**changes: object) -> bytes:
    """A checkpoint that can be read."""
    held = {"model": {}, "optimizer": {}, "logs": [], "attempts": 1, "run": "another"}
    torch.save(held | changes, buffer := BytesIO())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda whole: b"", lambda whole: whole[:-900], lambda whole: b"\x80junk"),
        *(lambda whole: saved(), lambda whole: saved(more=1), lambda whole: saved(logs=[{"epoch": "x"}])),
    ],
)
def test_a_checkpoint_that_cannot_be_read_starts_the_run_over(tmp_path, damage):
    whole = train(config_of(method="hard"), tmp_path)
    (tmp_path / NAME).write_bytes(damage((tmp_path / NAME).read_bytes()))
    again = train(config_of(method="hard"), tmp_path)
    assert same(whole, again) and again.result.attempts == 1


CROP = {"views": "resized-crop", "pad": 0}
STEP = {"schedule": "step", "milestones": (1,), "epochs": 2}
CHANGES: dict[str, tuple[dict[str, object], object]] = {  # field: (what it needs beside it, another value)
    "epochs": ({}, 2), "batch_size": ({}, 50), "optimizer": ({}, "adamw"), "lr": ({}, 0.04), "momentum": ({}, 0.5),
    "nesterov": ({}, False), "weight_decay": ({}, 0.05), "schedule": ({}, "constant"), "milestones": (STEP, ()),
    "gamma": (STEP, 0.5), "warmup_epochs": ({}, 0.7), "label_smoothing": ({}, 0.1), "clip_grad": ({}, 0.5),
    "pad": ({}, 2), "flip": ({}, True), "input_size": ({}, 40), "stem": ({}, "small"), "precision": ({}, "bf16"),
    "views": ({}, "resized-crop"), "max_norm": ({}, 0.3), "model_options": ({}, {"drop_rate": 0.4}),
    "teacher_top_k": ({}, 2), "min_lr": ({}, 0.04), "warmup_lr": ({"warmup_epochs": 0.7}, 0.03),
    "layer_decay": ({}, 0.5), "accumulate": ({}, 2), "ema": ({}, 0.5), "bce": ({}, True),
    "bce_threshold": ({"bce": True, "label_smoothing": 0.5}, 0.02), "crop_scale": (CROP, (0.5, 0.6)),
    "crop_ratio": (CROP, (0.5, 0.6)), "interpolation": (CROP, "bicubic"), "augment": ({}, "rand-m9"), "erase": ({}, 1),
    "repeats": ({}, 3), "mixup": ({}, 1.0), "cutmix": ({}, 1.0),
    "mix_switch": ({"mixup": 1.0, "cutmix": 1.0}, 1.0), "test_crop": ({}, 0.5),
    "network_size": ({}, 24), "network_interpolation": ({"network_size": 40}, "bicubic"), "mean": ({}, (0.1,)),
    "std": ({}, (0.5,)), "stop_at": ({"epochs": 2}, 1), "freeze": ({}, 1),
}  # fmt: skip
SAYS = {"max_norm": "hinton_mlp_30"}
"""Fields that only some networks have a use for."""


@lru_cache
def last_epoch(config_json: str, root: str) -> tuple[float, float]:
    config = RunConfig.model_validate_json(config_json)
    log = train(config, Path(root) / config.id, live()).logs[-1]
    return log.train_loss, log.val_loss


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("runs"))


def differ(a: RunConfig, b: RunConfig, root: str) -> bool:
    one, other = (last_epoch(config.model_dump_json(), root) for config in (a, b))
    return abs(one[1] - other[1]) > 1e-5 * one[1]


@pytest.mark.parametrize("field", list(Recipe.model_fields))
def test_every_field_of_a_recipe_changes_the_run(shared, field):
    beside, value = CHANGES[field]
    base, model = RECIPE.model_copy(update=beside), SAYS.get(field, "test_resnet")
    changed = base.model_copy(update={field: value})
    assert differ(config_of(base, model=model), config_of(changed, model=model), shared)


@pytest.mark.parametrize("change", [
    {"seed": 4}, {"model": "test_efficientnet"}, {"method": "hard", "hyper": {}}, {"method": "kd-ls"},
    {"hyper": {**KD, "temperature": 8.0}}, {"hyper": {**KD, "alpha": 0.3}}, {"hyper": {**KD, "soft_weight": 1.4}},
])  # fmt: skip
def test_every_field_of_a_trial_changes_the_run(shared, change):
    assert differ(config_of(), config_of(**change), shared)


@pytest.mark.parametrize(
    "name",
    [name for name, spec in METHODS.entries.items() if spec.space and spec.needs <= LOGITS and name != "wkd-l"],
)
def test_every_searched_hyper_parameter_changes_the_run(shared, name):
    spec = METHODS.get(name)
    base = {**spec.defaults, **{k: 0.7 * d.low + 0.3 * d.high for k, d in spec.space.items()}}
    for knob, dimension in spec.space.items():
        other = {**base, knob: 0.3 * dimension.low + 0.7 * dimension.high}
        assert differ(config_of(method=name, hyper=base), config_of(method=name, hyper=other), shared), knob


@pytest.mark.parametrize(("batch", "where"), [
    (64, r"non-finite loss in epoch 1, step [23] of 3: loss=\S+, acc=\S+, soft=\S+, hard=\S+$"),
    (200, r"non-finite validation loss after epoch 1: nll=(nan|inf)"),
])  # fmt: skip
def test_a_loss_that_is_no_number_fails_the_trial_with_place_and_values(tmp_path, batch, where):
    with pytest.raises(TrialFailed, match=where):
        train(config_of(RECIPE.model_copy(update={"lr": 1e30, "batch_size": batch})), tmp_path, live())


def test_the_test_split_is_opened_by_confirm_alone_and_once(tmp_path, monkeypatch):
    opened, real = [], TaskData.test
    monkeypatch.setattr(TaskData, "test", lambda data: opened.append(1) or real(data))
    phases = {
        phase: train(config_of(phase=phase), tmp_path / phase, live()) for phase in ("teacher", "baseline", "search")
    }
    assert not opened and all(o.result.test_acc is None for o in phases.values())
    confirm = train(config_of(phase="confirm"), tmp_path / "confirm", live())
    assert len(opened) == 1
    logits, labels = collect_logits(confirm.model, real(data_of()))
    assert confirm.result.test_acc == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert confirm.result.nll == pytest.approx(float(F.cross_entropy(logits, labels)))
    t = calibration_temperature(*collect_logits(confirm.model, data_of().val))
    assert t is not None and confirm.result.calibration_temperature == pytest.approx(t)
    assert confirm.result.scaled_nll == pytest.approx(float(F.cross_entropy(logits.double() / t, labels)))
    assert phases["search"].result.scaled_ece is None
    assert (
        confirm.result.val_acc == phases["search"].result.val_acc and confirm.result.nll != phases["search"].result.nll
    )


def test_the_student_trains_in_train_mode_and_the_teacher_speaks_in_eval_mode(tmp_path, monkeypatch):
    modes: list[tuple[bool, bool]] = []

    def watched_build(*args, **kwargs):
        model = build(*args, **kwargs)
        model.register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
        return model

    monkeypatch.setattr(beside, "build", watched_build)
    for teacher in (live(network := Watched()), cached(tmp_path, network)):
        modes.clear()
        outcome = train(
            config_of(RECIPE.model_copy(update={"epochs": 2})), tmp_path / teacher.keyed, teacher, step=Step()
        )
        assert modes.count((True, True)) == 2 * STEPS and set(modes) == {(True, True), (False, False)}
        assert not outcome.model.training
    assert network.modes == {(False, False, False)}


@pytest.mark.parametrize("make", [lambda root, network: live(network), cached], ids=["live", "cached"])
def test_the_hard_baseline_asks_the_teacher_for_validation_only(tmp_path, make):
    network = Watched()
    with_teacher = train(config_of(method="hard"), tmp_path / "a", make(tmp_path, network))
    assert network.images == len(data_of().val) and 0 <= with_teacher.result.agreement <= 1
    alone = train(config_of(method="hard"), tmp_path / "b")
    assert alone.result.agreement is None and alone.logs[0].val_loss == with_teacher.logs[0].val_loss
    with pytest.raises(ValueError, match="'kd' needs a teacher"):
        train(config_of(), tmp_path / "c")


def test_kd_with_alpha_0_trains_the_hard_baseline(tmp_path):
    kd = train(config_of(hyper={**KD, "alpha": 0.0}), tmp_path / "kd", live())
    hard = train(config_of(method="hard", hyper={}), tmp_path / "hard")
    assert kd.logs[-1].val_loss == pytest.approx(hard.logs[-1].val_loss, rel=1e-6)


def test_stopped_early_is_the_start_of_the_whole_schedule(tmp_path):
    whole = config_of(RECIPE.model_copy(update={"epochs": 3}), method="hard")
    stopped = whole.model_copy(update={"recipe": whole.recipe.model_copy(update={"stop_at": 2})})
    runs = [numbers(train(config, tmp_path / str(config.recipe.stop_at))) for config in (whole, stopped)]
    assert runs[1][:2] == runs[0][:2] and (runs[1][2]["epochs"], runs[1][2]["status"]) == (2, "complete")


@pytest.mark.parametrize(("at", "status", "epochs"), [(1, "pruned", 1), (3, "complete", 3), (9, "complete", 3)])
def test_a_hook_prunes_the_run_unless_it_is_over_anyway(tmp_path, at, status, epochs):
    config = config_of(RECIPE.model_copy(update={"epochs": 3}), method="hard")
    result = train(config, tmp_path, on_epoch=lambda log, replayed: log.epoch >= at).result
    assert (result.status, result.epochs) == (status, epochs)
    assert result.best_val_acc >= result.val_acc > 0 and result.params > 0 < result.macs


def trace(recipe: Recipe, steps: int) -> list[float]:
    optimizer = make_optimizer(nn.Linear(2, 2), recipe)
    schedule, rates = make_schedule(optimizer, recipe, steps), []
    for update in range(recipe.epochs * steps):
        schedule.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def by_hand(recipe: Recipe, steps: int, n: int) -> float:
    warm, total, low = round(recipe.warmup_epochs * steps), recipe.epochs * steps, recipe.lr * FLOOR
    if n < warm:
        return low + (recipe.lr - low) * n / warm
    if recipe.schedule == "cosine":
        return low + (recipe.lr - low) * (1 + math.cos(math.pi * (n - warm) / (total - warm))) / 2
    drops = sum(n // steps >= m for m in recipe.milestones) if recipe.schedule == "step" else 0
    return recipe.lr * recipe.gamma**drops


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@pytest.mark.parametrize(("warmup", "epochs"), [(0, 1), (0, 6), (1.5, 6)])
def test_the_learning_rate_follows_the_formula_at_every_update(schedule, warmup, epochs):
    """``step`` drops the rate after the epochs named: update m·steps is the first with the lower one."""
    recipe = Recipe(epochs=epochs, lr=0.2, warmup_epochs=warmup, schedule=schedule, milestones=(4, 2), gamma=0.1)
    assert trace(recipe, 5) == pytest.approx([by_hand(recipe, 5, n) for n in range(5 * epochs)])


def test_a_warm_up_longer_than_the_run_ends_at_the_peak():
    rates = trace(Recipe(epochs=2, lr=0.2, warmup_epochs=5), 5)
    assert rates == sorted(rates) and rates[-1] == pytest.approx(0.2)


def test_weight_decay_spares_norms_and_biases_under_adamw_only():
    model = build("test_resnet", classes=10, channels=1, input_size=32, seed=0)
    for optimizer, spared in (("adamw", True), ("sgd", False)):
        recipe = Recipe(optimizer=optimizer, weight_decay=0.1, momentum=0.8)
        made = make_optimizer(model, recipe)
        decays = {id(p): g["weight_decay"] for g in made.param_groups for p in g["params"]}
        assert len(decays) == len(list(model.parameters()))
        for name, p in model.named_parameters():
            assert decays[id(p)] == (0 if spared and (p.ndim <= 1 or name.endswith("bias")) else 0.1), name
    assert (made.defaults["momentum"], made.defaults["nesterov"]) == (0.8, True)
    assert not make_optimizer(model, Recipe(momentum=0.0)).defaults["nesterov"]  # torch refuses the pair
