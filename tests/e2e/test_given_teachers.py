"""Teachers that come as files: two of them are one ensemble in a sweep, one is the authors' own in a paper's table."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from kdbench.data import load, resolve_dataset
from kdbench.models import build, count_params, load_weights, weights_digest
from kdbench.run.store import load_runs, read_config, read_result
from kdbench.sweeps.store import read_spec
from kdbench.teacher import CacheKey, LogitCache
from tests.support.sweeps import TEACHER, command, here, sweep_here


def test_two_files_teach_as_an_ensemble(tmp_path: Path) -> None:
    shape = {"classes": 10, "channels": 1, "input_size": 32, "stem": "native"}
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, file in enumerate(files):
        save_file(build(TEACHER, **shape, seed=seed).state_dict(), file)  # type: ignore[arg-type]
    source = ",".join(map(str, files))
    out, cache = tmp_path / "results", tmp_path / "cache"
    words = command(out, cache, "--teacher-weights", source, "--name", "two", "--trials", 1, "--seeds", 1, "--json")
    both = load_weights(TEACHER, source=source, **shape)  # type: ignore[arg-type]

    told = here([*words, "--dry-run"], tmp_path / "plan.log")
    row = json.loads(told[told.index("{\n") :])["rows"][0]
    assert (row["params"], row["epochs"]) == (count_params(both), 0)

    sweep_here(tmp_path, teacher_weights=source, name="two", trials=1, seeds=1)
    (file,) = cache.glob("teachers/*/result.json")
    held, config = read_result(file.parent), read_config(file.parent)
    assert held is not None and config is not None and held.weights
    assert (config.teacher_id, held.params) == (weights_digest(source, TEACHER), count_params(both))
    sweep, _ = read_spec(out / "two")
    val = load(resolve_dataset("digits")[0], sweep.data, sweep.recipe, torch.device("cpu")).val
    for folder in (file.parent / "logits").iterdir():
        key = CacheKey.model_validate_json((folder / "key.json").read_text())
        if key.split_digest == val.digest:
            rows = torch.arange(len(val)).numpy()
            kept = torch.from_numpy(LogitCache(file.parent / "logits", key).read(rows, 0 * rows)).float()
    with torch.no_grad():
        logits = torch.cat([both(batch.x) for batch in val.plain(256)])
    torch.testing.assert_close(kept, logits, rtol=1e-2, atol=1e-2)


PAPER = """
title: one pair
citation: nobody
note: the authors' own teacher
source: nowhere
dataset: digits
seeds: 2
data: {channels: 3, limit: 200}
recipes: {short: {epochs: 1, batch_size: 64, pad: 0, warmup_epochs: 0, input_size: 32, precision: fp32}}
runs: []
cells: []
pairs:
  recipes: {default: short}
  methods: {kd: {method: kd, hyper: {temperature: 4, soft_weight: 0.9, hard_weight: 0.1}}}
  weights: {resnet8x4: theirs/resnet8x4.pth}
  rows:
    - {teacher: resnet8x4, student: resnet20, published: {teacher: 10.0, student: null, kd: null}}
"""


def test_a_paper_s_table_under_the_authors_own_teacher(tmp_path: Path) -> None:
    """Nothing is trained for it; its accuracy on test stands in the teacher's column, and students learn from it."""
    network = build("cifar_resnet8x4", classes=10, channels=3, input_size=32, seed=1).eval()
    (tmp_path / "theirs").mkdir()
    torch.save({"model": network.state_dict(), "best_acc": 0.1}, tmp_path / "theirs" / "resnet8x4.pth")
    (tmp_path / "pair.yaml").write_text(PAPER, encoding="utf-8")
    where = ["--out", str(tmp_path), "--cache", str(tmp_path / "cache"), "--workers", "1", "--wandb", "disabled"]
    words = ["reproduce", str(tmp_path / "pair.yaml"), *where]
    here(words, tmp_path / "log")
    runs = {(run.config.model, run.config.method, run.config.seed): run for run in load_runs(tmp_path / "pair")}
    assert len(runs) == 5  # the teacher once, the student on hard labels and distilled
    given = runs.pop(("cifar_resnet8x4", "hard", 0))
    data = load(resolve_dataset("digits")[0], given.config.data, given.config.recipe, torch.device("cpu")).test()
    with torch.no_grad():
        right = torch.cat([network(batch.x).argmax(1) == batch.y for batch in data.plain()])
    assert given.result.test_acc == float(right.double().mean()) and given.result.epochs == 0
    assert {run.config.teacher_id for key, run in runs.items() if key[1] == "kd"} == {given.config.id}
    (tmp_path / "theirs" / "resnet8x4.pth").unlink()
    assert "resnet8x4.pth': no such file" in here([*words, "--out", str(tmp_path / "b")], tmp_path / "log2", code=2)
