"""Augmentation, mixing, losses, optimisers, schedules and averages against timm's own, by values."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.random_erasing import RandomErasing
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

from kdbench.catalog.recipes import PRESETS
from kdbench.config import Recipe
from kdbench.data.augment import Drawn, drawn_from, erase, mix
from kdbench.data.samples import MASK, ArraySamples, Fit, key64
from kdbench.data.splits import ResidentSplit, StreamSplit, epoch_batches
from kdbench.data.views import Look, More, augment_of
from kdbench.errors import BadInput
from kdbench.methods import BatchInfo, Outputs
from kdbench.methods.logits import cross_entropy
from kdbench.models import build
from kdbench.train.loop import Trainer
from kdbench.train.optim import check_recipe, make_optimizer, make_schedule
from kdbench.train.step import REFERENCE
from tests.support.training import DEVICE, RECIPE, config_of, data_for

DRAWN = [name for name in PRESETS if PRESETS[name].recipe["views"] == "resized-crop"]
rng = np.random.default_rng(0)


def of(name: str, **more: object) -> Recipe:
    return Recipe.model_validate(PRESETS[name].recipe | more)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", DRAWN)
def test_a_view_is_what_timm_s_transform_makes_in_the_same_random_state(name, channels):
    """As ``timm.data.create_loader`` builds it from the arguments of ``train.py``."""
    r, mean = of(name), (0.4,) * channels
    look, augment = Look(40, mean, (0.2,) * channels), augment_of(r, flip=True)
    ours = Drawn(Fit(40, channels, "resize"), augment, look, 7, None)
    theirs = create_transform(
        (channels, 40, 40), is_training=True, scale=r.crop_scale, ratio=r.crop_ratio, hflip=0.5, color_jitter=0.0,
        auto_augment=r.augment, interpolation=r.interpolation, mean=mean, normalize=False,
    )  # fmt: skip
    for entry in range(40):  # enough to draw each of RandAugment's operations
        pixels = rng.integers(0, 256, (52, 48, channels), dtype=np.uint8)
        found = ours(pixels, entry)
        seed = key64(7, entry)
        random.seed(seed), np.random.seed(seed & MASK), torch.manual_seed(seed)
        wanted = theirs(Image.fromarray(pixels[..., 0] if channels == 1 else pixels))
        assert np.array_equal(found, wanted.numpy().transpose(1, 2, 0))


@pytest.mark.parametrize("policy", ["rand-m10-p1-n15-inc1", "original-mstd0.5", "augmix-m10"])
def test_no_operation_at_its_strongest_ends_a_run(policy):
    """Pillow refuses what timm asks of posterize at magnitude 10."""
    look, augment = Look(12, (0.5,) * 3, (0.2,) * 3), augment_of(Recipe(augment=policy), flip=True)
    drawn = Drawn(Fit(12, 3, "resize"), augment, look, 0, lambda image, entry: image)
    seen = {drawn(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), entry).tobytes() for entry in range(60)}
    assert len(seen) > (10 if policy.startswith("rand") else 50)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_mixing_is_timm_s_in_the_same_random_state(mixup, cutmix):
    x, y, kinds = torch.randn(6, 3, 17, 16), torch.tensor([0, 1, 2, 3, 3, 1]), set()
    mixer = Mixup(mixup, cutmix, label_smoothing=0.1, num_classes=4)
    for salt in range(30):
        ours, theirs = x.clone(), x.clone()
        share = mix(ours, More(mixup=mixup, cutmix=cutmix, batch=6), salt)
        np.random.seed(salt)
        theirs, targets = mixer(theirs, y)
        assert torch.equal(ours, theirs)
        student = Outputs(torch.randn(6, 4))
        hot = torch.nn.functional.one_hot(y, 4).float()
        batch = BatchInfo(label_smoothing=0.1, mixed=share * hot + (1 - share) * hot.flip(0))
        expected = SoftTargetCrossEntropy()(student.logits, targets)
        assert float(cross_entropy(student, y, batch)) == pytest.approx(float(expected), rel=1e-5)
        for threshold in (None, 0.2):
            batch = BatchInfo(label_smoothing=0.1, mixed=batch.mixed, bce=True, bce_threshold=threshold)
            expected = BinaryCrossEntropy(target_threshold=threshold)(student.logits, targets)
            assert float(cross_entropy(student, y, batch)) == pytest.approx(float(expected), rel=1e-5)
        kinds.add(bool((ours == x).any()))
    assert len(kinds) == (2 if mixup and cutmix else 1)  # cutmix leaves pixels alone, mixup none


def test_unmixed_labels_are_smoothed_as_timm_does():
    student, y = Outputs(torch.randn(5, 4)), torch.tensor([0, 3, 1, 1, 2])
    for batch, timm in (
        (BatchInfo(label_smoothing=0.1), LabelSmoothingCrossEntropy(0.1)),
        (BatchInfo(label_smoothing=0.1, bce=True), BinaryCrossEntropy(0.1)),
        (BatchInfo(bce=True, bce_threshold=0.2), BinaryCrossEntropy(0.0, 0.2)),
    ):
        assert float(cross_entropy(student, y, batch)) == pytest.approx(float(timm(student.logits, y)), rel=1e-5)


def test_an_image_is_erased_as_timm_does_wherever_it_stands_in_a_batch():
    x, entries = torch.randn(8, 3, 16, 16), torch.arange(8) + 5
    erase(ours := x.clone(), entries, 0.5, 9)
    erase(turned := x.flip(0), entries.flip(0), 0.5, 9)
    assert torch.equal(ours, turned.flip(0)) and 0 < int((ours != x).flatten(1).any(1).sum()) < 8
    for image, found, entry in zip(x.clone(), ours, entries.tolist(), strict=True):
        with drawn_from(key64(9, entry)):
            assert torch.equal(RandomErasing(0.5, mode="pixel", device="cpu")(image), found)


def test_repeats_follow_timm_s_sampler_and_show_other_views():
    """One GPU's: copies stand side by side, an epoch has as many images as before."""
    sampler = RepeatAugSampler(range(12), num_replicas=1, rank=0, num_repeats=3, selected_round=0)
    order = torch.cat(epoch_batches(12, 6, 0, 1))
    rows = torch.cat(epoch_batches(12, 6, 0, 1, repeats=3)).tolist()
    sampler.set_epoch(1)
    theirs = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    place = {int(row): n for n, row in enumerate(theirs)}
    assert rows == [int(order[place[row]]) for row in sampler]
    pixels = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    look, labels = Look(16, (0.5,) * 3, (0.5,) * 3), np.arange(12)
    augment = augment_of(Recipe(repeats=3, batch_size=6), flip=True)
    resident = ResidentSplit(pixels, labels, look, augment, DEVICE)
    stream = StreamSplit(ArraySamples(pixels, labels), Fit(16, 3, "resize"), look, augment, DEVICE)
    asked = {"batch_size": 6, "order_seed": 0, "augment_seed": 0, "epoch": 1}
    entries = []
    for a, b in zip(resident.batches(**asked), stream.batches(**asked), strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.rows, b.rows) and torch.equal(a.entries, b.entries)
        assert len({image.numpy().tobytes() for image in a.x.cpu()}) == 6 and len(set(a.rows.tolist())) == 2
        entries += a.entries.tolist()
    assert entries == list(range(12)) and resident.n_views is None


@pytest.mark.parametrize(("recipe", "timm"), [
    (of("rsb-a2"), {"opt": "lamb", "lr": 5e-3, "weight_decay": 0.02}),
    (of("deit"), {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05}),
    (Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.7),
     {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05, "layer_decay": 0.7}),
])  # fmt: skip
def test_optimiser_and_groups_are_timm_s_and_so_are_weights_after_some_steps(recipe, timm):
    networks = [build("test_vit", classes=10, channels=1, input_size=32, seed=0) for _ in range(2)]
    ours, theirs = make_optimizer(networks[0], recipe), create_optimizer_v2(networks[1], **timm)
    assert [(len(g["params"]), g["weight_decay"], g.get("lr_scale")) for g in ours.param_groups] == [
        (len(g["params"]), g["weight_decay"], g.get("lr_scale")) for g in theirs.param_groups
    ]
    schedule = make_schedule(ours, recipe, 2)
    for n in range(3):
        schedule.step_update(20 + n)
        for group, rate in zip(theirs.param_groups, ours.param_groups, strict=True):
            group["lr"] = rate["lr"]
        for network, optimizer in zip(networks, (ours, theirs), strict=True):
            optimizer.zero_grad()
            network(torch.full((2, 1, 32, 32), 0.1 * n)).logsumexp(1).sum().backward()
            optimizer.step()
    rates = {g["lr"] / g.get("lr_scale", 1) for g in ours.param_groups}
    assert max(rates) == pytest.approx(min(rates)) and (len({g["lr"] for g in ours.param_groups}) > 1) == (
        recipe.layer_decay is not None
    )
    for a, b in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].recipe["schedule"] == "cosine"])
def test_rates_are_those_of_timm_s_scheduler_at_every_update(name):
    """``train.py --sched-on-updates --warmup-prefix``: the published runs move the rate once an epoch."""
    recipe = of(name, epochs=10, warmup_epochs=3)
    ours, theirs = (torch.optim.SGD([torch.zeros(1)], lr=recipe.lr) for _ in range(2))
    schedule = make_schedule(ours, recipe, 4)
    other, _ = create_scheduler_v2(
        theirs, sched="cosine", num_epochs=7, warmup_epochs=3, warmup_lr=recipe.warmup_lr, min_lr=recipe.min_lr,
        warmup_prefix=True, step_on_epochs=False, updates_per_epoch=4,
    )  # fmt: skip
    for update in range(40):
        schedule.step_update(update)
        other.step_update(update)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9, abs=1e-15)


def trainer_of(**changes: object) -> Trainer:
    recipe = RECIPE.model_copy(update=changes)
    return Trainer(config_of(recipe, model="test_vit", method="hard"), data_for(recipe), None, DEVICE, REFERENCE)


def test_the_average_is_of_the_weights_after_every_update_and_is_what_is_kept():
    trainer = trainer_of(ema=0.5)
    mean = [p.detach().clone() for p in trainer.model.parameters()]
    for n, _ in enumerate(trainer.steps(1)):
        decay = min(0.5, 1 - (1 + n) ** (-2 / 3))
        mean = [decay * m + (1 - decay) * p.detach() for m, p in zip(mean, trainer.model.parameters(), strict=True)]
    for a, b, raw in zip(mean, trainer.shown.parameters(), trainer.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6) and not torch.equal(b, raw)


def test_a_loss_is_given_the_shares_of_labels_and_the_class_of_the_larger():
    trainer, seen = trainer_of(mixup=1.0, batch_size=40), []
    own = trainer.loss
    trainer.loss = lambda student, teacher, y, batch: seen.append((y, batch)) or own(student, teacher, y, batch)
    assert sum(trainer.steps(1)) == 200
    batches = trainer.data.train.batches(batch_size=40, order_seed=3, augment_seed=3, epoch=1)
    for (y, told), batch in zip(seen, batches, strict=True):
        hot = torch.nn.functional.one_hot(batch.y, 10).float()
        assert torch.allclose(told.mixed, batch.share * hot + (1 - batch.share) * hot.flip(0))
        assert torch.equal(told.mixed.gather(1, y[:, None])[:, 0], told.mixed.amax(1)) and batch.share < 1


def test_batches_accumulated_are_one_larger_batch():
    """Without batch norm; of five batches of 40 the last is an update of its own."""
    large, small = (trainer_of(schedule="constant", batch_size=80 // n, accumulate=n) for n in (1, 2))
    steps = small.steps(1)
    for _ in large.steps(1):
        assert [next(steps), next(steps)] == [40, 40]
    assert (large.updates, small.batches, small.updates) == (2, 5, 3)
    for a, b in zip(large.model.parameters(), small.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    before = [p.detach().clone() for p in small.model.parameters()]
    assert next(steps) == 40 and not all(map(torch.equal, before, small.model.parameters()))


@pytest.mark.parametrize(("change", "said"), [
    ({"optimizer": "lamp"}, "unknown optimizer 'lamp'.*lamb"), ({"optimizer": "adahessian"}, "optimizer=adahessian"),
    ({"augment": "rand-q9"}, "recipe.augment=rand-q9: "), ({"augment": "strong"}, "recipe.augment=strong: "),
])  # fmt: skip
def test_what_timm_does_not_have_is_refused_before_training(change, said):
    with pytest.raises(BadInput, match=said):
        check_recipe(Recipe.model_validate(change))
