"""Cuts are stratified and reproducible; views are pure, cover all crops and flips, and equal what a person would cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdbench.catalog.datasets import DATASETS
from kdbench.config import Recipe
from kdbench.data import Augment, Look, ResidentSplit, augment_for
from kdbench.data.samples import key, mix, scatter, shuffled, stratified_cut, stratified_limit
from kdbench.data.splits import epoch_batches
from kdbench.data.views import view_ids
from kdbench.errors import BadInput

CPU = torch.device("cpu")
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # for busy machines
labels_of = st.lists(st.integers(0, 5), min_size=12, max_size=300).map(lambda values: np.array(values, np.int64))


@relaxed
@given(labels_of, st.floats(0.05, 0.5), st.integers(0, 9))
def test_a_cut_is_a_stratified_partition(labels, fraction, seed):
    kept, held = stratified_cut(labels, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    names, counts = np.unique(labels, return_counts=True)
    slack = 2 + fraction * (counts == 1).sum()  # what single samples cannot give, the others do
    for label, count in zip(names, counts, strict=True):
        here = int((labels[held] == label).sum())
        assert here == 0 if count == 1 else 1 <= here < count
        assert abs(here - fraction * count) <= slack or (len(names) > 1 and here <= 1)
    assert np.array_equal(stratified_cut(labels, fraction, seed)[0], kept)


@relaxed
@given(labels_of, st.data())
def test_a_limit_is_exact_and_stratified(labels, data):
    classes, counts = np.unique(labels, return_counts=True)
    limit = data.draw(st.integers(len(classes), len(labels) + 5))
    rows = stratified_limit(labels, limit, seed=0)
    assert len(rows) == len(np.unique(rows)) == min(limit, len(labels))
    assert np.array_equal(rows, np.sort(rows))
    taken = np.array([(labels[rows] == label).sum() for label in classes])
    assert (taken >= 1).all()
    if limit <= len(labels) and (counts * limit >= len(labels)).all():  # no class needs lifting to one
        assert (np.abs(taken - counts * limit / len(labels)) < 1).all()


def test_the_seed_chooses_the_share_is_met_and_nothing_moves_between_versions():
    labels = np.repeat(np.arange(10), 600)
    cuts = [stratified_cut(labels, 0.1, seed)[1] for seed in (0, 1)]
    assert [np.bincount(labels[cut]).tolist() for cut in cuts] == [[60] * 10] * 2
    assert len(np.intersect1d(*cuts)) < 150  # about 60 by chance
    # teachers and logits on disk were made with these very samples
    assert stratified_cut(np.arange(40) % 2, 0.2, 0)[1].tolist() == [3, 11, 12, 16, 25, 26, 32, 35]
    with pytest.raises(BadInput, match="limit 9 is below the 10 classes"):
        stratified_limit(np.arange(50) % 10, 9, 0)


def spec_of(channels: int):
    return DATASETS.get("cifar10" if channels == 3 else "fashion-mnist")


def split_of(size: int, channels: int, augment: Augment, n: int = 7) -> tuple[ResidentSplit, np.ndarray]:
    images = np.random.default_rng(size + channels).integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    look = Look(size, spec_of(channels).mean, spec_of(channels).std)
    return ResidentSplit(images, np.arange(n, dtype=np.int64) % 10, look, augment, CPU), images


@relaxed
@given(st.integers(4, 12), st.sampled_from([1, 3]), st.integers(0, 4), st.booleans(), st.data())
def test_a_view_is_the_padded_image_cropped_and_flipped(size, channels, pad, flip, data):
    augment = Augment(pad, flip)
    split, images = split_of(size, channels, augment)
    assert augment.n_views == split.n_views == (2 * pad + 1) ** 2 * (1 + flip)
    views = data.draw(st.lists(st.integers(0, augment.n_views - 1), min_size=7, max_size=7))
    x = split.render(torch.arange(7), torch.tensor(views))
    assert x.shape == (7, channels, size, size)
    assert x.is_contiguous(memory_format=torch.channels_last)
    spec, width = spec_of(channels), 2 * pad + 1
    for row, view in enumerate(views):
        mirrored, dy, dx = view // width**2, view // width % width, view % width
        padded = np.pad(images[row], ((pad, pad), (pad, pad), (0, 0)))
        expected = padded[dy : dy + size, dx : dx + size]
        expected = expected[:, ::-1] if mirrored else expected
        expected = (expected / 255.0 - np.array(spec.mean)) / np.array(spec.std)
        np.testing.assert_allclose(x[row].permute(1, 2, 0).numpy(), expected, atol=2e-5)


def test_views_agree_with_torchvision():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    augment = Augment(4, True)
    split, images = split_of(32, 3, augment)
    for view in (0, 40, 80, 81, 100, 161):
        flip, dy, dx = (int(part) for part in augment.decode(torch.tensor(view)))
        image = functional.pad(torch.from_numpy(images[3]).permute(2, 0, 1), [4, 4, 4, 4])
        image = functional.crop(image, dy, dx, 32, 32)
        image = functional.horizontal_flip(image) if flip else image
        image = functional.to_dtype(image, torch.float32, scale=True)
        image = functional.normalize(image, spec_of(3).mean, spec_of(3).std)
        torch.testing.assert_close(split.render(torch.tensor([3]), torch.tensor([view]))[0], image)


def test_another_network_sees_the_same_view_at_its_own_size_and_normalisation():
    """A teacher beside its student: the view is one, size and normalisation are each network's own."""
    split, images = split_of(32, 3, Augment(4, True))
    rows, views, seen = torch.arange(7), torch.tensor([0, 161, 80, 81, 100, 40, 7]), split.look
    x = split.render(rows, views)
    assert seen.show(x, seen) is x and torch.equal(split.render(rows, views, seen), x)
    half = Look(32, (0.5,) * 3, (0.5,) * 3)
    raw = x * torch.tensor(seen.std).view(1, 3, 1, 1) + torch.tensor(seen.mean).view(1, 3, 1, 1)
    torch.testing.assert_close(split.render(rows, views, half), (raw - 0.5) / 0.5)
    twin = ResidentSplit(images, np.arange(7), half, split.augment, CPU)
    torch.testing.assert_close(split.render(rows, views, half), twin.render(rows, views))
    for size, how in ((16, "bilinear"), (48, "bicubic")):
        small = split.render(rows, views, Look(size, (0.0,) * 3, (1.0,) * 3, how))
        expected = torch.nn.functional.interpolate(raw, (size, size), mode=how, antialias=True).clamp(0, 1)
        torch.testing.assert_close(small, expected, atol=1e-5, rtol=1e-4)
        assert small.is_contiguous(memory_format=torch.channels_last)


def test_plain_is_every_image_as_it_is_and_in_order():
    split, images = split_of(8, 3, Augment(2, True))
    batches = list(split.plain(3))
    assert [len(b.y) for b in batches] == [3, 3, 1]
    assert all(b.views is None for b in batches)
    x = torch.cat([b.x for b in batches]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(x, (images / 255.0 - np.array(spec_of(3).mean)) / np.array(spec_of(3).std), atol=2e-5)
    assert torch.cat([b.rows for b in batches]).tolist() == list(range(7))


def test_view_ids_are_pure_uniform_and_differ_by_seed_epoch_and_row():
    rows = torch.arange(20_000)
    ids = view_ids(rows, 162, augment_seed=3, epoch=5)
    assert torch.equal(ids, view_ids(rows, 162, augment_seed=3, epoch=5))
    assert torch.equal(ids[777:800], view_ids(rows[777:800], 162, augment_seed=3, epoch=5))
    counts = torch.bincount(ids, minlength=162).double()
    expected = len(rows) / 162
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert 100 < chi2 < 240  # 161 degrees of freedom: mean 161, standard deviation 18
    for seed, epoch in ((4, 5), (3, 6)):  # another seed or epoch shows the same view only by chance, 1 in 162
        assert float((ids == view_ids(rows, 162, seed, epoch)).double().mean()) < 0.01
    seen = torch.stack([view_ids(rows[:500], 162, 0, epoch) for epoch in range(100)])
    distinct = np.mean([len(set(column.tolist())) for column in seen.T])
    assert abs(distinct - 162 * (1 - (161 / 162) ** 100)) < 1.5  # as independent draws would
    if torch.cuda.is_available():
        assert torch.equal(view_ids(rows.cuda(), 162, 3, 5).cpu(), ids)


@relaxed
@given(st.integers(0, 2**32 - 1))
def test_the_hash_is_the_same_in_python_numpy_and_torch(x):
    assert mix(x) == int(mix(np.array([x]))[0]) == int(mix(torch.tensor([x]))[0])
    assert 0 <= mix(x) < 2**32


def test_the_hash_has_not_changed():
    """Logits and cuts on disk depend on these numbers."""
    assert [mix(k) for k in (1, 2, 2**32 - 1)] == [2261973619, 229111015, 2578835075]
    assert key(1, 2) != key(2, 1)
    assert shuffled(8, 7).tolist() == [7, 4, 2, 3, 5, 6, 1, 0]
    assert len(np.unique(scatter(np.arange(100_000), 12345))) == 100_000


@pytest.mark.parametrize(("n", "size", "batches"), [(10, 3, 3), (9, 3, 3), (3, 3, 1), (2, 3, 1)])
def test_an_epoch_drops_a_partial_batch_only_when_there_are_others(n, size, batches):
    parts = epoch_batches(n, size, order_seed=0, epoch=1)
    assert len(parts) == batches
    rows = torch.cat(parts)
    assert len(rows.unique()) == len(rows) == min(n, batches * size)
    for seed, epoch in ((0, 2), (1, 1)):
        assert not torch.equal(torch.cat(epoch_batches(50, 50, 0, 1)), torch.cat(epoch_batches(50, 50, seed, epoch)))


def test_batches_render_the_views_that_view_ids_names():
    split, _ = split_of(8, 1, Augment(2, True), n=30)
    first, again = (list(split.batches(batch_size=8, order_seed=1, augment_seed=2, epoch=3)) for _ in range(2))
    ids = split.view_ids(2, 3)
    for batch, same in zip(first, again, strict=True):
        assert torch.equal(batch.x, same.x)
        assert torch.equal(batch.views, ids[batch.rows])
        assert torch.equal(batch.x, split.render(batch.rows, batch.views))
        assert torch.equal(batch.y, split.labels[batch.rows])


def test_the_recipe_decides_the_augmentation():
    fashion, digits = DATASETS.get("fashion-mnist"), DATASETS.get("digits")
    assert augment_for(fashion, Recipe()).key == "crop-p4-flip"
    assert augment_for(digits, Recipe(pad=2)).key == "crop-p2"
    assert augment_for(digits, Recipe(flip=True, pad=0)).n_views == 2
    assert augment_for(fashion, Recipe(views="resized-crop")).n_views is None
