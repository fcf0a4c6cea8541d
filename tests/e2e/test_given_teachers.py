"""Teachers that come as files: two of them are one ensemble, in the plan, on the card and in every student's loss."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from kdbench.data import load, resolve_dataset
from kdbench.models import build, count_params, load_weights, weights_digest
from kdbench.run.store import read_config, read_result
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
