"""The cache gives back what the teacher said, whoever filled it, whatever was killed or damaged in between."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.errors import MachineFault
from kdbench.teacher import CacheKey, LogitCache, truncate
from kdbench.teacher.logit_cache import CHUNK, checksum, pack, unpack

KEY = CacheKey(teacher_id="t", split_digest="d", augment="crop-p1", samples=700, views=9, classes=10)
ROWS = np.arange(KEY.samples)
VIEWS = ROWS * 7 % KEY.views


class Teacher:
    """Logits that depend on the chunk too, as a real network's last bits do; remembers its chunks."""

    def __init__(self) -> None:
        self.chunks: list[list[int]] = []

    def __call__(self, rows, views):
        self.chunks.append(rows.tolist())
        noise = np.random.default_rng(rows).normal(size=(len(rows), KEY.classes))
        return (10 * np.sin(rows[:, None] * 10 + views[:, None] + np.arange(KEY.classes)) + noise).astype(np.float32)


def pure(rows, views):
    return (10 * np.sin(rows[:, None] * 10.0 + views[:, None] + np.arange(KEY.classes))).astype(np.float32)


def content(cache: LogitCache) -> list[bytes]:
    return [(cache.folder / name).read_bytes() for name in ("logits.f16", "marks.u32")]


def test_what_was_written_is_read_by_another_process_rounded_to_16_bits(tmp_path):
    cache, teacher = LogitCache(tmp_path, KEY), Teacher()
    seen = []
    assert cache.ensure(ROWS, VIEWS, teacher, lambda done, total: seen.append((done, total))) == 700
    assert seen == [(256, 700), (512, 700), (700, 700)] and [len(c) for c in teacher.chunks] == [CHUNK, CHUNK, 188]
    again = LogitCache(tmp_path, KEY)
    assert again.ensure(ROWS, VIEWS, teacher) == 0 and len(teacher.chunks) == 3
    exact = np.concatenate([Teacher()(ROWS[s], VIEWS[s]) for s in (slice(256), slice(256, 512), slice(512, None))])
    np.testing.assert_allclose(again.read(ROWS, VIEWS), exact, rtol=2**-11, atol=2**-24)
    assert not again.filled(ROWS, (VIEWS + 1) % 9).any() and not again.read(ROWS, (VIEWS + 1) % 9).any()
    assert sum(path.stat().st_size for path in cache.folder.glob("*.[fu]*")) == KEY.bytes


def test_every_field_of_the_key_is_another_cache():
    others = {"teacher_id": "u", "split_digest": "e", "augment": "plain", "samples": 1, "views": 1, "classes": 2}
    ids = {KEY.id, *(KEY.model_copy(update={name: value}).id for name, value in others.items())}
    ids |= {KEY.model_copy(update=more).id for more in ({"top_k": 3}, {"pooled": 4})}
    assert {*others, "top_k", "pooled"} == set(CacheKey.model_fields) and len(ids) == 9


@pytest.mark.parametrize("damage", ["logits", "mark", "torn", "block"])
def test_damage_reads_as_missing_and_is_filled_again(tmp_path, damage):
    cache = LogitCache(tmp_path, KEY)
    cache.ensure(ROWS, VIEWS, pure)
    whole = content(cache)
    entry = (3 * KEY.views + int(VIEWS[3])) * KEY.classes * 2
    name, offset, junk = {
        "logits": ("logits.f16", entry + 1, bytes([whole[0][entry + 1] ^ 1])),  # one bit
        "mark": ("marks.u32", 4 * (3 * KEY.views + int(VIEWS[3])), b"\x01"),
        "torn": ("logits.f16", entry, bytes(2 * KEY.classes)),  # the mark reached the disk, the data did not
        "block": ("logits.f16", 4096, os.urandom(4096)),
    }[damage]
    with (cache.folder / name).open("rb+") as stream:
        stream.seek(offset)
        stream.write(junk)
    again = LogitCache(tmp_path, KEY)
    missing = ~again.filled(ROWS, VIEWS)
    assert missing.sum() >= 1 and (damage == "block" or missing.nonzero()[0].tolist() == [3])
    assert again.ensure(ROWS, VIEWS, pure) == missing.sum() and again.filled(ROWS, VIEWS).all()
    np.testing.assert_array_equal(again.read(ROWS, VIEWS), pure(ROWS, VIEWS).astype(np.float16))


def test_a_short_file_is_extended_and_only_its_tail_is_computed(tmp_path):
    cache = LogitCache(tmp_path, KEY)
    cache.ensure(ROWS, VIEWS, pure)
    whole = content(cache)
    os.truncate(cache.folder / "logits.f16", 600 * KEY.views * KEY.classes * 2)
    again = LogitCache(tmp_path, KEY)
    assert again.ensure(ROWS, VIEWS, pure) == 100
    assert content(again) == whole


def test_a_killed_fill_goes_on_in_the_same_chunks(tmp_path):
    """Bit for bit what an uninterrupted fill leaves, for a teacher whose last bits depend on the chunk."""
    smooth, killed, teacher = LogitCache(tmp_path / "a", KEY), LogitCache(tmp_path / "b", KEY), Teacher()
    later = (VIEWS + ROWS % 2) % 9
    for views in (VIEWS, later):
        smooth.ensure(ROWS, views, Teacher())

    def dies(rows, views):
        if len(teacher.chunks) == 1:
            raise KeyboardInterrupt
        return teacher(rows, views)

    with pytest.raises(KeyboardInterrupt):
        killed.ensure(ROWS, VIEWS, dies)
    again = LogitCache(tmp_path / "b", KEY)
    for views in (VIEWS, later):
        again.ensure(ROWS, views, teacher)
    assert content(again) == content(smooth)
    assert [len(c) for c in teacher.chunks] == [CHUNK, CHUNK, 188, CHUNK, 94]


def fill_slowly(root: Path, start: multiprocessing.synchronize.Barrier, forward: bool) -> None:
    cache = LogitCache(root, KEY)
    start.wait()
    for view in range(9) if forward else reversed(range(9)):
        cache.ensure(ROWS, np.full_like(ROWS, view), pure)


def test_two_processes_filling_at_once_leave_what_one_leaves(tmp_path):
    spawn = multiprocessing.get_context("fork")
    start = spawn.Barrier(2)
    workers = [spawn.Process(target=fill_slowly, args=(tmp_path / "two", start, forward)) for forward in (True, False)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    one = LogitCache(tmp_path / "one", KEY)
    for view in range(9):
        one.ensure(ROWS, np.full_like(ROWS, view), pure)
    two = LogitCache(tmp_path / "two", KEY)
    assert content(two) == content(one)


@given(st.integers(2, 40), st.data())
def test_the_largest_logits_keep_their_probability_and_the_others_share_theirs(classes, data):
    k = data.draw(st.integers(1, classes - 1))
    seed, scale = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([0.0, 0.03, 5.0, 500.0]))
    logits = torch.randn(7, classes, generator=torch.Generator().manual_seed(seed)).mul(scale).half().float()
    cut = truncate(logits, k)
    top = logits.topk(k, dim=1).indices
    whole, kept = logits.softmax(1), cut.softmax(1)
    torch.testing.assert_close(kept.gather(1, top), whole.gather(1, top), rtol=2e-3 * max(1.0, scale), atol=1e-6)
    others = kept.scatter(1, top, float("nan"))
    assert all(len(row[~row.isnan()].unique()) == 1 for row in others)
    assert torch.equal(truncate(cut, k), cut)
    half = cut.numpy().astype(np.float16)
    np.testing.assert_array_equal(unpack(pack(half, k), classes), half)


@pytest.mark.parametrize("top_k", [None, 2])
def test_a_cache_takes_the_space_of_what_is_kept_and_holds_pooled_vectors_beside_it(tmp_path, top_k):
    key = KEY.model_copy(update={"top_k": top_k, "pooled": 3})
    cache = LogitCache(tmp_path, key)

    def said(rows, views):
        logits = torch.from_numpy(pure(rows, views).astype(np.float16)).float()
        return np.concatenate([logits if top_k is None else truncate(logits, top_k), logits[:, :3] / 2], axis=1)

    assert cache.ensure(ROWS, VIEWS, said) == 700 and cache.filled(ROWS, VIEWS).all()
    np.testing.assert_array_equal(LogitCache(tmp_path, key).read(ROWS, VIEWS), said(ROWS, VIEWS).astype(np.float16))
    size = sum(path.stat().st_size for path in cache.folder.glob("*.[fu]*"))
    assert size == key.bytes == 700 * 9 * (2 * ((2 * 2 + 1 if top_k else 10) + 3) + 4)


def test_marks_are_never_0_and_tell_places_apart():
    random = np.random.default_rng(0).normal(size=(20_000, 10)).astype(np.float16).view(np.uint16)
    marks = checksum(random)
    assert marks.min() > 0 and len(set(marks.tolist())) > 19_990
    assert checksum(np.zeros((1, 10), np.uint16))[0] != 0
    assert (checksum(random[:, ::-1].copy()) != marks).all()


def test_what_does_not_fit_is_a_fault_of_the_machine_and_says_why(tmp_path, monkeypatch):
    cache = LogitCache(tmp_path, KEY)
    with pytest.raises(MachineFault, match=r"do not fit 16 bits.*7e"):
        cache.write(ROWS[:2], VIEWS[:2], np.full((2, 10), 7e4, np.float32))
    assert not cache.filled(ROWS, VIEWS).any()
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineFault, match="cannot open the logit cache"):
        LogitCache(tmp_path / "file", KEY)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000))
    LogitCache(tmp_path, KEY)  # what is there already needs no room
    with pytest.raises(MachineFault, match=r"need 1\.3 MiB in \S+, where 0\.0 MiB are free: .*KDBENCH_CACHE"):
        LogitCache(tmp_path, KEY.model_copy(update={"views": 80}))
    assert not list(tmp_path.glob("*/logits.f16"))[1:]
