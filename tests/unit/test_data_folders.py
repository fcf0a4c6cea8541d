"""A user's own folder of images, in memory and streamed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.catalog.datasets import DATASETS
from kdbench.config import DataConfig, Recipe
from kdbench.data import ResidentSplit, StreamSplit, TaskData, describe_source, load, resolve_dataset, splits
from kdbench.data.places import locate
from kdbench.data.samples import Fit
from kdbench.errors import BadInput

CPU = torch.device("cpu")


def write_images(root: Path, classes: str = "abc", n: int = 10, size: tuple[int, int] = (40, 36)) -> Path:
    rng = np.random.default_rng(len(str(root.name)) + n)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(n):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            pixels[0, 0, 0] = label
            Image.fromarray(pixels).save(root / name / f"{k:03}.png")
    return root


def task_of(root: Path, recipe: Recipe | None = None, **cfg: object) -> TaskData:
    spec, digest = resolve_dataset(f"folder:{root}")
    config = DataConfig(name="folder", digest=digest, val_fraction=0.25).model_copy(update=cfg)
    return load(spec, config, recipe or Recipe(), CPU)


def test_a_folder_without_splits_is_cut_in_three_and_says_so(tmp_path: Path):
    root = write_images(tmp_path / "own")
    spec, _ = resolve_dataset(f"folder:{root}")
    assert (spec.classes, spec.shape, spec.input_size) == (3, (3, 40, 36), 32)
    assert spec.sizes == {"train": 24, "test": 6}
    assert "stratified 20%" in spec.source
    found = task_of(root)
    test = found.test()
    assert (len(found.train), len(found.val), len(test)) == (18, 6, 6)
    assert torch.bincount(test.labels).tolist() == [2, 2, 2]
    pixels = [{x.numpy().tobytes() for b in part.plain() for x in b.x} for part in (found.train, found.val, test)]
    assert len(set.union(*pixels)) == 30


def test_split_folders_are_used_as_they_are(tmp_path: Path):
    for part, n in (("train", 6), ("val", 2), ("test", 3)):
        write_images(tmp_path / part, n=n)
    found = task_of(tmp_path)
    assert (len(found.train), len(found.val), len(found.test())) == (18, 6, 9)
    write_images(tmp_path / "test", classes="z", n=1)
    with pytest.raises(BadInput, match="'z' that the training split does not"):
        found.test()


def test_changed_files_are_noticed(tmp_path: Path):
    root = write_images(tmp_path / "own")
    spec, digest = resolve_dataset(f"folder:{root}")
    (root / "a" / "000.png").unlink()
    assert resolve_dataset(f"folder:{root}")[1] != digest
    with pytest.raises(BadInput, match="have changed since"):
        load(spec, DataConfig(name="own", digest=digest), Recipe(), CPU)


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
    broken = write_images(tmp_path / "broken") / "b" / "003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    refused(tmp_path / "broken", "cannot decode the image .*003.png")
    with pytest.raises(BadInput, match="needs a path"):
        resolve_dataset("folder:")
    with pytest.raises(BadInput, match="did you mean 'cifar100'"):
        resolve_dataset("cifar-100")


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "MEMORY_SHARE", 0.0)


def test_streaming_shows_the_same_pixels_as_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_images(tmp_path / "own")
    resident = task_of(root).train
    monkeypatch.setattr(splits, "MEMORY_SHARE", 0.0)
    stream = task_of(root).train
    assert (type(resident), type(stream)) == (ResidentSplit, StreamSplit)
    for one, other in (
        (resident.plain(5), stream.plain(5)),
        tuple(s.batches(batch_size=4, order_seed=1, augment_seed=2, epoch=3) for s in (resident, stream)),
    ):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.y, b.y)
            assert torch.equal(a.rows, b.rows)
            assert (a.views is None and b.views is None) or torch.equal(a.views, b.views)
            assert b.x.is_contiguous(memory_format=torch.channels_last)


def test_a_continuous_view_is_a_pure_function_of_seed_epoch_and_row(tmp_path: Path):
    found = task_of(write_images(tmp_path / "own"), Recipe(views="resized-crop"))
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
    reference = views(0, 1, 1, 18)
    assert views(7, 1, 1, 6) == reference  # order, batch size and workers do not matter
    assert all(value != reference[row] for row, value in views(0, 1, 2, 18).items())
    assert all(value != reference[row] for row, value in views(0, 2, 1, 18).items())
    assert torch.equal(state[0], torch.get_rng_state())  # the caller's generators are left alone
    assert state[1] == random.getstate()


def test_an_undecodable_image_in_a_stream_is_named(tmp_path: Path, streamed: None):
    found = task_of(write_images(tmp_path / "own"))
    for victim in (tmp_path / "own" / "b").glob("*.png"):
        victim.write_bytes(b"\x89PNG broken" + bytes(victim.stat().st_size - 11))
    with pytest.raises(BadInput, match=r"cannot decode the image .*\.png"):
        list(found.train.plain())


@pytest.mark.parametrize(
    ("stored", "size", "how", "corner"),
    [((28, 28), 32, "pad", 0), ((28, 28), 24, "pad", 255), ((8, 8), 32, "resize", 255), ((8, 8), 32, "pad", 255)],
)
def test_images_reach_the_input_size(stored, size, how, corner):
    """A border only while it is thinner than the image; a white image stays white when resized."""
    out = Fit(size, 1, how)(np.full((*stored, 1), 255, np.uint8))
    assert out.shape == (size, size, 1)
    assert out[0, 0, 0] == corner
    assert out[size // 2, size // 2, 0] == 255


def test_a_wide_image_loses_its_sides_not_its_shape():
    wide = np.zeros((30, 90, 3), np.uint8)
    wide[:, 30:60] = 255
    assert (Fit(32, 3, "resize")(wide)[:, 1:-1] == 255).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_image_mode_is_read(tmp_path: Path, mode: str):
    root = write_images(tmp_path / "own", n=4)
    for path in (root / "a").glob("*.png"):
        path.unlink()
        grey = np.full((40, 36), 200 << 8, np.uint16)
        image = Image.fromarray(grey) if mode == "I;16" else Image.new("RGB", (36, 40), (200, 200, 200)).convert(mode)
        image.save(path.with_suffix(".tif" if mode == "CMYK" else ".png"))
    first = next(iter(task_of(root).train.plain()))
    grey_value = (first.x[first.y == 0] * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)).mean((0, 2, 3))
    grey_value = grey_value + torch.tensor([0.485, 0.456, 0.406])
    assert torch.allclose(grey_value, torch.full((3,), 200 / 255), atol=0.25 if mode == "1" else 0.02)


def test_tiny_imagenet_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KDBENCH_DATA", str(tmp_path))
    root = tmp_path / "tiny-imagenet" / "tiny-imagenet-200"
    names = [f"n{k:08}" for k in range(200)]
    for name in names:
        (root / "train" / name / "images").mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (64, 64)).save(root / "train" / name / "images" / f"{name}_{k}.JPEG")
    (root / "val" / "images").mkdir(parents=True)
    for k in range(3):
        Image.new("RGB", (64, 64)).save(root / "val" / "images" / f"val_{k}.JPEG")
    notes = "".join(f"val_{k}.JPEG\t{names[50 * k]}\t0\t0\t62\t62\n" for k in range(3))
    (root / "val" / "val_annotations.txt").write_text(notes)
    found = load(DATASETS.get("tiny-imagenet"), DataConfig(name="tiny-imagenet", val_fraction=0.5), Recipe(), CPU)
    assert (len(found.train), len(found.val)) == (200, 200)
    assert found.test().labels.tolist() == [0, 50, 100]
    assert locate("tiny-imagenet") == (tmp_path / "tiny-imagenet", "tiny-imagenet-200")
    assert (str(tmp_path / "tiny-imagenet"), True) in describe_source("tiny-imagenet")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99\n")
    with pytest.raises(BadInput, match="line 1"):
        found.test()


def test_a_hub_data_set_from_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("datasets", reason="the package `datasets` is not installed")
    for part, n in (("train", 8), ("test", 3)):
        write_images(tmp_path / "hub" / part, n=n)
    spec, digest = resolve_dataset(f"hf:{tmp_path / 'hub'}")
    assert (spec.classes, spec.sizes, spec.input_size) == (3, {"train": 24, "test": 9}, 32)
    found = load(spec, DataConfig(name="hub", digest=digest, val_fraction=0.25), Recipe(), CPU)
    folder = task_of(tmp_path / "hub")
    assert found.test().digest == folder.test().digest  # the same pixels and labels, whichever reader
    assert (len(found.train), len(found.val)) == (18, 6)


def test_a_third_partys_spec_finds_its_folder_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KDBENCH_DATA", str(tmp_path))
    write_images(tmp_path / "pets")
    spec = DATASETS.get("imagenette").model_copy(update={"name": "pets", "classes": 3, "sizes": {}, "input_size": 32})
    found = load(spec, DataConfig(name="pets", val_fraction=0.25), Recipe(), CPU)
    assert (len(found.train), len(found.val), len(found.test())) == (18, 6, 6)
    with pytest.raises(BadInput, match="no image of class 3"):
        load(spec.model_copy(update={"classes": 4}), DataConfig(name="pets"), Recipe(), CPU)
