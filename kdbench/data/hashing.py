"""One integer hash for orders, views and cuts: the same number in Python, NumPy and PyTorch, on CPU and GPU.

The finaliser is of the xorshift-multiply form (public-domain constants found by C. Wellons' hash-prospector search).
Both multipliers are below 2^31 and every operand below 2^32, so no product leaves a signed 64-bit integer:
nothing here depends on how a device overflows.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

MASK = 0xFFFFFFFF
Ints = TypeVar("Ints")


def mix(x: Ints) -> Ints:
    """A bijection of [0, 2^32): ``x`` is a Python integer, or an int64 array or tensor (element by element)."""
    y: Any = x
    y = y ^ (y >> 16)
    y = (y * 0x21F0AAAD) & MASK
    y = y ^ (y >> 15)
    y = (y * 0x735A2D97) & MASK
    return cast(Ints, y ^ (y >> 15))


def key(*numbers: int) -> int:
    """A 32-bit key of a few integers (of any size and sign); their order matters."""
    state = len(numbers)
    for number in numbers:
        for word in (number & MASK, (number >> 32) & MASK):
            state = mix((state + 0x3C6EF372) & MASK ^ word)
    return state


def key64(*numbers: int) -> int:
    """Two independent keys side by side, in [0, 2^63): a seed for a generator."""
    return (key(1, *numbers) << 31) ^ key(2, *numbers)


def scatter(rows: Ints, salt: int) -> Ints:
    """A 32-bit number for each of ``rows`` (values in [0, 2^32)): distinct rows give distinct numbers."""
    inner: Any = mix(rows)
    return cast(Ints, mix(inner ^ salt))


def shuffled(n: int, salt: int) -> NDArray[np.int64]:
    """0 … n-1 in an order that depends on ``salt`` alone, in every version of NumPy."""
    return np.argsort(scatter(np.arange(n, dtype=np.int64), salt), kind="stable")
