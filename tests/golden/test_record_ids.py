"""Ids of committed runs never change: they are hashes of field names and values."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from kdbench.config import RunConfig, RunResult

RECORDS = sorted((Path(__file__).parents[2] / "results" / "records").rglob("runs.jsonl"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.parent.name)
def test_every_committed_run_keeps_its_id(record: Path) -> None:
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert lines
    for line in lines:
        config, result = RunConfig.model_validate(line["config"]), RunResult.model_validate(line["result"])
        assert config.id == result.id
        assert config.model_dump(mode="json") == line["config"]


def test_an_unknown_field_is_no_run() -> None:
    line = json.loads(RECORDS[0].read_text(encoding="utf-8").splitlines()[0])
    with pytest.raises(ValidationError):
        RunConfig.model_validate({**line["config"], "teacher_ids": []})
