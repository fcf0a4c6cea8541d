"""Images in tar shards: the same samples as in folders, each one seek away; and what is said of bad ones."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from kdbench.config import Recipe
from kdbench.data import StreamSplit, resolve_dataset
from kdbench.data.sources import class_names, read_part
from kdbench.errors import BadInput
from tests.unit.test_data_folders import cache, opened, sizes, task_of, write_images  # noqa: F401  fixtures


def shard(path: Path, members: dict[str, bytes]) -> None:
    """A tar of these, long enough ago that it counts as settled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    os.utime(path, (0, zlib.crc32(path.read_bytes()) >> 4))


def shards(root: Path, folder: Path, split: str = "train", label: str = "cls") -> Path:
    """The images of a folder in two shards, every other one in each."""
    images = sorted(folder.rglob("*.png"))
    classes = sorted({image.parent.name for image in images})
    for number in (0, 1):
        members: dict[str, bytes] = {}
        for k, image in enumerate(images):
            if k % 2 == number:
                at = classes.index(image.parent.name)
                members[f"{k:05}.png"] = image.read_bytes()
                members[f"{k:05}.{label}"] = (str(at) if label == "cls" else json.dumps({"label": at})).encode()
        shard(root / f"{split}-{number:03}.tar", members)
    return root


@pytest.mark.parametrize("label", ["cls", "json"])
def test_shards_hold_what_folders_hold(tmp_path: Path, opened: list[object], label: str) -> None:  # noqa: F811
    folder = write_images(tmp_path / "images")
    root = shards(tmp_path / "shards", folder, label=label)
    (root / "classes.txt").write_text("a\nb\nc\n")
    spec, digest = resolve_dataset(f"folder:{root}")
    assert spec.classes == 3 and class_names(spec) == ("a", "b", "c") and "2 tar shards: a, b, c" in spec.source
    found, plain = read_part(spec, "train"), read_part(resolve_dataset(f"folder:{folder}")[0], "train")
    assert found is not None and plain is not None and sorted(found.labels) == sorted(plain.labels)
    pixels = {np.asarray(plain.image(row)).tobytes(): plain.labels[row] for row in range(len(plain.labels))}
    whole = [read_part(spec, part) for part in ("train", "test")]
    seen = {np.asarray(one.image(k)).tobytes(): one.labels[k] for one in whole if one for k in range(len(one.labels))}
    assert all(seen[image] == known for image, known in pixels.items()) and len(seen) == 30
    opened.clear()
    assert resolve_dataset(f"folder:{root}")[1] == digest and not opened, "what was looked into is known"
    shards(root, write_images(tmp_path / "other", n=10), label=label)
    assert resolve_dataset(f"folder:{root}")[1] != digest


def test_they_train_from_memory_and_streamed_and_have_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shards(tmp_path / "shards", write_images(tmp_path / "images"))
    resident = task_of(root, Recipe(batch_size=8))
    assert sizes(resident) == (18, 6, 6)
    shards(root, write_images(tmp_path / "held", n=4), split="mine-validation")
    shards(root, write_images(tmp_path / "tests", n=3), split="mine-test")
    parts = [read_part(resolve_dataset(f"folder:{root}")[0], part) for part in ("train", "val", "test")]
    assert [len(part.labels) for part in parts if part] == [30, 12, 9]
    monkeypatch.setattr("kdbench.data.task.MEMORY_SHARE", 0.0, raising=False)
    monkeypatch.setattr("kdbench.data.splits.MEMORY_SHARE", 0.0)
    streamed = task_of(root, Recipe(batch_size=8, views="resized-crop", flip=True))
    assert isinstance(streamed.train, StreamSplit)
    batches = list(streamed.train.batches(batch_size=8, order_seed=0, augment_seed=0, epoch=1))
    assert len(batches) == 3 and all(torch.isfinite(batch.x).all() for batch in batches)


def test_an_image_that_cannot_be_decoded_is_named_or_left_out(tmp_path: Path) -> None:
    root = shards(tmp_path / "shards", write_images(tmp_path / "images"))
    shard(root / "train-002.tar", {"bad.png": b"no image", "bad.cls": b"1"})
    with pytest.raises(BadInput, match=r"train-002\.tar: bad\.png \(not an image\)"):
        resolve_dataset(f"folder:{root}")
    spec, _ = resolve_dataset(f"folder:{root}", skip_corrupt=True)
    assert sum(spec.sizes.values()) == 30 and "1 of 31 images" in spec.source


@pytest.mark.parametrize(
    ("members", "cut", "why"),
    [
        ({"1.png": b"x"}, 0, r"no class beside 1\.png: add its number as 1\.cls"),
        ({"1.png": b"x", "1.cls": b"cat"}, 0, "cannot read the shard"),
        ({"1.png": b"x" * 5000, "1.cls": b"1"}, 3000, "cannot read the shard .* fetch or make it again"),
    ],
)
def test_a_bad_shard_is_named(tmp_path: Path, members: dict[str, bytes], cut: int, why: str) -> None:
    root = shards(tmp_path / "shards", write_images(tmp_path / "images"))
    shard(root / "train-002.tar", members)
    if cut:
        os.truncate(root / "train-002.tar", cut)
    with pytest.raises(BadInput, match=why):
        resolve_dataset(f"folder:{root}", skip_corrupt=True)


@pytest.mark.parametrize("damage", ["header", "end"])
def test_a_shard_that_lost_its_end_is_named(tmp_path: Path, damage: str) -> None:
    """tarfile ends quietly there."""
    root = shards(tmp_path / "shards", write_images(tmp_path / "images"))
    path = root / "train-001.tar"
    with tarfile.open(path) as tar:
        at = tar.getmembers()[6].offset
    if damage == "end":
        os.truncate(path, at)
    else:
        raw = bytearray(path.read_bytes())
        raw[at : at + 100] = b"?" * 100
        path.write_bytes(raw)
    with pytest.raises(BadInput, match="damaged or cut off after 3 images"):
        resolve_dataset(f"folder:{root}")


def test_a_tar_beside_folders_is_what_they_came_in(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    shard(folder / "archive.tar", {"a/0.png": b"x"})
    assert resolve_dataset(f"folder:{folder}")[0].classes == 3


def test_what_else_is_in_a_shard(tmp_path: Path) -> None:
    """Details in JSON beside the class, what a Mac leaves, an upper-case ending; names of classes that are no text."""
    root = shards(tmp_path / "shards", write_images(tmp_path / "images"))
    image = (tmp_path / "images" / "a" / "000.png").read_bytes()
    members = {
        "x.png": image,
        "x.json": b'{"width": 36}',
        "x.cls": b"2",
        "._x.png": b"junk",
        "y.PNG": image,
        "y.CLS": b"1",
    }
    shard(root / "train-002.tar", members)
    spec, _ = resolve_dataset(f"folder:{root}")
    assert sum(spec.sizes.values()) == 32
    (root / "classes.txt").write_text("a\nb\nc\n\n")
    assert class_names(resolve_dataset(f"folder:{root}")[0]) == ("a", "b", "c")
    (root / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="no text in UTF-8"):
        resolve_dataset(f"folder:{root}")


def test_shards_of_a_test_split_alone_are_refused(tmp_path: Path) -> None:
    root = shards(tmp_path / "shards", write_images(tmp_path / "images"), split="test")
    with pytest.raises(BadInput, match="none of train"):
        resolve_dataset(f"folder:{root}")
