"""Views are pure functions that cover all crops and flips, and equal what a person would cut out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdbench.catalog.datasets import DATASETS
from kdbench.config import Recipe
from kdbench.data.samples import key, mix, scatter, shuffled
from kdbench.data.splits import ResidentSplit, epoch_batches
from kdbench.data.views import Augment, Look, augment_for, view_ids

CPU = torch.device("cpu")


def split_of(size: int, channels: int, augment: Augment, n: int = 7) -> tuple[ResidentSplit, np.ndarray]:
    rng = np.random.default_rng(size + channels)
    images = rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    spec = DATASETS.get("cifar10" if channels == 3 else "fashion-mnist")
    labels, look = np.arange(n, dtype=np.int64) % 10, Look(size, spec.mean, spec.std)
    return ResidentSplit(images, labels, look, augment, CPU), images


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.integers(4, 12),
    channels=st.sampled_from([1, 3]),
    pad=st.integers(0, 4),
    flip=st.booleans(),
    data=st.data(),
)
def test_a_view_is_the_padded_image_cropped_and_flipped(size, channels, pad, flip, data):
    augment = Augment(pad, flip)
    split, images = split_of(size, channels, augment)
    assert augment.n_views == split.n_views == (2 * pad + 1) ** 2 * (1 + flip)
    views = data.draw(st.lists(st.integers(0, augment.n_views - 1), min_size=7, max_size=7))
    x = split.render(torch.arange(7), torch.tensor(views))
    assert x.shape == (7, channels, size, size)
    assert x.is_contiguous(memory_format=torch.channels_last)
    spec = DATASETS.get("cifar10" if channels == 3 else "fashion-mnist")
    width = 2 * pad + 1
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
    spec = DATASETS.get("cifar10")
    for view in (0, 40, 80, 81, 100, 161):
        flip, dy, dx = (int(part) for part in augment.decode(torch.tensor(view)))
        image = functional.pad(torch.from_numpy(images[3]).permute(2, 0, 1), [4, 4, 4, 4])
        image = functional.crop(image, dy, dx, 32, 32)
        image = functional.horizontal_flip(image) if flip else image
        image = functional.normalize(functional.to_dtype(image, torch.float32, scale=True), spec.mean, spec.std)
        torch.testing.assert_close(split.render(torch.tensor([3]), torch.tensor([view]))[0], image)


def test_plain_is_every_image_as_it_is_and_in_order():
    split, images = split_of(8, 3, Augment(2, True))
    batches = list(split.plain(3))
    assert [len(b.y) for b in batches] == [3, 3, 1]
    assert all(b.views is None for b in batches)
    spec = DATASETS.get("cifar10")
    x = torch.cat([b.x for b in batches]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(x, (images / 255.0 - np.array(spec.mean)) / np.array(spec.std), atol=2e-5)
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


def test_each_sample_meets_many_views_over_epochs():
    rows = torch.arange(500)
    seen = torch.stack([view_ids(rows, 162, 0, epoch) for epoch in range(100)])
    distinct = np.mean([len(set(column.tolist())) for column in seen.T])
    assert abs(distinct - 162 * (1 - (161 / 162) ** 100)) < 1.5  # as independent draws would


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1))
def test_the_hash_is_the_same_in_python_numpy_and_torch(x):
    assert mix(x) == int(mix(np.array([x]))[0]) == int(mix(torch.tensor([x]))[0])
    assert 0 <= mix(x) < 2**32


def test_the_hash_has_not_changed():
    """Banks and cuts on disk depend on these numbers."""
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
    assert not torch.equal(torch.cat(epoch_batches(50, 50, 0, 1)), torch.cat(epoch_batches(50, 50, 0, 2)))
    assert not torch.equal(torch.cat(epoch_batches(50, 50, 0, 1)), torch.cat(epoch_batches(50, 50, 1, 1)))


def test_batches_render_the_views_that_view_ids_names():
    split, _ = split_of(8, 1, Augment(2, True), n=30)
    first = list(split.batches(batch_size=8, order_seed=1, augment_seed=2, epoch=3))
    again = list(split.batches(batch_size=8, order_seed=1, augment_seed=2, epoch=3))
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_shows_the_same_views():
    rows = torch.arange(5000)
    assert torch.equal(view_ids(rows.cuda(), 162, 9, 4).cpu(), view_ids(rows, 162, 9, 4))
