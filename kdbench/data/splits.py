"""Stratified cuts of a list of labels: pure NumPy, the same on every machine and in every version."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdbench.data.hashing import key, shuffled
from kdbench.errors import BadInput

Rows = NDArray[np.int64]
_CUT, _LIMIT = 1, 2


def stratified_cut(labels: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Splits positions into (kept, held out), each ascending; of every class about ``fraction`` is held out.

    The number held out is ``fraction`` of all, rounded, where classes allow: a class of two or more samples has
    at least one on either side, a single sample is kept.
    """
    _, counts = np.unique(labels, return_counts=True)
    shares = _shares(counts, round(fraction * len(labels)), np.minimum(1, counts - 1), counts - 1)
    held = _choose(labels, shares, _CUT, seed)
    return np.setdiff1d(np.arange(len(labels), dtype=np.int64), held), held


def stratified_limit(labels: Rows, limit: int, seed: int) -> Rows:
    """``limit`` positions (ascending; all of them when there are fewer), each class in its share, at least one a class.

    Raises:
        BadInput: when ``limit`` is smaller than the number of classes.
    """
    _, counts = np.unique(labels, return_counts=True)
    if limit < len(counts):
        raise BadInput(f"limit {limit} is below the {len(counts)} classes of the training split: raise it")
    return _choose(labels, _shares(counts, limit, np.ones_like(counts), counts), _LIMIT, seed)


def _shares(counts: Rows, total: int, low: Rows, high: Rows) -> Rows:
    """How many of each class: proportional to ``counts`` (largest remainders), within [low, high], and their sum.

    That is ``total``, or as near to it as the bounds allow.
    """
    ideal = counts * (total / counts.sum())
    take: Rows = np.clip(np.floor(ideal).astype(np.int64), low, high)
    while (gap := total - int(take.sum())) != 0:
        step = 1 if gap > 0 else -1
        free = np.flatnonzero(take < high if step > 0 else take > low)
        if len(free) == 0:
            break
        neediest = free[np.argsort(-step * (ideal - take)[free], kind="stable")]
        take[neediest[: abs(gap)]] += step
    return take


def _choose(labels: Rows, shares: Rows, purpose: int, seed: int) -> Rows:
    """Ascending positions: ``shares[k]`` of the k-th class, picked by hashing."""
    picked = []
    for label, share in zip(np.unique(labels), shares, strict=True):
        members = np.flatnonzero(labels == label)
        picked.append(members[shuffled(len(members), key(purpose, seed, int(label)))[:share]])
    return np.sort(np.concatenate(picked)).astype(np.int64)
