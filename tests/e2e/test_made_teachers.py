"""A real sweep under an assistant of an ensemble: what each run learnt from, and what its teacher said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdbench.data import load, resolve_dataset
from kdbench.models import build
from kdbench.result import Result
from kdbench.run.store import WEIGHTS, read_config, read_result
from kdbench.sweeps.store import read_spec
from kdbench.sweeps.teachers import lessons
from kdbench.teacher import CacheKey, LogitCache
from tests.support.sweeps import LARGE, SMALL, TEACHER, sweep_here


def test_an_ensemble_teaches_an_assistant_that_teaches_students(tmp_path: Path) -> None:
    pair = f"{TEACHER}@1+{LARGE}>{SMALL}:{SMALL}"
    folder = sweep_here(tmp_path, pair=pair, name="chain", teacher_epochs=2, trials=1, seeds=2)
    sweep, _ = read_spec(folder)
    *members, mean, assistant = (lesson.config for lesson in lessons(sweep))
    places = {run.id: tmp_path / "cache" / "teachers" / run.id for run in (*members, mean, assistant)}
    assert {path.name for path in (tmp_path / "cache" / "teachers").iterdir()} == {*places}
    results = [read_result(place) for place in places.values()]
    assert [result and result.epochs for result in results] == [1, 2, 0, 2]
    assert [read_config(place) for place in places.values()] == [*members, mean, assistant]

    val = load(resolve_dataset("digits")[0], sweep.data, sweep.recipe, torch.device("cpu")).val
    shares = []
    for member in members:
        network = build(member.model, classes=10, channels=1, input_size=32, stem=member.recipe.stem).eval()
        network.load_state_dict(load_file(places[member.id] / WEIGHTS))
        with torch.no_grad():
            shares.append(torch.cat([network(batch.x).softmax(1) for batch in val.plain(256)]))
    (kept,) = [
        LogitCache(folder.parent, key).read(rows, 0 * rows)
        for folder in (places[mean.id] / "logits").iterdir()
        if (key := CacheKey.model_validate_json((folder / "key.json").read_text())).split_digest == val.digest
        and len(rows := torch.arange(len(val)).numpy())
    ]
    said = torch.from_numpy(kept).float()
    torch.testing.assert_close(said.exp(), torch.stack(shares).mean(0), rtol=1e-2, atol=1e-3)
    accuracy = float((torch.stack(shares).mean(0).argmax(1) == val.labels).float().mean())
    assert results[2] is not None and results[2].val_acc == pytest.approx(accuracy, abs=0.008)

    runs = Result(folder).runs
    assert set(runs["teacher"]) == {f"{TEACHER}@1+{LARGE}>{SMALL}"}
    assert runs[runs["test_acc"].notna() & (runs["phase"] == "teacher")]["trial_id"].tolist() == [assistant.id]
    assert len(Result(folder).pareto) == 1 and Result(folder).pareto["teacher_acc"].notna().all()
