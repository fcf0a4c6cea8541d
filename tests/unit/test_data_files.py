"""IDX, CIFAR and image files: read as their formats say; damaged ones refused with the file's name and the fix."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.catalog.datasets import CHECKSUMS, DATASETS
from kdbench.catalog.types import DatasetSpec
from kdbench.config import DataConfig, Recipe
from kdbench.data import load
from kdbench.data.readers import read_cifar, read_idx
from kdbench.data.samples import Fit, as_array
from kdbench.errors import BadInput, MachineFault

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 28, 28), dtype=np.uint8)
LABELS = (np.arange(60) % 10).astype(np.uint8)
TINY = DatasetSpec(name="tiny-idx", classes=10, shape=(1, 28, 28), mean=(0.5,), std=(0.5,), fit="pad")


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own, no cache, no downloads."""
    monkeypatch.setenv("KDBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")
    return tmp_path


def write_idx(folder: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem in ("train", "t10k"):
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def test_idx_files_round_trip_and_the_test_split_stays_closed(place: Path):
    folder = write_idx(place / "tiny-idx")
    held_back = {path: path.read_bytes() for path in folder.glob("t10k*")}
    for path in held_back:
        path.unlink()
    task = load(TINY, DataConfig(name="tiny-idx", val_fraction=0.2), Recipe(), CPU)  # works without the test files
    assert (len(task.train), len(task.val)) == (48, 12)
    with pytest.raises(BadInput, match="t10k-images"):
        task.test()
    for path, content in held_back.items():
        path.write_bytes(content)
    test = task.test()
    x = torch.cat([batch.x for batch in test.plain(7)])
    assert np.array_equal(((x * 0.5 + 0.5) * 255).round()[:, 0, 2:30, 2:30].numpy().astype(np.uint8), IMAGES)
    assert float(x[:, :, :2].max()) == float(x[:, :, 30:].max()) == -1.0  # the zero border
    assert np.array_equal(test.labels.numpy(), LABELS)


def test_train_and_val_are_disjoint_reproducible_and_only_train_is_limited(place: Path):
    write_idx(place / "tiny-idx")
    cfg = DataConfig(name="tiny-idx", val_fraction=0.2)
    task, again = load(TINY, cfg, Recipe(), CPU), load(TINY, cfg, Recipe(), CPU)
    assert (task.train.digest, task.val.digest) == (again.train.digest, again.val.digest)
    seen = [{image.numpy().tobytes() for batch in part.plain() for image in batch.x} for part in (task.train, task.val)]
    assert len(seen[0] & seen[1]) == 0
    assert len(seen[0] | seen[1]) == 60
    limited = load(TINY, cfg.model_copy(update={"limit": 20}), Recipe(), CPU)
    assert len(limited.train) == 20
    assert limited.val.digest == task.val.digest
    other = load(TINY, cfg.model_copy(update={"split_seed": 1}), Recipe(), CPU)
    assert other.train.digest != task.train.digest


def damage_cases() -> dict[str, tuple[str, bytes, str]]:
    good = gzip.compress(idx(IMAGES))
    images, labels = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"
    return {
        "truncated gz": (images, good[: len(good) // 2], "ended|early"),
        "flipped bits": (images, good[:-8] + bytes(8), "CRC|incorrect"),
        "not gz": (images, b"<html>not found</html>", "gzip"),
        "empty file": (labels, b"", "is empty"),
        "wrong magic": (images, gzip.compress(idx(IMAGES.astype(np.int8), kind=9)), "0x00000903"),
        "labels as images": (images, gzip.compress(idx(LABELS)), "3-dimensional"),
        "truncated content": (images, gzip.compress(idx(IMAGES)[:-5]), "truncated"),
        "count mismatch": (labels, idx(LABELS[:-1]), "60 images but .* 59 labels"),
        "wrong size": (images, gzip.compress(idx(IMAGES[:, :20])), r"\(20, 28\)"),
        "label out of range": (labels, idx(LABELS + 1), "labels 1 to 10.*10 classes"),
        "absent class": (labels, idx(LABELS % 9), "no image of class 9"),
    }


@pytest.mark.parametrize("case", damage_cases())
def test_damaged_idx_files_are_refused_by_name(place: Path, case: str):
    name, content, says = damage_cases()[case]
    folder = write_idx(place / "tiny-idx")
    (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=says) as caught:
        load(TINY, DataConfig(name="tiny-idx"), Recipe(), CPU)
    assert str(folder) in str(caught.value) or "tiny-idx" in str(caught.value)


def test_a_published_checksum_detects_another_file(place: Path):
    """Well-formed IDX files of the right size in mnist's place, but not mnist's."""
    write_idx(place / "mnist", np.zeros((60_000, 28, 28), np.uint8), (np.arange(60_000) % 10).astype(np.uint8))
    with pytest.raises(BadInput, match="not the published file: MD5"):
        load(DATASETS.get("mnist"), DataConfig(name="mnist"), Recipe(), CPU)


def test_a_checksum_covers_the_content_or_the_packed_file(tmp_path: Path):
    raw, path = idx(LABELS), tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(raw))
    for published in (
        {"labels": hashlib.md5(raw).hexdigest()},
        {"labels.gz": hashlib.md5(path.read_bytes()).hexdigest()},
        {},
    ):
        assert np.array_equal(read_idx(path, 1, published), LABELS)
    with pytest.raises(BadInput, match="MD5"):
        read_idx(path, 1, {"labels.gz": "0" * 32})


def test_a_missing_data_set_names_every_place_and_the_way_out(place: Path):
    with pytest.raises(MachineFault) as caught:
        load(DATASETS.get("kmnist"), DataConfig(name="kmnist"), Recipe(), CPU)
    for part in (str(place / "kmnist"), str(place / "cache"), "/usr/share/datasets/kmnist", "KDBENCH_DATA", "digits"):
        assert part in str(caught.value)


def cifar_records(hundred: bool, n: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    images = RNG.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    labels = (np.arange(n) * 7 % (100 if hundred else 10)).astype(np.uint8)
    rows = [
        (bytes([99 % 20]) if hundred else b"") + bytes([label]) + image.transpose(2, 0, 1).tobytes()
        for image, label in zip(images, labels, strict=True)
    ]
    return b"".join(rows), images, labels


@pytest.mark.parametrize("hundred", [False, True])
def test_the_cifar_binary_layouts(tmp_path: Path, hundred: bool):
    layout = "cifar-100-binary" if hundred else "cifar-10-batches-bin"
    names = ["train.bin"] if hundred else [f"data_batch_{k}.bin" for k in range(1, 6)]
    (tmp_path / layout).mkdir()
    written = []
    for name in names:
        content, images, labels = cifar_records(hundred, 12)
        (tmp_path / layout / name).write_bytes(content)
        written.append((images, labels))
    found = read_cifar(tmp_path, layout, "train")
    assert np.array_equal(found.images, np.concatenate([images for images, _ in written]))
    assert np.array_equal(found.labels, np.concatenate([labels for _, labels in written]))
    (tmp_path / layout / names[-1]).write_bytes(content[:-1])
    with pytest.raises(BadInput, match="truncated"):
        read_cifar(tmp_path, layout, "train")
    (tmp_path / layout / names[0]).unlink()
    with pytest.raises(BadInput, match=names[0]):
        read_cifar(tmp_path, layout, "train")


def test_a_short_cifar_is_not_taken_for_cifar(place: Path):
    (place / "cifar100" / "cifar-100-binary").mkdir(parents=True)
    (place / "cifar100" / "cifar-100-binary" / "train.bin").write_bytes(cifar_records(True, 200)[0])
    with pytest.raises(BadInput, match="200 images, not the published 50000"):
        load(DATASETS.get("cifar100"), DataConfig(name="cifar100"), Recipe(), CPU)


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_python_batches_are_unpickled_only_when_they_are_the_published_ones(tmp_path: Path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    mark = tmp_path / "ran"
    (folder / "test_batch").write_bytes(pickle.dumps({"data": Bomb(mark), "labels": [0]}))
    with pytest.raises(BadInput, match="not the published file"):
        read_cifar(tmp_path, "cifar-10-batches-py", "test")
    images = RNG.integers(0, 256, (5, 3072), dtype=np.uint8)
    content = pickle.dumps({"data": images, "labels": [3, 1, 4, 1, 5]}, protocol=2)
    (folder / "test_batch").write_bytes(content)
    monkeypatch.setitem(CHECKSUMS["cifar10"], "test_batch", hashlib.md5(content).hexdigest())
    found = read_cifar(tmp_path, "cifar-10-batches-py", "test")
    assert found.labels.tolist() == [3, 1, 4, 1, 5]
    assert np.array_equal(found.images, images.reshape(5, 3, 32, 32).transpose(0, 2, 3, 1))
    bomb = (folder / "test_batch").write_bytes(pickle.dumps({"data": Bomb(mark)})) and (
        folder / "test_batch"
    ).read_bytes()
    monkeypatch.setitem(CHECKSUMS["cifar10"], "test_batch", hashlib.md5(bomb).hexdigest())
    with pytest.raises(pickle.UnpicklingError):  # even then, nothing but arrays is built
        read_cifar(tmp_path, "cifar-10-batches-py", "test")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("stored", "size", "how", "corner"),
    [((28, 28), 32, "pad", 0), ((28, 28), 24, "pad", 255), ((8, 8), 32, "resize", 255), ((8, 8), 32, "pad", 255)],
)
def test_images_reach_the_input_size(stored, size, how, corner):
    """A border only while it is thinner than the image; a white image stays white, a wide one loses its sides."""
    out = Fit(size, 1, how)(np.full((*stored, 1), 255, np.uint8))
    assert out.shape == (size, size, 1)
    assert (out[0, 0, 0], out[size // 2, size // 2, 0]) == (corner, 255)
    wide = np.zeros((30, 90, 3), np.uint8)
    wide[:, 30:60] = 255
    assert (Fit(32, 3, "resize")(wide)[:, 1:-1] == 255).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "I", "F", "unit", "12 bits", "alpha"])
def test_every_image_mode_is_read(tmp_path: Path, mode: str):
    """Depths are scaled, transparency lies on white: 200 of 255 stays 200."""
    path, deep = tmp_path / "x.tif", np.full((40, 36), 200 / 255)
    arrays = {"I;16": (np.uint16, 65535), "I": (np.int32, 65535), "F": (np.float32, 255), "unit": (np.float32, 1)}
    if mode == "alpha":  # black, and only as opaque as makes 200 on white
        Image.new("RGBA", (36, 40), (0, 0, 0, 55)).save(path.with_suffix(".png"))
        path = path.with_suffix(".png")
    elif mode == "12 bits":
        Image.fromarray((deep * 4095).round().astype(np.uint16)).save(path, tiffinfo={281: 4095})
    elif mode in arrays:
        kind, white = arrays[mode]
        Image.fromarray((deep * white).astype(kind)).save(path)
    else:
        Image.new("RGB", (36, 40), (200, 200, 200)).convert(mode).save(path)
    with Image.open(path) as image:
        for channels in (1, 3):
            found = as_array(image, channels)
            assert found.shape == (40, 36, channels)
            assert abs(float(found.mean()) - 200) < (60 if mode == "1" else 2.5)
