"""A user's own images: found, checked before anything is trained, known by their content, decoded once."""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.catalog.datasets import DATASETS
from kdbench.config import DataConfig, Recipe, RunConfig
from kdbench.data import ResidentSplit, StreamSplit, TaskData, describe_source, load, resolve_dataset, splits
from kdbench.data.places import cache_root, locate
from kdbench.data.task import check_parts
from kdbench.errors import BadInput

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every file that Pillow opens."""
    files, really = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, *rest: (files.append(file), really(file, *rest))[1])
    return files


def write_images(root: Path, classes: str = "abc", n: int = 10, kind: str = "png") -> Path:
    rng = np.random.default_rng(len(str(root.name)) + n)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(n):
            pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            pixels[0, 0, 0] = label
            Image.fromarray(pixels).save(root / name / f"{k:03}.{kind}")
    return root


def task_of(root: Path, recipe: Recipe | None = None, **cfg: object) -> TaskData:
    spec, digest = resolve_dataset(f"folder:{root}", skip_corrupt=bool(cfg.get("skip_corrupt")))
    config = DataConfig(name="folder", digest=digest, val_fraction=0.25).model_copy(update=cfg)
    return load(spec, config, recipe or Recipe(), CPU)


def sizes(found: TaskData) -> tuple[int, ...]:
    return len(found.train), len(found.val), len(found.test())


def test_a_folder_without_splits_is_cut_in_three_and_says_so(tmp_path: Path):
    root = write_images(tmp_path / "own")
    spec, _ = resolve_dataset(f"folder:{root}")
    assert (spec.classes, spec.shape, spec.input_size) == (3, (3, 40, 36), 32)
    assert spec.sizes == {"train": 24, "test": 6}
    assert "a, b, c" in spec.source and "stratified 20%" in spec.source
    found = task_of(root)
    test = found.test()
    assert sizes(found) == (18, 6, 6)
    assert torch.bincount(test.labels).tolist() == [2, 2, 2]
    pixels = [{x.numpy().tobytes() for b in part.plain() for x in b.x} for part in (found.train, found.val, test)]
    assert len(set.union(*pixels)) == 30


@pytest.mark.parametrize("names", [("train", "val", "test"), ("seg_train", "dev", "test_set")])
def test_split_folders_are_used_as_they_are(tmp_path: Path, names: tuple[str, str, str]):
    for part, n in zip(names, (6, 2, 3), strict=True):
        write_images(tmp_path / "own" / part, n=n)
    found = task_of(tmp_path / "own")
    assert sizes(found) == (18, 6, 9)
    write_images(tmp_path / "own" / names[2], classes="z", n=1)
    with pytest.raises(BadInput, match="'z' that the training split does not"):
        found.test()
    shutil.rmtree(tmp_path / "own" / names[0])
    with pytest.raises(BadInput, match="but no folder 'train'"):
        task_of(tmp_path / "own")


def test_a_class_may_be_called_train(tmp_path: Path):
    for name in ("bus", "train"):
        write_images(tmp_path / "vehicles" / name, classes="x").joinpath("x").rename(tmp_path / "vehicles" / f"{name}_")
        shutil.rmtree(tmp_path / "vehicles" / name)
        (tmp_path / "vehicles" / f"{name}_").rename(tmp_path / "vehicles" / name)
    assert resolve_dataset(f"folder:{tmp_path / 'vehicles'}")[0].classes == 2


def test_a_folder_is_its_content_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list):
    root = write_images(tmp_path / "own", kind="bmp")
    for path in root.glob("*/*"):
        os.utime(path, (1, 1))  # older than any clock's tick
    spec, digest = resolve_dataset(f"folder:{root}")
    assert len(opened) == 30
    monkeypatch.chdir(tmp_path)
    assert resolve_dataset("folder:own") == (spec, digest)
    assert len(opened) == 30  # read once
    root = root.rename(tmp_path / "renamed")
    spec, same = resolve_dataset("folder:renamed")
    assert (spec.name, same) == (f"folder:{root}", digest)
    about = {"model": "m", "recipe": Recipe(), "seed": 0, "phase": "teacher"}
    configs = [
        DataConfig(name=f"folder:{name}", digest=digest, skip_corrupt=skip) for name, skip in (("own", 0), ("b", 1))
    ]
    assert len({RunConfig(data=data, **about).id for data in configs}) == 1
    a, b = (root / name / "000.bmp" for name in "ab")
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other)  # a file of the same length
    with pytest.raises(BadInput, match="have changed since"):
        load(spec, DataConfig(name="own", digest=digest), Recipe(), CPU)
    a.write_bytes(one)
    assert resolve_dataset("folder:renamed")[1] == digest
    a.unlink()
    assert resolve_dataset("folder:renamed")[1] != digest


def test_bad_folders_are_refused_by_name(tmp_path: Path):
    def refused(root: Path, says: str) -> None:
        with pytest.raises(BadInput, match=says) as caught:
            task_of(root)
        assert str(root) in str(caught.value)

    refused(tmp_path / "nowhere", "there is no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no class folders")
    refused(write_images(tmp_path / "single", classes="a"), r"only one class \('a'\)")
    write_images(tmp_path / "hole")
    (tmp_path / "hole" / "d").mkdir()
    refused(tmp_path / "hole", "no image in the class folder .*/d")
    with pytest.raises(BadInput, match="needs a path"):
        resolve_dataset("folder:")
    with pytest.raises(BadInput, match="did you mean 'cifar100'"):
        resolve_dataset("cifar-100")


def test_all_broken_images_are_named_at_once_or_left_out(tmp_path: Path):
    root = tmp_path / "own"
    for part in ("train", "test"):
        write_images(root / part)
    whole = resolve_dataset(f"folder:{root}")[1]
    broken = [root / "train" / "a" / f"{k:03}.png" for k in range(5)] + [root / "test" / "b" / "001.png"]
    for path, damage in zip(broken, (b"", b"<html>404</html>", *[b"cut"] * 4), strict=True):
        path.write_bytes(path.read_bytes()[:-60] if damage == b"cut" else damage)
    with pytest.raises(
        BadInput, match=r"cannot decode 6 images: .*a/000.png \(not an image\).* and 1 more.*skip-corrupt"
    ):
        resolve_dataset(f"folder:{root}")
    spec, digest = resolve_dataset(f"folder:{root}", skip_corrupt=True)
    assert spec.sizes == {"train": 25, "test": 29}
    assert "5 of 30 images" in spec.source and "1 of 30 images" in spec.source
    assert sizes(task_of(root, skip_corrupt=True)) == (19, 6, 29)
    for path in broken:
        path.unlink()
    assert resolve_dataset(f"folder:{root}")[1] == digest != whole  # what is left out might as well be gone


def test_a_broken_test_image_with_a_sound_header_is_found_before_training(tmp_path: Path):
    for part in ("train", "test"):
        write_images(tmp_path / "own" / part, kind="bmp")
    victims = [tmp_path / "own" / "test" / name / "004.bmp" for name in "ab"]
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:2000])
    spec, digest = resolve_dataset(f"folder:{tmp_path / 'own'}")
    with pytest.raises(BadInput, match=r"2 images: .*a/004.bmp.*b/004.bmp"):
        check_parts(spec, DataConfig(name="own", digest=digest), Recipe())
    assert task_of(tmp_path / "own", skip_corrupt=True).test().labels.bincount().tolist() == [9, 9, 10]


def test_images_are_decoded_once_for_all_processes(tmp_path: Path, cache: Path, opened: list):
    root = write_images(tmp_path / "own")
    first = task_of(root)
    first.test()
    opened.clear()
    found: list[TaskData] = []
    workers = [threading.Thread(target=lambda: found.append(task_of(root))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for task in found:
        assert (task.test().digest, task.train.digest) == (first.test().digest, first.train.digest)
    assert not [file for file in opened if isinstance(file, Path)]  # files are looked into by stream, decoded by path
    kept, digests = sorted(cache.glob("decoded/*.npy")), [first.test().digest, first.train.digest, first.val.digest]
    assert len(kept) == 3
    for damage in (b"", b"junk", kept[0].read_bytes()[:-50], kept[0].read_bytes().replace(b"|u1", b"|i1")):
        for path in kept:
            path.write_bytes(damage)
            path.with_name(f".{path.name}.x.tmp").touch()  # a kill's
        again = task_of(root)
        assert [again.test().digest, again.train.digest, again.val.digest] == digests
        assert not list(cache.glob("decoded/.*.tmp"))
    shutil.rmtree(cache)
    cache.write_text("no folder")  # a cache that cannot be written
    assert task_of(root).test().digest == first.test().digest
    cache.unlink()
    load(DATASETS.get("digits"), DataConfig(name="digits"), Recipe(), CPU).test()
    assert not cache.exists()  # arrays stay in memory


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take no such names")
def test_a_file_name_need_not_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_images(tmp_path / "own")
    victim = next(root.rglob("*.png"))
    os.rename(victim, os.fsencode(victim.parent) + b"/caf\xe9.png")
    resident = task_of(root).train.digest
    monkeypatch.setattr(splits, "MEMORY_SHARE", 0.0)
    assert len(task_of(root).train) and resident


def test_streaming_shows_the_same_pixels_as_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_images(tmp_path / "own")
    resident = task_of(root).train
    monkeypatch.setattr(splits, "MEMORY_SHARE", 0.0)
    found = task_of(root)
    assert [type(part) for part in (resident, found.train, found.val)] == [ResidentSplit, StreamSplit, ResidentSplit]
    stream = found.train
    for one, other in (
        (resident.plain(5), stream.plain(5)),
        tuple(s.batches(batch_size=4, order_seed=1, augment_seed=2, epoch=3) for s in (resident, stream)),
    ):
        for a, b in zip(one, other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
            assert (a.views is None and b.views is None) or torch.equal(a.views, b.views)
            assert b.x.is_contiguous(memory_format=torch.channels_last)
    for victim in (root / "b").glob("*.png"):
        victim.write_bytes(b"\x89PNG broken" + bytes(victim.stat().st_size - 11))
    with pytest.raises(BadInput, match=r"^cannot decode the image [^\n]*\.png [^\n]*$"):  # one line, no traceback
        list(stream.plain())


@pytest.mark.parametrize("name", ["own", "mnist-like"])
def test_a_continuous_view_is_a_pure_function_of_seed_epoch_and_row(tmp_path: Path, name: str):
    recipe = Recipe(views="resized-crop")
    if name == "own":
        found = task_of(write_images(tmp_path / "own"), recipe)
    else:  # grey arrays for a network made for colour
        config = DataConfig(name="digits", limit=20, channels=3)
        found = load(DATASETS.get("digits"), config, recipe, CPU)
    train = found.train
    assert isinstance(train, StreamSplit)
    assert train.n_views is None
    assert isinstance(found.val, ResidentSplit)

    def views(order_seed: int, augment_seed: int, epoch: int, batch_size: int) -> dict[int, bytes]:
        epochs = train.batches(batch_size=batch_size, order_seed=order_seed, augment_seed=augment_seed, epoch=epoch)
        return {int(r): x.numpy().tobytes() for b in epochs for r, x in zip(b.rows, b.x, strict=True)}

    torch.manual_seed(5)
    random.seed(5)
    state = torch.get_rng_state(), random.getstate()
    reference = views(0, 1, 1, len(train))
    again = views(7, 1, 1, 6)
    assert again == {row: reference[row] for row in again}  # order, batch size and workers do not matter
    for epoch, seed in ((2, 1), (1, 2)):
        assert all(value != reference[row] for row, value in views(0, seed, epoch, len(train)).items())
    assert torch.equal(state[0], torch.get_rng_state())  # the caller's generators are left alone
    assert state[1] == random.getstate()


def test_what_systems_leave_behind_is_skipped_and_nothing_hangs(tmp_path: Path):
    plain, root = write_images(tmp_path / "plain", kind="jpg"), tmp_path / "own"
    shutil.copytree(plain, root)
    for place in (root, root / "a"):
        for name in ("@eaDir", "__MACOSX", ".ipynb_checkpoints"):
            (place / name).mkdir()
            shutil.copy(plain / "a" / "000.jpg", place / name / "thumb.jpg")
    (root / "a" / "._000.jpg").write_bytes(b"\0\5")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "other").symlink_to(root / "b")
    (root / "a" / "self").symlink_to("self")
    os.mkfifo(root / "b" / "pipe.jpg")
    spec, digest = resolve_dataset(f"folder:{root}")
    assert digest == resolve_dataset(f"folder:{plain}")[1]
    assert "left out: 2 x .ipynb_checkpoints, 2 x @eaDir, 2 x __MACOSX" in spec.source
    for k, suffix in enumerate((".jfif", ".jpe", ".JPG")):
        (root / "c" / f"00{k}.jpg").rename(root / "c" / f"00{k}{suffix}")
    os.rename(root / "b" / "003.jpg", os.fsencode(root / "b") + b"/caf\xe9.jpg")  # no UTF-8
    assert resolve_dataset(f"folder:{root}")[0].sizes == spec.sizes
    assert sizes(task_of(root)) == (18, 6, 6)
    task_of(root, Recipe(views="resized-crop")).train.digest.encode()
    (root / "b" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    with pytest.raises(BadInput, match=r"caf\\xe9.jpg") as caught:
        task_of(root)
    str(caught.value).encode()


def test_tiny_imagenet_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path):
    monkeypatch.setenv("KDBENCH_DATA", str(tmp_path))
    root = tmp_path / "tiny-imagenet" / "tiny-imagenet-200"
    names = [f"n{k:08}" for k in range(200)]
    images = [root / "train" / name / "images" / f"{name}_{k}.JPEG" for name in names for k in range(2)]
    images += [root / "val" / "images" / f"val_{k}.JPEG" for k in range(3)]
    for path in images:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(path)
    notes = root / "val" / "val_annotations.txt"
    notes.write_text("".join(f"val_{k}.JPEG\t{names[50 * k]}\t0\t0\t62\t62\n" for k in range(3)))
    found = load(DATASETS.get("tiny-imagenet"), DataConfig(name="tiny-imagenet", val_fraction=0.5), Recipe(), CPU)
    assert sizes(found) == (200, 200, 3)
    assert found.test().labels.tolist() == [0, 50, 100]
    assert locate("tiny-imagenet") == (tmp_path / "tiny-imagenet", "tiny-imagenet-200")
    assert (str(tmp_path / "tiny-imagenet"), True) in describe_source("tiny-imagenet")
    assert cache_root() == cache / "datasets"
    notes.write_text("val_0.JPEG\tn99\n")
    with pytest.raises(BadInput, match="line 1"):
        found.test()


def test_hub_data_sets_from_this_machine(tmp_path: Path):
    datasets = pytest.importorskip("datasets", reason="the package `datasets` is not installed")
    for part, n in (("train", 8), ("test", 3)):
        write_images(tmp_path / "hub" / part, n=n)
    spec, digest = resolve_dataset(f"hf:{tmp_path / 'hub'}")
    assert (spec.classes, spec.sizes, spec.input_size) == (3, {"train": 24, "test": 9}, 32)
    found = load(spec, DataConfig(name="hub", digest=digest, val_fraction=0.25), Recipe(), CPU)
    assert found.test().digest == task_of(tmp_path / "hub").test().digest  # whichever reader
    assert sizes(found) == (18, 6, 9)
    named = datasets.load_dataset(str(tmp_path / "hub"))
    for case, labels in (("numbers", [0, 1, 2] * 3), ("hidden", [-1] * 9)):  # labels without names; withheld ones
        for part, values in (("train", [0, 1, 2] * 8), ("test", labels)):
            plain = named[part].remove_columns("label").add_column("label", values)
            (tmp_path / case / "data").mkdir(parents=True, exist_ok=True)
            plain.to_parquet(tmp_path / case / "data" / f"{part}-00000-of-00001.parquet")
    numbers, hidden = (resolve_dataset(f"hf:{tmp_path / case}") for case in ("numbers", "hidden"))
    assert (numbers[0].classes, hidden[0].classes) == (3, 3) and numbers[1] != hidden[1]
    check_parts(numbers[0], recipe=Recipe())
    with pytest.raises(BadInput, match=r"labels -1 to -1.*keeps back"):
        check_parts(hidden[0])


def test_a_third_partys_spec_finds_its_folder_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KDBENCH_DATA", str(tmp_path))
    write_images(tmp_path / "pets")
    spec = DATASETS.get("imagenette").model_copy(update={"name": "pets", "classes": 3, "sizes": {}, "input_size": 32})
    assert sizes(load(spec, DataConfig(name="pets", val_fraction=0.25), Recipe(), CPU)) == (18, 6, 6)
    with pytest.raises(BadInput, match="no image of class 3"):
        load(spec.model_copy(update={"classes": 4}), DataConfig(name="pets"), Recipe(), CPU)
