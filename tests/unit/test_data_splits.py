"""Cuts are stratified, disjoint and reproducible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdbench.data.samples import stratified_cut, stratified_limit
from kdbench.errors import BadInput

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # for busy machines
labels_of = st.lists(st.integers(0, 5), min_size=12, max_size=300).map(lambda values: np.array(values, np.int64))


@relaxed
@given(labels_of, st.floats(0.05, 0.5), st.integers(0, 9))
def test_a_cut_is_a_stratified_partition(labels, fraction, seed):
    kept, held = stratified_cut(labels, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        held_here = int((labels[held] == label).sum())
        if count == 1:
            assert held_here == 0
        else:
            assert 1 <= held_here < count
            assert abs(held_here - fraction * count) <= 2 or (len(np.unique(labels)) > 1 and held_here == 1)
    again = stratified_cut(labels, fraction, seed)
    assert np.array_equal(again[0], kept)


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


def test_the_seed_chooses_and_the_share_is_met():
    labels = np.repeat(np.arange(10), 600)
    cuts = [stratified_cut(labels, 0.1, seed)[1] for seed in (0, 1)]
    assert [len(cut) for cut in cuts] == [600, 600]
    assert np.bincount(labels[cuts[0]]).tolist() == [60] * 10
    assert len(np.intersect1d(*cuts)) < 150  # about 60 by chance


def test_a_cut_does_not_move_between_versions():
    """Teachers and banks on disk were made with these very samples."""
    assert stratified_cut(np.arange(40) % 2, 0.2, 0)[1].tolist() == [3, 11, 12, 16, 25, 26, 32, 35]


def test_a_limit_below_the_classes_is_refused():
    with pytest.raises(BadInput, match="limit 9 is below the 10 classes"):
        stratified_limit(np.arange(50) % 10, 9, 0)
