"""A new method beside a record: the record's runs are taken as they are, and only what it lacks is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

import kdbench
from tests.support.helpers import Cli


def test_only_the_new_method_is_trained(finished: Path, cli: Cli) -> None:
    assert cli("record", finished).code == 0
    record = finished.parent / "records" / "whole"
    ran = cli("sweep", "--against", record, "--method", "dist", "--workers", 1, "--wandb", "disabled", "--json")
    assert ran.code == 0, ran.err
    started = [event for event in map(json.loads, ran.out.splitlines()) if event["event"] == "trial_started"]
    assert {event["method"] for event in started if event["phase"] != "teacher"} == {"dist"}
    result, before = kdbench.load(finished.parent / "whole+dist"), kdbench.load(record)
    assert set(result.pareto["method"]) == {"kd", "dist"}
    kept = result.pareto[result.pareto["method"] == "kd"].reset_index(drop=True)[["test_acc", "gain", "p_value"]]
    pd.testing.assert_frame_equal(kept, before.pareto[["test_acc", "gain", "p_value"]])
    assert "Of the record whole, not trained here: " in (result.folder / "pareto.md").read_text(encoding="utf-8")
    for words, says in (
        (["--method", "kd"], "whole has kd already"),
        (["--method", "dkd", "--epochs", 3], "--against takes epochs from whole"),
        (["--method", "dk"], "did you mean 'dkd'"),
        (["--method", "kd,hard"], "method 'hard' is the baseline of every sweep"),
    ):
        refused = cli("sweep", "--against", record, *words)
        assert (refused.code, says in refused.err) == (2, True), refused.err
