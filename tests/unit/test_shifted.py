"""Corrupted test images, folders of other test images, and the table over both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdbench.catalog.datasets import DATASETS
from kdbench.catalog.shifts import CORRUPTIONS, SEVERITIES, parts_of
from kdbench.data.corruptions import Corrupted, corrupt
from kdbench.data.readers import digits
from kdbench.data.samples import Fit
from kdbench.data.sources import other_test
from kdbench.errors import BadInput
from kdbench.report.shifted import shifted_grid, shifted_table
from tests.support.report_frames import sweep_frame

IMAGE = np.random.default_rng(0).integers(60, 190, (32, 32, 3), np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [32, 64])
def test_corruptions_are_pure_and_grow_with_severity(name: str, side: int) -> None:
    image = IMAGE.repeat(side // 32, 0).repeat(side // 32, 1)
    image = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    seen = [corrupt(image, name, severity, 7) for severity in SEVERITIES]
    gaps = [np.abs(each.astype(float) - image).mean() for each in seen]
    assert all(each.dtype == np.uint8 and each.shape == image.shape for each in seen)
    assert 0 < gaps[0] < gaps[2] < gaps[4]
    assert np.array_equal(seen[2], corrupt(image, name, 3, 7))
    assert np.array_equal(seen[2], corrupt(image, name, 3, 8)) == ("noise" not in name)


def test_corruptions_do_what_their_authors_say() -> None:
    x = IMAGE / 255
    mean = x.mean(axis=(0, 1))
    assert np.abs(corrupt(IMAGE, "contrast", 2, 0) / 255 - ((x - mean) * 0.5 + mean)).max() <= 0.5 / 255 + 1e-9
    assert np.abs(corrupt(IMAGE, "brightness", 1, 0) / 255 - (x + 0.05)).max() <= 0.5 / 255 + 1e-9
    noise = corrupt(np.full((32, 32, 3), 128, np.uint8), "gaussian-noise", 5, 0) / 255
    assert noise.std() == pytest.approx(0.10, rel=0.05)
    hit = corrupt(np.full((64, 64, 3), 128, np.uint8), "impulse-noise", 5, 0)
    assert [(hit == v).mean() for v in (0, 255)] == pytest.approx([0.135, 0.135], rel=0.1)
    shot = corrupt(np.full((64, 64, 1), 102, np.uint8), "shot-noise", 2, 0) / 255  # Poisson: variance mean / 25
    assert shot.var() == pytest.approx(0.4 / 25, rel=0.1)
    assert corrupt(np.full((32, 32, 1), 77, np.uint8), "pixelate", 5, 0).tolist() == np.full((32, 32, 1), 77).tolist()


def test_a_corrupted_image_is_the_same_wherever_it_stands() -> None:
    whole = Corrupted(digits(), Fit(32, 1, "resize"), "shot-noise", 3)
    some = whole.take(np.array([9, 4, 7])).take(np.array([2, 0]))
    assert some.labels.tolist() == digits().labels[[7, 9]].tolist()
    for place, row in enumerate((7, 9)):
        assert np.array_equal(some.image(place), whole.image(row)) and some.signature(place) == whole.signature(row)


def test_a_folder_of_the_same_classes_is_known_by_its_images(tmp_path: Path) -> None:
    for label in (3, 8):
        (tmp_path / "other" / str(label)).mkdir(parents=True)
        Image.fromarray(digits().images[label, ..., 0]).save(tmp_path / "other" / str(label) / "a.png")
    spec = DATASETS.get("digits")
    name, samples = other_test(spec, f"folder:{tmp_path / 'other'}")
    assert name.startswith("folder:other@") and samples.labels.tolist() == [3, 8]
    (tmp_path / "other").rename(tmp_path / "third")
    assert other_test(spec, f"folder:{tmp_path / 'third'}")[0].partition("@")[2] == name.partition("@")[2]
    Image.fromarray(digits().images[5, ..., 0]).save(tmp_path / "third" / "8" / "a.png")
    assert other_test(spec, f"folder:{tmp_path / 'third'}")[0] != name
    (tmp_path / "third" / "cat").mkdir()
    for bad, told in ((f"folder:{tmp_path / 'third'}", "class 'cat'"), ("cifar10.1", "neither corruptions nor folder")):
        with pytest.raises(BadInput, match=told):
            other_test(spec, bad)


def test_the_table_pairs_by_seed_on_each_test_set() -> None:
    frame = sweep_frame()
    confirm = frame[frame["phase"] == "confirm"]
    lost = {"gaussian-noise": 0.1, "jpeg": 0.3}
    accuracies = {
        run: {f"{kind} {s}": acc - gap - 0.01 * (s - 3) for kind, gap in lost.items() for s in SEVERITIES}
        | {"folder:new@12345678": acc - 0.05 * (method == "kd")}
        for run, acc, method in zip(confirm["trial_id"], confirm["test_acc"], confirm["method"], strict=True)
    }
    table = shifted_table(frame, accuracies).set_index(["test_set", "student"])
    assert [*table.index.levels[0]] == ["corruptions", "folder:new@12345678", "gaussian-noise", "jpeg"]
    for student, rows in confirm.groupby("student"):
        hard, kd = (rows[rows["method"] == method].set_index("seed")["test_acc"] for method in ("hard", "kd"))
        gain = (kd - hard).mean()
        assert table.loc[("corruptions", student), "test_acc"] == pytest.approx(kd.mean() - 0.2)
        assert table.loc[("jpeg", student), "baseline_acc"] == pytest.approx(hard.mean() - 0.3)
        assert table.loc[("gaussian-noise", student), "gain"] == pytest.approx(gain)
        assert table.loc[("folder:new@12345678", student), "gain"] == pytest.approx(gain - 0.05)
    shown = {cells[0].text for cells in shifted_grid(table.reset_index()).rows}
    assert shown == {"corruptions", "folder:new"}
    assert shifted_table(frame, {}).empty
    assert len(parts_of(["corruptions", "folder:x@1"])) == 41
