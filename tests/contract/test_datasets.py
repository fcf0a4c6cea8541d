"""What holds for every data set of the catalog, third parties' included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from kdbench.catalog.datasets import CHECKSUMS, DATASETS
from kdbench.catalog.types import DatasetSpec
from kdbench.config import DataConfig, Recipe
from kdbench.data import ResidentSplit, describe_source, load, resolve_dataset
from kdbench.data.readers import digits
from kdbench.errors import MachineFault

NAMES = DATASETS.names()
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_is_whole_and_consistent(name: str):
    spec = DATASETS.get(name)
    assert resolve_dataset(name) == (spec, None)
    assert spec.name == name
    assert DatasetSpec.model_validate_json(spec.model_dump_json()) == spec
    channels, height, width = spec.shape
    assert len(spec.mean) == len(spec.std) == channels
    assert all(0 < value < 1 for value in (*spec.mean, *spec.std))
    assert spec.classes >= 2
    assert min(height, width) >= 8
    assert set(spec.sizes) <= {"train", "val", "test"}
    assert 1 / spec.classes < spec.teacher_floor < 1
    assert spec.license
    assert spec.source
    assert spec.input_size <= 2 * max(height, width) or name == "digits"


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_is_readable_or_missing_with_every_place_named(name: str, tmp_path: Path, monkeypatch):
    """Nowhere on an empty machine: the error names all the places that ``describe_source`` looks at."""
    monkeypatch.setenv("KDBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")
    places = describe_source(name)
    assert places
    try:
        data = load(DATASETS.get(name), DataConfig(name=name), Recipe(), CPU)
    except MachineFault as fault:
        assert not any(found for _, found in places)
        assert all(place in str(fault) for place, _ in places)
    else:
        assert any(found for _, found in places)
        assert len(data.train) + len(data.val) == DATASETS.get(name).sizes["train"]


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion-mnist"])
def test_the_pixels_are_those_that_the_spec_describes(name: str):
    spec = DATASETS.get(name)
    if not any(found for _, found in describe_source(name)):
        pytest.skip(f"{name} is not on this machine (KDBENCH_DATA)")
    data = load(spec, DataConfig(name=name), Recipe(input_size=spec.shape[1] if spec.fit == "pad" else None), CPU)
    test = data.test()
    assert isinstance(data.train, ResidentSplit)
    assert {"train": len(data.train) + len(data.val), "test": len(test)} == spec.sizes
    for split in (data.train, data.val, test):
        counts = torch.bincount(split.labels, minlength=spec.classes)
        assert int(counts.min()) > 0
    x = torch.cat([batch.x for batch in data.train.plain()])
    assert abs(float(x.mean())) < 0.02  # the published mean and deviation are these pixels'
    assert abs(float(x.std()) - 1) < (0.15 if name == "digits" else 0.02)  # digits are smoothed by enlarging them
    share = np.bincount(data.val.labels) / np.bincount(data.train.labels)
    assert np.allclose(share, 1 / 9, atol=0.02)


def test_checksums_are_md5s_of_catalog_entries():
    assert set(CHECKSUMS) <= set(NAMES)
    assert all(len(md5) == 32 and int(md5, 16) >= 0 for files in CHECKSUMS.values() for md5 in files.values())


def test_looking_for_data_needs_no_torch():
    code = (
        "import sys; from kdbench.data import describe_source, resolve_dataset; resolve_dataset('cifar10');"
        f"[describe_source(name) for name in {NAMES!r}]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_digits_are_scikit_learns() -> None:
    bunch, ours = load_digits(), digits()
    assert np.array_equal(ours.images[..., 0], np.rint(bunch.images * (255 / 16)))
    assert np.array_equal(ours.labels, bunch.target)
