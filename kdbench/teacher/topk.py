"""The K largest of a teacher's logits: what is kept of a view where there are very many classes.

Half precision takes 2 C bytes a view for C classes; K logits, their classes and one number for all others take
4 K + 2. The others share evenly what is left of the probability at T = 1, as in the sparse soft labels of TinyViT
(Wu et al. 2022, arXiv:2207.10666).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_CLASSES = 2**16
"""A class is kept in 16 bits."""
GRID = 1024
"""Steps to 1 of the logit that the other classes share."""


def words(classes: int, k: int | None) -> int:
    """16-bit words that a view takes: all its logits, or the ``k`` largest of them, packed."""
    return classes if k is None else 2 * k + 1


def truncate(logits: Tensor, k: int) -> Tensor:
    """(B, C) float32 logits of 16-bit precision with all but the ``k`` < C largest of a row made equal.

    softmax gives the ``k`` what it gave them before, but for the rounding of one number to 16 bits. Doing it twice
    changes nothing more.
    """
    top = logits.topk(k, dim=1)
    others = logits.scatter(1, top.indices, -math.inf)
    even = others.logsumexp(1, keepdim=True) - math.log(logits.shape[1] - k)
    # on a grid wider than the sum's error, even where 16 bits are finest, so that a second time changes nothing
    even = torch.minimum(even.mul(GRID).round().div(GRID).half().float(), top.values[:, -1:])
    return even.expand_as(logits).scatter(1, top.indices, top.values)


def pack(logits: NDArray[np.float16], k: int) -> NDArray[np.uint16]:
    """Truncated logits (n, C) as words (n, 2 k + 1): the classes in ascending order, their logits, all others'."""
    classes = np.sort(np.argpartition(logits, -k, axis=1)[:, -k:], axis=1)
    values = np.take_along_axis(logits, classes, axis=1)
    rest = logits.min(axis=1, keepdims=True)
    return np.concatenate([classes.astype(np.uint16), values.view(np.uint16), rest.view(np.uint16)], axis=1)


def unpack(words: NDArray[np.uint16], classes: int) -> NDArray[np.float16]:
    """(n, 2 k + 1) words as logits (n, ``classes``)."""
    k = words.shape[1] // 2
    logits = np.repeat(words[:, -1:].view(np.float16), classes, axis=1)
    np.put_along_axis(logits, words[:, :k].astype(np.int64), words[:, k : 2 * k].view(np.float16), axis=1)
    return logits
