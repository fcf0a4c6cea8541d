"""The teacher: what it says of a batch, and the cache that keeps that on disk for every run to read."""

from kdbench.teacher.logit_cache import MOST_CLASSES, CacheKey, LogitCache, truncate
from kdbench.teacher.outputs import asked, kind_of, outputs, taps_of
from kdbench.teacher.teacher import Keyed, Teacher, cache_bytes, keyed_by, make_teacher, room

__all__ = [
    "MOST_CLASSES", "CacheKey", "Keyed", "LogitCache", "Teacher", "asked", "cache_bytes", "keyed_by", "kind_of",
    "make_teacher", "outputs", "room", "taps_of", "truncate",
]  # fmt: skip
